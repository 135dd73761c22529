"""Metrics without network, equal to GLUE's arithmetic; an interval that covers what it should."""

import evaluate
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from course_utils.evaluation import metrics

answers = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=1, max_size=40)


@given(answers, st.integers(1, 7))
def test_batches_add_up_to_the_formula(rows, size):
    metric = metrics.pair_metric()
    for start in range(0, len(rows), size):
        predictions, references = zip(*rows[start : start + size], strict=True)
        metric.add_batch(predictions=predictions, references=references)
    hits, wrong = sum(p == r == 1 for p, r in rows), sum(p != r for p, r in rows)
    f1 = 2 * hits / (2 * hits + wrong) if hits + wrong else 0.0
    assert metric.compute() == pytest.approx({"accuracy": 1 - wrong / len(rows), "f1": f1})


def test_the_metric_loads_by_path_without_network():
    metric = evaluate.load(metrics.__file__)
    assert metric.compute(predictions=[1, 0, 1], references=[1, 1, 0]) == pytest.approx({"accuracy": 1 / 3, "f1": 0.5})


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    rng, inside = np.random.default_rng(0), 0
    for repetition in range(200):
        right = rng.random(120) < 0.8
        low, high = metrics.bootstrap_interval(right.astype(int), np.ones(120, int), seed=repetition)
        inside += low <= 0.8 <= high
    assert 178 <= inside <= 200  # 95 % of 200 is 190
    assert metrics.bootstrap_interval([1, 1], [1, 1]) == (1.0, 1.0)
