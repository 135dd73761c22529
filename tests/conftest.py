"""Settings of the tests that notebooks do not share."""

import copy
import os
import shutil
from pathlib import Path

import pytest
from accelerate.state import AcceleratorState, GradientState, PartialState
from hypothesis import settings

# Deadlines fail on a machine that does other work at the same time.
settings.register_profile("course", deadline=None, print_blob=True)
settings.load_profile("course")


@pytest.fixture(scope="session")
def repository() -> Path:
    return Path(__file__).parents[1]


@pytest.fixture(scope="session")
def session_tokenizer():
    """Return a code tokenizer trained on real files of installed packages; not to be changed by a test."""
    import matplotlib
    import sklearn

    from course_utils.data.tokenization import train_code_tokenizer

    roots = [Path(matplotlib.__file__).parent, Path(sklearn.__file__).parent / "linear_model"]
    files = sorted(path for root in roots for path in root.glob("*.py"))
    return train_code_tokenizer([[path.read_text(encoding="utf-8") for path in files]], vocab_size=2048)


@pytest.fixture
def code_tokenizer(session_tokenizer):
    """Return a copy of the code tokenizer that a test may change."""
    return copy.deepcopy(session_tokenizer)


@pytest.fixture
def fresh_accelerate():
    """Accelerate keeps its state for the life of a process; tests use several precisions and devices in one."""
    _forget()
    yield
    _forget()


def _forget():
    AcceleratorState._reset_state(reset_partial_state=True)
    PartialState._reset_state()
    GradientState._reset_state()


@pytest.fixture(scope="module")
def window(tmp_path_factory):
    """Return a window of Chromium without a screen, which logs what it asks the network for."""
    from selenium import webdriver

    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
    browser = next(filter(None, map(shutil.which, names)), None)
    path = os.pathsep.join([os.environ["PATH"], os.environ.get("CHROMEWEBDRIVER", "")])
    driver = shutil.which("chromedriver", path=path)
    if not (browser and driver):
        pytest.skip("no chromium; install it with its driver (Debian: chromium, chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    off = ("background-networking", "component-update", "sync", "gpu", "quic", "dev-shm-usage")
    flags = ("headless", "no-sandbox", "no-first-run", "window-size=1200,1300")
    for flag in (*flags, f"user-data-dir={tmp_path_factory.mktemp('browser')}", *(f"disable-{part}" for part in off)):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
    window = webdriver.Chrome(options, webdriver.ChromeService(driver))
    yield window
    window.quit()
