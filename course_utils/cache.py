"""Build something once, keep it, notice damage: the mechanism behind every artifact of the course.

An artifact is a folder named by a digest of what made it. It is built under a temporary name and renamed, so a folder
that exists is complete; a list of checksums inside tells whether it still is. A file lock makes other processes wait
for a build that is under way instead of repeating it. What an artifact contains is not decided here.
"""

import contextlib
import errno
import hashlib
import importlib.metadata
import inspect
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from filelock import FileLock, Timeout

SEAL = "artifact.json"
LEAST_FREE = 10_000_000  # bytes; with less, whatever failed failed for lack of space
# Folders that this process has already verified, with the state of their seal at that time.
_verified: dict[Path, int] = {}


@dataclass(frozen=True)
class Artifact:
    """A finished folder, and the key that describes how it was made."""

    path: Path
    key: Mapping[str, Any]

    @property
    def digest(self) -> str:
        """Short name of this very artifact, for the keys of what is built on it."""
        return self.path.name


def home() -> Path:
    """Return the folder that holds all artifacts: COURSE_HOME, or the user's cache folder."""
    chosen = os.environ.get("COURSE_HOME")
    return Path(chosen).expanduser() if chosen else Path.home() / ".cache" / "code-completion-course"


def free_bytes() -> int:
    """Return the free space of the disk that holds the artifacts."""
    return shutil.disk_usage(_existing(home())).free


def code_fingerprint(*modules: ModuleType) -> str:
    """Digest of the modules' source, so that an artifact made by older code is never taken for a new one."""
    digest = hashlib.sha256()
    for module in modules:
        digest.update(Path(inspect.getfile(module)).read_bytes().replace(b"\r\n", b"\n"))
    return digest.hexdigest()[:16]


def library_versions(*names: str) -> dict[str, str]:
    """Versions of the libraries that shape an artifact's files."""
    return {name: importlib.metadata.version(name) for name in names}


def installed_versions(names: Iterable[str]) -> dict[str, str]:
    """Versions of those of the named packages that are installed."""
    found = {}
    for name in names:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def _folder(name: str, key: Mapping[str, Any]) -> Path:
    return home() / name / hashlib.sha256(json.dumps([name, key], sort_keys=True).encode()).hexdigest()[:16]


def exists(name: str, key: Mapping[str, Any]) -> bool:
    """Say whether the artifact `name` made from `key` is there and intact."""
    return _damage_once(_folder(name, key)) is None


def build_once(
    name: str, key: Mapping[str, Any], build: Callable[[Path], Any], say: Callable[[str], None] = print
) -> Artifact:
    """Return the artifact `name` made from `key`, building it with `build(folder)` unless it is there and intact.

    A damaged artifact is rebuilt, and `say` tells so. Raises what `build` raises, after removing what it left, and
    `OSError` with the remedy when the disk is full or the folder cannot be written.
    """
    key = json.loads(json.dumps(dict(key), sort_keys=True))
    folder = _folder(name, key)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with locked(folder, name, say):
            found = _damage_once(folder)
            if found is not None:
                if folder.exists():
                    say(f"The saved {name} is damaged ({found}). It is built again.")
                _build(folder, key, build)
    except Exception as error:  # a full disk makes every library raise something else
        explanation = _explained(error, folder)
        if explanation is None:
            raise
        raise explanation from error
    return Artifact(folder, key)


@contextlib.contextmanager
def locked(folder: Path, name: str, say: Callable[[str], None] = print) -> Iterator[None]:
    """Let one process at a time at a folder of the cache; who has to wait is told so."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(f"{folder}.lock")
    try:
        lock.acquire(timeout=1)
    except Timeout:
        say(f"Another process is making the {name}; waiting for it.")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _build(folder: Path, key: Mapping[str, Any], build: Callable[[Path], Any]) -> None:
    for left_over in folder.parent.glob(f"{folder.name}.tmp-*"):  # of a build that was killed
        shutil.rmtree(left_over, ignore_errors=True)
    temporary = Path(tempfile.mkdtemp(prefix=f"{folder.name}.tmp-", dir=folder.parent))
    try:
        build(temporary)
        seal(temporary, key)
        if folder.exists():
            shutil.rmtree(folder)
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    _verified[folder] = (folder / SEAL).stat().st_mtime_ns


def seal(folder: Path, key: Mapping[str, Any]) -> None:
    """List the files of a finished folder with their checksums, so that `damage` can tell whether it still is whole."""
    files = {p.relative_to(folder).as_posix(): _checksum(p) for p in _files(folder)}
    text = json.dumps({"key": key, "files": files}, indent=1, sort_keys=True)
    (folder / SEAL).write_text(text + "\n", encoding="utf-8", newline="\n")


def damage(folder: Path) -> str | None:
    """Say what is wrong with a sealed folder: None if it is complete and unaltered."""
    sealed = folder / SEAL
    if not sealed.is_file():
        return "its list of files is missing"
    try:
        files = {name: (e["size"], e) for name, e in json.loads(sealed.read_text(encoding="utf-8"))["files"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return "its list of files cannot be read"
    for name, (size, expected) in files.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != size or _checksum(path) != expected:
            return f"{name} has changed"
    return None


def _damage_once(folder: Path) -> str | None:
    """Like `damage`, but an artifact that this process found whole is read only once."""
    sealed = folder / SEAL
    if sealed.is_file() and _verified.get(folder) == sealed.stat().st_mtime_ns:
        return None
    found = damage(folder)
    if found is None:
        _verified[folder] = sealed.stat().st_mtime_ns
    return found


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


def _files(folder: Path) -> Iterable[Path]:
    return sorted(p for p in folder.rglob("*") if p.is_file())


def _checksum(path: Path) -> dict[str, Any]:
    with path.open("rb") as stream:
        return {"size": path.stat().st_size, "sha256": hashlib.file_digest(stream, "sha256").hexdigest()}


def _explained(error: Exception, folder: Path) -> OSError | None:
    """Return the error with its remedy if the disk is full or the cache cannot be written, else None."""
    code = getattr(error, "errno", None)
    if code == errno.ENOSPC or free_bytes() < LEAST_FREE:
        remedy = "The disk is full: free some space, or set COURSE_HOME to a folder on another disk."
        return OSError(errno.ENOSPC, f"{remedy} ({error})", str(folder))
    here = str(getattr(error, "filename", None) or "").startswith(str(home()))
    if here and code in (errno.EACCES, errno.EROFS, errno.EPERM, errno.ENOTDIR, errno.EEXIST):
        remedy = "This cannot be written: close other programs that use it, or set COURSE_HOME to another folder."
        return OSError(code, f"{remedy} ({error})", str(folder))
    return None


def _existing(path: Path) -> Path:
    return path if path.exists() else _existing(path.parent)
