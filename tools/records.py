"""Measurements in a JSON file that grows run by run, so that an interrupted command goes on where it stopped."""

import json
import os
import platform
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from course_utils.cache import replacing


class Record:
    """A JSON file with what all runs have in common, and a list `runs`; each run names itself by a few values."""

    def __init__(self, path: Path | str, common: dict[str, Any], **about: Any) -> None:
        """Go on with the runs in `path` if they have the same `common` values; `about` is only written beside them."""
        self.path, self.common, self.about = Path(path), json.loads(json.dumps(common)), about
        saved = json.loads(self.path.read_text(encoding="utf-8")) if self.path.is_file() else {}
        same = all(saved.get(name) == value for name, value in self.common.items())
        self.runs: list[dict[str, Any]] = saved.get("runs", []) if same else []
        if saved.get("runs") and not same:
            changed = [name for name, value in self.common.items() if saved.get(name) != value]
            print(f"{self.path.name}: other {', '.join(changed)} than in the file, so all runs are made anew.")

    def run(self, make: Callable[[], dict[str, Any]], **key: Any) -> dict[str, Any]:
        """Return the run that `key` names; make it if it is missing, and write the file at once."""
        found = next((run for run in self.runs if key.items() <= run.items()), None)
        if found is None:
            print(f"{self.path.name}: {', '.join(map(str, key.values()))}", flush=True)
            found = json.loads(json.dumps(key | make()))
            self.runs.append(found)
            with replacing(self.path) as temporary:
                text = json.dumps({**self.about, **self.common, "runs": self.runs}, indent=1)
                text = re.sub(r"\[[^][{}]*\]", lambda match: " ".join(match[0].split()), text)  # a list is one line
                temporary.write_text(text + "\n", encoding="utf-8", newline="\n")
        return found


def machine() -> dict[str, Any]:
    """Return what times depend on: processor or GPU, threads, version of torch."""
    if torch.cuda.is_available():
        processor = torch.cuda.get_device_name()
    else:
        processor = _linux_processor() or platform.processor() or platform.machine()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"processor": processor, "cores": cores, "threads": torch.get_num_threads(), "torch": torch.__version__}


def _linux_processor() -> str:
    """Return the processor's name, its model number (virtual machines hide the name), and its bf16 instructions."""
    file = Path("/proc/cpuinfo")
    text = file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""
    found = (re.search(rf"^{name}\s*: (.+)$", text, re.MULTILINE) for name in ("model name", "model"))
    name, model = (match[1] if match else "" for match in found)
    formats = [flag for flag in ("avx512_bf16", "amx_bf16") if re.search(rf"\b{flag}\b", text)]
    return name and f"{name}, model {model}, {' '.join(formats) or 'no bf16 instructions'}"
