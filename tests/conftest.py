"""Settings of the tests that notebooks do not share."""

from pathlib import Path

import pytest
from hypothesis import settings

# Deadlines fail on a machine that does other work at the same time.
settings.register_profile("course", deadline=None, print_blob=True)
settings.load_profile("course")


@pytest.fixture(scope="session")
def repository() -> Path:
    """Return the root of the repository."""
    return Path(__file__).parents[1]
