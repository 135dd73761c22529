"""Build something once and keep it: the mechanism behind every artifact of the course.

An artifact is a folder named by a digest of what made it. It is built under a temporary name and renamed, so a folder
that exists is complete; other processes wait for a build. Nothing more is promised: delete a damaged folder by hand.
"""

import contextlib
import functools
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

KEY_FILE = "artifact.json"
PACKAGE = Path(__file__).parent
# What an artifact's content depends on; `artifacts` puts the steps together.
CODE = ("artifacts.py", "data/**/*.py", "models/**/*.py", "training/**/*.py")


def home() -> Path:
    """Return the folder that holds all artifacts: COURSE_HOME, or the user's cache folder."""
    if chosen := os.environ.get("COURSE_HOME"):
        return Path(chosen).expanduser()
    try:
        return Path.home() / ".cache" / "code-completion-course"
    except RuntimeError as error:  # a container's user without an entry in passwd
        raise ValueError("this user has no home folder; set COURSE_HOME to a folder for the course's data.") from error


@functools.cache
def code_fingerprint() -> str:
    """Return a digest of the code that makes artifacts, so that a result of older code is never taken for a new one."""
    digest = hashlib.sha256()
    for path in sorted(path for pattern in CODE for path in PACKAGE.glob(pattern)):
        digest.update(path.relative_to(PACKAGE).as_posix().encode())
        digest.update(path.read_bytes().replace(b"\r\n", b"\n"))
    return digest.hexdigest()[:16]


def artifact_folder(name: str, key: Mapping[str, Any]) -> Path:
    """Return where the artifact `name` made from `key` is, or will be."""
    text = json.dumps(key, sort_keys=True)
    return home() / name / hashlib.sha256(text.encode()).hexdigest()[:16]


def build_once(name: str, key: Mapping[str, Any], build: Callable[[Path], Any]) -> Path:
    """Return the folder of the artifact `name` made from `key`; fill it with `build(folder)` unless it is there."""
    folder = artifact_folder(name, key)
    if folder.is_dir():
        return folder
    with locked(folder, name):
        for left_over in folder.parent.glob(f".{folder.name}.tmp-*"):  # of a build that was killed
            shutil.rmtree(left_over, ignore_errors=True)
        if not folder.is_dir():  # nobody has built it while we waited
            with replacing(folder) as temporary:
                temporary.mkdir()
                build(temporary)
                text = json.dumps({"key": key}, indent=1, sort_keys=True)
                (temporary / KEY_FILE).write_text(text + "\n", encoding="utf-8", newline="\n")
    return folder


def read_key(folder: Path) -> dict[str, Any]:
    """Return the key that an artifact was made from."""
    return json.loads((folder / KEY_FILE).read_text(encoding="utf-8"))["key"]


@contextlib.contextmanager
def locked(folder: Path, name: str) -> Iterator[None]:
    """Let one process at a time work on a folder of the cache; print a message while waiting."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(f"{folder}.lock")
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(lock.acquire(timeout=1))
        except Timeout:
            print(f"Another process is making the {name}; waiting for it.")
            stack.enter_context(lock.acquire())
        except OSError as error:  # some network folders: no lock is better than no course
            print(f"{folder.parent} cannot be locked ({error}). Do not run two notebooks there at the same time.")
        yield


@contextlib.contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Yield a temporary path beside `target`, for a file or folder; rename it when all is written, else remove it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.tmp-{os.getpid()}")
    _remove(temporary)
    try:
        yield temporary
        if temporary.is_dir():  # a folder cannot replace another one
            _remove(target)
        temporary.replace(target)
    finally:
        _remove(temporary)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def file_sha256(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
