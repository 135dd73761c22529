"""Pinned source distributions: from a name and a version to verified bytes in a folder.

The manifest `sources.json` is all that the repository ships; the archives come from the learner's own package index,
once. Archives are read in memory: nothing in them is unpacked to the disk, installed or run.
"""

import contextlib
import errno
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import time
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from course_utils.cache import file_sha256

MANIFEST = Path(__file__).with_name("sources.json")
ATTEMPTS = 3
TIMEOUT = (10, 60)  # seconds to connect, seconds without a byte
BIGGEST_MEMBER = 5_000_000  # bytes; a larger `.py` file is data
CHUNK = 1 << 18  # bytes read at a time


@dataclass(frozen=True)
class Source:
    """One pinned source distribution."""

    name: str  # of the distribution; becomes repo_name
    version: str
    filename: str
    sha256: str
    size: int  # bytes of the archive
    license: str  # SPDX expression
    split: str  # "train" or "validation": whole projects, so that nothing leaks
    tiny: bool  # belongs to the small slice


class SourcesUnavailable(ConnectionError):
    """The package index cannot be reached, or does not have a pinned file."""


def load_manifest(tiny: bool = False) -> tuple[Source, ...]:
    """Return the pinned sources in the order of their names; with `tiny` only those of the small slice."""
    entries = json.loads(MANIFEST.read_text(encoding="utf-8"))["sources"]
    return tuple(source for entry in entries if (source := Source(**entry)).tiny or not tiny)


def index_url() -> str:
    """Return the package index that pip uses here: environment, then pip's configuration, then the public one."""
    from pypi_simple import PYPI_SIMPLE_ENDPOINT

    if url := os.environ.get("PIP_INDEX_URL", "").strip():
        return url
    # `pip config get` does not see the file that PIP_CONFIG_FILE names; `list` does. Without pip the answer is empty.
    command = [sys.executable, "-m", "pip", "config", "list"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    found = re.search(r"^(?:global|download|install)\.index-url='(.+)'", answer.stdout, re.MULTILINE)
    return found[1] if found else PYPI_SIMPLE_ENDPOINT


def fetch_sources(sources: Sequence[Source], folder: Path, progress: bool = True) -> list[Path]:
    """Return the archives of `sources` in `folder`, in their order, downloading only what is missing or damaged.

    Safe when several processes call it at once. Raises `SourcesUnavailable` without network, `ValueError` when the
    index serves other bytes than those pinned, `OSError` on a full disk; the folder then holds no partial archive.
    """
    from filelock import FileLock

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".sources.lock"):
        missing = [source for source in sources if not _is_cached(source, folder)]
        if missing:
            _download_all(missing, folder, progress)
    return [folder / source.filename for source in sources]


def _is_cached(source: Source, folder: Path) -> bool:
    path = folder / source.filename
    if not path.is_file():
        return False
    if path.stat().st_size == source.size and file_sha256(path) == source.sha256:
        return True
    print(f"{source.filename} in {folder} is damaged (not the bytes pinned in the manifest); downloading it again.")
    return False


@contextlib.contextmanager
def disk_full_explained(folder: Path, needed: int) -> Iterator[None]:
    """Refuse to start when `folder` has less room than `needed` bytes, and say so when it fills up on the way."""

    def refusal() -> OSError:
        free = shutil.disk_usage(folder).free
        return OSError(
            errno.ENOSPC,
            f"not enough disk space: {needed / 1e6:.1f} MB are needed, {free / 1e6:.1f} MB are free; make room or "
            "choose a folder on another disk",
            str(folder),
        )

    if shutil.disk_usage(folder).free < needed:
        raise refusal()
    try:
        yield
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise refusal() from error


def _download_all(missing: Sequence[Source], folder: Path, progress: bool) -> None:
    from pypi_simple import PyPISimple
    from tqdm.auto import tqdm

    total = sum(source.size for source in missing)
    with disk_full_explained(folder, total), PyPISimple(index_url()) as index:
        if certificate := os.environ.get("PIP_CERT"):
            index.s.verify = certificate
        with tqdm(total=total, unit="B", unit_scale=True, desc="Source archives", disable=not progress) as bar:
            for number, source in enumerate(missing):
                try:
                    _with_retries(index, source, folder, bar)
                except SourcesUnavailable as error:
                    raise SourcesUnavailable(_what_to_do(error, missing[number:], folder)) from error


def _what_to_do(error: Exception, missing: Sequence[Source], folder: Path) -> str:
    size = sum(source.size for source in missing) / 1e6
    return (
        f"{len(missing)} source archives ({size:.1f} MB) of the code corpus are missing and cannot be downloaded: "
        f"{error}. Connect and run this again, or set PIP_INDEX_URL to a package index that can be reached, or copy "
        f"the files that {MANIFEST.name} names into {folder}. Without them the course uses the Python packages "
        "installed here."
    )


def _with_retries(index, source: Source, folder: Path, bar) -> None:
    """Download one archive, trying again with growing pauses when the connection fails."""
    import requests
    from pypi_simple import NoSuchProjectError

    for attempt in range(1, ATTEMPTS + 1):
        before = bar.n
        try:
            return _download(index, source, folder, bar)
        except NoSuchProjectError as error:
            raise SourcesUnavailable(f"the package index has no project {source.name}") from error
        except requests.RequestException as error:
            bar.update(before - bar.n)
            if attempt == ATTEMPTS:
                raise SourcesUnavailable(f"{type(error).__name__} while fetching {source.filename}") from error
            time.sleep(0.25 * 2**attempt)  # 0.5 s, 1 s


def _download(index, source: Source, folder: Path, bar) -> None:
    """Write one archive under a temporary name, verify it, and only then give it its own name."""
    page = index.get_project_page(source.name, timeout=TIMEOUT)
    url = next((package.url for package in page.packages if package.filename == source.filename), None)
    if url is None:
        raise SourcesUnavailable(f"the package index has no file {source.filename}")
    part = folder / f"{source.filename}.part"
    try:
        with index.s.get(url, stream=True, timeout=TIMEOUT) as response, part.open("wb") as file:
            response.raise_for_status()
            for piece in response.iter_content(CHUNK):
                bar.update(file.write(piece))
        if (found := file_sha256(part)) != source.sha256:
            raise ValueError(
                f"{source.filename} has SHA-256 {found}, but the manifest pins {source.sha256}; the file was not kept. "
                "The index or something on the way changed it: try another network, or another PIP_INDEX_URL."
            )
        part.replace(folder / source.filename)
    finally:
        part.unlink(missing_ok=True)


def iter_python_members(archive: Path, skipped: Counter | None = None) -> Iterator[tuple[str, bytes]]:
    """Yield (path inside the project, bytes) for the `.py` files of a `.tar.gz` or `.zip` source distribution.

    Links, special files and names that lead out of the top folder are passed over; files over `BIGGEST_MEMBER` too,
    and those are counted in `skipped`. Raises `ValueError` for an archive that cannot be read.
    """
    members = _zip_members if archive.suffix == ".zip" else _tar_members
    try:
        for name, size, read in members(archive):
            path = _inside_project(name)
            if path is None:
                continue
            if size > BIGGEST_MEMBER:
                if skipped is not None:
                    skipped["larger than 5 MB"] += 1
                continue
            yield path, read()
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, OSError) as error:
        raise ValueError(f"{archive} cannot be read ({error}); delete it, so that it is downloaded again") from error


def _tar_members(archive: Path) -> Iterable[tuple]:
    with tarfile.open(archive, "r:*") as tar:
        for member in tar:
            if member.isreg():
                yield member.name, member.size, lambda member=member: tar.extractfile(member).read()


def _zip_members(archive: Path) -> Iterable[tuple]:
    with zipfile.ZipFile(archive) as file:
        for info in file.infolist():
            link = (info.external_attr >> 16) & 0o170000 == 0o120000
            if not info.is_dir() and not link:
                yield info.filename, info.file_size, lambda info=info: file.read(info)


def _inside_project(name: str) -> str | None:
    """Return a member's path without the top folder, or None when it is no `.py` file of the project."""
    path = PurePosixPath(name)
    if path.suffix != ".py" or path.is_absolute() or "\\" in name or ":" in name:
        return None
    return None if ".." in path.parts or len(path.parts) < 2 else str(PurePosixPath(*path.parts[1:]))
