"""Pinned source archives: a real index on this machine, real archives, and everything that can go wrong."""

import functools
import os
import shutil
import ssl
import subprocess
import sys
import tarfile
import threading
import time
from collections import Counter
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import certifi
import pytest

from course_utils.cache import file_sha256
from course_utils.data import sources as module
from course_utils.data.sources import Source, SourcesUnavailable, fetch_sources, iter_python_members, load_manifest

PIP_SETTINGS = module.pip_settings
TLS = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR", "PIP_CERT", "PIP_INDEX_URL")


class Handler(SimpleHTTPRequestHandler):
    """Serves a folder, also as a proxy; the server counts requests, and plays the faults it was given."""

    def do_GET(self):
        self.path = urlsplit(self.path).path
        self.server.asked[self.path] += 1
        fault = self.server.faults.pop(0) if self.server.faults and self.path.startswith("/files/") else None
        if fault == "busy":
            self.send_error(503)
        elif fault in ("cut", "stall"):
            data = Path(self.translate_path(self.path)).read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data[: len(data) // 2])
            self.wfile.flush()
            if fault == "stall":
                self.server.go_on.wait(60)
            self.close_connection = True
        else:
            super().do_GET()

    def log_message(self, *arguments):
        pass


@pytest.fixture
def index(tmp_path, monkeypatch):
    """Serve a package index: `/simple/NAME/` lists the archives of a project, `/files/` holds them."""
    for variable in TLS:
        monkeypatch.delenv(variable, raising=False)
    folder = tmp_path / "index"
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder)))
    server.folder, server.asked, server.faults = folder, Counter(), []
    server.go_on = threading.Event()
    server.url = f"http://127.0.0.1:{server.server_port}/simple/"
    monkeypatch.setattr(module, "pip_settings", lambda: {"index-url": server.url})
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield server
    server.go_on.set()
    server.shutdown()
    server.server_close()


@pytest.fixture
def sources(index):
    (index.folder / "files").mkdir(parents=True)
    found = []
    for name in ("one", "two"):
        path = index.folder / "files" / f"{name}-1.tar.gz"
        write_tar(path, {f"{name}-1/{name}.py": os.urandom(3000)})
        page = index.folder / "simple" / name / "index.html"
        page.parent.mkdir(parents=True)
        page.write_text(f'<!DOCTYPE html><a href="/files/{path.name}">{path.name}</a>', encoding="utf-8")
        found.append(Source(name, "1", path.name, file_sha256(path), path.stat().st_size, "MIT", "train", tiny=True))
    return found


def write_tar(path: Path, members: dict[str, bytes], **links: str) -> None:
    with tarfile.open(path, "w:gz", compresslevel=1) as tar:
        for name, content in members.items():
            (path.parent / "member").write_bytes(content)
            tar.add(path.parent / "member", name)
        for kind, target in links.items():
            info = tarfile.TarInfo(f"p-1/{kind}.py")
            info.type, info.linkname = {"soft": tarfile.SYMTYPE, "hard": tarfile.LNKTYPE}[kind], target
            tar.addfile(info)
    (path.parent / "member").unlink()


def downloads(index) -> int:
    return sum(count for path, count in index.asked.items() if path.startswith("/files/"))


def test_archives_are_downloaded_once_and_then_need_no_index(index, sources, tmp_path, monkeypatch):
    paths = fetch_sources(sources, tmp_path / "cache")
    assert [file_sha256(path) for path in paths] == [source.sha256 for source in sources]
    assert sorted((tmp_path / "cache").iterdir()) == paths
    monkeypatch.setattr(module, "package_index", None)
    assert fetch_sources(sources[::-1], tmp_path / "cache") == paths[::-1]
    assert downloads(index) == 2


@pytest.mark.parametrize("damage", [lambda data: data[:200], lambda data: data[:100] + b"\0\1\2" + data[103:]])
def test_a_damaged_archive_is_downloaded_again(index, sources, tmp_path, damage):
    path = fetch_sources(sources, tmp_path / "cache")[0]
    path.write_bytes(damage(path.read_bytes()))
    fetch_sources(sources, tmp_path / "cache")
    assert file_sha256(path) == sources[0].sha256
    assert downloads(index) == 3


def test_other_bytes_than_those_pinned_are_refused(index, sources, tmp_path):
    path = index.folder / "files" / sources[0].filename
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(ValueError, match=rf"one-1.tar.gz does not have the SHA-256 {sources[0].sha256}"):
        fetch_sources(sources, tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())


@pytest.mark.parametrize("fault", ["busy", "cut"])
@pytest.mark.parametrize("times", [2, 3])
def test_a_connection_is_tried_three_times(index, sources, tmp_path, monkeypatch, fault, times):
    monkeypatch.setattr(module.time, "sleep", lambda seconds: None)
    index.faults += [fault] * times
    if times == 3:
        with pytest.raises(SourcesUnavailable):
            fetch_sources(sources, tmp_path / "cache")
        assert not list((tmp_path / "cache").iterdir())
    paths = fetch_sources(sources, tmp_path / "cache")
    assert [file_sha256(path) for path in paths] == [source.sha256 for source in sources]
    assert downloads(index) == times + 2


@pytest.mark.parametrize("reason", ["no server", "no project", "no file"])
def test_what_the_index_lacks_is_named_with_the_remedy(index, sources, tmp_path, monkeypatch, reason):
    monkeypatch.setattr(module, "ATTEMPTS", 1)
    fetch_sources(sources[:1], tmp_path / "cache")
    page = index.folder / "simple" / "two"
    if reason == "no server":
        monkeypatch.setattr(module, "pip_settings", lambda: {"index-url": "http://127.0.0.1:9/simple"})
    elif reason == "no project":
        shutil.rmtree(page)
    else:
        (page / "index.html").write_text("<!DOCTYPE html>", encoding="utf-8")
    with pytest.raises(SourcesUnavailable, match=r"two-1.tar.gz cannot .* set PIP_INDEX_URL .* 0\.0 MB are missing"):
        fetch_sources(sources, tmp_path / "cache")
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["one-1.tar.gz"]


def test_several_callers_at_once_download_each_archive_once(index, sources, tmp_path):
    callers = [threading.Thread(target=fetch_sources, args=(sources, tmp_path / "cache")) for _ in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert downloads(index) == 2


def test_a_killed_download_leaves_nothing_half_written(index, sources, tmp_path):
    index.faults += ["stall"]
    code = (
        "from pathlib import *; from course_utils.data import sources; from course_utils.data.sources import Source\n"
        f"sources.pip_settings = lambda: {{'index-url': {index.url!r}}}\n"
        f"sources.fetch_sources({sources!r}, Path({str(tmp_path / 'cache')!r}))\n"
    )
    child = subprocess.Popen([sys.executable, "-c", code])
    while not list(tmp_path.glob("cache/.one-1.tar.gz.tmp-*")):
        assert child.poll() is None
        time.sleep(0.02)
    child.kill()
    child.wait()
    assert not (tmp_path / "cache" / sources[0].filename).exists()
    assert fetch_sources(sources, tmp_path / "cache") == sorted((tmp_path / "cache").iterdir())


@pytest.mark.parametrize(
    ("scheme", "setting", "variables"),
    [
        ("http", "index-url = {url}", {}),
        ("http", "index-url = http://no.invalid/simple", {"PIP_INDEX_URL": "{url}"}),
        ("http", "index-url = http://no.invalid/simple\nproxy = {proxy}", {"HTTP_PROXY": "http://127.0.0.1:9"}),
        ("http", "index-url = http://no.invalid/simple", {"PIP_PROXY": "{proxy}"}),
        ("https", "index-url = {url}\ncert = {cert}", {}),
        ("https", "index-url = {url}\ntrusted-host = 127.0.0.1", {}),
        ("https", "index-url = {url}\ntrusted-host = other.example\n  {host}", {"REQUESTS_CA_BUNDLE": certifi.where()}),
        ("https", "index-url = {url}", {"SSL_CERT_FILE": "{cert}"}),  # a certificate that only the system knows
        ("https", "index-url = {url}\ntrusted-host = other.example", {}),
    ],
)
def test_what_pip_is_told_holds_for_the_archives(index, sources, tmp_path, monkeypatch, scheme, setting, variables):
    if scheme == "https":
        serve_securely(index, tmp_path)
    host = f"127.0.0.1:{index.server_port}"
    values = {
        "url": f"{scheme}://{host}/simple/",
        "proxy": f"http://{host}",
        "host": host,
        "cert": tmp_path / "cert.pem",
    }
    (tmp_path / "pip.conf").write_text(f"[global]\n{setting.format(**values)}\n", encoding="utf-8")
    for name, value in (variables | {"PIP_CONFIG_FILE": str(tmp_path / "pip.conf")}).items():
        monkeypatch.setenv(name, value.format(**values))
    monkeypatch.setattr(module, "pip_settings", PIP_SETTINGS)
    monkeypatch.setattr(module, "ATTEMPTS", 1)
    if setting.endswith("other.example"):
        with pytest.raises(SourcesUnavailable, match="SSLError"):
            fetch_sources(sources, tmp_path / "cache")
    else:
        assert fetch_sources(sources, tmp_path / "cache") == sorted((tmp_path / "cache").iterdir())


def serve_securely(index, folder: Path) -> None:
    """Switch to HTTPS, with a certificate that nobody knows."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl here to make a certificate")
    files = ("-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem"))
    name = ("-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1")
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *name, *files]
    subprocess.run(command, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    index.socket = context.wrap_socket(index.socket, server_side=True)


def test_only_plain_python_files_are_read_and_nothing_is_written(tmp_path):
    code = {"p-1/p/good.py": b"x = 1\n", "p-1/p/empty.py": b"", "p-1/setup.cfg": b"[x]", "loose.py": b"y = 1\n"}
    archive = tmp_path / "p-1.tar.gz"
    write_tar(archive, code | {"../p-1/up.py": b"z = 1\n"}, soft="/etc/passwd", hard="p-1/p/good.py")
    found = dict(iter_python_members(archive))
    assert found == {"p/good.py": b"x = 1\n", "p/empty.py": b"", "p-1/up.py": b"z = 1\n"}
    assert list(tmp_path.iterdir()) == [archive]


def test_the_manifest_pins_permissively_licensed_projects_for_both_splits():
    every, tiny = load_manifest(), load_manifest(tiny=True)
    assert {source.license for source in every} <= {"BSD-3-Clause", "BSD-2-Clause", "MIT", "Apache-2.0", "PSF-2.0"}
    names = [source.name for source in every]
    assert names == sorted(set(names))
    assert all(len(bytes.fromhex(source.sha256)) == 32 and source.size > 0 for source in every)
    assert tiny == tuple(source for source in every if source.tiny)
    for chosen, most in ((every, 150e6), (tiny, 16e6)):
        assert sum(source.size for source in chosen) < most
        assert {source.split for source in chosen} == {"train", "validation"}
