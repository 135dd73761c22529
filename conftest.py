"""What holds for every test and every notebook that pytest runs: the tiny profile, and no network.

The environment is set before anything is imported, so that kernels and worker processes inherit it.
"""

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

_BLOCK = Path(__file__).parent / "tests" / "network_block"
sys.path.insert(0, str(_BLOCK))
import loopback_only  # noqa: E402

# Every pytest process has its own: xdist workers run different tests at the same time.
_SCRATCH = tempfile.TemporaryDirectory(prefix="course-tests-", ignore_cleanup_errors=True)
_LOG = Path(_SCRATCH.name) / "network.log"
_log_read = 0


def _set_environment() -> None:
    for name in list(os.environ):
        own = name.startswith("COURSE_") and name != "COURSE_HOME"
        proxy = name.upper() in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")  # one on this machine would be a way out
        if own or proxy or name in ("HF_TOKEN", "HF_ENDPOINT", "HUGGING_FACE_HUB_TOKEN"):
            del os.environ[name]
    children = [str(_BLOCK), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    os.environ |= {
        "COURSE_PROFILE": "tiny",
        "PYTHONPATH": os.pathsep.join(dict.fromkeys(children)),
        loopback_only.LOG: str(_LOG),
        "HF_HOME": str(Path(_SCRATCH.name) / "huggingface"),  # no token, no data of the user, no clash of two workers
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "MPLBACKEND": "Agg",
        "PIP_NO_INDEX": "1",
        "JUPYTER_PLATFORM_DIRS": "1",
    }


_set_environment()
loopback_only.install()


def _new_violations() -> list[str]:
    global _log_read
    if not _LOG.exists():
        return []
    lines = _LOG.read_text(encoding="utf-8").splitlines()
    new, _log_read = lines[_log_read:], len(lines)
    return new


def _fail_on_violations() -> None:
    violations = _new_violations()
    if violations:
        pytest.fail("the network was used, though perhaps nothing was raised:\n" + "\n".join(violations), pytrace=False)


@pytest.fixture
def network_violations() -> Callable[[], list[str]]:
    """Return the connections tried since the last call, which then do not fail the test."""
    return _new_violations


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Fail a test or a notebook that used the network."""
    result = yield
    _fail_on_violations()
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    """Fail a test whose fixtures, or processes that outlived it, used the network."""
    result = yield
    _fail_on_violations()
    return result


@pytest.hookimpl(wrapper=True)
def pytest_sessionfinish(session: pytest.Session) -> Iterator[None]:
    """Fail the session for what happened outside of any test."""
    result = yield
    violations = _new_violations()
    if violations:
        print("the network was used outside of any test:\n" + "\n".join(violations), file=sys.stderr)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
    return result
