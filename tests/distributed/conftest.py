"""Small runs on the course's real data, for tests that start, kill and compare trainings."""

import pytest
from accelerate.state import AcceleratorState, GradientState, PartialState


@pytest.fixture(autouse=True)
def fresh_accelerate():
    """Accelerate keeps its state for the life of a process; tests use several precisions and devices in one."""
    _forget()
    yield
    _forget()


def _forget():
    AcceleratorState._reset_state(reset_partial_state=True)
    PartialState._reset_state()
    GradientState._reset_state()
