"""What holds for every test and every notebook that pytest runs: the tiny profile, no network, long ones first.

The environment is set before anything is imported, so that kernels and worker processes inherit it.
"""

import os
import socket
import sys
import tempfile
from pathlib import Path

import pytest

# Every pytest process has its own: xdist workers run different tests at the same time.
_SCRATCH = tempfile.TemporaryDirectory(prefix="course-tests-", ignore_cleanup_errors=True)
_THIS_MACHINE = (None, "", "localhost", "127.0.0.1", "::1", "0.0.0.0", "::", socket.gethostname())


def _free_port() -> int:
    with socket.socket() as any_socket:
        any_socket.bind(("127.0.0.1", 0))
        return any_socket.getsockname()[1]


def _set_environment() -> None:
    for name in list(os.environ):
        own = name.startswith("COURSE_") and name != "COURSE_HOME"
        proxy = name.upper() in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")  # one on this machine would be a way out
        if own or proxy or name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
            del os.environ[name]
    os.environ |= {
        "COURSE_PROFILE": "tiny",
        "HF_HOME": str(Path(_SCRATCH.name) / "huggingface"),  # no token, no data of the user, no clash of two workers
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_UPDATE_DOWNLOAD_COUNTS": "0",
        "HF_HUB_DISABLE_XET": "1",  # as long as tests use a Hub on this machine, which has none
        "HF_ENDPOINT": f"http://127.0.0.1:{_free_port()}",  # where tests/hub starts that Hub; nobody else listens there
        "MPLBACKEND": "Agg",
        "PIP_NO_INDEX": "1",
        "JUPYTER_PLATFORM_DIRS": "1",
    }


def _refuse_network(event: str, arguments: tuple) -> None:
    """Refuse connections and name look-ups beyond this machine: `tools/offline.py` can do it on Linux only."""
    if event == "socket.connect" and isinstance(arguments[1], tuple):
        host = arguments[1][0]
    elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
        host = arguments[0]
    else:
        return
    host = host.decode() if isinstance(host, bytes) else host
    if host not in _THIS_MACHINE and not host.startswith("127."):
        raise ConnectionRefusedError(f"{event} {host}: tests run without a network; fetch first what they need.")


_set_environment()
sys.addaudithook(_refuse_network)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the long ones first, so that no worker begins a notebook when the others are done."""
    ranks = {".ipynb": 0, "distributed": 1, "hub": 1, "demo": 2, "sandbox": 3}
    items.sort(key=lambda item: ranks.get(item.path.suffix, ranks.get(item.path.parent.name, 4)))
