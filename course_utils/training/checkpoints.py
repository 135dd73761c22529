"""Checkpoints that a killed run can trust: complete, unaltered, of the same run.

Everything is written to a temporary folder, listed with checksums and renamed. So a checkpoint is there as a whole or
not at all, and one that was altered later is noticed. What is saved is what Accelerate saves: model, optimizer, random
states, precision scaler, schedule; the position in the data and the settings stand beside it in a readable file.
"""

import contextlib
import errno
import json
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
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

    All processes must call this. A run that is killed in here leaves the checkpoints before it as they were. Raises
    `OSError` if the disk is full.
    """
    final = folder / f"step-{position.step:08d}"
    temporary = folder / f"{final.name}.tmp"
    if accelerator.is_main_process:
        for left_over in folder.glob("step-*.tmp"):
            shutil.rmtree(left_over)
        temporary.mkdir(parents=True)
    accelerator.wait_for_everyone()
    dropped = tracking.dropped_messages("accelerate.utils.other", "Removed shared tensor")  # it comes back shared
    with dropped, whole_or_removed(temporary):
        accelerator.save_state(str(temporary))
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        state = {"identity": identity.as_dict(), "position": asdict(position), "history": history}
        with whole_or_removed(temporary):
            (temporary / STATE).write_text(json.dumps(state, indent=1) + "\n", encoding="utf-8", newline="\n")
            cache.seal(temporary, {"step": position.step})
        shutil.rmtree(final, ignore_errors=True)  # a damaged one of the same step
        temporary.rename(final)
        older = [path for path in newest_first(folder) if path.name <= final.name]
        for old in older[identity.config.keep_checkpoints :]:
            shutil.rmtree(old, ignore_errors=True)  # what cannot be removed now is removed next time
    accelerator.wait_for_everyone()
    return final


def find_last(folder: Path, say: Callable[[str], None] = print) -> Path | None:
    """Return the newest checkpoint in `folder` that is complete and unaltered; `say` names those that are not."""
    for checkpoint in newest_first(folder):
        damage = cache.damage(checkpoint)
        if damage is None:
            return checkpoint
        say(f"The checkpoint {checkpoint.name} is damaged ({damage}); it is passed over.")
    return None


def load(accelerator: Accelerator, checkpoint: Path, identity: Identity) -> tuple[Position, list[dict[str, float]]]:
    """Put everything prepared back into the state of `checkpoint`; return where the run stood, and its log so far.

    Raises `ValueError` if the checkpoint is not there, is not of this loop, or belongs to a run with other settings,
    which it names.
    """
    if not (checkpoint / STATE).is_file():
        raise ValueError(f"{checkpoint} is no checkpoint; give a folder that is named like step-00000100.")
    state = json.loads((checkpoint / STATE).read_text(encoding="utf-8"))
    try:
        check_same_run(checkpoint, state["identity"], identity)
        position, history = Position(**state["position"]), state["history"]
    except (KeyError, TypeError) as error:
        raise ValueError(f"{checkpoint / STATE} does not describe a run ({error!r}); use another checkpoint.") from None
    accelerator.load_state(str(checkpoint))
    return position, history


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


@contextlib.contextmanager
def whole_or_removed(folder: Path) -> Iterator[None]:
    """Remove `folder` if writing into it fails; raises `OSError` with the remedy if the disk is full."""
    try:
        yield
    except Exception as error:  # a full disk makes every library raise something else
        full = getattr(error, "errno", None) == errno.ENOSPC or shutil.disk_usage(folder.parent).free < cache.LEAST_FREE
        shutil.rmtree(folder, ignore_errors=True)
        if not full:
            raise
        remedy = "The disk is full: free some space, then go on with --resume auto; or choose --output on another disk."
        raise OSError(errno.ENOSPC, f"{remedy} ({error})", str(folder)) from error


def newest_first(folder: Path) -> list[Path]:
    """Return all finished checkpoints in `folder`, damaged ones too."""
    return sorted((p for p in folder.glob("step-*") if _NAME.fullmatch(p.name)), reverse=True)
