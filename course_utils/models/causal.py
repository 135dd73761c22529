"""Causal language models of the library, made fresh from a configuration; the GPT by hand is the module gpt."""

import math
from typing import Any

import torch
from accelerate.utils import set_seed
from transformers import AutoModelForCausalLM, GPT2Config, PreTrainedModel, PreTrainedTokenizerBase, Qwen3Config

from course_utils.profiles import Profile

# The tutorials' models: (vocabulary, context, blocks, width, heads) and the millions of parameters they reported.
TUTORIAL_MODELS = {
    "gpt2, course tokenizer": ((50_000, 1024, 12, 768, 12), 124.2),
    "codeparrot-small (gpt2)": ((32_768, 1024, 12, 768, 12), 111.0),
    "codeparrot (gpt2-xl)": ((32_768, 1024, 48, 1600, 25), 1529.6),
}


def gpt2_config(
    vocab_size: int, context_length: int, layers: int, width: int, heads: int, dropout: float = 0.1, **options: Any
) -> GPT2Config:
    """Configure a GPT-2 of any size; `options` are token ids such as `eos_token_id`, and the library's own switches.

    Refuses unknown options: the library would keep and ignore them, such as the `n_ctx` of older tutorials.
    """
    known = GPT2Config()
    if unknown := [name for name in options if not (hasattr(known, name) or hasattr(known, f"_{name}"))]:
        raise ValueError(
            f"GPT2Config has no option {', '.join(unknown)}; the library would ignore it. Check the name: the context "
            "is context_length here, and scaling by block is scale_attn_by_inverse_layer_idx."
        )
    if options.get("reorder_and_upcast_attn"):
        options["attn_implementation"] = "eager"  # the others ignore it
    sizes = {"vocab_size": vocab_size, "n_positions": context_length, "n_layer": layers, "n_embd": width}
    dropouts = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), dropout)
    ids = {"bos_token_id": None, "eos_token_id": None}  # the library's own are those of GPT-2's tokenizer
    return GPT2Config(n_head=heads, **sizes, **dropouts, **(ids | options))


def qwen3_config(
    vocab_size: int, context_length: int, layers: int, width: int, heads: int, dropout: float = 0.0, **ids: Any
) -> Qwen3Config:
    """Configure a modern model: rotary positions, RMSNorm, SwiGLU, queries and keys normalised, embeddings tied.

    Its only dropout is that of the attention. Raises `ValueError` for heads of an uneven size.
    """
    if width % (2 * heads):
        raise ValueError(f"a width of {width} makes no {heads} heads of an even size, which rotary positions need.")
    inner = math.ceil(8 / 3 * width / 64) * 64  # SwiGLU has three matrices, GPT-2 two of 4 x width
    return Qwen3Config(
        vocab_size=vocab_size, max_position_embeddings=context_length, num_hidden_layers=layers, hidden_size=width,
        num_attention_heads=heads, num_key_value_heads=heads, head_dim=width // heads, attention_dropout=dropout,
        intermediate_size=inner, tie_word_embeddings=True, **ids,
    )  # fmt: skip


CONFIGURATIONS = {"gpt2": gpt2_config, "qwen3": qwen3_config}


def build_causal_lm(
    profile: Profile, tokenizer: PreTrainedTokenizerBase | None = None, dropout: float = 0.0,
    architecture: str = "gpt2", **options: Any,
) -> PreTrainedModel:  # fmt: skip
    """Make a model with fresh weights, sized by the profile and by the tokenizer if one is given.

    The weights depend on the profile's seed alone: the global random states are set to it. Dropout is off by default: a
    model that sees its data about once cannot learn it by heart.
    """
    vocab_size = profile.vocab_size
    if tokenizer is not None:
        vocab_size, end = len(tokenizer), tokenizer.eos_token_id
        options |= {"bos_token_id": end, "eos_token_id": end, "pad_token_id": tokenizer.pad_token_id}
    shape = (profile.context_length, profile.model_layers, profile.model_width, profile.model_heads)
    config = CONFIGURATIONS[architecture](vocab_size, *shape, dropout, **options)
    set_seed(profile.seed)
    return with_causal_loss(AutoModelForCausalLM.from_config(config))


def with_causal_loss(model: PreTrainedModel) -> PreTrainedModel:
    """Name the loss of a causal model: the library cannot tell it from the class name of GPT-2, and would warn."""
    model.loss_type = "ForCausalLM"
    return model


def count_parameters(model: torch.nn.Module) -> int:
    """Return the number of trainable values; shared ones count once."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def model_size(config: GPT2Config | Qwen3Config) -> int:
    """Return the number of parameters that a configuration makes, without memory for them (torch's meta device)."""
    with torch.device("meta"):
        return count_parameters(AutoModelForCausalLM.from_config(config))


def context_length(model: PreTrainedModel) -> int:
    """Return how many tokens the model can read at once; raises `ValueError` for a model without such a limit."""
    if length := getattr(model.config, "max_position_embeddings", None):
        return length
    raise ValueError(f"{type(model).__name__} has no fixed context (max_position_embeddings); choose another model.")


def check_vocabulary(largest_id: int, known: int) -> None:
    """Raise `ValueError` if a tokenizer made an id beyond the `known` tokens of the model."""
    if largest_id >= known:
        raise ValueError(
            f"the tokenizer made the id {largest_id}, but the model knows only {known} tokens; load its own tokenizer."
        )
