"""Pinned source archives: a real index on this machine, real archives, and everything that can go wrong."""

import io
import os
import shutil
import ssl
import subprocess
import tarfile
import threading
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import certifi
import pytest

from course_utils.artifacts import REFERENCE_MODEL
from course_utils.data import sources as module
from course_utils.data.sources import Source, fetch_sources, iter_members, load_manifest

PIP_SETTINGS = module.pip_settings
TLS = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR", "PIP_CERT", "PIP_INDEX_URL")


class Handler(BaseHTTPRequestHandler):
    """Serves the server's `files`, also as a proxy; counts downloads, and plays the faults it was given."""

    def do_GET(self):
        path, fault = urlsplit(self.path).path, ""
        data = self.server.files.get(path)
        if path.startswith("/files/"):
            self.server.downloads += 1
            fault = self.server.faults.pop(0) if self.server.faults else ""
        if data is None or fault == "busy":
            return self.send_error(503 if fault else 404)
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[: len(data) // 2] if fault == "cut" else data)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def index(monkeypatch):
    """Serve a package index: `/simple/NAME/` lists the archives of a project."""
    for variable in TLS:
        monkeypatch.delenv(variable, raising=False)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.files, server.downloads, server.faults = {}, 0, []
    url = f"http://127.0.0.1:{server.server_port}/simple/"
    monkeypatch.setattr(module, "pip_settings", lambda: {"index-url": url})
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def sources(index):
    found = []
    for name in ("one", "two"):
        file, data = f"{name}-1.tar.gz", os.urandom(3000)
        index.files[f"/simple/{name}/"] = f'<!DOCTYPE html><a href="/files/{file}">{file}</a>'.encode()
        index.files[f"/files/{file}"] = data
        found.append(Source(name, "1", file, sha256(data).hexdigest(), len(data), "MIT", "train", tiny=True))
    return found


def complete(index, folder: Path) -> bool:
    """Return whether a folder holds the archives of the index and nothing else."""
    found = {f"/files/{path.name}": path.read_bytes() for path in folder.iterdir()}
    return found == {path: data for path, data in index.files.items() if path.startswith("/files/")}


def test_several_callers_download_each_archive_once_and_then_need_no_index(index, sources, tmp_path, monkeypatch):
    callers = [threading.Thread(target=fetch_sources, args=(sources, tmp_path / "cache")) for _ in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert index.downloads == 2
    assert complete(index, tmp_path / "cache")
    monkeypatch.setattr(module, "package_index", None)
    assert fetch_sources(sources[::-1], tmp_path / "cache") == sorted((tmp_path / "cache").iterdir())[::-1]


def test_damaged_archives_are_downloaded_again_and_damaged_downloads_refused(index, sources, tmp_path):
    path = fetch_sources(sources, tmp_path)[0]
    path.write_bytes(damaged := path.read_bytes()[::-1])
    (tmp_path / ".one-1.tar.gz.tmp-0").write_text("of a download that was killed", encoding="utf-8")
    fetch_sources(sources, tmp_path)
    assert complete(index, tmp_path)
    path.unlink()
    index.files["/files/one-1.tar.gz"] = damaged
    with pytest.raises(ValueError, match=rf"one-1.tar.gz does not have the SHA-256 {sources[0].sha256}"):
        fetch_sources(sources, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["two-1.tar.gz"]


@pytest.mark.parametrize("fault", ["busy", "cut"])
def test_a_connection_is_tried_three_times(index, sources, tmp_path, monkeypatch, fault):
    monkeypatch.setattr(module.time, "sleep", lambda seconds: None)
    index.faults += [fault] * 5
    with pytest.raises(ConnectionError):
        fetch_sources(sources, tmp_path)
    assert not list(tmp_path.iterdir())
    fetch_sources(sources, tmp_path)
    assert complete(index, tmp_path)
    assert index.downloads == 3 + 3 + 1


def test_what_cannot_be_downloaded_is_named_with_the_remedy(index, sources, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "ATTEMPTS", 1)
    nobody = {"index-url": "http://127.0.0.1:9/simple"}
    for settings, page in ((module.pip_settings(), None), (module.pip_settings(), b"<!DOCTYPE html>"), (nobody, b"")):
        monkeypatch.setattr(module, "pip_settings", lambda settings=settings: settings)
        index.files["/simple/two/"] = page
        with pytest.raises(ConnectionError, match=r"two-1.tar.gz cannot be downloaded .* set PIP_INDEX_URL"):
            fetch_sources(sources, tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == ["one-1.tar.gz"]


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
@pytest.mark.filterwarnings("ignore:Unverified HTTPS request")
def test_what_pip_is_told_holds_for_the_archives(index, sources, tmp_path, monkeypatch, scheme, setting, variables):
    if scheme == "https":
        serve_securely(index, tmp_path)
    host = f"127.0.0.1:{index.server_port}"
    cert, url = tmp_path / "cert.pem", f"{scheme}://{host}/simple/"
    values = {"url": url, "proxy": f"http://{host}", "host": host, "cert": cert}
    (tmp_path / "pip.conf").write_text(f"[global]\n{setting.format(**values)}\n", encoding="utf-8")
    for name, value in (variables | {"PIP_CONFIG_FILE": str(tmp_path / "pip.conf")}).items():
        monkeypatch.setenv(name, value.format(**values))
    monkeypatch.setattr(module, "pip_settings", PIP_SETTINGS)
    monkeypatch.setattr(module, "ATTEMPTS", 1)
    if setting.endswith("other.example"):
        with pytest.raises(ConnectionError, match="SSLError"):
            fetch_sources(sources, tmp_path / "cache")
    else:
        fetch_sources(sources, tmp_path / "cache")
        assert complete(index, tmp_path / "cache")


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


def test_only_plain_files_of_code_and_documentation_are_read(tmp_path):
    members = {"p-1/p/a.py": b"x = 1\n", "p-1/b.py": b"", "p-1/setup.cfg": b"[x]", "c.py": b"y", "../p-1/up.py": b"z"}
    members["p-1/doc/a.rst"] = b"a"
    with tarfile.open(tmp_path / "p-1.tar.gz", "w:gz") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
            link = tarfile.TarInfo("p-1/link.py")
            link.type, link.linkname = kind, "p-1/p/a.py"
            tar.addfile(link)
    found = dict(iter_members(tmp_path / "p-1.tar.gz"))
    assert found == {"p/a.py": b"x = 1\n", "b.py": b"", "p-1/up.py": b"z", "doc/a.rst": b"a"}
    assert dict(iter_members(tmp_path / "p-1.tar.gz", only_pages=True)) == {"doc/a.rst": b"a"}


def test_the_manifest_pins_permissively_licensed_projects_for_both_splits():
    every, tiny = load_manifest(), load_manifest(tiny=True)
    licenses = {name for source in every for name in source.license.split(" AND ")}
    assert licenses <= {
        "BSD-3-Clause",
        "BSD-2-Clause",
        "MIT",
        "Apache-2.0",
        "PSF-2.0",
        "NCSA",
        "Zlib",
        "0BSD",
        "CC0-1.0",
    }
    splits = {source.name: {other.split for other in every if other.name == source.name} for source in every}
    assert all(len(found) == 1 for found in splits.values())  # whole projects, whatever the release
    for chosen, most in ((every, 330e6), (tiny, 16e6)):
        assert sum(source.size for source in chosen) < most
        assert {source.split for source in chosen} == {"train", "validation"}


@pytest.mark.skipif(not REFERENCE_MODEL.is_dir(), reason="this copy has no reference model")
def test_the_reference_model_never_read_what_any_profile_holds_out():
    card = (REFERENCE_MODEL / "README.md").read_text(encoding="utf-8")
    assert [s.name for s in load_manifest() if s.split == "validation" and f"| {s.name} |" in card] == []
