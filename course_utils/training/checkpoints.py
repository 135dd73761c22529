"""Checkpoints that a killed run can trust: complete, unaltered, of the same run.

Everything is written to a temporary folder, listed with checksums and renamed. So a checkpoint is there as a whole or
not at all, and one that was altered later is noticed. What is saved is what Accelerate saves: model, optimizer, random
states, precision scaler, schedule; the position in the data and the settings stand beside it in a readable file.
"""

import json
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from course_utils import cache
from course_utils.training import tracking
from course_utils.training.config import TrainConfig, differences

STATE = "run.json"
_NAME = re.compile(r"step-(\d{8})")


@dataclass
class Position:
    """How far a run is: optimizer steps, passes over the data, batches of this pass (per process), tokens, seconds.

    `losses` are those since the last line of the log.
    """

    step: int = 0
    epoch: int = 0
    batch: int = 0
    tokens: int = 0
    seconds: float = 0.0
    losses: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Identity:
    """What must be the same for a run to go on: its settings, and what these leave open."""

    config: TrainConfig
    processes: int
    device: str
    precision: str
    data: str

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return asdict(self) | {"config": self.config.as_dict()}


def save(
    accelerator: Accelerator, folder: Path, position: Position, identity: Identity, history: list[dict[str, float]]
) -> Path:
    """Write a checkpoint of everything that `accelerator` prepared, keep the newest ones, and return its folder.

    All processes must call this. A run that is killed in here leaves the checkpoints before it as they were.
    """
    final = folder / f"step-{position.step:08d}"
    temporary = folder / f"{final.name}.tmp"
    if accelerator.is_main_process:
        for left_over in folder.glob("step-*.tmp"):
            shutil.rmtree(left_over)
        temporary.mkdir(parents=True)
    accelerator.wait_for_everyone()
    with tracking.dropped_messages("accelerate.utils.other", "Removed shared tensor"):  # it comes back shared
        accelerator.save_state(str(temporary))
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        state = {"identity": identity.as_dict(), "position": asdict(position), "history": history}
        (temporary / STATE).write_text(json.dumps(state, indent=1) + "\n", encoding="utf-8", newline="\n")
        cache.seal(temporary, {"step": position.step})
        shutil.rmtree(final, ignore_errors=True)  # a damaged one of the same step
        temporary.rename(final)
        older = [path for path in _newest_first(folder) if path.name <= final.name]
        for old in older[identity.config.keep_checkpoints :]:
            shutil.rmtree(old, ignore_errors=True)  # what cannot be removed now is removed next time
    accelerator.wait_for_everyone()
    return final


def find_last(folder: Path, say: Callable[[str], None] = print) -> Path | None:
    """Return the newest checkpoint in `folder` that is complete and unaltered; `say` names those that are not."""
    for checkpoint in _newest_first(folder):
        damage = cache.damage(checkpoint)
        if damage is None:
            return checkpoint
        say(f"The checkpoint {checkpoint.name} is damaged ({damage}); it is passed over.")
    return None


def load(accelerator: Accelerator, checkpoint: Path, identity: Identity) -> tuple[Position, list[dict[str, float]]]:
    """Put everything prepared back into the state of `checkpoint`; return where the run stood, and its log so far.

    Raises `ValueError` if the checkpoint is not there or belongs to a run with other settings; it names them.
    """
    if not (checkpoint / STATE).is_file():
        raise ValueError(f"{checkpoint} is no checkpoint; give a folder that is named like step-00000100.")
    state = json.loads((checkpoint / STATE).read_text(encoding="utf-8"))
    check_same_run(checkpoint, state["identity"], identity)
    accelerator.load_state(str(checkpoint))
    return Position(**state["position"]), state["history"]


def check_same_run(checkpoint: Path, saved: Mapping[str, Any], identity: Identity) -> None:
    """Raise `ValueError` if a run with these settings would not go on as the one that was saved."""
    found = differences(saved["config"], identity.config)
    for name, now in identity.as_dict().items():
        if name != "config" and saved[name] != now:
            found[name] = (saved[name], now)
    if found:
        lines = "; ".join(f"{name}: {before!r} in the checkpoint, {now!r} now" for name, (before, now) in found.items())
        raise ValueError(
            f"{checkpoint} was written by a run with other settings. {lines}. "
            "Use the same settings to go on, or another output folder to start anew."
        )


def _newest_first(folder: Path) -> list[Path]:
    return sorted((p for p in folder.glob("step-*") if _NAME.fullmatch(p.name)), reverse=True)
