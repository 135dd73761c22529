"""The proof that no test can reach the network: in this process, in its children, in Jupyter kernels.

192.0.2.1 is an address for documentation that no machine has.
"""

import asyncio
import concurrent.futures
import multiprocessing
import os
import socket
import subprocess
import sys
import threading

import nbformat
import pytest
from nbclient import NotebookClient

OUTSIDE = ("192.0.2.1", 9)
TRY = """
import socket
try:
    socket.create_connection(("192.0.2.1", 9), timeout=5)
except OSError as error:
    print(type(error).__name__, error)
"""


def try_outside(_=None) -> str:
    """Connect, and swallow the error, as many libraries do."""
    try:
        with socket.socket() as sock:
            sock.settimeout(5)
            sock.connect(OUTSIDE)
    except OSError as error:
        return type(error).__name__
    return "connected"


def with_name():
    with socket.socket() as sock:
        sock.settimeout(5)
        sock.connect(("packages.example", 80))


def with_datagram():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.sendto(b"hello", OUTSIDE)


def with_raw_socket():
    import _socket

    _socket.socket().connect(OUTSIDE)


def with_http():
    import requests

    requests.get("https://packages.example/index.json", timeout=5)


def with_asyncio():
    asyncio.run(asyncio.open_connection("192.0.2.1", 9))


def with_ipv6():
    with socket.socket(socket.AF_INET6) as sock:
        sock.settimeout(5)
        sock.connect(("2001:db8::1", 9))


WAYS = (with_name, with_datagram, with_raw_socket, with_http, with_asyncio, with_ipv6)


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_every_way_out_is_refused_and_written_down(way, network_violations):
    with pytest.raises(OSError, match="tests run without a network"):
        way()
    assert "socket." in network_violations()[0]


@pytest.mark.parametrize("look_up", [socket.gethostbyname, lambda name: socket.getaddrinfo(name, 80)])
def test_names_are_not_looked_up(look_up, network_violations):
    with pytest.raises(OSError, match="without a network"):
        look_up("packages.example")
    assert len(network_violations()) == 1


def test_connect_ex_returns_a_code(network_violations):
    with socket.socket() as sock:
        sock.settimeout(5)
        assert sock.connect_ex(OUTSIDE) != 0
    assert len(network_violations()) == 1


def test_loopback_works():
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=lambda: server.accept()[0].sendall(b"hello"))
        thread.start()
        with socket.create_connection(("localhost", server.getsockname()[1]), timeout=5) as client:
            assert client.recv(5) == b"hello"
        thread.join()


def test_subprocess_is_blocked(network_violations):
    done = subprocess.run([sys.executable, "-c", TRY], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("NetworkBlocked")
    assert len(network_violations()) == 1


@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_workers_are_blocked(method, network_violations):
    context = multiprocessing.get_context(method)
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        assert list(pool.map(try_outside, [0])) == ["NetworkBlocked"]
    assert len(network_violations()) == 1


def test_kernel_is_blocked(network_violations, tmp_path):
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(TRY)])
    NotebookClient(notebook, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert notebook.cells[0].outputs[0].text.startswith("NetworkBlocked")
    assert len(network_violations()) == 1


def test_a_second_sitecustomize_still_runs(tmp_path):
    (tmp_path / "sitecustomize.py").write_text("print('the other one')\n", encoding="utf-8")
    path = os.pathsep.join([os.environ["PYTHONPATH"], str(tmp_path)])
    done = subprocess.run(
        [sys.executable, "-c", TRY.replace("192.0.2.1", "127.0.0.1")],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("the other one")
    assert "NetworkBlocked" not in done.stdout


SWALLOWED = """
import socket
import subprocess
import sys

def test_quiet():
    try:
        socket.create_connection(("192.0.2.1", 9), timeout=5)
    except OSError:
        pass

def test_child():
    subprocess.run([sys.executable, "-c", "import socket; socket.socket().connect_ex(('192.0.2.1', 9))"])

def test_good():
    pass
"""


@pytest.mark.parametrize("options", [[], ["-n", "1"]], ids=["one process", "a worker"])
def test_swallowed_errors_fail_the_test(options, repository, tmp_path):
    (tmp_path / "tests" / "network_block").mkdir(parents=True)
    for name in ("conftest.py", "tests/network_block/loopback_only.py", "tests/network_block/sitecustomize.py"):
        (tmp_path / name).write_bytes((repository / name).read_bytes())
    (tmp_path / "test_swallowed.py").write_text(SWALLOWED, encoding="utf-8")
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(TRY)]), tmp_path / "quiet.ipynb")
    plugins = ["-p", "xdist", "-p", "nbmake.pytest_plugin", "--nbmake"]
    command = [sys.executable, "-m", "pytest", "-q", *plugins, "--rootdir", str(tmp_path), *options]
    without = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "PYTHONPATH"))}
    without["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    done = subprocess.run([*command, str(tmp_path)], cwd=tmp_path, env=without, capture_output=True, text=True)
    assert "3 failed, 1 passed" in done.stdout, done.stdout
    assert "the network was used" in done.stdout
