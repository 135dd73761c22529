"""Exercises of notebook 07: pass@k, calibration, a programming problem of your own."""

from course_utils.evaluation.problems import check_problem
from course_utils.exercises.exercise import exercise
from course_utils.sandbox.running import run_problem

# Well inside their groups: 0.6 lies below `np.linspace(0, 1, 11)[6]`, and on 6 / 10.
_CONFIDENCES = (0.0, 0.05, 0.17, 0.24, 0.38, 0.42, 0.55, 0.63, 0.71, 0.79, 0.88, 0.92, 0.96, 1.0)


@exercise(
    "07.pass_at_k",
    "k different candidates are drawn, none of them twice. `math.comb(n, k)` counts the ways to draw them.",
    "How many of these draws contain only wrong candidates? There are n - c wrong ones.",
    "pass@k is 1 minus the share of draws that are all wrong. If fewer than k are wrong, there are none.",
    examples=[(4, 1, 2), (10, 3, 5), (5, 4, 2), (5, 0, 1)],
    random_inputs=lambda rng: (n := rng.randint(1, 8), rng.randint(0, n), rng.randint(1, n)),
    mistakes={0: lambda n, c, k: 1 - (1 - c / n) ** k, 2: lambda n, c, k: 1 - my_pass_at_k(n, c, k)},
)
def my_pass_at_k(n, c, k):
    import math

    all_wrong = math.comb(n - c, k)  # choices of k candidates without a right one; 0 if fewer than k are wrong
    return 1 - all_wrong / math.comb(n, k)


@exercise(
    "07.calibration_error",
    "Sort the answers into ten groups by `min(int(confidence * 10), 9)`; 1.0 belongs to the last one.",
    "The gap of a group is the distance between its mean confidence and its share of hits.",
    "Weight each gap by the group's share of all answers: sum(len(group) * gap) / len(confidences).",
    examples=[([0.95, 0.85, 0.85], [1, 1, 0]), ([0.55, 0.55], [0, 1]), ([1.0], [1])],
    random_inputs=lambda rng: (rng.choices(_CONFIDENCES, k=(n := rng.randint(1, 4))), rng.choices([0, 1], k=n)),
    mistakes={0: lambda confidences, hits: abs(sum(confidences) - sum(hits)) / len(hits)},
)
def my_calibration_error(confidences, hits):
    gaps = [[] for _ in range(10)]
    for confidence, hit in zip(confidences, hits, strict=True):
        gaps[min(int(confidence * 10), 9)].append(confidence - hit)
    # The mean gap of a group times its size is the sum of its gaps.
    return sum(abs(sum(group)) for group in gaps) / len(confidences)


def _problem(value: object) -> str:
    """Return what keeps a programming problem from being usable: its columns, its test, or what the test lets pass."""
    if not isinstance(value, dict):
        return "Give a dictionary with the keys task_id, prompt, entry_point, canonical_solution and test."
    try:
        check_problem(value)
    except ValueError as error:
        return str(error)
    solved = run_problem(value, value["canonical_solution"])
    if solved.outcome != "passed":
        return f"Your own solution does not pass: {solved.outcome}. {solved.detail}"
    if run_problem(value, "\n    return None\n").outcome == "passed":
        return "A function that returns None passes, too: the test needs asserts that it fails."
    return ""


@exercise(
    "07.problem",
    "`prompt` ends after the docstring; `canonical_solution` continues there, indented by four spaces.",
    "`test` is source code: def check(candidate): with asserts that call `candidate`.",
    examine=_problem,
)
def my_problem():
    return {
        "task_id": "mine/0",
        "prompt": 'def double(number):\n    """Return twice the number."""\n',
        "entry_point": "double",
        "canonical_solution": "    return 2 * number\n",
        "test": "def check(candidate):\n    assert candidate(4) == 8\n    assert candidate(0) == 0\n",
    }
