"""Fresh models from configurations: sizes as reported, contexts that are real."""

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from course_utils.models import causal
from course_utils.profiles import get_profile


@pytest.mark.parametrize(("shape", "millions"), causal.TUTORIAL_MODELS.values(), ids=list(causal.TUTORIAL_MODELS))
def test_the_tutorials_models_have_their_size(shape, millions):
    assert round(causal.count_from_config(causal.gpt2_config(*shape)) / 1e6, 1) == millions


def test_context_sets_the_position_table_where_n_ctx_does_not():
    ours = causal.gpt2_config(1000, 128, 2, 64, 2)
    assert ours.n_positions == 128
    theirs = GPT2Config(n_ctx=128)
    assert theirs.n_positions == 1024  # the tutorials' argument does nothing
    wasted = causal.count_from_config(theirs) - causal.count_from_config(GPT2Config(n_positions=128))
    assert wasted == (1024 - 128) * 768 == 688_128


@pytest.mark.parametrize("name", ["n_ctx", "scale_attn_by_layer_idx"])
def test_an_option_that_the_library_would_ignore_is_refused(name):
    assert not hasattr(GPT2Config(), name)
    with pytest.raises(ValueError, match=f"no option {name};"):
        causal.gpt2_config(1000, 128, 2, 64, 2, **{name: True})


def test_real_options_reach_the_configuration():
    options = {"scale_attn_by_inverse_layer_idx": True, "attn_implementation": "eager", "tie_word_embeddings": False}
    config = causal.gpt2_config(1000, 128, 2, 64, 2, **options)
    assert config.scale_attn_by_inverse_layer_idx
    assert config._attn_implementation == "eager"
    assert not config.tie_word_embeddings


def test_weights_depend_on_the_seed_alone():
    profile = get_profile("tiny")
    first = causal.build_causal_lm(profile)
    torch.rand(10)
    second = causal.build_causal_lm(profile)
    other = causal.build_causal_lm(get_profile("tiny", seed=2))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert not torch.equal(first.transformer.wte.weight, other.transformer.wte.weight)


def test_model_follows_the_tokenizer(code_tokenizer):
    model = causal.build_causal_lm(get_profile("tiny"), code_tokenizer)
    assert model.config.vocab_size == len(code_tokenizer)
    assert model.config.eos_token_id == code_tokenizer.eos_token_id
    assert model.config.pad_token_id == code_tokenizer.pad_token_id != model.config.eos_token_id


def test_tokenizer_without_eos_is_refused(code_tokenizer):
    code_tokenizer.eos_token = None
    with pytest.raises(ValueError, match="no end-of-text token"):
        causal.build_causal_lm(get_profile("tiny"), code_tokenizer)


def test_sequences_longer_than_the_context_are_refused():
    model = GPT2LMHeadModel(causal.gpt2_config(300, 16, 1, 8, 1))
    causal.check_context(model, 16)
    with pytest.raises(ValueError, match=r"17 tokens do not fit: the model's context is 16.*n_positions=17"):
        causal.check_context(model, 17)
