"""Peak memory is measured: that of the tensors alive at once, without noise in the notebook."""

import pytest
import torch

from course_utils.training.memory import peak_bytes


def test_the_peak_is_that_of_the_tensors_alive_at_once(capfd):
    def step():
        one = torch.zeros(1_000_000)
        two = torch.zeros(2_000_000)
        del one
        torch.zeros(500_000)
        del two

    assert peak_bytes(step, torch.device("cpu")) == pytest.approx(12_000_000, rel=0.01)
    assert capfd.readouterr().err == ""
