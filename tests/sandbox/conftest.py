"""What the tests of the sandbox share."""

import sys
import tempfile
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from course_utils.sandbox import levels


@pytest.fixture(autouse=True)
def own_temporary_folder(monkeypatch, tmp_path):
    """Give each test its own place for the children's folders, which must be gone afterwards."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    assert list(folder.iterdir()) == [], "a child's folder was not removed"


@pytest.fixture
def whatever_the_environment(monkeypatch):
    """Let the tests' own programs run at the weakest level, though a developer's shell may hold a token."""
    monkeypatch.setattr(levels, "secret_names", list)
