"""Exercise of notebook 00: how the exercises work."""

import random

from course_utils.exercises import Exercise


def share(part: float, whole: float) -> float:
    """Return which percentage of `whole` is `part`; 0 if there is nothing at all."""
    return 100 * part / whole if whole else 0.0


def _counts(rng: random.Random) -> tuple[int, int]:
    whole = rng.randint(0, 1000)
    return rng.randint(0, whole), whole


EXERCISES = (
    Exercise(
        id="00.share",
        title="A percentage",
        reference=share,
        examples=((1, 4), (3, 3)),
        edge_cases=((0, 5), (0, 0), (1, 3)),
        random_arguments=_counts,
        hints=(
            "A percentage is `part / whole`, times 100.",
            "With `whole == 0` there is nothing to divide by. The share of nothing is 0 here.",
        ),
    ),
)
