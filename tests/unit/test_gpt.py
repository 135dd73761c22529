"""The GPT by hand: its size, first weights and cache (PITFALLS D2); test_gpt2_weights compares its logits."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from course_utils.models.causal import count_parameters
from course_utils.models.gpt import GELU, GPT_CONFIG_124M, GPTModel, KVCache

TINY = {"vocab_size": 31, "context_length": 12, "emb_dim": 16, "n_heads": 4, "n_layers": 3, "drop_rate": 0.0,
        "qkv_bias": True}  # fmt: skip


def tiny(seed=0, **changes):
    """A small model with weights large enough that every part of it matters."""
    torch.manual_seed(seed)
    model = GPTModel(TINY | changes)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


@pytest.mark.parametrize(
    ("changes", "parameters"),
    [
        ({}, 124_439_808),  # GPT-2 small
        ({"qkv_bias": False}, 124_412_160),
        ({"tie_weights": False}, 163_037_184),
        ({"tie_weights": False, "qkv_bias": False}, 163_009_536),  # the tutorial's model
        ({"tie_weights": False, "qkv_bias": False, "context_length": 256}, 162_419_712),  # as the tutorial trains it
    ],
)
def test_sizes_are_exact(changes, parameters):
    with torch.device("meta"):
        assert count_parameters(GPTModel(GPT_CONFIG_124M | changes)) == parameters


def test_a_tied_head_is_one_tensor_by_default():
    tied, untied = tiny(), tiny(tie_weights=False)
    assert tied.out_head.weight is tied.tok_emb.weight
    assert count_parameters(untied) - count_parameters(tied) == 31 * 16


def test_gelu_is_the_formula_with_tanh():
    x = torch.linspace(-6, 6, 2001)
    formula = 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    torch.testing.assert_close(GELU()(x), formula, rtol=1e-5, atol=1e-6)  # the exact one differs by up to 0.0005


def test_no_token_sees_a_later_one():
    model = tiny()
    ids = torch.randint(31, (2, 10))
    changed = ids.clone()
    changed[:, 6:] = (changed[:, 6:] + 1) % 31
    before, after = model(ids), model(changed)
    torch.testing.assert_close(before[:, :6], after[:, :6])
    assert not torch.isclose(before[:, 6:], after[:, 6:]).all(-1).any()


def test_initial_weights_are_gpt2s():
    torch.manual_seed(0)
    model = GPTModel(TINY | {"emb_dim": 128, "vocab_size": 500, "n_layers": 8})
    ids = torch.randint(500, (4, 12))
    loss = torch.nn.functional.cross_entropy(model(ids).flatten(0, 1), torch.randint(500, (48,)))
    assert loss.item() == pytest.approx(math.log(500), abs=0.1)  # every token about equally likely
    for name, parameter in model.named_parameters():
        if name.endswith(("out_proj.weight", "ff.2.weight")):
            assert parameter.std().item() == pytest.approx(0.02 / math.sqrt(2 * 8), rel=0.05)
        elif parameter.ndim > 1:
            assert parameter.std().item() == pytest.approx(0.02, rel=0.05)
        else:
            assert torch.equal(parameter, torch.full_like(parameter, float(name.endswith("scale"))))


@pytest.mark.parametrize("part", ["attention", "embedding", "branches"])
def test_dropout_reaches_every_part_and_works_in_training_only(part):
    model, ids = tiny(drop_rate=0.5), torch.randint(31, (2, 8))
    model.drop_emb.p *= part == "embedding"
    for block in model.trf_blocks:
        block.att.drop_rate *= part == "attention"
        block.drop_shortcut.p *= part == "branches"
    assert torch.equal(model(ids), model(ids))
    model.train()
    assert not torch.equal(model(ids), model(ids))


@settings(max_examples=15)
@given(st.lists(st.integers(1, 5), min_size=1, max_size=6), st.booleans())
def test_cache_gives_the_same_logits_however_the_text_is_cut(parts, inverse):
    model = tiny(context_length=30, scale_attn_by_inverse_layer_idx=inverse)
    ids = torch.randint(31, (3, sum(parts)))
    cache = KVCache(model.cfg)
    with torch.no_grad():
        pieces = torch.cat([model(piece, cache) for piece in ids.split(parts, dim=1)], dim=1)
        torch.testing.assert_close(pieces, model(ids), rtol=1e-4, atol=1e-5)
    assert cache.length == sum(parts)


@torch.no_grad()
def test_cache_rows_can_be_dropped_and_repeated():
    model, ids, rows = tiny(), torch.randint(31, (3, 6)), torch.tensor([2, 0, 0, 2])
    cache = KVCache(model.cfg)
    model(ids, cache)
    cache.reorder(rows)
    new = torch.randint(31, (4, 2))
    torch.testing.assert_close(model(new, cache), model(torch.cat([ids[rows], new], 1))[:, -2:], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_too_long_a_text_is_refused_with_and_without_cache():
    model = tiny()
    with pytest.raises(ValueError, match=r"13 tokens do not fit: the context is 12\. Cut them, idx\[:, -12:\]"):
        model(torch.zeros(1, 13, dtype=torch.long))
    cache = KVCache(model.cfg, limit=8)
    model(torch.zeros(1, 7, dtype=torch.long), cache)
    with pytest.raises(ValueError, match="9 tokens do not fit: the context is 8"):
        model(torch.zeros(1, 2, dtype=torch.long), cache)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_heads": 3}, "n_heads is 3; it must divide emb_dim, 16"),
        ({"tie_weigths": False}, "does not know tie_weigths"),
    ],
)
def test_wrong_configurations_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        GPTModel(TINY | changes)
    with pytest.raises(ValueError, match="lacks or does not know n_layers"):
        GPTModel({key: value for key, value in TINY.items() if key != "n_layers"})


def test_gradients_reach_every_parameter():
    model = tiny(tie_weights=False).train()
    model(torch.randint(31, (2, 12))).square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())
