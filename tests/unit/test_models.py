"""Fresh models from configurations: sizes as reported, contexts that are real."""

import pytest
import torch
from transformers import GPT2Config

from course_utils.models import causal, encoder
from course_utils.profiles import get_profile


@pytest.mark.parametrize(("shape", "millions"), causal.TUTORIAL_MODELS.values(), ids=list(causal.TUTORIAL_MODELS))
def test_the_tutorials_models_have_their_size(shape, millions):
    assert round(causal.model_size(causal.gpt2_config(*shape)) / 1e6, 1) == millions


def test_context_sets_the_position_table_where_n_ctx_does_not():
    assert causal.gpt2_config(1000, 128, 2, 64, 2).n_positions == 128
    theirs = GPT2Config(n_ctx=128)
    assert theirs.n_positions == 1024  # the tutorials' argument does nothing
    wasted = causal.model_size(theirs) - causal.model_size(GPT2Config(n_positions=128))
    assert wasted == (1024 - 128) * 768 == 688_128


def test_no_option_is_silently_ignored():
    for name in ("n_ctx", "scale_attn_by_layer_idx"):
        with pytest.raises(ValueError, match=f"no option {name};"):
            causal.gpt2_config(1000, 128, 2, 64, 2, **{name: True})
    assert causal.gpt2_config(99, 8, 1, 8, 2, reorder_and_upcast_attn=True)._attn_implementation == "eager"


def test_weights_depend_on_the_seed_alone():
    first, second, other = (causal.build_causal_lm(get_profile("tiny", seed=seed)) for seed in (1, 1, 2))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert not torch.equal(first.transformer.wte.weight, other.transformer.wte.weight)


def test_model_follows_the_tokenizer(code_tokenizer):
    config = causal.build_causal_lm(get_profile("tiny"), code_tokenizer).config
    assert config.vocab_size == len(code_tokenizer)
    assert config.eos_token_id == code_tokenizer.eos_token_id
    assert config.pad_token_id == code_tokenizer.pad_token_id != config.eos_token_id


def test_a_modern_model_has_its_size_and_its_parts():
    config = causal.qwen3_config(8192, 256, 6, 256, 4)
    block = 4 * 256**2 + 3 * 256 * 704 + 2 * 256 + 2 * 64  # attention, SwiGLU, norms of the block and of the heads
    assert causal.model_size(config) == 8192 * 256 + 6 * block + 256 == 6_918_144
    model = causal.build_causal_lm(get_profile("tiny"), architecture="qwen3")
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert causal.context_length(model) == 128
    with pytest.raises(ValueError, match="a width of 66 makes no 2 heads of an even size"):
        causal.build_causal_lm(get_profile("tiny", model_width=66, model_heads=2), architecture="qwen3")


def test_an_encoder_with_other_weights_is_not_loaded(monkeypatch):
    monkeypatch.setattr(encoder, "WEIGHTS_SHA256", "0" * 64)
    with pytest.raises(ValueError, match=r"sha256 is 53aa51172d14\w+, expected 0000\w+. It is not loaded"):
        encoder.packaged_encoder()
