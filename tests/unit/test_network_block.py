"""The tests cannot reach the network, and say so; this machine they can.

192.0.2.1 is an address for documentation that no machine has.
"""

import socket
import subprocess
import sys

import pytest
import requests


@pytest.mark.parametrize(
    "way",
    [
        lambda: socket.socket().connect(("192.0.2.1", 9)),
        lambda: socket.socket().connect_ex(("192.0.2.1", 9)),
        lambda: socket.getaddrinfo("packages.example", 80),
        lambda: requests.get("https://packages.example/index.json", timeout=5),
    ],
)
def test_every_way_out_is_refused(way):
    with pytest.raises(OSError, match="tests run without a network"):
        way()


def test_this_machine_is_reached():
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(("localhost", server.getsockname()[1]), timeout=5).close()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has networks of a process")
def test_a_command_gets_a_network_of_its_own(repository):
    code = """if True:
        import socket, subprocess, sys
        with socket.create_server(("127.0.0.1", 0)) as server:
            socket.create_connection(server.getsockname()).close()
        child = "import socket; sys.exit(socket.socket().connect_ex(('192.0.2.1', 9)))"
        print(subprocess.call([sys.executable, "-c", "import sys\\n" + child]))"""
    done = subprocess.run(
        [sys.executable, "tools/offline.py", "-c", code], cwd=repository, capture_output=True, text=True
    )
    assert done.stdout == "101\n" or done.stdout.startswith("The tests run with a network")
