"""The GPT by hand: its size, first weights and cache (PITFALLS D2); test_gpt2_weights compares its logits."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from course_utils.models.causal import count_parameters
from course_utils.models.gpt import GPT_CONFIG_124M, GPTModel, KVCache

TINY = {"vocab_size": 31, "context_length": 12, "emb_dim": 16, "n_heads": 4, "n_layers": 3, "drop_rate": 0.0,
        "qkv_bias": True}  # fmt: skip


def tiny(**changes):
    """A small model with weights large enough that every part of it matters."""
    torch.manual_seed(0)
    model = GPTModel(TINY | changes)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


def test_sizes_are_exact():
    tutorial = GPT_CONFIG_124M | {"tie_weights": False, "qkv_bias": False}
    with torch.device("meta"):
        assert count_parameters(GPTModel(GPT_CONFIG_124M)) == 124_439_808
        assert count_parameters(GPTModel(tutorial)) == 163_009_536
        assert count_parameters(GPTModel(tutorial | {"context_length": 256})) == 162_419_712  # as it is trained there


def test_initial_weights_are_gpt2s():
    torch.manual_seed(0)
    model = GPTModel(TINY | {"emb_dim": 128, "vocab_size": 500, "n_layers": 8})
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
def test_too_long_a_text_and_wrong_configurations_are_refused():
    model = tiny()
    with pytest.raises(ValueError, match=r"13 tokens do not fit: the context is 12\. Cut them, idx\[:, -12:\]"):
        model(torch.zeros(1, 13, dtype=torch.long))
    cache = KVCache(model.cfg, limit=8)
    model(torch.zeros(1, 7, dtype=torch.long), cache)
    with pytest.raises(ValueError, match="9 tokens do not fit: the context is 8"):
        model(torch.zeros(1, 2, dtype=torch.long), cache)
    with pytest.raises(ValueError, match="n_heads is 3; it must divide emb_dim, 16"):
        GPTModel(TINY | {"n_heads": 3})
    with pytest.raises(ValueError, match="lacks or does not know n_layers, tie_weigths"):
        GPTModel({key: value for key, value in TINY.items() if key != "n_layers"} | {"tie_weigths": False})
