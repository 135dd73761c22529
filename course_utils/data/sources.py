"""Pinned source distributions: from a name and a version to verified bytes in a folder.

The repository ships only the manifest `sources.json`; the archives come from the learner's own package index, once.
They are read in memory: nothing in them is unpacked to the disk, installed or run.
"""

import ast
import json
import os
import re
import ssl
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pypi_simple import PYPI_SIMPLE_ENDPOINT, NoSuchProjectError, PyPISimple
from requests import RequestException
from requests.adapters import HTTPAdapter
from tqdm.auto import tqdm

from course_utils import cache
from course_utils.data import documentation

MANIFEST = Path(__file__).with_name("sources.json")
ATTEMPTS = 3
TIMEOUT = (10, 60)  # seconds to connect, seconds without a byte


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
    only_pages: bool = False  # an older release, read for its documentation: the newer one has no more of it


def load_manifest(tiny: bool = False) -> tuple[Source, ...]:
    """Return the pinned sources, sorted by name; with `tiny`, only those of the small slice."""
    entries = json.loads(MANIFEST.read_text(encoding="utf-8"))["sources"]
    return tuple(source for entry in entries if (source := Source(**entry)).tiny or not tiny)


def pip_settings() -> dict[str, str]:
    """Return the settings of `pip install` here: its configuration files, and the PIP_ variables above them."""
    # `pip config get` does not see the file that PIP_CONFIG_FILE names; `list` does. Without pip the answer is empty.
    command = [sys.executable, "-m", "pip", "config", "list"]
    listed = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    found = re.findall(r"^(?:global|install)\.([\w-]+)=(.+)$", listed, re.MULTILINE)  # sorted: install comes last
    variables = {name[4:].lower().replace("_", "-"): v for name, v in os.environ.items() if name[:4] == "PIP_" and v}
    return {name: ast.literal_eval(text) for name, text in found} | variables


class _SystemCertificates(HTTPAdapter):
    """Trust the certificates of the system, too, not only those that come with `requests`."""

    def init_poolmanager(self, *arguments, **options):
        super().init_poolmanager(*arguments, ssl_context=ssl.create_default_context(), **options)

    def proxy_manager_for(self, proxy, **options):
        return super().proxy_manager_for(proxy, ssl_context=ssl.create_default_context(), **options)


class _NoCertificates(HTTPAdapter):
    """Trust a host without certificates, as pip's option `trusted-host` says."""

    def send(self, request, **options):
        return super().send(request, **options | {"verify": False})


def package_index() -> PyPISimple:
    """Return a client of the package index that pip uses here, with pip's proxy, certificates and trusted hosts."""
    settings = pip_settings()
    index = PyPISimple(settings.get("index-url", PYPI_SIMPLE_ENDPOINT))
    index.s.verify = settings.get("cert", True)
    index.s.mount("https://", _SystemCertificates())
    for host in settings.get("trusted-host", "").split():
        for end in "/:":  # with and without a port
            index.s.mount(f"https://{host}{end}", _NoCertificates())
    if proxy := settings.get("proxy"):
        index.s.trust_env = False  # else HTTPS_PROXY would win
        index.s.proxies = {"http": proxy, "https": proxy}
    return index


def fetch_sources(sources: Sequence[Source], folder: Path) -> list[Path]:
    """Return the archives of `sources` in `folder`, in order; download what is missing or damaged, one process at once.

    Raises `ConnectionError` without network, and `ValueError` for other bytes than those pinned, which are not kept.
    """
    paths = [(source, folder / source.filename) for source in sources]
    with cache.locked(folder, "source archives"):
        for left_over in folder.glob(".*.tmp-*"):  # of a download that was killed
            left_over.unlink()
        if missing := [(s, path) for s, path in paths if not path.is_file() or cache.file_sha256(path) != s.sha256]:
            with package_index() as index:
                for source, path in tqdm(missing, desc="Source archives", unit="file"):
                    _download(index, source, path)
    return [path for _, path in paths]


def _download(index: PyPISimple, source: Source, target: Path) -> None:
    """Write one archive, verified before it gets its name; try again with growing pauses if the connection fails."""
    for attempt in range(ATTEMPTS):
        try:
            packages = index.get_project_page(source.name, timeout=TIMEOUT).packages
            if not (found := [package for package in packages if package.filename == source.filename]):
                raise NoSuchProjectError(source.filename, index.endpoint)
            with cache.replacing(target) as part:
                index.download_package(found[0], part, verify=False, timeout=TIMEOUT)  # the manifest's sum counts
                if cache.file_sha256(part) != source.sha256:
                    raise ValueError(
                        f"{source.filename} does not have the SHA-256 {source.sha256} that the manifest pins, and was "
                        "not kept. The index, or something on the way, changed it: try another network or index."
                    )
            return
        except (RequestException, NoSuchProjectError) as error:
            if attempt + 1 == ATTEMPTS:
                raise ConnectionError(
                    f"{source.filename} cannot be downloaded ({type(error).__name__}). Connect and run this again, set "
                    f"PIP_INDEX_URL to an index within reach, or copy the files of {MANIFEST.name} to {target.parent}."
                ) from error
            time.sleep(0.5 * 2**attempt)


def iter_members(archive: Path, only_pages: bool = False) -> Iterator[tuple[str, bytes]]:
    """Yield (path inside the project, bytes) for `.py` files and pages of documentation, not following links."""
    endings = documentation.ENDINGS if only_pages else (".py", *documentation.ENDINGS)
    with tarfile.open(archive) as tar:
        for member in tar:
            path = member.name.partition("/")[2]  # without the top folder
            if member.isreg() and path.endswith(endings):
                yield path, tar.extractfile(member).read()
