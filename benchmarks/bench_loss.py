"""The weighted loss, forward and backward, at GPT-2's vocabulary: against the tutorial's way, and plain cross-entropy.

The tutorial's way copies the logits without their last position, (B, T - 1, V), before it flattens them.
"""

import statistics
import time

import torch
from torch.nn import functional as F

from course_utils.training.losses import IGNORED, keytoken_weighted_loss

TARGETS = {"weighted loss, time": 1.2, "weighted loss against plain cross-entropy": 1 / 1.05}
VOCAB, ROWS, LENGTH = 50_257, 32, 128
KEYS = list(range(100, 110))
REPETITIONS = 7


def ours(inputs, logits):
    return keytoken_weighted_loss(inputs, logits, KEYS)


def plain(inputs, logits):
    """Cross-entropy as cheap as it can be: the labels are moved, not the logits."""
    following = F.pad(inputs[:, 1:], (0, 1), value=IGNORED)
    return F.cross_entropy(logits.flatten(0, 1), following.flatten(), ignore_index=IGNORED)


def theirs(inputs, logits):
    predictions, following = logits[..., :-1, :].contiguous(), inputs[..., 1:].contiguous()
    losses = F.cross_entropy(predictions.view(-1, VOCAB), following.view(-1), reduction="none")
    hits = torch.stack([(inputs == key).float() for key in KEYS]).sum(dim=[0, 2])
    return (losses.view(len(inputs), -1).mean(dim=1) * (1.0 + hits)).mean()


def seconds(way, inputs, logits):
    logits.grad = None
    start = time.perf_counter()
    way(inputs, logits).backward()
    return time.perf_counter() - start


def run() -> list[dict]:
    torch.manual_seed(0)
    inputs = torch.randint(VOCAB, (ROWS, LENGTH))
    logits = torch.randn(ROWS, LENGTH, VOCAB).requires_grad_()
    ways = (ours, plain, theirs)
    for way in ways:
        seconds(way, inputs, logits)
    times = [[seconds(way, inputs, logits) for way in ways] for _ in range(REPETITIONS)]  # interleaved
    weighted, cheapest, tutorial = (statistics.median(column) for column in zip(*times, strict=True))
    return [
        {"name": name, "ours": weighted, "theirs": other, "ratio": other / weighted, "unit": "s"}
        for name, other in (
            ("weighted loss, time", tutorial),
            ("weighted loss against plain cross-entropy", cheapest),
        )
    ]
