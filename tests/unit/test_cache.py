"""Artifacts: built once, whole or not at all, repaired when damaged."""

import errno
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from course_utils import cache


@pytest.fixture(autouse=True)
def _own_home(monkeypatch, tmp_path):
    monkeypatch.setenv("COURSE_HOME", str(tmp_path / "home"))


def build_text(folder: Path) -> None:
    (folder / "sub").mkdir()
    (folder / "sub" / "text.txt").write_text("x" * 1000, encoding="utf-8")
    with (cache.home() / "builds.log").open("a", encoding="utf-8") as log:
        log.write("built\n")


def builds() -> int:
    return len((cache.home() / "builds.log").read_text(encoding="utf-8").splitlines())


def fresh_process() -> None:
    """Forget what this process has verified, as a new kernel would."""
    cache._verified.clear()


def test_built_once_and_keyed_by_what_made_it():
    first = cache.build_once("thing", {"size": 1}, build_text)
    again = cache.build_once("thing", {"size": 1}, build_text)
    other = cache.build_once("thing", {"size": 2}, build_text)
    assert first == again
    assert other.path != first.path
    assert builds() == 2


@pytest.mark.parametrize("damage", ["truncate", "alter", "remove", "seal", "no seal"])
def test_damage_is_noticed_said_and_repaired(damage):
    artifact = cache.build_once("thing", {}, build_text)
    text, seal = artifact.path / "sub" / "text.txt", artifact.path / cache.SEAL
    {
        "truncate": lambda: os.truncate(text, 10),
        "alter": lambda: text.write_text("y" * 1000, encoding="utf-8"),
        "remove": text.unlink,
        "seal": lambda: seal.write_text("{", encoding="utf-8"),
        "no seal": seal.unlink,
    }[damage]()
    fresh_process()
    said = []
    again = cache.build_once("thing", {}, build_text, say=said.append)
    assert (again.path / "sub" / "text.txt").read_text(encoding="utf-8") == "x" * 1000
    assert builds() == 2
    assert "damaged" in said[0]
    assert "built again" in said[0]


def test_a_failed_build_leaves_nothing_and_can_be_repeated():
    def fail(folder: Path) -> None:
        (folder / "half").write_text("half", encoding="utf-8")
        raise RuntimeError("no luck")

    with pytest.raises(RuntimeError, match="no luck"):
        cache.build_once("thing", {}, fail)
    assert [p for p in (cache.home() / "thing").iterdir() if p.is_dir()] == []
    (cache.home()).mkdir(exist_ok=True)
    assert cache.build_once("thing", {}, build_text).path.is_dir()


CHILD = """
    import sys, time
    from pathlib import Path
    from course_utils import cache
    def build(folder):
        with (cache.home() / "builds.log").open("a") as log:
            log.write("built\\n")
        (folder / "a.txt").write_text("a" * 10)
        print("building", flush=True)
        time.sleep(float(sys.argv[1]))
        (folder / "b.txt").write_text("b" * 10)
    artifact = cache.build_once("thing", {}, build)
    print(sorted(p.name for p in artifact.path.iterdir()), flush=True)
"""


def child(seconds: float) -> subprocess.Popen:
    command = [sys.executable, "-c", textwrap.dedent(CHILD), str(seconds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_two_processes_at_once_build_once():
    processes = [child(3.0), child(3.0)]
    outputs = [process.communicate(timeout=60)[0] for process in processes]
    assert sum("Another process is making the thing; waiting" in output for output in outputs) == 1
    assert all("['a.txt', 'artifact.json', 'b.txt']" in output for output in outputs)
    assert builds() == 1


def test_after_a_kill_the_next_one_builds_and_tidies_up():
    process = child(60)
    assert process.stdout.readline() == "building\n"
    process.send_signal(signal.SIGKILL if os.name == "posix" else signal.SIGTERM)
    process.wait(timeout=10)
    folder = cache.home() / "thing"
    assert any(".tmp-" in p.name for p in folder.iterdir())
    output = child(0).communicate(timeout=60)[0]
    assert "['a.txt', 'artifact.json', 'b.txt']" in output
    assert not any(".tmp-" in p.name for p in folder.iterdir())


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has a device that is always full")
def test_full_disk_says_what_to_do_and_leaves_nothing():
    def build(folder: Path) -> None:
        (folder / "half").write_text("half", encoding="utf-8")
        with Path("/dev/full").open("wb", buffering=0) as full:
            full.write(b"x")

    with pytest.raises(OSError, match="disk is full: free some space, or set COURSE_HOME") as caught:
        cache.build_once("thing", {}, build)
    assert caught.value.errno == errno.ENOSPC
    assert [p for p in (cache.home() / "thing").iterdir() if p.is_dir()] == []


def test_home_that_is_a_file_is_refused(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    monkeypatch.setenv("COURSE_HOME", str(tmp_path / "file"))
    with pytest.raises(OSError, match="COURSE_HOME"):
        cache.build_once("thing", {}, build_text)
