"""Losses of a causal language model, each first a pair (sum, weight): a mean of means is wrong for unequal batches.

The loop adds pairs over micro-batches and processes, and divides once.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

IGNORED = -100  # label of a position that no loss counts: padding, and rows that only fill up a batch
KEYWORDS = ("plt", "pd", "sk", "fit", "predict")

# (labels (B, T), logits (B, T, V)) -> (sum of the losses, sum of their weights), both scalars
LossSums = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def keytoken_ids(tokenizer: Any, keywords: Iterable[str] = KEYWORDS, say: Callable[[str], None] = print) -> list[int]:
    """Return the ids of those keywords that are one token, with and without a leading space (A12); `say` the others."""
    if isinstance(keywords, str) or "" in (keywords := list(keywords)):  # the letters of a string would be keywords
        raise ValueError(f"keywords = {keywords!r} is not allowed; give a list of words, none of them empty.")
    forms = [form for keyword in keywords for form in (keyword, f" {keyword}")]
    ids = {form: tokenizer(form, add_special_tokens=False)["input_ids"] for form in forms}
    several = [repr(form) for form, tokens in ids.items() if len(tokens) != 1]
    single = list(dict.fromkeys(tokens[0] for tokens in ids.values() if len(tokens) == 1))
    if not single:
        words = ", ".join(map(repr, forms)) or "no keywords"
        remedy = "Choose words that are frequent in its training text, or train one with a larger vocabulary."
        raise ValueError(f"none of {words} is a single token of this tokenizer. {remedy}")
    if several:
        say(f"Not a single token, so left out: {', '.join(several)}")
    return single


def token_losses(labels: Tensor, logits: Tensor) -> Tensor:
    """Return the cross-entropy of every position with the token that follows it; 0 where nothing follows.

    labels (B, T), logits (B, T, V) -> losses (B, T) in nats. The labels are moved, not the logits: a copy of these,
    as (B, T - 1, V), would cost more memory than anything else in a training step.
    """
    following = F.pad(labels[:, 1:], (0, 1), value=IGNORED)  # (B, T)
    # 16 bits are too few for a loss, and fp32 copies of all logits too large. A compiler avoids them by itself.
    whole = logits.dtype.itemsize > 2 or torch.compiler.is_compiling()
    loss = _cross_entropy if whole else _CrossEntropyInParts.apply
    return loss(logits.flatten(0, 1), following.flatten()).view_as(labels)


def _cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    logits = logits if logits.dtype.itemsize > 2 else logits.float()
    return F.cross_entropy(logits, targets, reduction="none", ignore_index=IGNORED)


class _CrossEntropyInParts(torch.autograd.Function):
    """The same with only as many positions in fp32 at once as a processor's cache holds, or as keep a GPU busy."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor) -> Tensor:
        ctx.size = max(1, 2 ** (19 if logits.device.type == "cpu" else 26) // logits.shape[1])
        ctx.save_for_backward(logits, targets)
        return torch.cat(list(map(_cross_entropy, logits.split(ctx.size), targets.split(ctx.size))))

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:
        logits, targets = ctx.saved_tensors
        gradient = torch.empty_like(logits)
        columns = (gradient, logits, targets.clamp(min=0)[:, None], (upstream * (targets != IGNORED))[:, None])
        for out, part, target, factor in zip(*(column.split(ctx.size) for column in columns), strict=True):
            softmax = part.float().softmax(-1)
            out.copy_(softmax.scatter_add_(1, target, -torch.ones_like(factor)).mul_(factor))
        return gradient, None


def predicted_tokens(labels: Tensor) -> Tensor:
    """Count the tokens of each row that a model has to predict: all but the first and the ignored ones, (B,)."""
    return (labels[:, 1:] != IGNORED).sum(1)


def causal_loss_sums(labels: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
    """Return the sum of the plain cross-entropy over all predicted tokens, and their number."""
    return token_losses(labels, logits).sum(), predicted_tokens(labels).sum()


def row_weights(rows: Any, keytoken_ids: Sequence[int] | Tensor, alpha: float = 1.0) -> Tensor:
    """Return the weight of each row (B, T): 1, and `alpha` more for every key token in it; (B,)."""
    rows = torch.as_tensor(rows)
    return 1.0 + alpha * torch.isin(rows, torch.as_tensor(keytoken_ids, device=rows.device)).sum(1)


def keytoken_loss_sums(
    labels: Tensor, logits: Tensor, keytoken_ids: Sequence[int] | Tensor, alpha: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Return the sum of each row's mean loss times its weight, and of the weights; 0 for rows without predictions."""
    weights = row_weights(labels, keytoken_ids, alpha) * (predicted_tokens(labels) > 0)
    return (_row_means(labels, logits) * weights).sum(), weights.sum()


def keytoken_weighted_loss(
    inputs: Tensor, logits: Tensor, keytoken_ids: Sequence[int] | Tensor, alpha: float = 1.0, normalize: bool = True
) -> Tensor:
    """Return a cross-entropy in which rows with key tokens count more (A13); a scalar, in nats per token.

    inputs (B, T) token ids, or -100 for padding, which counts nowhere; logits (B, T, V). Normalised, a row weighs
    1 + alpha x its key tokens, and the sum of the weights divides. With `normalize=False` it is the tutorial's formula,
    bit for bit: a row weighs alpha x (1 + its key tokens) and the number of rows divides: alpha only scales the loss.
    """
    if not normalize:
        return (_row_means(inputs, logits) * (alpha * row_weights(inputs, keytoken_ids))).mean()
    total, weight = keytoken_loss_sums(inputs, logits, keytoken_ids, alpha)
    return total / weight.clamp(min=torch.finfo(weight.dtype).tiny)  # 0 where there is nothing to predict


def choose_loss(keytoken_ids: Sequence[int], alpha: float, device: torch.device | str = "cpu") -> LossSums:
    """Return the weighted loss for tensors on `device`, or the plain one if there are no key tokens."""
    if len(keytoken_ids) == 0:
        return causal_loss_sums
    return partial(keytoken_loss_sums, keytoken_ids=torch.tensor(keytoken_ids, device=device), alpha=alpha)


def _row_means(labels: Tensor, logits: Tensor) -> Tensor:
    return token_losses(labels, logits)[:, :-1].sum(1) / predicted_tokens(labels).clamp(min=1)
