"""Metrics of the library `evaluate` that need no network, and how sure one can be of them.

`evaluate.load` takes the path of this file: it finds `GlueMrpc`, the only metric class in its namespace.
"""

from collections.abc import Sequence

import datasets
import evaluate
import numpy as np
from scipy.stats import binomtest
from sklearn.metrics import accuracy_score, f1_score

from course_utils import cache
from course_utils.evaluation.code_eval import estimate_pass_at_k as estimate_pass_at_k


class GlueMrpc(evaluate.Metric):
    """Accuracy, and F1 of label 1, over all batches that were added, as GLUE computes them for MRPC."""

    def _info(self):
        features = datasets.Features({name: datasets.Value("int64") for name in ("predictions", "references")})
        return evaluate.MetricInfo(description=self.__doc__, citation="", inputs_description="", features=features)

    def _compute(self, predictions, references):
        f1 = f1_score(references, predictions, zero_division=0.0)
        return {"accuracy": float(accuracy_score(references, predictions)), "f1": float(f1)}


def pair_metric() -> GlueMrpc:
    """Return a fresh metric with `add_batch` and `compute`; it keeps its batches in memory, not in a shared file."""
    return GlueMrpc(keep_in_memory=True, cache_dir=cache.library_folder("metrics"))


def code_eval() -> evaluate.Metric:
    """Return a fresh metric with the call of evaluate's `code_eval`, which runs every program in the sandbox."""
    from course_utils.evaluation.code_eval import CodeEval  # evaluate.load would take it for this file's metric

    return CodeEval(keep_in_memory=True, cache_dir=cache.library_folder("metrics"))


def bootstrap_interval(predictions: Sequence[int], references: Sequence[int], seed: int = 0) -> tuple[float, float]:
    """Return the 95 % interval of the accuracy when the rows are drawn again, with replacement, 2 000 times."""
    right = np.equal(predictions, references)
    drawn = np.random.default_rng(seed).integers(len(right), size=(2000, len(right)))
    return tuple(np.quantile(right[drawn].mean(axis=1), [0.025, 0.975]).tolist())


def share_interval(right: Sequence[bool]) -> tuple[float, float]:
    """Return Wilson's 95 % interval of the share of True; unlike a bootstrap's, it has a width when all are equal."""
    return tuple(map(float, binomtest(int(np.sum(right)), len(right)).proportion_ci(method="wilson")))
