"""Published weights: the library's logits from the hand-written model; no silent mismatch, no pickle."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import GPT2LMHeadModel

from course_utils.models.causal import gpt2_config
from course_utils.models.gpt import GPTModel
from course_utils.models.gpt2_weights import config_from_gpt2, load_gpt2_weights

SIZES = [(61, 16, 1, 8, 1), (97, 24, 3, 24, 4), (300, 48, 2, 64, 8)]  # vocabulary, context, blocks, width, heads


@torch.no_grad()
def randomise(model):
    """Large weights, so that every part matters to the logits; scales of norms around 1."""
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        is_scale = "scale" in name or ("ln_" in name and name.endswith("weight"))
        torch.nn.init.normal_(parameter, mean=float(is_scale), std=0.1)
    return model.eval()


def library_model(size=SIZES[1], **options):
    return randomise(GPT2LMHeadModel(gpt2_config(*size, **options)))


def loaded(location, **changes):
    model = GPTModel(config_from_gpt2(location) | changes).eval()
    load_gpt2_weights(model, location)
    return model


@torch.no_grad()
def assert_same_logits(ours, theirs):
    torch.manual_seed(0)
    ids = torch.randint(ours.cfg["vocab_size"], (3, ours.cfg["context_length"]))
    expected = theirs(ids).logits
    assert expected.std() > 0.2  # weights that matter
    torch.testing.assert_close(ours(ids), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("inverse", [True, False])
def test_logits_are_the_librarys(size, tied, inverse, tmp_path):
    theirs = library_model(size, tie_word_embeddings=tied, scale_attn_by_inverse_layer_idx=inverse)
    theirs.save_pretrained(tmp_path / "theirs")
    ours = loaded(tmp_path / "theirs")
    assert ours.cfg["tie_weights"] is tied
    assert_same_logits(ours, theirs)


def test_other_names_stored_masks_half_precision_and_an_untied_copy_are_read(tmp_path):
    theirs = library_model()
    theirs.transformer.save_pretrained(tmp_path / "bare")  # names without "transformer.", as GPT-2 was published
    masks = {f"h.{i}.attn.bias": torch.ones(1, 1, 24, 24) for i in range(3)}
    file = tmp_path / "bare" / "model.safetensors"
    save_file(load_file(file) | masks, file, {"format": "pt"})
    assert_same_logits(loaded(tmp_path / "bare"), theirs)
    assert_same_logits(loaded(tmp_path / "bare", tie_weights=False), theirs)
    theirs.bfloat16().save_pretrained(tmp_path / "half")
    assert_same_logits(loaded(tmp_path / "half"), theirs.float())


@pytest.mark.parametrize(
    ("config", "changes", "message"),
    [
        ({}, {"n_heads": 2}, "has n_heads 4, the model 2"),
        ({}, {"scale_attn_by_inverse_layer_idx": True}, "has scale_attn_by_inverse_layer_idx False, the model True"),
        ({"tie_word_embeddings": False}, {"tie_weights": True}, "output layer of its own"),
        ({"activation_function": "relu"}, {}, "activation_function 'relu'"),
        ({"layer_norm_epsilon": 1e-6}, {}, "layer_norm_epsilon 1e-06"),
        ({"scale_attn_weights": False}, {}, "scale_attn_weights False"),
    ],
)
def test_a_checkpoint_that_would_give_other_logits_is_refused(config, changes, message, tmp_path):
    library_model(**config).save_pretrained(tmp_path)
    with pytest.raises((ValueError, RuntimeError), match=message):
        loaded(tmp_path, **changes)


def test_missing_weights_are_not_filled_with_random_numbers_and_other_kinds_are_refused(tmp_path):
    library_model().save_pretrained(tmp_path)
    tensors = load_file(file := tmp_path / "model.safetensors")
    del tensors["transformer.h.1.mlp.c_fc.weight"]
    save_file(tensors, file, {"format": "pt"})
    with pytest.raises(ValueError, match=r"lacks weights, such as transformer\.h\.1\.mlp\.c_fc\.weight"):
        loaded(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    with pytest.raises(ValueError, match="has model_type 'llama'"):
        config_from_gpt2(tmp_path)


def test_a_pickle_is_never_opened(tmp_path):
    theirs = library_model()
    theirs.config.save_pretrained(tmp_path)
    torch.save(theirs.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(OSError, match="safetensors"):
        loaded(tmp_path)
