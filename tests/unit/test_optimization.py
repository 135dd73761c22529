"""Parameter groups by what a parameter is, not by what it is called (PITFALLS A14); gradients divided once."""

import pytest
import torch
from torch import nn
from transformers import BertConfig, BertForSequenceClassification, LlamaConfig, LlamaForCausalLM

from course_utils.models.causal import build_causal_lm
from course_utils.profiles import get_profile
from course_utils.training.optimization import get_grouped_params, scale_gradients, steps_per_pass, warmup_within


class ByHand(nn.Module):
    """A model as one writes it by hand: norms called scale and shift, a bare table of positions, an untied head."""

    def __init__(self):
        super().__init__()
        self.tok_emb = nn.Embedding(20, 8)
        self.pos_emb = nn.Parameter(torch.zeros(6, 8))
        self.scale, self.shift = nn.Parameter(torch.ones(8)), nn.Parameter(torch.zeros(8))
        self.query = nn.Linear(8, 8)
        self.out_head = nn.Linear(8, 20, bias=False)


def gpt2():
    return build_causal_lm(get_profile("tiny", vocab_size=300))


def bert():
    return BertForSequenceClassification(
        BertConfig(vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32)
    )


def llama():
    return LlamaForCausalLM(
        LlamaConfig(vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32)
    )


@pytest.mark.parametrize("build", [gpt2, bert, llama, ByHand])
def test_matrices_decay_and_nothing_else(build):
    model = build()
    decaying, rest = get_grouped_params(model, 0.1)
    assert (decaying["weight_decay"], rest["weight_decay"]) == (0.1, 0.0)
    together = [*decaying["params"], *rest["params"]]
    assert len(set(map(id, together))) == len(together) == len(list(model.parameters()))
    names = {id(p): name for name, p in model.named_parameters()}
    kept = {names[id(p)] for p in decaying["params"]}
    for name, parameter in model.named_parameters():
        never = parameter.ndim < 2 or any(word in name for word in ("wte", "wpe", "emb", "embeddings"))
        assert (name in kept) != never, name
    assert sum(p.numel() for p in decaying["params"]) > 0


def test_the_tutorials_names_match_no_norm_of_gpt2():
    names = [name for name, _ in gpt2().named_parameters()]
    norms = [name for name in names if ".ln_" in name and name.endswith("weight")]
    assert norms
    assert not [name for name in norms if "LayerNorm.weight" in name]


def test_frozen_parameters_are_left_out_and_a_frozen_model_is_refused():
    model = gpt2()
    model.transformer.h[0].requires_grad_(False)
    together = [p for group in get_grouped_params(model, 0.1) for p in group["params"]]
    assert all(p.requires_grad for p in together)
    with pytest.raises(ValueError, match="no trainable parameters"):
        get_grouped_params(model.requires_grad_(False), 0.1)
    with pytest.raises(ValueError, match="weight_decay is -1"):
        get_grouped_params(gpt2(), -1)


def test_gradients_are_scaled_in_place_and_missing_ones_left_alone():
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    model[0](torch.ones(1, 2)).sum().backward()
    before = model[0].weight.grad.clone()
    scale_gradients(model, torch.tensor(0.5))
    assert torch.equal(model[0].weight.grad, before / 2)
    assert model[1].weight.grad is None


@pytest.mark.parametrize("numbers", [(0,), (-4,), (4, 0), (4, 1, 0)])
def test_an_optimizer_step_without_rows_is_refused(numbers):
    assert steps_per_pass(9, 4, 1, 2) == 2
    with pytest.raises(ValueError, match="takes no rows; each number must be at least 1"):
        steps_per_pass(10, *numbers)


def test_warmup_takes_at_most_half_of_a_short_run():
    assert warmup_within(80, 1000) == 80
    assert warmup_within(80, 20) == 10
    assert warmup_within(80, 1) == 0
