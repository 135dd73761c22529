"""Published weights: the library's logits from the hand-written model, both ways; what does not fit is told."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import GPT2LMHeadModel, GPT2Model

from course_utils.models import gpt2_weights
from course_utils.models.causal import build_causal_lm, gpt2_config
from course_utils.models.decoding import generate_text
from course_utils.models.gpt import GPTModel
from course_utils.models.gpt2_weights import config_from_gpt2, load_gpt2_weights, save_gpt2
from course_utils.profiles import get_profile

SIZES = [(61, 16, 1, 8, 1), (97, 24, 3, 24, 4), (300, 48, 2, 64, 8)]  # vocabulary, context, blocks, width, heads


@torch.no_grad()
def randomise(model, std=0.1):
    """Large weights, so that every part matters to the logits; scales of norms around 1."""
    for name, parameter in model.named_parameters():
        is_scale = "scale" in name or ("ln_" in name and name.endswith("weight"))
        torch.nn.init.normal_(parameter, mean=float(is_scale), std=std)
    return model.eval()


def library_model(size=SIZES[1], **options):
    torch.manual_seed(0)
    return randomise(GPT2LMHeadModel(gpt2_config(*size, **options)))


def loaded(location):
    model = GPTModel(config_from_gpt2(location)).eval()
    load_gpt2_weights(model, location)
    return model


@torch.no_grad()
def assert_same_logits(ours, theirs):
    cfg = ours.cfg
    ids = torch.randint(cfg["vocab_size"], (3, cfg["context_length"]), generator=torch.Generator().manual_seed(0))
    expected = theirs(ids).logits
    assert expected.std() > 0.2  # weights that matter
    torch.testing.assert_close(ours(ids), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("inverse", [True, False])
def test_logits_are_the_librarys_in_both_directions(size, tied, inverse, tmp_path):
    theirs = library_model(size, tie_word_embeddings=tied, scale_attn_by_inverse_layer_idx=inverse)
    theirs.save_pretrained(tmp_path / "theirs")
    ours = loaded(tmp_path / "theirs")
    assert ours.cfg["tie_weights"] is tied
    assert_same_logits(ours, theirs)
    save_gpt2(ours, tmp_path / "ours")
    back = GPT2LMHeadModel.from_pretrained(tmp_path / "ours").eval()
    assert_same_logits(ours, back)
    names = sorted(path.name for path in (tmp_path / "ours").iterdir())
    assert names == ["config.json", "model.safetensors"]
    assert config_from_gpt2(tmp_path / "ours") == ours.cfg


def test_a_model_without_qkv_bias_is_written_with_zeros(tmp_path):
    torch.manual_seed(0)
    ours = randomise(GPTModel(config_of(qkv_bias=False)))
    save_gpt2(ours, tmp_path)
    save_gpt2(ours, tmp_path)  # over itself
    assert_same_logits(ours, GPT2LMHeadModel.from_pretrained(tmp_path).eval())


def config_of(**changes):
    names = ("vocab_size", "context_length", "n_layers", "emb_dim", "n_heads")
    return dict(zip(names, SIZES[1], strict=True)) | {"drop_rate": 0.1, "qkv_bias": True} | changes


def test_shards_other_names_stored_masks_and_half_precision_are_read(tmp_path):
    theirs = library_model()
    theirs.save_pretrained(tmp_path / "shards", max_shard_size="20KB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 1
    assert_same_logits(loaded(tmp_path / "shards"), theirs)

    bare = GPT2Model(theirs.config)
    bare.load_state_dict(theirs.transformer.state_dict())
    bare.save_pretrained(tmp_path / "bare")  # names without "transformer."
    tensors = load_file(tmp_path / "bare" / "model.safetensors")
    assert "wte.weight" in tensors
    for i in range(3):  # as in the files that were published with GPT-2
        tensors |= {f"h.{i}.attn.bias": torch.ones(1, 1, 24, 24), f"h.{i}.attn.masked_bias": torch.tensor(-1e4)}
    save_file(tensors, tmp_path / "bare" / "model.safetensors", {"format": "pt"})
    assert_same_logits(loaded(tmp_path / "bare"), theirs)

    theirs.bfloat16().save_pretrained(tmp_path / "half")
    ours = loaded(tmp_path / "half")
    assert next(ours.parameters()).dtype == torch.float32
    assert_same_logits(ours, theirs.float())


def test_a_tied_checkpoint_fills_an_untied_model(tmp_path):
    theirs = library_model()
    theirs.save_pretrained(tmp_path)
    ours = GPTModel(config_from_gpt2(tmp_path) | {"tie_weights": False}).eval()
    load_gpt2_weights(ours, tmp_path)
    assert_same_logits(ours, theirs)


@pytest.mark.parametrize(
    ("changes", "messages"),
    [
        ({"vocab_size": 98}, [r"wte.weight: shape \(97, 24\), expected \(98, 24\); change vocab_size"]),
        ({"context_length": 12}, [r"wpe.weight: shape \(24, 24\), expected \(12, 24\); change context_length"]),
        ({"emb_dim": 48}, [r"wte.weight: .*change emb_dim", r"h.0.ln_1.bias: .*change emb_dim"]),
        ({"n_layers": 2}, [r"left over: h.2.attn.c_attn.bias[^;]*; change n_layers \([^)]*\)$"]),
        ({"n_layers": 4}, [r"missing: h.3.attn.c_attn.bias[^;]*; change n_layers \([^)]*\)$"]),
        ({"qkv_bias": False}, [r"left over: h.0.attn.c_attn.bias[^;]*; change qkv_bias \([^)]*\)$"]),
        ({"n_heads": 2}, ["the checkpoint has n_heads 4, the model 2; change n_heads"]),
        ({"scale_attn_by_inverse_layer_idx": True}, ["the checkpoint has scale_attn_by_inverse_layer_idx False"]),
        ({"n_layers": 2, "vocab_size": 98}, ["left over", "wte.weight"]),
        ({"n_layers": 2, "qkv_bias": False}, ["change n_layers", "change qkv_bias"]),
    ],
)
def test_what_does_not_fit_is_told_and_nothing_is_changed(changes, messages, tmp_path):
    library_model().save_pretrained(tmp_path)
    model = GPTModel(config_of(**changes))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for message in messages:
        with pytest.raises(ValueError, match=message):
            load_gpt2_weights(model, tmp_path)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_an_untied_checkpoint_does_not_fit_a_tied_model(tmp_path):
    library_model(tie_word_embeddings=False).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="the checkpoint has tie_weights False, the model True; change tie_weights"):
        load_gpt2_weights(GPTModel(config_of()), tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"activation_function": "relu"},
            "activation_function is 'relu'; .*'gelu_new' or .*Take another",
        ),
        ({"n_inner": 50}, "n_inner is 50; .*None or 96"),
        ({"layer_norm_epsilon": 1e-6}, "layer_norm_epsilon is 1e-06"),
        ({"scale_attn_weights": False}, "scale_attn_weights is False"),
        ({"add_cross_attention": True}, "add_cross_attention is True"),
        ({"attn_pdrop": 0.3}, "'attn_pdrop': 0.3}, the hand-written model one drop_rate; make them equal"),
        ({"model_type": "llama"}, "holds a model of type 'llama'"),
    ],
)
def test_checkpoints_of_other_models_are_refused(changes, message, tmp_path):
    gpt2_config(*SIZES[1]).save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(ValueError, match=message):
        config_from_gpt2(tmp_path)


@pytest.mark.parametrize("text", ["{", "[1]", "\udcff"])
def test_a_damaged_configuration_is_refused(text, tmp_path):
    (tmp_path / "config.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ValueError, match=r"config\.json is damaged \(.*\); get it again"):
        config_from_gpt2(tmp_path)


def test_dropout_does_not_matter_to_the_weights(tmp_path):
    theirs = library_model()
    theirs.config.attn_pdrop = 0.3
    theirs.save_pretrained(tmp_path)
    ours = GPTModel(config_of()).eval()
    load_gpt2_weights(ours, tmp_path)
    assert_same_logits(ours, theirs)


def change_tensors(folder, change):
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def test_an_output_layer_that_differs_from_the_table_is_not_dropped(tmp_path):
    library_model().save_pretrained(tmp_path)
    change_tensors(tmp_path, lambda tensors: tensors.update({"lm_head.weight": torch.randn(97, 24)}))
    with pytest.raises(ValueError, match=r"has an output layer of its own.*; set tie_weights False"):
        loaded(tmp_path)
    ours = GPTModel(config_from_gpt2(tmp_path) | {"tie_weights": False}).eval()
    load_gpt2_weights(ours, tmp_path)
    assert_same_logits(ours, GPT2LMHeadModel.from_pretrained(tmp_path).eval())


def test_a_missing_output_layer_of_an_untied_checkpoint_is_told(tmp_path):
    GPT2Model(gpt2_config(*SIZES[1], tie_word_embeddings=False)).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"missing: lm_head\.weight"):
        loaded(tmp_path)


def test_two_tensors_of_one_name_are_refused(tmp_path):
    library_model().save_pretrained(tmp_path)
    change_tensors(tmp_path, lambda tensors: tensors.update({"wte.weight": torch.zeros(97, 24)}))
    with pytest.raises(ValueError, match=r"holds wte\.weight twice, as "):
        loaded(tmp_path)


def test_numbers_that_need_a_scale_are_refused(tmp_path):
    library_model().save_pretrained(tmp_path)
    name = "transformer.h.1.mlp.c_fc.weight"
    change_tensors(tmp_path, lambda tensors: tensors.update({name: tensors[name].to(torch.int8)}))
    with pytest.raises(ValueError, match=r"another kind than .*: h\.1\.mlp\.c_fc\.weight: I8$"):
        loaded(tmp_path)


def test_a_model_without_memory_is_refused(tmp_path):
    library_model().save_pretrained(tmp_path)
    with torch.device("meta"):
        model = GPTModel(config_of())
    with pytest.raises(ValueError, match="has no memory for weights"):
        load_gpt2_weights(model, tmp_path)


def test_the_library_stops_where_it_is_told(tmp_path):
    save_gpt2(GPTModel(config_of()), tmp_path, eos_token_id=5)
    assert GPT2LMHeadModel.from_pretrained(tmp_path).generation_config.eos_token_id == 5


def test_a_damaged_file_is_refused(tmp_path):
    save_gpt2(GPTModel(config_of()), tmp_path)
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ValueError, match=r"is no safetensors file, or damaged .*; get it again"):
        load_gpt2_weights(GPTModel(config_of()), tmp_path)


def test_pickles_and_incomplete_folders_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"has no config.json"):
        config_from_gpt2(tmp_path)
    theirs = library_model()
    theirs.config.save_pretrained(tmp_path)
    model = GPTModel(config_of())
    with pytest.raises(ValueError, match=r"lacks model.safetensors; is the download complete"):
        load_gpt2_weights(model, tmp_path)
    torch.save(theirs.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"pickle only, which can run any program .*save_pretrained"):
        load_gpt2_weights(model, tmp_path)
    theirs.save_pretrained(tmp_path / "shards", max_shard_size="20KB")
    next((tmp_path / "shards").glob("*-of-*.safetensors")).unlink()
    with pytest.raises(ValueError, match=r"lacks model-0000\d-of-"):
        load_gpt2_weights(model, tmp_path / "shards")


def test_what_is_no_folder_is_asked_from_the_hub_without_pickles(tmp_path, monkeypatch):
    """Without network the library refuses; a folder in the Hub's cache is found."""
    with pytest.raises(ConnectionError, match="is no folder here, and the Hub does not give it"):
        config_from_gpt2("openai-community/gpt2")
    library_model().save_pretrained(tmp_path)
    asked = {}
    monkeypatch.setattr(gpt2_weights, "snapshot_download", lambda name, **options: asked.update(options) or tmp_path)
    assert loaded("someone/gpt2").cfg["vocab_size"] == 97
    assert not [pattern for pattern in asked["allow_patterns"] if not pattern.endswith((".json", ".safetensors"))]


@torch.no_grad()
def test_the_courses_own_model_completes_the_same_text(code_tokenizer, tmp_path):
    library = build_causal_lm(get_profile("tiny"), code_tokenizer, scale_attn_by_inverse_layer_idx=True).eval()
    for parameter in library.parameters():
        parameter.mul_(3)
    library.save_pretrained(tmp_path)
    ours = loaded(tmp_path)
    assert_same_logits(ours, library)
    ids = torch.tensor([code_tokenizer.encode("import numpy as np\n\nx = ")])
    theirs = library.generate(ids, max_new_tokens=20, do_sample=False, num_beams=1, eos_token_id=None)
    assert torch.equal(generate_text(ours, ids, 20, 128), theirs)
