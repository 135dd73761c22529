"""Artifacts: built once, whole or not at all."""

import contextlib
import errno
import os
import signal
import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock

import filelock
import pytest

from course_utils import cache


@pytest.fixture(autouse=True)
def _own_home(monkeypatch, tmp_path):
    monkeypatch.setenv("COURSE_HOME", str(tmp_path / "home"))


def build_text(folder: Path) -> None:
    (folder / "text.txt").write_text("x", encoding="utf-8")


def test_built_once_and_keyed_by_what_made_it():
    builds = []
    first, again, other = (cache.build_once("thing", {"size": size}, builds.append) for size in (1, 1, 2))
    assert first == again != other
    assert len(builds) == 2
    assert cache.read_key(other) == {"size": 2}


def test_a_failed_build_leaves_nothing_and_can_be_repeated():
    with pytest.raises(OSError, match="no space"):
        cache.build_once("thing", {}, Mock(side_effect=OSError(errno.ENOSPC, "no space")))
    assert not [path for path in (cache.home() / "thing").iterdir() if path.is_dir()]
    assert (cache.build_once("thing", {}, build_text) / "text.txt").is_file()


CHILD = """if True:
    import sys
    from course_utils import cache
    def build(folder):
        (folder / "a.txt").write_text("a")
        print("building", flush=True)
        sys.stdin.readline()
        (folder / "b.txt").write_text("b")
    print(sorted(path.name for path in cache.build_once("thing", {}, build).iterdir()), flush=True)
"""


def child() -> subprocess.Popen:
    """Start a process whose build goes on until it gets a line."""
    return subprocess.Popen([sys.executable, "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_two_processes_at_once_build_once():
    first = child()
    assert first.stdout.readline() == "building\n"
    second = child()
    assert second.stdout.readline() == "Another process is making the thing; waiting for it.\n"
    assert first.communicate("\n", timeout=60)[0] == second.communicate(timeout=60)[0]


def test_after_a_kill_the_next_one_builds_and_tidies_up():
    process = child()
    assert process.stdout.readline() == "building\n"
    process.send_signal(signal.SIGKILL if os.name == "posix" else signal.SIGTERM)
    process.communicate(timeout=10)
    folder = cache.home() / "thing"
    assert any(".tmp-" in path.name for path in folder.iterdir())
    assert "['a.txt', 'artifact.json', 'b.txt']" in child().communicate("\n", timeout=60)[0]
    assert not any(".tmp-" in path.name for path in folder.iterdir())


def test_a_folder_without_locks_is_used_and_said(monkeypatch, capsys):
    monkeypatch.setattr(filelock.FileLock, "_acquire", Mock(side_effect=OSError(errno.ENOLCK, "No locks available")))
    assert cache.build_once("thing", {}, build_text).is_dir()
    assert "cannot be locked" in capsys.readouterr().out


def test_a_target_is_replaced_whole_or_not_at_all(tmp_path):
    file, folder = tmp_path / "file", tmp_path / "folder"
    for version in ("old", "new"):
        with cache.replacing(file) as new_file, cache.replacing(folder) as new_folder:
            new_folder.mkdir()
            for path in (new_file, new_folder / "text"):
                path.write_text(version, encoding="utf-8")
    with contextlib.suppress(KeyboardInterrupt), cache.replacing(file) as new_file:
        new_file.write_text("half", encoding="utf-8")
        raise KeyboardInterrupt
    assert [path.read_text(encoding="utf-8") for path in (file, folder / "text")] == ["new", "new"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


def test_the_fingerprint_follows_every_line_of_code_but_not_line_ends(monkeypatch, tmp_path):
    monkeypatch.setattr(cache, "PACKAGE", tmp_path)
    seen = []
    for name in ("data/a.py", "data/sub/a.py", "models/a.py", "training/a.py", "artifacts.py", "plots.py", "data/a.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x = 1\r\n" if (tmp_path / name).exists() else b"x = 1\n")
        seen.append(cache.code_fingerprint.__wrapped__())
    assert len(set(seen)) == 5
    assert seen[4] == seen[5] == seen[6]


def test_the_home_is_the_variable_or_the_users_cache_and_need_not_exist(monkeypatch, tmp_path):
    monkeypatch.setattr(Path, "home", Mock(side_effect=[Path("/me"), RuntimeError("Could not determine home.")]))
    assert cache.home() == tmp_path / "home"
    monkeypatch.setenv("COURSE_HOME", "")
    assert cache.home() == Path("/me/.cache/code-completion-course")
    with pytest.raises(ValueError, match="set COURSE_HOME"):
        cache.home()
