"""Where a run reports (C6): one log file per process, and one tracker, to which the main process sends everyone's."""

import contextlib
import importlib
import logging
import math
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import torch
from accelerate import Accelerator

logger = logging.getLogger("course_utils.run")
logger.setLevel(logging.INFO)
logger.propagate = False
_accelerator: Accelerator | None = None  # whose tracker is open


def check_tracker(name: str) -> None:
    """Raise `ImportError` if a tracker is not installed, and `ValueError` if it would stop for want of a login."""
    if name == "none":
        return
    package = importlib.import_module(name)  # Accelerate would train without it, and not a word
    offline = os.environ.get("WANDB_MODE") in ("offline", "disabled")
    if name == "wandb" and not offline and not sys.stdin.isatty():  # in a terminal, it asks
        try:
            package.login()
        except package.errors.UsageError as error:
            raise ValueError(f"{error} Or set WANDB_MODE=offline, or choose another tracker.") from None


def setup_logging(project_name: str, accelerator: Accelerator, folder: Path, settings: Mapping[str, Any]) -> None:
    """Open this process's log file in `folder` and the tracker; both record `settings`, and then `log_metrics`."""
    global _accelerator
    finish_logging()
    _accelerator = accelerator
    index, processes, device = accelerator.process_index, accelerator.num_processes, accelerator.device
    folder.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(folder / f"process-{index}.log", encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger.addHandler(handler)
    logger.info("%s starts: process %d of %d on %s", project_name, index, processes, device)
    for name, value in settings.items():
        logger.info("setting %s = %s", name, value)
    if accelerator.log_with:
        shown = {k: v if isinstance(v, int | float | str | bool) else str(v) for k, v in settings.items()}
        accelerator.init_trackers(project_name, config=shown)


def log_metrics(step: int, metrics: Mapping[str, float]) -> None:
    """Write metrics to this process's log file and, from the main process, to the tracker, if they are open."""
    logger.info("step %d: %s", step, ", ".join(f"{name} {value:.6g}" for name, value in metrics.items()))
    if _accelerator is not None and _accelerator.is_main_process:
        _accelerator.log({name: value for name, value in metrics.items() if math.isfinite(value)}, step=step)


def finish_logging() -> None:
    """Close the log file and the tracker, if they are open."""
    global _accelerator
    if _accelerator is not None:
        _accelerator.end_training()
    _accelerator = None
    for handler in list(logger.handlers):
        handler.close()
        logger.removeHandler(handler)


def memory_gb(device: torch.device) -> float:
    """Return the peak memory of this process on a GPU, or its present memory on a processor, in GB (10^9 bytes)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    return psutil.Process().memory_info().rss / 1e9


@contextlib.contextmanager
def dropped_messages(logger_name: str, text: str) -> Iterator[None]:
    """Drop those messages of a library that contain `text` and would only frighten a learner."""

    def keep(record: logging.LogRecord) -> bool:
        return text not in record.getMessage()

    logging.getLogger(logger_name).addFilter(keep)
    try:
        yield
    finally:
        logging.getLogger(logger_name).removeFilter(keep)
