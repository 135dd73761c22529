"""The tests cannot reach the network, and say so; 192.0.2.1 is an address for documentation that no machine has."""

import socket
import subprocess
import sys

import pytest
import requests


@pytest.mark.parametrize(
    "way",
    [
        lambda: socket.socket().connect_ex(("192.0.2.1", 9)),
        lambda: socket.getaddrinfo("packages.example", 80),
        lambda: requests.get("https://packages.example/index.json", timeout=5),
    ],
)
def test_every_way_out_is_refused(way):
    with pytest.raises(OSError, match="tests run without a network"):
        way()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has networks of a process")
def test_a_command_gets_a_network_of_its_own(repository):
    code = """if True:
        import socket, subprocess, sys
        with socket.create_server(("127.0.0.1", 0)) as server:
            socket.create_connection(server.getsockname()).close()
        child = "import socket; sys.exit(socket.socket().connect_ex(('192.0.2.1', 9)))"
        print(subprocess.call([sys.executable, "-c", "import sys\\n" + child]))"""
    command = [sys.executable, "tools/offline.py", "-c", code]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True)
    assert done.stdout == "101\n" or done.stdout.startswith("The tests run with a network")
