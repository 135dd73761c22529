"""Peak memory is measured: that of the tensors alive at once, without noise in the notebook."""

import pytest
import torch

from course_utils.models.causal import build_causal_lm
from course_utils.profiles import get_profile
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


def test_accumulation_and_checkpointing_save_memory():
    model = build_causal_lm(get_profile("tiny", vocab_size=300, model_layers=4)).train()
    model.config.use_cache = False

    def peak(rows):
        ids = torch.randint(300, (rows, 128))
        return peak_bytes(lambda: model(ids, labels=ids).loss.backward(), torch.device("cpu"))

    peak(1)  # gradients are there from now on
    large = peak(16)
    assert 3 < large / peak(4) < 5
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable({"use_reentrant": False})
    assert peak(16) < 0.7 * large
