"""From a loss to numbers that can be compared: perplexity and bits per byte."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from accelerate.data_loader import DataLoaderStateMixin
from torch import nn

from course_utils.training.losses import IGNORED, predicted_tokens, token_losses


class Evaluation(NamedTuple):
    """Loss in nats per token, perplexity, and bits per byte (NaN where the text's length is not known)."""

    loss: float
    perplexity: float
    bits_per_byte: float


@torch.no_grad()
def evaluate(model: nn.Module, dataloader: Any, accelerator: Any, tokens_per_byte: float = math.nan) -> Evaluation:
    """Measure a causal language model on held-out data: every predicted token counts once (A15).

    Sums of losses and numbers of tokens are gathered from all processes, without the rows that Accelerate repeats to
    fill the last batch, and divided at the end: batches of unequal length change nothing.
    """
    was_training = model.training
    model.eval()
    total = tokens = 0.0
    # For other loaders, Accelerate would look at one that is being read around this call, and cut their batches.
    prepared = isinstance(dataloader, DataLoaderStateMixin)
    gather = accelerator.gather_for_metrics if prepared else accelerator.gather
    for batch in dataloader:
        labels = labels_of(batch)
        with accelerator.autocast():
            logits = model(**{name: value for name, value in batch.items() if name != "labels"}).logits
        sums = token_losses(labels, logits).sum(1)
        sums, counts = gather((sums, predicted_tokens(labels)))  # (B,) each, of all processes
        total += sums.cpu().double().sum().item()
        tokens += counts.sum().item()
    model.train(was_training)
    loss = total / tokens
    return Evaluation(loss, perplexity(loss), loss / math.log(2) * tokens_per_byte)


def labels_of(batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Return the labels of a batch or row; without any, the inputs are the labels, and padding is ignored."""
    if "labels" in batch:
        return batch["labels"]
    mask = batch.get("attention_mask")
    return batch["input_ids"] if mask is None else batch["input_ids"].masked_fill(mask == 0, IGNORED)


def perplexity(loss: float) -> float:
    """Return e to the `loss` (nats per token); infinite where the number would be too large for a float."""
    try:
        return math.exp(loss)
    except OverflowError:
        return math.inf


def bits_per_byte(loss: float, tokens: int, num_bytes: int) -> float:
    """Convert nats per token into bits per byte of the same text, which do not depend on the tokenizer."""
    return loss / math.log(2) * tokens / num_bytes
