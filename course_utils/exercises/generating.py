"""Exercises of notebook 08: top-p, the beam tree, a test that finds wrong programs, pass@k, a problem of your own."""

from numbers import Real

from course_utils.evaluation.problems import check_problem
from course_utils.exercises.exercise import NOT_TRIED, exercise
from course_utils.sandbox.running import run_problem

_TENTHS = ((10,), (5, 5), (3, 7), (2, 5, 3), (1, 2, 4, 3), (4, 2, 2, 2), (1, 1, 1, 7))


def _stops_early(probabilities, p):  # the function to mend, as the notebook shows it
    likeliest_first = sorted(range(len(probabilities)), key=lambda i: -probabilities[i])
    chosen, total = [], 0.0
    for i in likeliest_first:
        total += probabilities[i]
        if total > p:
            break
        chosen.append(i)
    return chosen


# A threshold is never a sum of tenths, so that rounding decides nothing.
@exercise(
    "08.top_p",
    "With 0.5, 0.3, 0.2 and p = 0.85: 0.5 + 0.3 = 0.8 is less than 0.85, so one more token belongs to the set.",
    "Return positions in the list, not probabilities.",
    "That is one token too many: stop as soon as the sum is at least p, with the token that has just been added.",
    examples=[([0.5, 0.3, 0.2], 0.85), ([0.1, 0.6, 0.3], 0.45), ([0.25, 0.25, 0.25, 0.25], 0.55)],
    random_inputs=lambda rng: ([tenths / 10 for tenths in rng.choice(_TENTHS)], rng.randrange(1, 20, 2) / 20),
    mistakes={
        0: lambda probabilities, p: _stops_early(probabilities, p) or top_p(probabilities, 0.05),
        1: lambda probabilities, p: [probabilities[i] for i in top_p(probabilities, p)],
        2: lambda probabilities, p: top_p(probabilities, 1)[: len(top_p(probabilities, p)) + 1],
    },
    bug=_stops_early,
)
def top_p(probabilities, p):
    likeliest_first = sorted(range(len(probabilities)), key=lambda i: -probabilities[i])
    chosen, total = [], 0.0
    for i in likeliest_first:
        total += probabilities[i]
        chosen.append(i)
        if total >= p - 1e-9:  # sums of decimals are not exact
            break
    return chosen


def _reading(answer: object, measured: tuple[float, float]) -> str:
    """Return what is wrong with two sums that were read from the beam tree: of greedy's path, of the best path."""
    pair = tuple(answer) if isinstance(answer, list | tuple) else ()
    if len(pair) != 2 or not all(isinstance(number, Real) for number in pair):
        return "Give two numbers: (sum of the dotted path, sum of the best path)."
    if all(number > 0 for number in pair):
        return "Logarithms of probabilities are negative, so are their sums."

    def near(*numbers):
        return all(abs(number - right) <= 0.06 for number, right in zip(numbers, measured, strict=True))

    if near(*pair):
        return ""
    if near(*reversed(pair)):
        return "These are the right sums in the wrong order: the dotted path, which greedy takes, comes first."
    for name, number, right in zip(("dotted", "best"), pair, measured, strict=True):
        if number - right > 0.06:
            return f"{number:.2f} is too high for the {name} path: add the four edges from the first box to its end."
        if right - number > 0.06:
            return f"{number:.2f} is too low for the {name} path: the best one has the highest sum of its four edges."
    return "The two sums do not fit the picture."


@exercise(
    "08.beam",
    "Follow one line from the left box to the right side, and add the four numbers on it.",
    "Three dark paths reach the right side. The best is the one whose four numbers have the highest sum.",
    examine=_reading,
)
def my_reading(edges_of_greedy, edges_of_best):
    return sum(edges_of_greedy), sum(edges_of_best)


_MEDIAN = {
    "task_id": "08.asserts",
    "prompt": (
        'def median(values):\n    """Return the middle of the sorted values, or the mean of the two middle ones."""\n'
    ),
    "entry_point": "median",
    "canonical_solution": (
        "    values, half = sorted(values), len(values) // 2\n"
        "    return values[half] if len(values) % 2 else (values[half - 1] + values[half]) / 2\n"
    ),
}
_START = "def check(candidate):\n    assert candidate([1, 2, 3]) == 2\n"
# A wrong program, and an input on which it errs.
_WRONG = {
    "not sorted": ("    return values[len(values) // 2]\n", "For [3, 1, 2] it returns 1, and the median is 2."),
    "one of two": ("    return sorted(values)[len(values) // 2]\n", "For [1, 2] it returns 2, and the median is 1.5."),
    "mean": ("    return sum(values) / len(values)\n", "For [1, 2, 9] it returns 4, and the median is 2."),
}


def _asserts(test: object) -> str:
    """Return which wrong program a test lets pass, or why it is unfair to the right one."""
    if not isinstance(test, str):
        return "Give the test as text: def check(candidate): and below it the asserts."
    if test.strip() == _START.strip():
        return NOT_TRIED
    problem = _MEDIAN | {"test": test}
    try:
        check_problem(problem)
        solved = run_problem(problem, problem["canonical_solution"])
    except ValueError as error:
        return str(error)
    if solved.outcome != "passed":
        return f"The right solution fails your test: {solved.detail}. The docstring says what is right."
    for name, (program, errs_on) in _WRONG.items():
        if run_problem(problem, program).outcome == "passed":
            return f'The program "{name}" still passes. {errs_on}'
    return ""


@exercise(
    "08.asserts",
    "Try each wrong program by hand on a list that is not sorted, and on a list of two values.",
    "The mean and the median differ where one value is far away from the others.",
    examine=_asserts,
)
def my_test():
    return """
def check(candidate):
    assert candidate([1, 2, 3]) == 2
    assert candidate([3, 1, 2]) == 2
    assert candidate([1, 2]) == 1.5
    assert candidate([1, 2, 9]) == 2
"""


@exercise(
    "08.pass_at_k",
    "With n = 2, c = 1 and k = 2 you draw both, so the chance is 1, not 0.75: nothing is drawn twice.",
    "A chance is never above 1. With n = 4, c = 3 and k = 2, c * k / n is 1.5.",
    "How many choices of k contain only wrong candidates? There are n - c wrong ones: math.comb(n - c, k).",
    "That is the chance that all k are wrong. What you want is the rest.",
    examples=[(10, 3, 5), (2, 1, 2), (4, 3, 2), (5, 4, 2), (5, 0, 1)],
    random_inputs=lambda rng: (n := rng.randint(1, 8), rng.randint(0, n), rng.randint(1, n)),
    mistakes={
        0: lambda n, c, k: 1 - (1 - c / n) ** k,
        1: lambda n, c, k: c * k / n,
        3: lambda n, c, k: 1 - pass_at_k(n, c, k),
    },
)
def pass_at_k(n, c, k):
    import math

    all_wrong = math.comb(n - c, k)  # choices of k candidates without a right one; 0 if fewer than k are wrong
    return 1 - all_wrong / math.comb(n, k)


def _problem(value: object, measured: object = None) -> str:
    """Return what keeps a programming problem from being usable: its columns, its test, or what the test lets pass."""
    if not isinstance(value, dict):
        return "Give a dictionary with the keys task_id, prompt, entry_point, canonical_solution and test."
    try:
        check_problem(value)
        solved = run_problem(value, value["canonical_solution"])
    except ValueError as error:
        return str(error)
    if solved.outcome != "passed":
        return f"Your own solution does not pass: {solved.outcome}. {solved.detail}"
    if run_problem(value, "\n    return None\n").outcome == "passed":
        return "A function that returns None passes, too: the test needs asserts that it fails."
    return ""


@exercise(
    "08.problem",
    "`prompt` ends where the model begins to write; `canonical_solution` continues there.",
    "`test` is source code: def check(candidate): with asserts that call `candidate`.",
    examine=_problem,
)
def my_problem():
    return {
        "task_id": "mine/0",
        "prompt": 'def double(number):\n    """Return twice the number."""\n    return',
        "entry_point": "double",
        "canonical_solution": " 2 * number\n",
        "test": "def check(candidate):\n    assert candidate(4) == 8\n    assert candidate(0) == 0\n",
    }
