"""What containers and jobs allow: the files of control groups as the kernel writes them, in both versions."""

from functools import partial
from pathlib import Path

import psutil
import pytest
import torch

from course_utils import environment, limits

FREE = (1, "9223372036854771712", 500, 200)  # what the first version writes without a limit
QUOTA = {"quota": "25000", "period": "50000"}
DOCKER = "docker/0d1f"


def write_group(folder: Path, version: int, limit: object, used: int, cached: int) -> None:
    """Write what a control group shows of its memory."""
    names = {1: ("limit_in_bytes", "usage_in_bytes", "total_inactive_file"), 2: ("max", "current", "inactive_file")}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"memory.{names[version][0]}").write_text(f"{limit}\n")
    (folder / f"memory.{names[version][1]}").write_text(f"{used}\n")
    own = "inactive_file 0\n" if version == 1 else ""  # without the groups inside
    (folder / "memory.stat").write_text(f"anon {used - cached}\n{own}{names[version][2]} {cached}\nunevictable 0\n")


def make_root(folder: Path, membership: str, files: dict[str, str] | None = None) -> Path:
    """Write `/proc/self/cgroup` and files below `/sys/fs/cgroup`."""
    for name, text in {"proc/self/cgroup": membership, **(files or {})}.items():
        path = folder / (name if name.startswith("proc") else f"sys/fs/cgroup/{name}")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    return folder


@pytest.mark.parametrize(
    ("membership", "groups", "total", "free"),
    [
        ("0::/", {"": (2, 1500, 500, 200)}, 1500, 1200),  # a container that sees its own group only
        (f"0::/../{DOCKER}", {"": (2, 1500, 500, 200)}, 1500, 1200),
        ("0::/", {"": (2, "max", 500, 200)}, None, None),
        ("0::/a/b/c", {"a": (2, "max", 900, 0), "a/b": (2, 1000, 900, 0), "a/b/c": (2, 2000, 1, 0)}, 1000, 100),
        ("0::/job", {"job": (2, 1000, 1300, 100)}, 1000, 0),  # lowered below the use
        (f"4:memory:/{DOCKER}\n0::/", {"memory": (1, 1500, 500, 200)}, 1500, 1200),  # the path is the one outside
        ("4:memory:/slurm/job\n1:cpu:/", {"memory/slurm/job": (1, 700, 500, 200), "memory": FREE}, 700, 400),
        ("4:memory:/\n0::/", {"memory": FREE}, None, None),
        ("4:memory:/mine", {"memory/other": (1, 700, 500, 200)}, None, None),
        ("3:cpuset:/\n0::/mine", {"unified/mine": (2, 700, 500, 200)}, 700, 400),  # both versions side by side
    ],
)  # fmt: skip
def test_the_memory_is_that_of_the_tightest_group(tmp_path, membership, groups, total, free):
    root = make_root(tmp_path, membership)
    for name, (version, limit, used, cached) in groups.items():
        write_group(tmp_path / "sys/fs/cgroup" / name, version, limit, used, cached)
    machine = psutil.virtual_memory().total
    found = limits.memory(root)
    assert (found[0], found[2]) == (total or machine, machine)
    assert found[1] == free if total else 0 < found[1] <= machine


@pytest.mark.parametrize(
    ("membership", "files", "cores"),
    [
        ("0::/", {"cpu.max": "50000 100000"}, 0.5),
        ("0::/", {"cpu.max": "max 100000"}, None),
        ("0::/a/b", {"a/cpu.max": "75000 100000", "a/b/cpu.max": "90000 100000"}, 0.75),
        ("0::/", {"cpu.max": "100000000 100000"}, None),  # more than there are
        (f"2:cpu,cpuacct:/{DOCKER}", {f"cpu,cpuacct/cpu.cfs_{n}_us": v for n, v in QUOTA.items()}, 0.5),
        ("2:cpu:/a", {"cpu/a/cpu.cfs_quota_us": "-1", "cpu/a/cpu.cfs_period_us": "100000"}, None),
        ("2:cpuset:/\n1:cpuacct:/", {"cpuset/cpu.max": "50000 100000"}, None),
    ],
)  # fmt: skip
def test_the_cores_are_those_whose_time_the_quota_gives(tmp_path, membership, files, cores):
    found, seen = limits.cores(make_root(tmp_path, membership, files))
    assert seen >= 1
    assert found == (cores or seen)


def test_without_control_groups_the_machine_itself_is_the_limit(tmp_path):
    machine = psutil.virtual_memory().total
    assert limits.memory(tmp_path)[::2] == (machine, machine)
    assert len(set(limits.cores(tmp_path))) == 1
    total, free, there = limits.memory()  # whatever is true here
    assert 0 <= free <= total <= there
    assert 0 < limits.cores()[0] <= limits.cores()[1]


def test_the_report_the_refusal_and_the_threads_keep_to_the_container(monkeypatch, tmp_path):
    root = make_root(tmp_path, "0::/", {"cpu.max": "100000 100000"})
    write_group(tmp_path / "sys/fs/cgroup", 2, 1_500_000_000, 400_000_000, 100_000_000)
    for name in ("memory", "cores"):
        monkeypatch.setattr(limits, name, partial(getattr(limits, name), root))
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        machine = environment.describe()
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)
    assert (machine.cores, machine.memory_gb, machine.free_memory_gb) == (1, 1.5, 1.2)
    machine.device = "cpu"
    with pytest.raises(MemoryError, match=r"needs about 1\.9 GB of memory in this container or job, 1\.2 GB are free"):
        environment.check_costs(environment.Cost("laptop", 1.0, 1.9, 0.0, ""), machine)
