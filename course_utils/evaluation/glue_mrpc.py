"""Accuracy and F1 as GLUE computes them for MRPC, as a metric of the library `evaluate` that needs no network.

One file with one class, since `evaluate.load` takes the path of such a file.
"""

import datasets
import evaluate
from sklearn.metrics import accuracy_score, f1_score


class GlueMrpc(evaluate.Metric):
    """Accuracy, and F1 of label 1, over all batches that were added."""

    def _info(self):
        return evaluate.MetricInfo(
            description="Accuracy and F1 of label 1, as GLUE reports them for MRPC.",
            citation="",
            inputs_description="predictions and references: lists of labels, 0 or 1.",
            features=datasets.Features({name: datasets.Value("int64") for name in ("predictions", "references")}),
        )

    def _compute(self, predictions, references):
        return {
            "accuracy": float(accuracy_score(references, predictions)),
            "f1": float(f1_score(references, predictions, zero_division=0.0)),
        }
