"""Metrics of the course, and how sure one can be of them."""

from collections.abc import Sequence

import numpy as np

from course_utils.evaluation.code_eval import CodeEval
from course_utils.evaluation.code_eval import estimate_pass_at_k as estimate_pass_at_k
from course_utils.evaluation.glue_mrpc import GlueMrpc


def pair_metric() -> GlueMrpc:
    """Return a fresh metric with `add_batch` and `compute`: accuracy and F1 as GLUE computes them.

    It keeps its batches in memory, so that several processes do not share a file.
    """
    return GlueMrpc(keep_in_memory=True)


def bootstrap_interval(
    predictions: Sequence[int], references: Sequence[int], confidence: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """Return the interval of the accuracy when the test rows are drawn again, with replacement, 2 000 times.

    Raises `ValueError` for lists of different length, or fewer than two rows.
    """
    if len(predictions) != len(references) or len(references) < 2:
        raise ValueError(
            f"{len(predictions)} predictions and {len(references)} references: give as many of both, at least two."
        )
    right = np.asarray(predictions) == np.asarray(references)
    drawn = np.random.default_rng(seed).integers(len(right), size=(2000, len(right)))
    low, high = np.quantile(right[drawn].mean(axis=1), [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def code_eval() -> CodeEval:
    """Return a fresh metric with the call of evaluate's `code_eval`: pass@k of programs against tests.

    `compute(references=, predictions=, k=)` runs every program in the sandbox; nothing has to be allowed beforehand.
    """
    return CodeEval(keep_in_memory=True)
