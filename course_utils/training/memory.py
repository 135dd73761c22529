"""How much memory a piece of training takes at its peak: measured, not estimated."""

import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile


def peak_bytes(step: Callable[[], object], device: torch.device) -> int:
    """Run `step` and return the most bytes that tensors took beyond what there was before.

    On CUDA torch's allocator knows; elsewhere torch's profiler records every tensor on the processor. On MPS only the
    processor's part is seen.
    """
    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        step()
        return torch.cuda.max_memory_allocated(device) - before
    with _no_native_messages(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        step()
    present = peak = 0
    for change in _changes(recorded):
        present += change
        peak = max(peak, present)
    return peak


def _changes(recorded: profile) -> Iterator[int]:
    """Yield every allocation (positive) and release (negative) in the order of time, in bytes."""
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.json"
        recorded.export_chrome_trace(str(trace))
        events = json.loads(trace.read_text(encoding="utf-8"))["traceEvents"]
    for event in sorted((e for e in events if e.get("name") == "[memory]"), key=lambda e: e["ts"]):
        yield event["args"]["Bytes"]


@contextlib.contextmanager
def _no_native_messages() -> Iterator[None]:
    """Keep out what the profiler's native part prints on its own; Python's errors still come as exceptions."""
    sys.stderr.flush()
    saved = os.dup(2)
    try:
        with Path(os.devnull).open("w") as nowhere:
            os.dup2(nowhere.fileno(), 2)
            yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
