"""Build something once and keep it: the mechanism behind every artifact of the course.

An artifact is a folder named by a digest of what made it. It is built under a temporary name and renamed, so a folder
that exists is complete; other processes wait for a build. Nothing more is promised: delete a damaged folder by hand.
"""

import contextlib
import errno
import functools
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from course_utils.say import say

KEY_FILE = "artifact.json"
PACKAGE = Path(__file__).parent
# What an artifact's content depends on; `artifacts` puts the steps together.
CODE = ("artifacts.py", "data/**/*.py", "models/**/*.py", "training/**/*.py")
# Errors of a disk that cannot be written, or is full; torch and the libraries in Rust have words instead of a number.
_CLOSED = (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST)
_FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))
_FULL_IN_WORDS = ("(os error 28)", "(os error 122)", "PytorchStreamWriter failed", "] . unexpected pos")


def expanded(location: str) -> Path:
    """Return a path without `~`; raise `ValueError` where that home folder is not known."""
    try:
        return Path(location).expanduser()
    except RuntimeError as error:  # a container's user without an entry in passwd, another user's misspelled name
        raise ValueError(
            f"no home folder is known for {location!r}; give a whole path, or set HOME (or COURSE_HOME)."
        ) from error


def home() -> Path:
    """Return the folder that holds all artifacts: COURSE_HOME, or the user's cache folder."""
    return expanded(os.environ.get("COURSE_HOME", "").strip() or "~/.cache/code-completion-course").absolute()


def library_folder(name: str) -> str | None:
    """Return where a library of Hugging Face keeps what it makes: with the course's data, or where HF_HOME says."""
    read_only = home().exists() and not os.access(home(), os.W_OK)  # a teacher's, shared
    return None if os.environ.get("HF_HOME") or read_only else str(home() / name)


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
    if os.path.isdir(folder):  # noqa: PTH112 - unlike `is_dir`, False where nobody may look
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


def remove_others(current: Mapping[str, Any]) -> tuple[int, int]:
    """Remove artifacts whose key has another value for one of `current`; return how many, and their bytes."""
    number = size = 0
    for path in home().glob(f"*/*/{KEY_FILE}"):
        key = read_key(path.parent)
        if any(key.get(name, value) != value for name, value in current.items()):
            number, size = number + 1, size + sum(f.stat().st_size for f in path.parent.rglob("*") if f.is_file())
            shutil.rmtree(path.parent)
    return number, size


@contextlib.contextmanager
def locked(folder: Path, name: str) -> Iterator[None]:
    """Let one process at a time work on a folder of the cache; print a message while waiting."""
    lock = FileLock(f"{folder}.lock")
    with naming_the_disk(folder), contextlib.ExitStack() as stack:
        folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            stack.enter_context(lock.acquire(timeout=1))
        except Timeout:
            say("Another process is making the {name}; waiting for it.", name=name)
            stack.enter_context(lock.acquire())
        except OSError as error:  # some network folders: no lock is better than no course
            if error.errno in _FULL + _CLOSED:
                raise
            say(
                "{folder} cannot be locked ({error}). Do not run two notebooks there at the same time.",
                folder=folder.parent,
                error=error,
            )
        yield


@contextlib.contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Yield a temporary path beside `target`, for a file or folder; rename it when all is written, else remove it."""
    temporary = target.with_name(f".{target.name}.tmp-{os.getpid()}")
    try:
        with naming_the_disk(target):  # while what is half written still fills it
            target.parent.mkdir(parents=True, exist_ok=True)
            _remove(temporary)
            yield temporary
            if temporary.is_dir():  # a folder cannot replace another one
                _remove(target)
            temporary.replace(target)
    finally:
        _remove(temporary)


@contextlib.contextmanager
def naming_the_disk(target: Path) -> Iterator[None]:
    """Let an error of a disk that is full or closed say which folder to move, and how; `target` is being written."""
    try:
        yield
    except Exception as error:
        cause = error.__cause__ or error
        number, name, text = getattr(cause, "errno", None), getattr(cause, "filename", None), str(cause)
        full = number in _FULL or (not isinstance(cause, OSError) and any(words in text for words in _FULL_IN_WORDS))
        if not full and not (number in _CLOSED and isinstance(name, str)):
            raise
        folders = {home(): "set COURSE_HOME to", Path(tempfile.gettempdir()): "set TMPDIR to"}
        folders |= {expanded(os.environ.get("HF_HOME") or "~/.cache/huggingface"): "set HF_HOME to"}
        folders.setdefault(target.absolute().parent, "write to")
        # Most errors of a full disk lack the path, and what a quota leaves cannot be seen.
        named = name if isinstance(name, str) else target if "quota" in text else min(folders, key=free_bytes)
        place = Path(named).absolute()
        folder = next((f for f in folders if place.is_relative_to(f) or f.is_relative_to(place)), None)
        if folder is None:  # something else, such as a file of yours that cannot be read
            raise
        state, remedy = ("is full", "free some space there, or ") if full else ("cannot be written", "")
        # Without the number, so that a block around this one does not say it again.
        raise OSError(f"{folder} {state} ({text}): {remedy}{folders[folder]} another folder.") from None


def free_bytes(folder: Path) -> int:
    """Return how much room the disk of a folder has; the folder need not exist yet."""
    return shutil.disk_usage(next(place for place in (folder, *folder.parents) if place.exists())).free


def _remove(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)  # leaves a file
    with contextlib.suppress(OSError):
        path.unlink()


def file_sha256(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
