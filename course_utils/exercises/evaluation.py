"""Exercises of notebook 07: comparing models, calibration, softer probabilities, bugs found by eye."""

from course_utils.exercises.exercise import NOT_TRIED, exercise

# Well inside their groups: 0.6 lies below `np.linspace(0, 1, 11)[6]`, and on 6 / 10.
_CONFIDENCES = (0.0, 0.05, 0.17, 0.24, 0.38, 0.42, 0.55, 0.63, 0.71, 0.79, 0.88, 0.92, 0.96, 1.0)
# The line of each script's bug, and what to look for.
_BUGS = {
    1: (6, "One name is a wrong one."),
    2: (6, "Two arguments have changed places."),
    3: (5, "One operator is a wrong one."),
}


def _by_perplexity(a, b):
    return a if 2 ** (a[0] / a[1]) < 2 ** (b[0] / b[1]) else b


@exercise(
    "07.better",
    "A model whose tokens are short has less to guess per token, and more tokens. Which length is the same for both?",
    "Total bits grow with the text: b may have read twice as much. Divide by the length of the text.",
    "Fewer bits per byte are better.",
    examples=[((300, 100, 250), (200, 100, 100)), ((400, 100, 400), (300, 100, 200))],
    random_inputs=lambda rng: (
        (rng.randint(1, 90), rng.randint(5, 9), rng.choice([10, 20])),
        (rng.randint(1, 90) + 0.25, rng.randint(5, 9), rng.choice([10, 20])),  # a quarter: never equally good
    ),
    mistakes={1: lambda a, b: a if a[0] < b[0] else b, 2: lambda a, b: a if a[0] / a[2] > b[0] / b[2] else b},
    bug=_by_perplexity,
)
def better(a, b):
    return a if a[0] / a[2] < b[0] / b[2] else b


def _groups(confidences, hits, last):
    groups = {}
    for confidence, hit in zip(confidences, hits, strict=True):
        groups.setdefault(min(int(confidence * 10), last), []).append(confidence - hit)
    return groups.values()


@exercise(
    "07.calibration_error",
    "Sort the answers into ten groups by `min(int(confidence * 10), 9)`, and take one gap per group.",
    "The gap of a group is the distance between its mean confidence and its share of hits.",
    "Weight each gap by the size of its group. In a plain mean, a group of one counts like a group of 90.",
    "`int(1.0 * 10)` is 10, an eleventh group. The last of the ten includes 1.0.",
    examples=[([0.95, 0.85, 0.85], [1, 1, 0]), ([0.55, 0.55], [0, 1]), ([1.0, 0.95], [1, 0])],
    random_inputs=lambda rng: (rng.choices(_CONFIDENCES, k=(n := rng.randint(1, 4))), rng.choices([0, 1], k=n)),
    mistakes={
        0: lambda sure, hits: abs(sum(sure) - sum(hits)) / len(hits),
        2: lambda sure, hits: sum(abs(sum(g)) / len(g) for g in _groups(sure, hits, 9)) / len(_groups(sure, hits, 9)),
        3: lambda sure, hits: sum(abs(sum(g)) for g in _groups(sure, hits, 10)) / len(sure),
    },
)
def calibration_error(confidences, hits):
    groups = [[] for _ in range(10)]
    for confidence, hit in zip(confidences, hits, strict=True):
        groups[min(int(confidence * 10), 9)].append(confidence - hit)
    # The mean gap of a group times its size is the sum of its gaps.
    return sum(abs(sum(group)) for group in groups) / len(confidences)


_SOFTER = {"hits": "same", "confidence": "down", "bits per byte": "up"}
_WHY = {
    "hits": "Hits: the first guess is the token with the largest logit. Which one is the largest after dividing?",
    "confidence": "Confidence: softmax turns differences between logits into ratios. What happens to the differences?",
    "bits per byte": "Bits per byte: the right token's probability changes, too. Was it too high before, or right?",
}


def _softer_fault(answer, measured=_SOFTER):
    """Return the first part of a prediction that is not what was measured."""
    if not isinstance(answer, dict) or answer.keys() != _WHY.keys():
        return f"Give a dictionary with the keys {', '.join(_WHY)}."
    if not any(answer.values()):
        return NOT_TRIED
    if unknown := [value for value in answer.values() if value not in ("up", "down", "same")]:
        return f"{unknown[0]!r} is none of 'up', 'down', 'same'."
    wrong = (f"It is not {answer[name]!r}. {why}" for name, why in _WHY.items() if answer[name] != measured[name])
    return next(wrong, "")


@exercise("07.softer", *_WHY.values(), examine=_softer_fault)
def softer():
    return {"hits": "same", "confidence": "down", "bits per byte": "up"}


def _bugs_fault(answer):
    """Return which script was misread, and what kind of bug it has."""
    if not isinstance(answer, list | tuple) or len(answer) != len(_BUGS):
        return "Give a list of three line numbers, one per script."
    if all(line is None for line in answer):
        return NOT_TRIED
    for given, (script, (line, kind)) in zip(answer, _BUGS.items(), strict=True):
        if given != line:
            return f"Script {script}: not line {given}. {kind}"
    return ""


@exercise("07.bugs", "Say for each line what it should do, then read what it does.", examine=_bugs_fault)
def bugs():
    return [6, 6, 5]
