"""Exercises of notebook 06: F1 by hand, padding, single sentences."""

from typing import Any

from course_utils.exercises.exercise import exercise


@exercise(
    "06.f1",
    "Pairs where both are 0 do not count at all, or it would be the accuracy. A hit is a pair of two ones.",
    "An error is a missed 1 or a false 1. F1 is 2 · hits / (2 · hits + errors).",
    "If there are neither hits nor errors, nothing can be divided: return 0.",
    examples=[([1, 0, 1, 1, 0], [1, 1, 0, 1, 0]), ([1, 0, 0], [1, 1, 0]), ([0, 0], [0, 0])],
    random_inputs=lambda rng: (rng.choices([0, 1], k=(count := rng.randint(1, 5))), rng.choices([0, 1], k=count)),
    mistakes={0: lambda p, r: sum(map(int.__eq__, p, r)) / len(p)},
)
def my_f1(predictions, references):
    hits = sum(p == r == 1 for p, r in zip(predictions, references, strict=True))
    errors = sum(p != r for p, r in zip(predictions, references, strict=True))
    if hits + errors == 0:
        return 0.0
    return 2 * hits / (2 * hits + errors)


@exercise(
    "06.share_padded",
    "Each batch has a longest row of its own. Cut the list into batches: `lengths[i : i + batch_size]`.",
    "A batch takes `max(batch) * len(batch)` positions. The last batch may have fewer rows.",
    "Add up the positions of all batches, then divide once: 1 - tokens / positions.",
    examples=[([10, 20, 30, 40], 2), ([50, 10, 10], 2), ([7], 3)],
    random_inputs=lambda rng: (rng.choices(range(1, 10), k=rng.randint(1, 6)), rng.randint(1, 3)),
    mistakes={0: lambda lengths, batch_size: 1 - sum(lengths) / (max(lengths) * len(lengths))},
)
def my_share_padded(lengths, batch_size):
    batches = [lengths[i : i + batch_size] for i in range(0, len(lengths), batch_size)]
    positions = sum(max(batch) * len(batch) for batch in batches)
    return 1 - sum(lengths) / positions


def _sentences(value: Any) -> str:
    """Return what a result lacks to be that of a fine-tuning on single sentences, better than a coin toss."""
    try:
        accuracy, answers = value.metrics["validation"]["accuracy"], len(value.predictions)
    except (AttributeError, LookupError, TypeError):
        return "Give what `finetuning.finetune(...)` returned; this has no metrics of the validation split."
    if answers == 120:
        return "These are 120 answers, as the pairs have. Did you give `profile.sentences` as the data?"
    if accuracy < 0.6:
        return f"The validation accuracy is {accuracy:.2f}, hardly above a coin toss; train on all rows, longer."
    return ""


@exercise(
    "06.sentences",
    "finetuning.finetune(profile.sentences, location, settings) does it all.",
    "settings = finetuning.FinetuneConfig(epochs=5, learning_rate=1e-4, batch_size=16, dropout=0.0)",
    examine=_sentences,
)
def my_result():
    from course_utils import artifacts
    from course_utils.profiles import get_profile
    from course_utils.training import finetuning

    profile = get_profile()
    location = artifacts.encoder_folder(profile.encoder, profile.pairs)
    settings = finetuning.FinetuneConfig(epochs=5, learning_rate=1e-4, batch_size=16, dropout=0.0)
    return finetuning.finetune(profile.sentences, location, settings)
