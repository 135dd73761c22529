"""Peak memory is measured: it follows what was allocated, and shows what accumulation and checkpointing save."""

import pytest
import torch

from course_utils.models.causal import build_causal_lm
from course_utils.profiles import get_profile
from course_utils.training.memory import peak_bytes

CPU = torch.device("cpu")


def test_the_peak_is_that_of_the_tensors_alive_at_once(capfd):
    def step():
        one = torch.zeros(1_000_000)
        two = torch.zeros(2_000_000)
        del one
        torch.zeros(500_000)
        del two

    assert peak_bytes(step, CPU) == pytest.approx(12_000_000, rel=0.01)
    assert capfd.readouterr().err == ""


def test_accumulation_and_checkpointing_save_memory():
    model = build_causal_lm(get_profile("tiny", vocab_size=300, model_layers=4))

    def step(rows):
        ids = torch.randint(300, (rows, 128))
        return lambda: model(ids, labels=ids).loss.backward()

    step(1)()  # gradients are there from now on
    large, small = peak_bytes(step(16), CPU), peak_bytes(step(4), CPU)
    assert 3 < large / small < 5
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable({"use_reentrant": False})
    model.config.use_cache = False
    model.train()
    assert peak_bytes(step(16), CPU) < 0.7 * large


def test_errors_of_the_step_come_through():
    with pytest.raises(ZeroDivisionError):
        peak_bytes(lambda: 1 / 0, CPU)
