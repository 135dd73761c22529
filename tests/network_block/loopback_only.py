"""Refuse every socket beyond this machine, and write down that it was tried.

Python reports each connection and each name look-up to audit hooks, also those of libraries that imported a function
of `socket` long before. A hook cannot be taken out again, and forked processes keep it. The log counts what a library
tried and then silently gave up.
"""

import errno
import ipaddress
import os
import socket
import sys
from typing import Any

LOG = "NETWORK_BLOCK_LOG"
# event -> position of the address or the host in its arguments
_EVENTS = {
    "socket.connect": 1,
    "socket.sendto": 1,
    "socket.sendmsg": 1,
    "socket.getaddrinfo": 0,
    "socket.gethostbyname": 0,
    "socket.gethostbyaddr": 0,
    "socket.getnameinfo": 0,
}
_installed = False


class NetworkBlocked(ConnectionRefusedError):
    """The tests never leave this machine."""


def install() -> None:
    """Block the network in this process and in those that it forks, for good."""
    global _installed
    if not _installed:
        _installed = True
        sys.addaudithook(_hook)
        for name in ("connect", "connect_ex", "sendto"):
            _look_before(name)


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    position = _EVENTS.get(event)
    if position is not None:
        _refuse_unless_local(event, arguments[position])


def _look_before(name: str) -> None:
    """Check a method's address first: the event comes only after a host's name was looked up."""
    original = getattr(socket.socket, name)

    def checked(self: socket.socket, *arguments: Any) -> Any:
        try:
            _refuse_unless_local(f"socket.{name}", arguments[-1])
        except NetworkBlocked as error:
            if name == "connect_ex":
                return error.errno
            raise
        return original(self, *arguments)

    setattr(socket.socket, name, checked)


def _refuse_unless_local(event: str, address: Any) -> None:
    if event.startswith(("socket.connect", "socket.send")) and not isinstance(address, tuple):
        return  # no address at all, or a file of this machine (a Unix socket)
    host = address[0] if isinstance(address, tuple) and address else address
    if isinstance(host, bytes):
        host = host.decode("ascii", "replace")
    if not isinstance(host, str) or _is_local(host):
        return
    with open(os.environ[LOG], "a", encoding="utf-8") as log:  # noqa: PTH123 - as little as possible in a hook
        log.write(f"{event} to {address!r} by process {os.getpid()} ({' '.join(sys.argv)[:200]})\n")
    raise NetworkBlocked(
        errno.ECONNREFUSED,
        f"{event} to {address!r}: tests run without a network. Fetch what they need before they start, "
        "with `python -m course_utils fetch`",
    )


def _is_local(host: str) -> bool:
    if host.lower() in ("", "localhost", "localhost.localdomain", "ip6-localhost", socket.gethostname().lower()):
        return True
    try:
        ip = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    ip = getattr(ip, "ipv4_mapped", None) or ip
    return ip.is_loopback or ip.is_unspecified
