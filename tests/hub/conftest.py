"""A Hub on this machine for each test, at the address that HF_ENDPOINT named before the libraries were imported."""

import os
import threading
from types import SimpleNamespace
from urllib.parse import urlsplit

import datasets
import huggingface_hub
import pytest
from faults import WRITE, FaultyHub
from huggingface_hub import constants
from huggingface_hub.utils import _http


@pytest.fixture(scope="session")
def running_hub(tmp_path_factory):
    hub = FaultyHub(tmp_path_factory.mktemp("hub"), urlsplit(os.environ["HF_ENDPOINT"]).port)
    thread = threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    yield hub
    hub.shutdown()
    hub.server_close()


@pytest.fixture
def hub(running_hub, tmp_path, monkeypatch):
    """Return the Hub, empty, with this process online and logged in as ada, who may write."""
    running_hub.renew(tmp_path / "the-hub")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setenv("HF_TOKEN", WRITE)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "huggingface"))  # of child processes
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "huggingface" / "hub"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "huggingface" / "datasets")
    huggingface_hub.HfFileSystem.clear_instance_cache()
    yield running_hub
    huggingface_hub.close_session()


@pytest.fixture
def no_pauses(monkeypatch):
    """Let the library try again at once."""
    monkeypatch.setattr(_http, "time", SimpleNamespace(sleep=lambda seconds: None))
