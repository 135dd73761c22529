"""Run Python where only this machine can be reached: `python tools/offline.py -m pytest ...`.

On Linux the command, and every process that it starts, gets a network of its own with nothing but loopback. Where the
system does not allow that, a line says so, and the command runs with the network.
"""

import ctypes
import os
import socket
import struct
import subprocess
import sys
from pathlib import Path

_NEW_USER, _NEW_NETWORK = 0x10000000, 0x40000000  # CLONE_NEWUSER, CLONE_NEWNET
_SET_FLAGS, _UP = 0x8914, 1  # SIOCSIFFLAGS, IFF_UP


def leave_network() -> None:
    """Move this process into a new network and start loopback there."""
    import fcntl  # not on Windows

    user, group = os.getuid(), os.getgid()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_NEW_NETWORK if user == 0 else _NEW_USER | _NEW_NETWORK) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    if user != 0:  # stay the same user
        for name, text in {"setgroups": "deny", "uid_map": f"{user} {user} 1", "gid_map": f"{group} {group} 1"}.items():
            Path("/proc/self", name).write_text(text, encoding="ascii")
    with socket.socket() as any_socket:
        fcntl.ioctl(any_socket, _SET_FLAGS, struct.pack("16sh22x", b"lo", _UP))
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"  # torch.distributed would look for the machine's name


if __name__ == "__main__":
    try:
        leave_network()
    except (ImportError, AttributeError, OSError) as error:
        print(f"The tests run with a network, since this system does not take it away ({error}).", flush=True)
    sys.exit(subprocess.call([sys.executable, *sys.argv[1:]]))
