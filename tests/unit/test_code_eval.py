"""pass@k: the estimator against brute force, the metric against the blog's example and hostile programs."""

import itertools
import math

import evaluate
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from course_utils.evaluation import code_eval as module
from course_utils.evaluation.metrics import code_eval, estimate_pass_at_k

ADD = "assert add(2, 3) == 5"
RIGHT, WRONG = "def add(a, b):\n    return a + b", "def add(a, b):\n    return a * b"


def run(references, predictions, k=(1,), **options):
    return code_eval().compute(references=references, predictions=predictions, k=list(k), **options)


@pytest.mark.parametrize("n", range(1, 8))
def test_estimator_equals_counting_every_choice(n):
    for c, k in itertools.product(range(n + 1), range(1, n + 1)):
        candidates = [True] * c + [False] * (n - c)
        choices = list(itertools.combinations(candidates, k))
        assert estimate_pass_at_k(n, c, k) == pytest.approx(sum(map(any, choices)) / len(choices))


@given(st.integers(1, 400), st.data())
def test_estimator_is_exact_where_binomials_are_huge(n, data):
    c, k = data.draw(st.integers(0, n)), data.draw(st.integers(1, n))
    exact = 1 - math.comb(n - c, k) / math.comb(n, k)
    assert estimate_pass_at_k(n, c, k) == pytest.approx(exact, abs=1e-12)


@pytest.mark.parametrize("counts", [(2, 1, 3), (2, 3, 1), (2, -1, 1), (2, 1, 0), (0, 0, 1)])
def test_impossible_counts_are_refused(counts):
    with pytest.raises(ValueError, match=r"is not defined: k must be between 1 and"):
        estimate_pass_at_k(*counts)


def test_example_of_the_blog():
    scores, results = run([ADD], [[WRONG, RIGHT]], k=(1, 2))
    assert scores == {"pass@1": 0.5, "pass@2": 1.0}
    assert [number for number, _ in results[0]] == [0, 1]
    assert [result["passed"] for _, result in results[0]] == [False, True]
    assert results[0][1][1] == {"task_id": 0, "completion_id": 1, "passed": True, "result": "passed"}
    assert results[0][0][1]["result"].startswith("failed: wrong answer")


def test_humaneval_form_several_functions_and_own_names():
    check = f"def check(candidate):\n    for total in (1, 2):\n        {ADD.replace('add', 'candidate')}\n\ncheck(add)"
    two = (
        "import math\nassert add(1, 1) == math.sqrt(4) and sub(1, 1) == 0\nassert [add(x, 1) for x in (1, 2)] == [2, 3]"
    )
    scores, results = run([check, two], [[RIGHT], [RIGHT + "\ndef sub(a, b):\n    return a - b\n"]])
    assert scores == {"pass@1": 1.0}, results


def test_names_of_caught_errors_are_the_tests_own():
    caught = "try:\n    add(1, None)\nexcept TypeError as error:\n    message = str(error)\nassert message"
    assert run([caught], [[RIGHT]])[0] == {"pass@1": 1.0}


MAX = "def max(a, b):\n    return a if a > b else b\n"
BOTH = f"assert max(10, 15) == 15\n{ADD}"


BUILTIN_NAMES = [
    (BOTH, MAX + RIGHT, True),
    (BOTH, "def max(a, b):\n    return None\n" + RIGHT, False),
    (BOTH.replace("== 15", "== 10"), MAX.replace(">", "<") + RIGHT, True),
    ("for a in (1, 2):\n    assert max(a, 3) == 3", MAX, True),
    ("assert sum(10, 15) == 6", "def sum(a, b):\n    return 6", True),
    ("assert sum(10, 15) == 6", "from operator import sub as sum", False),
    ("assert set(sum(10, 15)) == {6}", "def sum(a, b):\n    return [6, 6]", True),
    ("def check(candidate):\n    assert candidate(1, 2) == 2\ncheck(max)", MAX, True),
    ("assert max(10, 15) == 15", "x = 1", False),
    ("assert max(10, 15) == 15", "def max(", False),
    ("assert max(10, 15) == 15", "x = " + "-" * 100_000 + "1", False),
    (BOTH, "def add(a, b):\n    max = a + b\n    return max", True),
]
FORGED = [
    ("assert abs(area(1) - 3.14) < 0.01", "def area(r):\n    return 0\ndef abs(x):\n    return 0"),
    ("wanted = sorted([2, 1])\nassert f() == wanted", "def f():\n    pass\ndef sorted(x):\n    pass"),
    ("try:\n    f({})\n    assert False\nexcept KeyError:\n    pass", "x = 1"),
]
FREE_NAMES = [
    (ADD, "def _call(a, b):\n    return a + b\ndef add(a, b):\n    return _call(a, b)"),
    (
        "assert _call(2, 3) == 5 and _call_(1) == 2",
        RIGHT.replace("add", "_call") + "\ndef _call_(a):\n    return 2",
    ),
    (ADD, RIGHT + "\ndef globals():\n    return {}"),
    ("assert greet(name='you') == 'Hi you'", "def greet(name):\n    return 'Hi ' + name"),
    ("import functools\nassert functools.reduce(add, (2, 3)) == 5", RIGHT),
    ("assert candidate(2) == 2 and do(1) == 1", "def candidate(a):\n    return a\ndef do(a):\n    return a"),
]
DETAILS = [
    (ADD, WRONG, "wrong answer assert add(2, 3) == 5; add(2, 3) gave 6"),
    (ADD, "def add(a, b):\n    return a / 0", "exception add(2, 3) raised ZeroDivisionError: division by zero"),
    (ADD, "x = 1", "exception add(2, 3) raised NameError: the program does not define add"),
    ("assert f() == 1", "def f():\n    pass", "wrong answer assert f() == 1; f() gave None"),
    ("assert f(a='x') == 1", "def f(a):\n    pass", "wrong answer assert f(a='x') == 1; f(a='x') gave None"),
    (
        "def check(candidate):\n    assert candidate('f', 1) == 3\ncheck(add)",
        "def add(a, b):\n    return 4",
        "wrong answer assert candidate('f', 1) == 3; add('f', 1) gave 4",
    ),
]


def texts(cases):
    """What became of one program for each test, all run at once."""
    _, results = run([case[0] for case in cases], [[case[1]] for case in cases])
    return [results[task][0][1]["result"] for task in range(len(cases))]


def test_functions_under_test_may_have_names_of_builtins():
    assert [text == "passed" for text in texts(BUILTIN_NAMES)] == [passes for *_, passes in BUILTIN_NAMES]


def test_the_tests_own_tools_and_missing_functions_forge_no_pass():
    assert all(text.startswith("failed") for text in texts(FORGED))


def test_names_of_program_and_test_are_free():
    assert texts(FREE_NAMES) == ["passed"] * len(FREE_NAMES)


def test_results_name_the_calls_of_the_test():
    assert texts(DETAILS) == [f"failed: {text}" for *_, text in DETAILS]


def test_k_beyond_the_candidates_is_left_out_and_said(capsys):
    scores, _ = run([ADD], [[RIGHT, WRONG]], k=(1, 10, 100))
    assert scores == {"pass@1": 0.5}
    assert "pass@10, pass@100 left out: a problem has only 2 candidates" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("program", "result"),
    [
        ("def add(a, b:", "exception"),
        ("x = 1", "exception"),
        ("def add(a, b):\n    return type('Any', (), {'__eq__': lambda s, o: True})()", "wrong answer"),
        ("import sys\nsys.exit(0)", "exception"),
        ("import os\nos._exit(0)", "crash"),
        ("def add(a, b):\n    while True: pass", "time-out"),
    ],
)
def test_no_program_forges_a_pass(program, result):
    scores, results = run([ADD], [[program]], timeout=1.5)
    assert scores == {"pass@1": 0.0}
    assert results[0][0][1]["result"].startswith(f"failed: {result}")


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("assert add(", "test of problem 0 does not parse"),
        ("assert 1 == 1", "calls no function of the program"),
        ("assert add(2, 3) == ANSWER", "uses ANSWER other than by calling it"),
        ("assert add(np.array([1]), 2) == 3", "uses np other than by calling it"),
        ("n = 0\ndef f():\n    global n\n    n = add(1, 2)\nf()\nassert n == 3", "uses a global variable"),
        ("s = Stack()\ns.push(1)\nassert s.pop() == 1", r"uses \.push of what a function of the program returned"),
        ("assert Stack().is_empty()", r"uses \.is_empty of what a function"),
        ("x = [2, 1]\nsort_it(x)\nassert x == [1, 2]", "calls sort_it for what it does to x. It sees only the plain"),
        ("from math import *\nassert isclose(area(1), pi)", r"has an import of \*; let it import what it needs by"),
        ("from __future__ import annotations\nassert add(1, 2) == 3", "must occur at the beginning"),
        ("import math\nassert add(math.sqrt, 4) == 2", "its test calls the function with a value of type builtin"),
    ],
)
def test_broken_references_are_refused(reference, message):
    with pytest.raises(ValueError, match=message):
        run([reference], [[RIGHT]])


def test_what_plain_values_can_show_is_judged():
    cases = [
        ("x = [2, 1]\nadd(x, x)\ny = add(x, x)\ny.sort()\nassert y == [1, 1, 2, 2] and add(x, x).count(1) == 2", RIGHT),
        ("try:\n    add(1, None)\nexcept TypeError:\n    pass", RIGHT),
        ("a, b = add((1,), (2,))\nc = '{}'.format(a)\nassert (c, b) == ('1', 2)", RIGHT),
    ]
    assert texts(cases) == ["passed"] * len(cases)
    generator = [("assert list(count(2)) == [0, 1]", "def count(n):\n    yield from range(n)")]
    assert texts(generator)[0].endswith("count(2) gave a value of type generator, which cannot be compared")


def test_k_may_be_one_number_and_nothing_to_score_is_said():
    two = {"references": [ADD], "predictions": [[WRONG, RIGHT]]}
    assert code_eval().compute(**two, k=2)[0] == {"pass@2": 1.0}
    assert code_eval().compute(**two, k=np.int64(1))[0] == {"pass@1": 0.5}
    for nothing in ([], [[]], [[], []]):
        with pytest.raises(ValueError, match="nothing to score: predictions holds no program"):
            run([ADD] * len(nothing), nothing)


def test_programs_must_be_strings():
    with pytest.raises(ValueError, match="Predictions and/or references don't match the expected format"):
        run([ADD], [[3]])


def test_loads_by_path_as_evaluate_does():
    metric = evaluate.load(module.__file__, keep_in_memory=True)
    scores, _ = metric.compute(references=[ADD], predictions=[[RIGHT]], k=[1])
    assert scores == {"pass@1": 1.0}
