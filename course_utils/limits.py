"""What this process may use of the machine: a container or a job can allow less than the system shows."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil

# Files of a control group, in its second and first version: the limit, the use, and what of the use is only cache.
_MEMORY = "memory.max memory.current inactive_file", "memory.limit_in_bytes memory.usage_in_bytes total_inactive_file"


def memory(root: Path = Path("/")) -> tuple[int, int, int]:
    """Return the bytes of memory that this process may use, how many of them are free, and what the machine has."""
    machine = psutil.virtual_memory()
    found = [(machine.total, machine.available)]
    for group in _groups("memory", root):
        for limit, used, cached in map(str.split, _MEMORY):
            with suppress(OSError, ValueError):  # the other version, or the limit is "max"
                most, current = (int((group / name).read_text()) for name in (limit, used))
                statistics = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
                found.append((most, max(0, most - current + int(statistics[cached]))))
    return min(total for total, _ in found), min(free for _, free in found), machine.total


def cores(root: Path = Path("/")) -> tuple[float, int]:
    """Return the time of how many cores this process gets, and on how many it may run."""
    seen = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    found: list[float] = [seen]
    for group in _groups("cpu", root):
        for names in (["cpu.max"], ["cpu.cfs_quota_us", "cpu.cfs_period_us"]):
            with suppress(OSError, ValueError):  # as above
                quota, period = map(int, " ".join((group / name).read_text() for name in names).split())
                found.append(quota / period if quota > 0 else seen)
    return min(found), seen


def _groups(controller: str, root: Path) -> Iterator[Path]:
    """Yield the folders that may hold limits of this process: its own control group, and those around it."""
    groups, mine = root / "sys/fs/cgroup", root / "proc/self/cgroup"
    for line in mine.read_text().splitlines() if mine.is_file() else ():
        _, names, path = line.split(":", 2)
        if not names or controller in names.split(","):  # the second version has no names
            # Inside a container this can be the path outside; the container's own group then stands at the mount.
            parts = [part for part in path.split("/") if part not in ("", "..")]
            for mount in {groups / name for name in ("", "unified", controller, names)}:
                yield from (mount.joinpath(*parts[:depth]) for depth in range(len(parts) + 1))
