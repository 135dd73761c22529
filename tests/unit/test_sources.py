"""Pinned source archives: a real index on this machine, real archives, and everything that can go wrong."""

import errno
import functools
import hashlib
import importlib.metadata
import io
import tarfile
import threading
import zipfile
from collections import Counter
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from course_utils.data.licenses import UNKNOWN, spdx_expression, spdx_from_metadata, spdx_from_text
from course_utils.data.sources import (
    BIGGEST_MEMBER,
    Source,
    SourcesUnavailable,
    disk_full_explained,
    fetch_sources,
    file_sha256,
    index_url,
    iter_python_members,
    load_manifest,
)


class Handler(SimpleHTTPRequestHandler):
    """Serves a folder; the server counts what was asked for and plays the faults it was given, one per archive."""

    def do_GET(self):
        self.server.asked[self.path] += 1
        fault = self.server.faults.pop(0) if self.server.faults and self.path.startswith("/files/") else None
        if fault == "busy":
            self.send_error(503)
        elif fault == "cut":
            data = Path(self.translate_path(self.path)).read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data[: len(data) // 2])
            self.close_connection = True
        else:
            super().do_GET()

    def log_message(self, *arguments):
        pass


class Index:
    """A package index in a folder: `/simple/NAME/` lists the archives of a project, `/files/` holds them."""

    def __init__(self, folder: Path):
        self.folder = folder
        (folder / "files").mkdir(parents=True)
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder)))
        self.server.asked, self.server.faults = Counter(), []
        self.url = f"http://127.0.0.1:{self.server.server_port}/simple/"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self.thread.start()

    def add(self, name: str) -> Source:
        """Publish the installed distribution `name` as a source distribution."""
        package = importlib.metadata.distribution(name)
        top = f"{name}-{package.version}"
        path = self.folder / "files" / f"{top}.tar.gz"
        with tarfile.open(path, "w:gz") as tar:
            for file in package.files:
                if file.suffix == ".py" and ".." not in file.parts:
                    tar.add(file.locate(), f"{top}/{file.as_posix()}")
        (self.folder / "simple" / name).mkdir(parents=True)
        page = f'<!DOCTYPE html><html><body><a href="/files/{path.name}">{path.name}</a></body></html>'
        (self.folder / "simple" / name / "index.html").write_text(page, encoding="utf-8")
        size, digest = path.stat().st_size, file_sha256(path)
        return Source(name, package.version, path.name, digest, size, "MIT", "train", tiny=True)

    def downloads(self) -> int:
        return sum(count for path, count in self.server.asked.items() if path.startswith("/files/"))

    def stop(self):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def index(tmp_path, monkeypatch):
    index = Index(tmp_path / "index")
    monkeypatch.setenv("PIP_INDEX_URL", index.url)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield index
    index.stop()


@pytest.fixture
def sources(index):
    return [index.add("packaging"), index.add("filelock")]


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if not path.name.startswith(".")}


def test_archives_are_downloaded_once_and_then_need_no_server(index, sources, tmp_path, capsys):
    paths = fetch_sources(sources, tmp_path / "cache", progress=False)
    assert [file_sha256(path) for path in paths] == [source.sha256 for source in sources]
    assert names(tmp_path / "cache") == {source.filename for source in sources}
    index.stop()
    assert fetch_sources(sources[::-1], tmp_path / "cache", progress=False) == paths[::-1]
    assert index.downloads() == 2
    assert capsys.readouterr().out == ""


def test_the_bar_counts_the_bytes_of_what_is_missing(sources, tmp_path, capsys):
    fetch_sources(sources[:1], tmp_path, progress=False)
    fetch_sources(sources, tmp_path)
    bar = capsys.readouterr().err
    assert "100%" in bar
    assert f"/{sources[1].size / 1000:.3g}k" in bar


@pytest.mark.parametrize("damage", ["truncated", "changed"])
def test_a_damaged_archive_is_downloaded_again_and_that_is_said(index, sources, tmp_path, capsys, damage):
    path = fetch_sources(sources, tmp_path / "cache", progress=False)[0]
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data if damage == "changed" else data[:200])
    fetch_sources(sources, tmp_path / "cache", progress=False)
    assert file_sha256(path) == sources[0].sha256
    assert index.downloads() == 3
    said = capsys.readouterr().out
    assert said.count("\n") == 1
    assert path.name in said
    assert "damaged" in said


def test_other_bytes_than_those_pinned_are_refused_with_both_digests(index, sources, tmp_path):
    path = index.folder / "files" / sources[0].filename
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(ValueError, match=sources[0].sha256) as refused:
        fetch_sources(sources, tmp_path / "cache", progress=False)
    assert file_sha256(path) in str(refused.value)
    assert names(tmp_path / "cache") == set()


@pytest.mark.parametrize("fault", ["busy", "cut"])
def test_a_connection_that_fails_twice_is_tried_again(index, sources, tmp_path, fault):
    index.server.faults += [fault, fault]
    paths = fetch_sources(sources, tmp_path / "cache", progress=False)
    assert [file_sha256(path) for path in paths] == [source.sha256 for source in sources]
    assert index.downloads() == 4


def test_a_connection_that_keeps_failing_leaves_nothing_half_written(index, sources, tmp_path):
    index.server.faults += ["cut"] * 3
    with pytest.raises(SourcesUnavailable):
        fetch_sources(sources, tmp_path / "cache", progress=False)
    assert names(tmp_path / "cache") == set()


def test_without_a_server_the_error_says_what_to_do(index, sources, tmp_path):
    fetch_sources(sources[:1], tmp_path / "cache", progress=False)
    index.stop()
    with pytest.raises(SourcesUnavailable) as unavailable:
        fetch_sources(sources, tmp_path / "cache", progress=False)
    message = str(unavailable.value)
    assert message.startswith("1 source archives")
    for part in ("PIP_INDEX_URL", str(tmp_path / "cache"), sources[1].filename, "installed"):
        assert part in message
    assert isinstance(unavailable.value, ConnectionError)
    assert names(tmp_path / "cache") == {sources[0].filename}


@pytest.mark.parametrize("what", ["file", "project"])
def test_an_index_that_lacks_a_pinned_file_is_named_as_the_reason(index, sources, tmp_path, what):
    page = index.folder / "simple" / "packaging" / "index.html"
    page.unlink()
    if what == "file":
        page.write_text("<!DOCTYPE html><html><body></body></html>", encoding="utf-8")
    else:
        page.parent.rmdir()
    with pytest.raises(SourcesUnavailable, match=f"the package index has no {what} packaging"):
        fetch_sources(sources, tmp_path / "cache", progress=False)


def test_several_callers_at_once_download_each_archive_once(index, sources, tmp_path):
    callers = [
        threading.Thread(target=fetch_sources, args=(sources, tmp_path / "cache"), kwargs={"progress": False})
        for _ in range(4)
    ]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert index.downloads() == 2
    assert names(tmp_path / "cache") == {source.filename for source in sources}


def test_more_than_the_disk_holds_is_refused_before_anything_is_written(index, sources, tmp_path):
    huge = Source("packaging", "1", "packaging-1.tar.gz", "0" * 64, 10**18, "MIT", "train", tiny=True)
    with pytest.raises(OSError, match=r"not enough disk space.* make room") as full:
        fetch_sources([huge], tmp_path / "cache", progress=False)
    assert full.value.errno == errno.ENOSPC
    assert names(tmp_path / "cache") == set()
    assert not index.server.asked


def test_a_disk_that_fills_up_on_the_way_is_explained_and_other_errors_pass(tmp_path):
    with pytest.raises(OSError, match="make room or choose a folder on another disk"), disk_full_explained(tmp_path, 1):
        raise OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(PermissionError, match="mine"), disk_full_explained(tmp_path, 1):
        raise PermissionError(errno.EACCES, "mine")


def test_the_index_is_the_one_pip_uses(tmp_path, monkeypatch):
    configuration = tmp_path / "pip.conf"
    configuration.write_text("[global]\nindex-url = http://127.0.0.1:1/mirror/simple\n", encoding="utf-8")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(configuration))
    monkeypatch.delenv("PIP_INDEX_URL", raising=False)
    assert index_url() == "http://127.0.0.1:1/mirror/simple"
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:2/simple/")
    assert index_url() == "http://127.0.0.1:2/simple/"


def test_the_manifest_pins_permissively_licensed_projects_for_both_splits():
    sources = load_manifest()
    permissive = {"BSD-3-Clause", "BSD-2-Clause", "MIT", "Apache-2.0", "PSF-2.0"}
    assert {source.license for source in sources} <= permissive
    assert len({source.name for source in sources}) == len({source.filename for source in sources}) == len(sources)
    assert [source.name for source in sources] == sorted(source.name for source in sources)
    assert all(len(bytes.fromhex(source.sha256)) == 32 and source.size > 0 for source in sources)
    assert sum(source.size for source in sources) < 150e6
    tiny = load_manifest(tiny=True)
    assert tiny == tuple(source for source in sources if source.tiny)
    assert sum(source.size for source in tiny) < 16e6
    for chosen in (sources, tiny):
        assert {source.split for source in chosen} == {"train", "validation"}


# What is inside an archive

CODE = b"import numpy as np\n"


def write_tar(path: Path, members: dict[str, bytes], links: dict[str, str] | None = None) -> Path:
    with tarfile.open(path, "w:gz", compresslevel=1) as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        for number, (name, target) in enumerate((links or {}).items()):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = (tarfile.SYMTYPE, tarfile.LNKTYPE)[number % 2], target
            tar.addfile(info)
    return path


def write_zip(path: Path, members: dict[str, bytes], links: dict[str, str] | None = None) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in members.items():
            file.writestr(name, data)
        for name, target in (links or {}).items():
            info = zipfile.ZipInfo(name)
            info.external_attr = 0o120777 << 16
            file.writestr(info, target)
    return path


@pytest.mark.parametrize("write", [write_tar, write_zip])
def test_only_plain_python_files_inside_the_top_folder_are_read(tmp_path, write):
    members = {
        "p-1/p/good.py": CODE,
        "p-1/p/empty.py": b"",
        "p-1/setup.cfg": b"[x]",
        "p-1/../escape.py": CODE,
        "../p-1/escape.py": CODE,
        "/p-1/absolute.py": CODE,
        "C:/p-1/drive.py": CODE,
        "p-1\\windows.py": CODE,
        "outside.py": CODE,
    }
    archive = write(tmp_path / ("p-1.zip" if write is write_zip else "p-1.tar.gz"), members, {
        "p-1/p/soft.py": "/etc/passwd",
        "p-1/p/hard.py": "p-1/p/good.py",
    })  # fmt: skip
    assert sorted(iter_python_members(archive)) == [("p/empty.py", b""), ("p/good.py", CODE)]
    assert [path.name for path in tmp_path.iterdir()] == [archive.name]


@pytest.mark.parametrize("write", [write_tar, write_zip])
def test_a_member_of_50_megabytes_is_passed_over_and_counted(tmp_path, write):
    suffix = ".zip" if write is write_zip else ".tar.gz"
    archive = write(tmp_path / f"p-1{suffix}", {"p-1/big.py": b"#" * 50_000_000, "p-1/p.py": CODE})
    skipped = Counter()
    assert list(iter_python_members(archive, skipped)) == [("p.py", CODE)]
    assert skipped == {"larger than 5 MB": 1}
    assert BIGGEST_MEMBER == 5_000_000


def test_an_archive_that_cannot_be_read_is_named(tmp_path):
    whole = write_tar(tmp_path / "p-1.tar.gz", {"p-1/p.py": hashlib.sha512(b"p").hexdigest().encode() * 5000})
    whole.write_bytes(whole.read_bytes()[:300])
    text = tmp_path / "q-1.zip"
    text.write_text("not an archive", encoding="utf-8")
    for path in (whole, text, tmp_path / "absent.tar.gz"):
        with pytest.raises(ValueError, match=rf"{path.name} cannot be read .*; delete it"):
            list(iter_python_members(path))


# Licences


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("BSD-3-Clause AND (MIT OR Apache-2.0)", "BSD-3-Clause AND (MIT OR Apache-2.0)"),
        ("bsd-3-clause", "BSD-3-Clause"),
        ("Apache Software License", "Apache-2.0"),
        ("Apache License, Version 2.0", "Apache-2.0"),
        ("Apache 2", "Apache-2.0"),
        ("BSD 3-Clause License", "BSD-3-Clause"),
        ("BSD 2-Clause", "BSD-2-Clause"),
        ("new BSD", "BSD-3-Clause"),
        ("The MIT License (MIT)", "MIT"),
        ("Permission is hereby granted, free of charge, to any person", "MIT"),
        ("GNU LESSER GENERAL PUBLIC LICENSE Version 3", "LGPL-3.0-or-later"),
        ("GNU GENERAL PUBLIC LICENSE Version 2, June 1991", "GPL-2.0-or-later"),
        ("GPLv3", "GPL-3.0-or-later"),
        ("Submit your own licence here", UNKNOWN),
        ("", UNKNOWN),
    ],
)
def test_declared_licences_become_spdx(text, name):
    assert spdx_from_text(text) == name
    assert name == UNKNOWN or spdx_expression(name) == name


def test_every_installed_licence_of_the_course_is_recognised():
    for name in ("numpy", "pandas", "matplotlib", "scipy", "torch", "tqdm", "requests", "scikit-learn", "datasets"):
        found = spdx_from_metadata(importlib.metadata.metadata(name))
        assert spdx_expression(found) == found, name
