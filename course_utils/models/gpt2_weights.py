"""Published weights of GPT-2 in the hand-written model, read by the library.

Only safetensors are read: a pickle (pytorch_model.bin) can run any program while it is opened.
"""

from pathlib import Path
from typing import Any

import torch
from transformers import GPT2Config, GPT2LMHeadModel

from course_utils.models.gpt import GPTModel, LayerNorm

_KEYS = {  # of the configurations, here and there
    "vocab_size": "vocab_size", "context_length": "n_positions", "emb_dim": "n_embd", "n_heads": "n_head",
    "n_layers": "n_layer", "drop_rate": "resid_pdrop", "tie_weights": "tie_word_embeddings",
    "scale_attn_by_inverse_layer_idx": "scale_attn_by_inverse_layer_idx",
}  # fmt: skip
_TANH = ("gelu_new", "gelu_pytorch_tanh", "gelu_python_tanh", "gelu_fast", "gelu_accurate")  # names of one function
# What the hand-written model can only have; other values would give other logits, and no shape would show it.
_FIXED = {
    "model_type": ("gpt2",), "activation_function": _TANH, "layer_norm_epsilon": (LayerNorm.eps,),
    "scale_attn_weights": (True,),
}  # fmt: skip
_NAMES = {  # parts of the weights' names, here and there
    "tok_emb": "transformer.wte", "pos_emb": "transformer.wpe", "trf_blocks": "transformer.h",
    "final_norm": "transformer.ln_f", "norm": "ln_", "scale": "weight", "shift": "bias", "out_head": "lm_head",
    "att.qkv": "attn.c_attn", "att.out_proj": "attn.c_proj", "ff.0": "mlp.c_fc", "ff.2": "mlp.c_proj",
}  # fmt: skip


def config_from_gpt2(location: str | Path) -> dict[str, Any]:
    """Return the configuration for `GPTModel` that fits a checkpoint (folder or Hub id); refuses all but GPT-2's."""
    values, _ = GPT2Config.get_config_dict(location)
    config = GPT2Config.from_dict(values)
    for name, allowed in _FIXED.items():
        if (found := values.get(name, getattr(config, name))) not in allowed:
            raise ValueError(f"{location} has {name} {found!r}; the hand-written model can only be {allowed}.")
    return {here: getattr(config, there) for here, there in _KEYS.items()} | {"qkv_bias": True}


def load_gpt2_weights(model: GPTModel, location: str | Path) -> None:
    """Copy the weights of a checkpoint (folder or Hub id) into `model`, in the model's number format.

    Raises `ValueError` for what would give other logits without an error.
    """
    for key, value in config_from_gpt2(location).items():
        if key in ("n_heads", "scale_attn_by_inverse_layer_idx") and model.cfg[key] != value:
            raise ValueError(f"{location} has {key} {value}, the model {model.cfg[key]}; see config_from_gpt2.")
    theirs, report = GPT2LMHeadModel.from_pretrained(location, use_safetensors=True, output_loading_info=True)
    if report["missing_keys"]:  # the library fills them with random numbers
        raise ValueError(f"{location} lacks weights, such as {min(report['missing_keys'])}; get it again.")
    weights = theirs.state_dict()
    if model.cfg["tie_weights"] and not torch.equal(weights["lm_head.weight"], weights["transformer.wte.weight"]):
        raise ValueError(f"{location} has an output layer of its own, not the token vectors; set tie_weights False.")
    ours = {_theirs(name): name for name in model.state_dict()}
    # The library's Conv1D stores (in, out) where Linear has (out, in).
    turned = {name: weight.t() if ".c_" in name else weight for name, weight in weights.items()}
    model.load_state_dict({ours.get(name, name): weight for name, weight in turned.items()})


def _theirs(name: str) -> str:
    for here, there in _NAMES.items():
        name = name.replace(here, there)
    return name
