"""Artifacts: built once, whole or not at all."""

import contextlib
import errno
import fnmatch
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from unittest.mock import Mock

import datasets
import evaluate
import filelock
import pytest
from datasets.exceptions import DatasetGenerationError
from safetensors import SafetensorError

from course_utils import cache
from course_utils.data import reading
from course_utils.evaluation.metrics import pair_metric


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


def test_only_what_other_versions_made_is_removed():
    mine, other, unknown = (cache.build_once("thing", key, build_text) for key in ({"code": "a"}, {"code": "b"}, {}))
    size = sum(path.stat().st_size for path in other.iterdir())
    assert cache.remove_others({"code": "a"}) == (1, size)
    assert (mine.is_dir(), other.exists(), unknown.is_dir()) == (True, False, True)


def test_a_failed_build_leaves_nothing_and_can_be_repeated():
    with pytest.raises(OSError, match=r"home is full \(.*no space\): free some space there, or set COURSE_HOME to"):
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
    closed = OSError(errno.EROFS, "Read-only file system", str(cache.home() / "thing" / "lock"))
    monkeypatch.setattr(filelock.FileLock, "_acquire", Mock(side_effect=closed))
    with pytest.raises(OSError, match=r"cannot be written \(.*Read-only.*\): set COURSE_HOME to another folder"):
        cache.build_once("thing", {"size": 1}, build_text)
    assert capsys.readouterr().out == ""


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
    users = Path.home() / ".cache" / "code-completion-course"
    for chosen, found in {f" {tmp_path}/ ": tmp_path, "~/x": Path.home() / "x", "": users, " ": users}.items():
        monkeypatch.setenv("COURSE_HOME", chosen)
        assert cache.home() == found
    monkeypatch.setattr(Path, "expanduser", Mock(side_effect=RuntimeError("Could not determine home directory.")))
    with pytest.raises(ValueError, match=r"set HOME \(or COURSE_HOME\)"):  # a container's user without a name
        cache.home()


def fails(number: int, where: str = "") -> OSError:
    """Return the error of the system, for the file `where`, or without one as `write` raises it."""
    return OSError(number, os.strerror(number), *([where] if where else []))


def generating(error: Exception) -> Exception:
    """Return the error that datasets makes of another one."""
    wrapped = DatasetGenerationError("An error occurred while generating the dataset")
    wrapped.__cause__ = error
    return wrapped


RUST = SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
TORCH = RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534")


@pytest.mark.parametrize(
    ("error", "smallest", "message"),
    [
        (fails(errno.EDQUOT), "tmp", "home is full (*quota*): free some space there, or set COURSE_HOME to *"),
        (fails(errno.ENOSPC), "home", "home is full (*): free some space there, or set COURSE_HOME to *"),
        (fails(errno.ENOSPC), "tmp", "tmp is full (*): free some space there, or set TMPDIR to *"),
        (fails(errno.ENOSPC), "hub", "hub is full (*): free some space there, or set HF_HOME to *"),
        (fails(errno.ENOSPC, "tmp/x"), "home", "tmp is full (*/x'): free some space there, or set TMPDIR to *"),
        (fails(errno.EROFS, "home/x/y"), "tmp", "home cannot be written (*/y'): set COURSE_HOME to another folder."),
        (fails(errno.EACCES, "hub/x"), "tmp", "hub cannot be written (*/x'): set HF_HOME to another folder."),
        (generating(fails(errno.ENOSPC)), "home", "home is full (*set COURSE_HOME to *"),
        (RUST, "home", "home is full (*os error 28)): *set COURSE_HOME to *"),
        (TORCH, "home", "home is full (*set COURSE_HOME to *"),
        # Not about one of these folders, or not about a disk.
        (fails(errno.EACCES, "yours.py"), "home", "[[]Errno*yours.py'"),
        (fails(errno.ENOENT, "home/x"), "home", "[[]Errno*x'"),
        (ValueError("no rows"), "home", "no rows"),
    ],
)  # fmt: skip
def test_the_remedy_names_the_disk_that_is_full_or_closed(monkeypatch, tmp_path, error, smallest, message):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    for name in ("home", "tmp", "hub"):
        (tmp_path / name).mkdir()
    # Three disks, of which one has little room.
    room = {tmp_path / name: Mock(free=1000 if name == smallest else 10**9) for name in ("home", "tmp", "hub")}
    monkeypatch.setattr(shutil, "disk_usage", lambda path: room.get(path, Mock(free=10**9)))
    if getattr(error, "filename", None):
        error.filename = str(tmp_path / error.filename)

    def build(folder: Path) -> None:
        with cache.replacing(folder / "part"):  # inside, it is not told twice
            raise error

    with pytest.raises(type(error) if message[0] == "[" else (OSError, ValueError)) as raised:
        cache.build_once("thing", {}, build)
    assert fnmatch.fnmatch(str(raised.value).removeprefix(f"{tmp_path}{os.sep}"), message)
    assert isinstance(raised.value, OSError) or raised.value is error


def test_a_file_that_the_user_chose_is_named_itself(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"file cannot be written \(.*: write to another folder\.$"):
        cache.replacing(tmp_path / "file" / "page.html").__enter__()
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("variable", "closed", "folder"),
    [("COURSE_HOME", False, "home"), ("HF_HOME", False, "hub"), ("COURSE_HOME", True, "hub")],
)
def test_what_libraries_keep_is_with_the_courses_data_unless_it_has_another_home(
    monkeypatch, tmp_path, variable, closed, folder
):
    monkeypatch.delenv("HF_HOME")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "hub"))  # as HF_HOME sets it at the start
    monkeypatch.setattr(evaluate.config, "HF_METRICS_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv(variable, str(tmp_path / {"COURSE_HOME": "home", "HF_HOME": "hub"}[variable]))
    if closed:  # a shared folder that may only be read
        (tmp_path / "home").mkdir()
        monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path / "home")
    (tmp_path / "pairs.csv").write_text("sentence,label\na,0\nb,1\n", encoding="utf-8")
    rows = reading.read_file(tmp_path / "pairs.csv")
    assert pair_metric().compute(predictions=[1], references=[1])["accuracy"] == 1.0
    assert Path(rows.cache_files[0]["filename"]).is_relative_to(tmp_path / folder)
    assert {path.name for path in tmp_path.iterdir()} == {"pairs.csv", folder} | ({"home"} if closed else set())
