"""Exercises of notebook 06: F1 by hand, padding, single sentences."""

import random
from typing import Any

from course_utils.exercises import Exercise


def f1(predictions: list[int], references: list[int]) -> float:
    """Return the F1 of label 1: twice the hits over twice the hits plus the errors; 0 if there are none of both."""
    hits = sum(p == r == 1 for p, r in zip(predictions, references, strict=True))
    errors = sum(p != r for p, r in zip(predictions, references, strict=True))
    return 2 * hits / (2 * hits + errors) if hits + errors else 0.0


def share_padded(lengths: list[int], batch_size: int) -> float:
    """Return the share of padding when rows are batched in this order, each batch padded to its longest row."""
    batches = [lengths[i : i + batch_size] for i in range(0, len(lengths), batch_size)]
    return 1 - sum(lengths) / sum(max(batch) * len(batch) for batch in batches)


def sentences(value: Any) -> list[str]:
    """Say whether a result is that of a fine-tuning on single sentences: measured, and better than a coin toss."""
    metrics = getattr(value, "metrics", None)
    if not isinstance(metrics, dict) or not isinstance(metrics.get("validation"), dict):
        return ["Give what `finetuning.finetune(...)` returned; this has no metrics of the validation split."]
    if len(value.predictions) == 120:
        return ["These are 120 answers, as the pairs have. Did you give `profile.sentences` as the data?"]
    accuracy = metrics["validation"]["accuracy"]
    if accuracy < 0.6:
        return [
            f"The validation accuracy is {accuracy:.2f}, hardly better than a coin toss; train on all rows, longer."
        ]
    return []


def _answers(rng: random.Random) -> tuple[list[int], list[int]]:
    count = rng.randint(1, 8)
    return [rng.randint(0, 1) for _ in range(count)], [rng.randint(0, 1) for _ in range(count)]


def _lengths(rng: random.Random) -> tuple[list[int], int]:
    return [rng.randint(1, 60) for _ in range(rng.randint(1, 12))], rng.randint(1, 5)


EXERCISES = (
    Exercise(
        id="06.f1",
        title="F1 without a library",
        reference="course_utils.exercise_catalog.finetuning:f1",
        examples=(([1, 0, 1, 1], [1, 1, 0, 1]), ([0, 0], [0, 1])),
        edge_cases=(([0], [0]), ([1], [1]), ([0, 0, 1], [0, 0, 0])),
        random_arguments=_answers,
        fair=lambda predictions, references: (
            len(predictions) == len(references) > 0 and {*predictions, *references} <= {0, 1}
        ),
        hints=(
            "Count hits (both are 1) and errors (they differ). Pairs where both are 0 do not count at all.",
            "F1 is 2 · hits / (2 · hits + errors).",
            "If there are neither hits nor errors, nothing can be divided: return 0.",
        ),
    ),
    Exercise(
        id="06.share_padded",
        title="How much of the batches is padding?",
        reference="course_utils.exercise_catalog.finetuning:share_padded",
        examples=(([10, 20, 30, 40], 2), ([50, 10, 10], 2)),
        edge_cases=(([7], 3), ([5, 5, 5], 2), ([1, 60], 1)),
        random_arguments=_lengths,
        fair=lambda lengths, batch_size: bool(lengths) and min(lengths) > 0 and batch_size > 0,
        hints=(
            "Cut the list into batches: `lengths[i : i + batch_size]`.",
            "A batch takes `max(batch) * len(batch)` positions. The last batch may have fewer rows.",
            "Add up the positions of all batches, then divide once: 1 - tokens / positions.",
        ),
    ),
    Exercise(
        id="06.sentences",
        title="The same for single sentences",
        examine=sentences,
        hints=(
            "finetuning.finetune(profile.sentences, location, settings) does it all.",
            "settings = finetuning.FinetuneConfig(epochs=5, learning_rate=1e-4, batch_size=16, dropout=0.0)",
        ),
    ),
)
