"""Small runs on the course's real data, for tests that start, kill and compare trainings."""

import pytest


@pytest.fixture(autouse=True)
def alone(fresh_accelerate):
    """Every test here uses Accelerate."""
