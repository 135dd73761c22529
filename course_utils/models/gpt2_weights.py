"""Weights of GPT-2 that others published, in and out of the hand-written model, through the library's own.

Only safetensors are read: a pickle (pytorch_model.bin) can run any program while it is opened.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

from course_utils.models.causal import gpt2_config
from course_utils.models.gpt import GPTModel, LayerNorm

_TANH = ("gelu_new", "gelu_pytorch_tanh", "gelu_python_tanh", "gelu_fast", "gelu_accurate")  # names of one function
# What the hand-written model can only have; other values would give other logits, and no shape would show it.
_FIXED = {"activation_function": _TANH, "layer_norm_epsilon": (LayerNorm.eps,), "scale_attn_weights": (True,)}
_NAMES = {  # parts of the names there and here
    "transformer.wte": "tok_emb",
    "transformer.wpe": "pos_emb",
    "transformer.h": "trf_blocks",
    "transformer.ln_f.weight": "final_norm.scale",
    "transformer.ln_f.bias": "final_norm.shift",
    "ln_1.weight": "norm1.scale",
    "ln_1.bias": "norm1.shift",
    "ln_2.weight": "norm2.scale",
    "ln_2.bias": "norm2.shift",
    "attn.c_attn": "att.qkv",
    "attn.c_proj": "att.out_proj",
    "mlp.c_fc": "ff.0",
    "mlp.c_proj": "ff.2",
    "lm_head": "out_head",
}


def config_from_gpt2(location: str | Path) -> dict[str, Any]:
    """Return the configuration for `GPTModel` that fits a GPT-2 checkpoint: a folder or a Hub id.

    Raises `ValueError` for models of another kind, or with parts that the hand-written model does not have.
    """
    values, _ = GPT2Config.get_config_dict(location)
    if values.get("model_type") != "gpt2":
        raise ValueError(f"{location} holds a model of type {values.get('model_type')!r}; only 'gpt2' can be read.")
    config = GPT2Config.from_dict(values)
    for name, allowed in _FIXED.items():
        if getattr(config, name) not in allowed:
            raise ValueError(f"{location} has {name} {getattr(config, name)!r}; it can only be one of {allowed}.")
    return {
        "vocab_size": config.vocab_size,
        "context_length": config.n_positions,
        "emb_dim": config.n_embd,
        "n_heads": config.n_head,
        "n_layers": config.n_layer,
        "drop_rate": config.resid_pdrop,
        "qkv_bias": True,
        "tie_weights": config.tie_word_embeddings,
        "scale_attn_by_inverse_layer_idx": config.scale_attn_by_inverse_layer_idx,
    }


def load_gpt2_weights(model: GPTModel, location: str | Path) -> None:
    """Copy the weights of a GPT-2 checkpoint, a folder or a Hub id, into `model`, in the model's number format.

    Raises `ValueError` for what would give other logits without an error: weights that are missing, other heads or
    scales, and an output layer of its own for a model with a tied one.
    """
    for key, value in config_from_gpt2(location).items():
        if key in ("n_heads", "scale_attn_by_inverse_layer_idx") and model.cfg[key] != value:
            raise ValueError(f"{location} has {key} {value}, the model {model.cfg[key]}; see config_from_gpt2.")
    theirs, report = GPT2LMHeadModel.from_pretrained(location, use_safetensors=True, output_loading_info=True)
    weights = theirs.state_dict()
    if report["missing_keys"]:  # the library fills them with random numbers
        raise ValueError(f"{location} lacks weights, such as {min(report['missing_keys'])}; get it again.")
    if model.cfg["tie_weights"] and not torch.equal(weights["lm_head.weight"], weights["transformer.wte.weight"]):
        raise ValueError(f"{location} has an output layer of its own, not the token vectors; set tie_weights False.")
    model.load_state_dict({_renamed(name): _turned(name, weight) for name, weight in weights.items()})


def save_gpt2(model: GPTModel, folder: str | Path) -> None:
    """Write the model as the library does; missing biases at queries, keys and values become zeros: the same logits."""
    cfg = model.cfg
    config = gpt2_config(
        *(cfg[key] for key in ("vocab_size", "context_length", "n_layers", "emb_dim", "n_heads", "drop_rate")),
        scale_attn_by_inverse_layer_idx=cfg["scale_attn_by_inverse_layer_idx"],
        tie_word_embeddings=cfg["tie_weights"],
    )
    weights = {name: _turned(name, part) for ours, part in model.state_dict().items() if (name := _renamed(ours, True))}
    if not cfg["qkv_bias"]:
        for i in range(cfg["n_layers"]):
            weights[f"transformer.h.{i}.attn.c_attn.bias"] = model.final_norm.shift.new_zeros(3 * cfg["emb_dim"])
    with torch.device("meta"):  # without memory or random numbers for weights that are replaced at once
        theirs = GPT2LMHeadModel(config)
    theirs.load_state_dict(weights, assign=True)
    theirs.tie_weights()
    theirs.save_pretrained(folder)


def _renamed(name: str, back: bool = False) -> str:
    for theirs, ours in _NAMES.items():
        name = name.replace(ours, theirs) if back else name.replace(theirs, ours)
    return name


def _turned(name: str, weight: Tensor) -> Tensor:
    """Transpose weights of the library's Conv1D, which are stored as (in, out), where Linear has (out, in)."""
    return weight.t().contiguous() if ".c_" in name else weight
