"""Which parameters decay, and a gradient that was summed first and is divided once."""

from collections.abc import Iterator

import torch
from torch import nn


def get_grouped_params(model: nn.Module, weight_decay: float) -> list[dict]:
    """Split the trainable parameters into two groups for the optimizer: with `weight_decay`, and without (A14).

    Only tensors with two or more dimensions that are no embedding decay. Biases and the weights of norms have one
    dimension, whatever the model calls them. A tied output layer is the embedding, so it does not decay either.
    Raises `ValueError` for a negative decay and for a model without trainable parameters. (The tutorials go by the
    name "LayerNorm.weight", which no norm of GPT-2 bears.)
    """
    if weight_decay < 0:
        raise ValueError(f"weight_decay is {weight_decay}; it must be 0 or more.")
    embeddings = set(map(id, _embedding_weights(model)))
    trainable = [p for p in model.parameters() if p.requires_grad]  # shared parameters come once
    if not trainable:
        raise ValueError("the model has no trainable parameters; is everything frozen?")
    decaying = [p for p in trainable if p.ndim >= 2 and id(p) not in embeddings]
    chosen = set(map(id, decaying))
    rest = [p for p in trainable if id(p) not in chosen]
    return [{"params": decaying, "weight_decay": weight_decay}, {"params": rest, "weight_decay": 0.0}]


def _embedding_weights(model: nn.Module) -> Iterator[nn.Parameter]:
    for module in model.modules():
        if isinstance(module, nn.Embedding | nn.EmbeddingBag):
            yield module.weight
    for name, parameter in model.named_parameters():  # a table of positions may be a bare parameter
        if any(mark in name.rpartition(".")[2].lower() for mark in ("emb", "pos_")):
            yield parameter


def scale_gradients(model: nn.Module, factor: torch.Tensor) -> None:
    """Multiply all gradients in place by one number, a tensor on their device."""
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    needless = factor.device.type == "cpu" and factor == 1  # on a GPU, looking would mean waiting
    if gradients and not needless:
        torch._foreach_mul_(gradients, factor)


def steps_per_pass(rows: int, batch_size: int, processes: int = 1, accumulation_steps: int = 1) -> int:
    """Return the optimizer steps of one pass over the data; a last step with fewer rows counts, too.

    One step takes `batch_size` rows on each process, `accumulation_steps` times. Raises `ValueError` if one of these
    numbers is below 1.
    """
    if min(batch_size, processes, accumulation_steps) < 1:
        given = f"{batch_size} rows x {processes} processes x {accumulation_steps} passes"
        raise ValueError(f"a step of {given} takes no rows; each number must be at least 1.")
    return -(-rows // (batch_size * processes * accumulation_steps))


def warmup_within(warmup_steps: int, train_steps: int) -> int:
    """Return the warm-up, at most half of the training, so that a short run still reaches its peak and comes down."""
    return min(warmup_steps, train_steps // 2)
