"""Causal language models of the library, made fresh from a configuration; weights by hand are another module."""

from typing import Any

import torch
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedModel, PreTrainedTokenizerBase, set_seed

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
    """Configure a GPT-2 of any size; `options` are token ids such as `eos_token_id` (the library's are GPT-2's own),
    and switches of the library's configuration.

    The context goes into `n_positions`: `n_ctx`, which older tutorials set, is ignored by the library. So is
    `reorder_and_upcast_attn`, except in its eager attention, which is therefore chosen with it. Raises `ValueError`
    for options that the configuration does not have, which the library would keep and ignore.
    """
    known = GPT2Config()
    unknown = [name for name in options if not (hasattr(known, name) or hasattr(known, f"_{name}"))]
    if unknown:
        raise ValueError(
            f"GPT2Config has no option {', '.join(unknown)}; the library would ignore it. Check the name: the context "
            "is context_length here, and scaling by block is scale_attn_by_inverse_layer_idx."
        )
    if options.get("reorder_and_upcast_attn"):
        options["attn_implementation"] = "eager"
    return GPT2Config(
        vocab_size=vocab_size,
        n_positions=context_length,
        n_layer=layers,
        n_embd=width,
        n_head=heads,
        resid_pdrop=dropout,
        embd_pdrop=dropout,
        attn_pdrop=dropout,
        **({"bos_token_id": None, "eos_token_id": None} | options),
    )


def build_causal_lm(
    profile: Profile, tokenizer: PreTrainedTokenizerBase | None = None, dropout: float = 0.0, **options: Any
) -> GPT2LMHeadModel:
    """Make a GPT-2 with fresh weights, sized by the profile and by the tokenizer if one is given.

    `options` are switches of the library's configuration.

    Weights depend on the profile's seed alone: the global random states are set to it. Dropout is off by default: a
    model that sees its data about once cannot learn it by heart. Raises `ValueError` if the tokenizer cannot feed the
    model, and for unknown options.
    """
    special = {}
    if tokenizer is not None:
        if tokenizer.eos_token_id is None:
            raise ValueError("the tokenizer has no end-of-text token (eos_token); set one before building a model.")
        special = {
            "bos_token_id": tokenizer.eos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        }
    vocab_size = len(tokenizer) if tokenizer is not None else profile.vocab_size
    config = gpt2_config(
        vocab_size,
        profile.context_length,
        profile.model_layers,
        profile.model_width,
        profile.model_heads,
        dropout,
        **special,
        **options,
    )
    set_seed(profile.seed)
    return with_causal_loss(GPT2LMHeadModel(config))


def with_causal_loss(model: PreTrainedModel) -> PreTrainedModel:
    """Name the loss of a causal model: the library cannot tell it from the class name of GPT-2, and would warn."""
    model.loss_type = "ForCausalLM"
    return model


def count_parameters(model: torch.nn.Module) -> int:
    """Number of trainable values, shared ones counted once."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def count_from_config(config: GPT2Config) -> int:
    """Number of parameters a configuration would make, without memory for them (torch's meta device)."""
    with torch.device("meta"):
        return count_parameters(GPT2LMHeadModel(config))


def check_context(model: torch.nn.Module, length: int) -> None:
    """Raise `ValueError` if sequences of `length` tokens do not fit into the model's context."""
    longest = model.config.max_position_embeddings
    if length > longest:
        raise ValueError(
            f"sequences of {length} tokens do not fit: the model's context is {longest}. "
            f"Cut them shorter, or build the model with n_positions={length}."
        )
