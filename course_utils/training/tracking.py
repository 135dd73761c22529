"""Where a run reports: one log file per process, and one tracker that draws the curves (C6).

Only the main process sends metrics to the tracker; on several processes each number is already that of all of them.
"""

import contextlib
import importlib.util
import logging
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
from accelerate import Accelerator

# What a tracker is called -> the package it needs.
TRACKERS = {"tensorboard": "tensorboard", "wandb": "wandb", "trackio": "trackio"}


@dataclass
class Run:
    """An open log: the accelerator whose tracker is used, and the logger that writes this process's file."""

    accelerator: Accelerator
    logger: logging.Logger
    log_file: Path


_current: Run | None = None


def check_tracker(name: str) -> None:
    """Raise `ValueError` if a tracker is unknown, or `ImportError` if its package is not installed."""
    if name != "none" and name not in TRACKERS:
        raise ValueError(f"unknown tracker {name!r}; there are {', '.join([*TRACKERS, 'none'])}.")
    if name != "none" and importlib.util.find_spec(TRACKERS[name]) is None:
        raise ImportError(
            f"the tracker {name!r} needs the package {TRACKERS[name]}, which is not installed here. "
            f"Run `python -m pip install {TRACKERS[name]}`, or choose another tracker."
        )


def setup_logging(
    project_name: str, accelerator: Accelerator, folder: Path | str, settings: Mapping[str, Any] | None = None
) -> Run:
    """Open this process's log file in `folder` and the accelerator's tracker, named `project_name`.

    The accelerator must have been made with `log_with` and `project_dir`. `settings` are shown beside the curves.
    `log_metrics` writes to what was set up last; close it with `finish_logging`.
    """
    global _current
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    log_file = folder / f"process-{accelerator.process_index}.log"
    logger = logging.getLogger(f"course_utils.runs.{project_name}")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    _close_handlers(logger)
    handler = logging.FileHandler(log_file, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger.addHandler(handler)
    where = f"process {accelerator.process_index} of {accelerator.num_processes} on {accelerator.device}"
    logger.info("%s starts: %s", project_name, where)
    for name, value in (settings or {}).items():
        logger.info("setting %s = %s", name, value)
    if accelerator.log_with:
        shown = {k: v if isinstance(v, int | float | str | bool) else str(v) for k, v in (settings or {}).items()}
        accelerator.init_trackers(project_name, config=shown)
    _current = Run(accelerator, logger, log_file)
    return _current


def log_metrics(step: int, metrics: Mapping[str, float]) -> None:
    """Write metrics to this process's log file and, from the main process, to the tracker.

    Raises `ValueError` if `setup_logging` was not called before.
    """
    run = current_run()
    run.logger.info("step %d: %s", step, ", ".join(f"{name} {value:.6g}" for name, value in metrics.items()))
    if run.accelerator.is_main_process:
        finite = {name: value for name, value in metrics.items() if math.isfinite(value)}
        run.accelerator.log(finite, step=step)


def current_run() -> Run:
    """Return what `setup_logging` opened last; raises `ValueError` if nothing is open."""
    if _current is None:
        raise ValueError("no log is open; call setup_logging(project_name, accelerator, folder) first.")
    return _current


def is_open() -> bool:
    """Say whether a log is open, which a run has from its beginning to its end."""
    return _current is not None


def finish_logging() -> None:
    """Close the log file and the tracker; does nothing if none is open."""
    global _current
    if _current is not None:
        run, _current = _current, None
        run.accelerator.end_training()
        _close_handlers(run.logger)


def memory_gb(device: torch.device) -> float:
    """Peak memory of this process on a GPU, or its present memory on a processor, in GB (10^9 bytes)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    return psutil.Process().memory_info().rss / 1e9


@contextlib.contextmanager
def dropped_messages(logger_name: str, text: str) -> Iterator[None]:
    """Drop those messages of a library that contain `text` and would only frighten a learner."""

    def keep(record: logging.LogRecord) -> bool:
        return text not in record.getMessage()

    logger = logging.getLogger(logger_name)
    logger.addFilter(keep)
    try:
        yield
    finally:
        logger.removeFilter(keep)


def _close_handlers(logger: logging.Logger) -> None:
    for handler in list(logger.handlers):
        handler.close()
        logger.removeHandler(handler)
