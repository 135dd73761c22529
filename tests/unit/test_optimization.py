"""Parameter groups by what a parameter is, not by what it is called (PITFALLS A14)."""

import copy

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification, LlamaConfig, LlamaForCausalLM

from course_utils.models.causal import build_causal_lm
from course_utils.models.gpt import GPTModel
from course_utils.profiles import get_profile
from course_utils.training.optimization import MuonWithAdamW, get_grouped_params, steps_per_pass

SMALL = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
BY_HAND = {"vocab_size": 50, "context_length": 8, "emb_dim": 16, "n_heads": 2, "n_layers": 2}
MODELS = {
    "GPT-2": lambda: build_causal_lm(get_profile("tiny", vocab_size=300)),
    "BERT": lambda: BertForSequenceClassification(BertConfig(**SMALL)),
    "Llama": lambda: LlamaForCausalLM(LlamaConfig(**SMALL)),
    "by hand": lambda: GPTModel(BY_HAND | {"drop_rate": 0.0, "qkv_bias": True}),  # norms called scale and shift
}


@pytest.mark.parametrize("name", MODELS)
def test_matrices_decay_and_nothing_else(name):
    model = MODELS[name]()
    frozen = next(p for p in model.parameters() if p.ndim == 1).requires_grad_(False)
    decaying, rest = get_grouped_params(model, 0.1)
    assert (decaying["weight_decay"], rest["weight_decay"]) == (0.1, 0.0)
    together = [*map(id, decaying["params"]), *map(id, rest["params"])]
    assert sorted(together) == sorted(id(p) for p in model.parameters() if p is not frozen)  # each once
    for name, parameter in model.named_parameters():
        never = parameter.ndim < 2 or any(word in name for word in ("wte", "wpe", "emb", "embeddings"))
        assert any(parameter is p for p in decaying["params"]) != never, name


def test_muon_with_adamw_is_both_and_continues_where_it_was_saved():
    def train(model, optimizers, steps):
        for step in steps:
            generator = torch.Generator().manual_seed(step)
            for parameter in model.parameters():
                parameter.grad = torch.randn(parameter.shape, generator=generator)
            for optimizer in optimizers:
                for group in optimizer.param_groups:
                    group["lr"] *= 0.9  # as schedules do
                optimizer.step()

    models = [MODELS["Llama"]() for _ in range(3)]
    for model in models[1:]:
        model.load_state_dict(models[0].state_dict())
    groups = [get_grouped_params(model, 0.1) for model in models]
    muon = torch.optim.Muon([groups[0][0]], lr=6e-3, adjust_lr_fn="match_rms_adamw")
    apart = [muon, torch.optim.AdamW([groups[0][1]], lr=3e-3, fused=True)]
    together, resumed = (MuonWithAdamW(*pair, 6e-3, 3e-3, fused=True) for pair in groups[1:])
    train(models[0], apart, range(6))
    train(models[1], [together], range(3))
    models[2].load_state_dict(models[1].state_dict())
    resumed.load_state_dict(copy.deepcopy(together.state_dict()))
    for model, optimizer in zip(models[1:], (together, resumed), strict=True):
        train(model, [optimizer], range(3, 6))
    for expected, *others in zip(*(model.parameters() for model in models), strict=True):
        assert all(torch.equal(expected, other) for other in others)


def test_a_pass_counts_its_last_incomplete_step():
    assert [steps_per_pass(rows, 4, 1, 2) for rows in (8, 9, 16, 17)] == [1, 2, 2, 3]
