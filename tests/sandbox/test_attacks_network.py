"""Hostile programs that want to reach other computers, or servers on this one."""

import socket
import threading
import time

import pytest
from attack import attack, under

pytestmark = pytest.mark.usefixtures("whatever_the_environment")


@under("network")
def test_no_network_is_reached(level, tmp_path):
    reached = []
    unix = str(tmp_path / "s")
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_UNIX) as local:
        local.bind(unix)
        for listener in (server, local):
            listener.listen()
            threading.Thread(target=accept, args=(listener, reached), daemon=True).start()
        program = """
            def attempt(argument):
                port, unix = argument
                def datagram(): socket.socket(type=socket.SOCK_DGRAM).sendto(b"x", ("127.0.0.1", port))
                def local(): socket.socket(socket.AF_UNIX).connect(unix)
                return went_through(
                    tcp=lambda: socket.create_connection(("127.0.0.1", port), 3), udp=datagram, unix=local,
                    listen=lambda: socket.create_server(("127.0.0.1", 0)),
                    pair=lambda: socket.socketpair(type=socket.SOCK_DGRAM),
                    elsewhere=lambda: socket.socketpair()[0].sendto(b"x", unix),
                    connected=lambda: socket.socketpair()[0].connect(unix),
                    files=lambda: socket.socketpair()[0].sendmsg([b"x"]),
                    ipv6=lambda: socket.socket(socket.AF_INET6), netlink=lambda: socket.socket(16, 3, 0),
                    name=lambda: socket.getaddrinfo("localhost", 80),
                )
        """
        result = attack(program, level, (server.getsockname()[1], unix))
        assert result.outcome in ("passed", "wrong answer"), result
        if result.outcome == "wrong answer":
            assert result.detail.endswith("gave ['name']"), result  # looked up in a file, not in the network
        assert reached == []
        with socket.create_connection(server.getsockname()):  # the listener does listen
            deadline = time.monotonic() + 5
            while not reached and time.monotonic() < deadline:
                time.sleep(0.01)
        assert len(reached) == 1


@under("network")
def test_asyncio_runs(level):
    program = """
        import asyncio
        async def twice(number):
            await asyncio.sleep(0.01)
            return await asyncio.to_thread(lambda: 2 * number)
        async def both():
            return await asyncio.gather(twice(1), twice(2))
        def attempt(_):
            return [] if asyncio.run(both()) == [2, 4] else 1
    """
    result = attack(program, level)
    assert result.outcome == "passed", result


def accept(listener, reached):
    while True:
        try:
            reached.append(listener.accept())
        except OSError:
            return


@under("network")
def test_a_swallowed_refusal_leaves_only_a_wrong_answer_and_a_raised_one_is_named(level):
    quiet = "def attempt(_):\n    try: socket.socket()\n    except OSError: return 1"
    assert attack(quiet, level).outcome == "wrong answer"
    assert attack("def attempt(_): socket.socket()", level).outcome == "forbidden"
    assert attack("def attempt(_): raise PermissionError('made up')", level).outcome == "exception"
    endless = "def attempt(_):\n    error = OSError()\n    error.__cause__ = error\n    raise error"
    assert attack(endless, level).outcome == "exception"
    handled = "def attempt(_):\n    try: socket.socket()\n    except OSError: raise ValueError from None"
    assert attack(handled, level).outcome == "exception"


@under("network")
@pytest.mark.parametrize(
    "call", ["urllib.request.urlopen", "requests.get", "http.client.HTTPConnection('[::1]').request"]
)
def test_a_refusal_that_a_library_wraps_is_named(level, call):
    address = "'GET', '/'" if "client" in call else "'http://127.0.0.1:9'"
    program = f"def attempt(_):\n    import http.client, requests, urllib.request\n    {call}({address})"
    assert attack(program, level).outcome == "forbidden"
