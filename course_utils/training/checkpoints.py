"""Checkpoints that a killed run can trust: complete, unaltered, of the same run. The loop's and the Trainer's.

The file that is written last holds the checksums of all others: a checkpoint without it is incomplete.
"""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from course_utils import cache
from course_utils.training import tracking

LAST_FILE = "run.json"


@dataclass
class Position:
    """Progress of a run."""

    step: int = 0  # optimizer steps
    epoch: int = 0  # passes over the data
    batch: int = 0  # batches of this pass, per process
    tokens: int = 0
    seconds: float = 0.0
    losses: list[float] = field(default_factory=list)  # since the last line of the log


def seal(checkpoint: Path, **state: Any) -> None:
    """Write the last file of a checkpoint: what describes its run, and the checksums of all other files."""
    paths = sorted(p for p in checkpoint.rglob("*") if p.is_file() and p.name != LAST_FILE)
    files = {path.relative_to(checkpoint).as_posix(): cache.file_sha256(path) for path in paths}
    text = json.dumps(state | {"files": files}, indent=1)
    (checkpoint / LAST_FILE).write_text(text + "\n", encoding="utf-8", newline="\n")


def read(checkpoint: Path) -> dict[str, Any]:
    """Return what `seal` wrote."""
    return json.loads((checkpoint / LAST_FILE).read_text(encoding="utf-8"))


def damage(checkpoint: Path) -> str | None:
    """Return what is wrong with a checkpoint; None if it is complete and unaltered."""
    try:
        for name, checksum in read(checkpoint)["files"].items():
            if cache.file_sha256(checkpoint / name) != checksum:
                return f"{name} has changed"
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing"
    except (OSError, ValueError, LookupError, TypeError, AttributeError):  # what a torn or foreign file can cause
        return f"{LAST_FILE} cannot be read"
    return None


def newest_first(folder: Path) -> list[Path]:
    """Return all checkpoints in `folder`, damaged ones too; their names end in the number of the step."""
    steps = {p: p.name.rpartition("-")[2] for p in folder.glob("*-*")}
    return sorted((p for p, step in steps.items() if step.isdigit()), key=lambda p: int(steps[p]), reverse=True)


def find_last(folder: Path, say: Callable[[str], None] = print) -> Path | None:
    """Return the newest checkpoint in `folder` that is complete and unaltered; `say` names damaged ones."""
    for checkpoint in newest_first(folder):
        if (wrong := damage(checkpoint)) is None:
            return checkpoint
        say(f"The checkpoint {checkpoint.name} is damaged ({wrong}); it is passed over.")
    return None


def save(accelerator: Accelerator, checkpoint: Path, keep: int, **state: Any) -> None:
    """Write `state` and everything that `accelerator` prepared; keep the newest `keep` checkpoints; on all processes.

    A run that is killed in here leaves the checkpoints before as they were; a failed write leaves nothing.
    """
    if accelerator.is_main_process:
        shutil.rmtree(checkpoint, ignore_errors=True)  # a damaged one of the same step
    accelerator.wait_for_everyone()
    try:
        with tracking.dropped_messages("accelerate.utils.other", "Removed shared tensor"):  # it comes back shared
            accelerator.save_state(str(checkpoint))
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            seal(checkpoint, **state)
    except BaseException:
        shutil.rmtree(checkpoint, ignore_errors=True)
        raise
    if accelerator.is_main_process:
        known = newest_first(checkpoint.parent)  # those that are newer are damaged; this run started before them
        for old in known[known.index(checkpoint) + keep :]:
            shutil.rmtree(old, ignore_errors=True)  # what cannot be removed now is removed next time
    accelerator.wait_for_everyone()


def load(accelerator: Accelerator, checkpoint: Path, settings: Mapping[str, Any]) -> tuple[Position, list]:
    """Restore everything prepared; return position and log. Raises `ValueError` for a run with other settings."""
    run = read(checkpoint)
    saved = run.get("settings", {})  # a checkpoint of the Trainer has none
    names = [name for name in sorted(saved.keys() | settings.keys()) if saved.get(name) != settings.get(name)]
    if names:
        changes = [f"{name}: {saved.get(name)!r} in the checkpoint, {settings.get(name)!r} now" for name in names]
        remedy = "Use the same settings to continue, or another folder to start anew."
        raise ValueError(f"{checkpoint} was written by a run with other settings. {'; '.join(changes)}. {remedy}")
    accelerator.load_state(str(checkpoint))
    return Position(**run["position"]), run["history"]
