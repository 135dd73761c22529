"""Exercise of notebook 00: how the exercises work."""

from course_utils.exercises.exercise import exercise


@exercise(
    "00.share",
    "A percentage is `part / whole`, times 100.",
    "With `whole == 0` there is nothing to divide by. The share of nothing is 0 here.",
    examples=[(1, 4), (3, 3), (0, 5), (0, 0)],
    random_inputs=lambda rng: (rng.randint(0, 9), rng.randint(0, 9)),
    mistakes={0: lambda part, whole: part / whole if whole else 0.0, 1: lambda part, whole: 100 * part / whole},
)
def share(part, whole):
    return 100 * part / whole if whole else 0.0
