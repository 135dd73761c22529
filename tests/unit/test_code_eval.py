"""pass@k: the estimator against exact binomials, the metric against the blog's example and hostile programs."""

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


@given(st.integers(1, 400), st.data())
def test_estimator_is_exact_where_binomials_are_huge(n, data):
    c, k = data.draw(st.integers(0, n)), data.draw(st.integers(1, n))
    exact = 1 - math.comb(n - c, k) / math.comb(n, k)
    assert estimate_pass_at_k(n, c, k) == pytest.approx(exact, abs=1e-12)


@pytest.mark.parametrize("counts", [(2, 1, 3), (2, 3, 1), (2, -1, 1), (2, 1, 0), (0, 0, 1)])
def test_impossible_counts_are_refused(counts):
    with pytest.raises(ValueError, match=r"is not defined: k must be between 1 and"):
        estimate_pass_at_k(*counts)


def test_example_of_the_blog_with_the_metric_that_evaluate_loads():
    metric = evaluate.load(module.__file__, keep_in_memory=True)
    scores, results = metric.compute(references=[ADD], predictions=[[WRONG, RIGHT]], k=[1, 2])
    assert scores == {"pass@1": 0.5, "pass@2": 1.0}
    (first, wrong), right = results[0]
    assert (first, wrong["passed"]) == (0, False)
    assert right == (1, {"task_id": 0, "completion_id": 1, "passed": True, "result": "passed"})


MAX = "def max(a, b):\n    return a if a > b else b\n"
CLASS = "class Stack:\n    def push(self, x):\n        self.top = x\n"
CASES = [  # the test, the program, what becomes of it
    (ADD, RIGHT, "passed"),
    (ADD, WRONG, "failed: wrong answer assert add(2, 3) == 5; add(2, 3) gave 6"),
    (ADD, "def add(a, b:", "failed: exception loading the program raised SyntaxError: '(' was never closed"),
    ("assert f(a='x') == 1", "def f(a):\n    pass", "failed: wrong answer assert f(a='x') == 1; f(a='x') gave None"),
    # Names: the test's own, the program's, Python's
    ("def check(f):\n    for n in (1, 2):\n        assert f(n, 3) == n + 3\ncheck(add)", RIGHT, "passed"),
    ("from functools import reduce\nassert [add(n, 1) for n in (1, 2)] == [2, reduce(add, (2, 1))]", RIGHT, "passed"),
    ("class T:\n x = add(1, 2)\n def m(self): return (lambda: add(self.x, 1))()\nassert T().m() == 4", RIGHT, "passed"),
    ("from math import *\nn = 0\ndef g():\n global n\n n = add(pi, 0)\ng()\nassert isclose(n, pi)", RIGHT, "passed"),
    ("from __future__ import annotations\nassert add(1, 2) == THREE", RIGHT + "\nTHREE = 3", "passed"),
    ("assert add(2, 3) == 5 and max(1, 2) == 2", RIGHT + "\ndef globals():\n    return {}", "passed"),
    ("try:\n    add(1, None)\nexcept TypeError as error:\n    message = str(error)\nassert message", RIGHT, "passed"),
    # Values that come back are the test's; what it cannot see makes no right program wrong
    ("y = add([2], [1])\ny.sort()\nassert y == [1, 2] and add('a', 'b').upper() == 'AB'", RIGHT, "passed"),
    ("x = [2, 1]\nassert pair(x) == pair(x) == [1, 2]", "def pair(x):\n    x.sort()\n    return x", "passed"),
    ("x = [2, 1]\npair(x)\nassert x == [1, 2]", "def pair(x):\n    x.sort()", "cannot be judged assert x == [1, 2]"),
    ("assert list(count(2)) == [0, 1]", "def count(n):\n    yield from range(n)", "cannot be judged count(2) gave a "),
    ("s = Stack()\ns.push(1)", CLASS, "cannot be judged Stack gave a value of type type, which cannot be sent"),
    ("import math\nassert add(math.sqrt, 4) == 2", RIGHT, "cannot be judged add(<built-in function sqrt>, 4) "),
    ("assert max(10, 15) == 15 and add(2, 3) == 5", MAX + RIGHT, "cannot be judged the program defines max, but in"),
    # Forged
    ("assert abs(area(1) - 3.14) < 0.01", "def area(r):\n    return 0\ndef abs(x):\n    return 0", "cannot be judged"),
    ("wanted = sorted([2, 1])\nassert f() == wanted", "def f(): pass\ndef sorted(x): pass", "cannot be judged"),
    ("assert abs(f(1) - 3.14) < 0.01", "import builtins\nf = builtins.abs = lambda x: 0", "failed: wrong answer"),
    ("try:\n    f({})\n    assert False\nexcept Exception:\n    pass", "x = 1", "failed: exception f raised NameError"),
    (ADD, "def add(a, b):\n    return type('Any', (), {'__eq__': lambda s, o: True})()", "cannot be judged"),
    (ADD, "import os\nos._exit(0)", "failed: crash"),
]  # fmt: skip


def test_every_kind_of_test_and_program():
    _, results = run([case[0] for case in CASES], [[case[1]] for case in CASES], timeout=5)
    found = [results[task][0][1] for task in range(len(CASES))]
    assert [row["result"][: len(text)] for row, (*_, text) in zip(found, CASES, strict=True)] == [c[2] for c in CASES]
    assert all(row["passed"] == (row["result"] == "passed") for row in found)


def test_k_beyond_the_candidates_is_left_out_and_said(capsys):
    assert run([ADD], [[RIGHT, WRONG]], k=(1, 10, 100))[0] == {"pass@1": 0.5}
    assert "pass@10, pass@100 left out: a problem has only 2 candidates" in capsys.readouterr().out
    assert code_eval().compute(references=[ADD], predictions=[[WRONG, RIGHT]], k=np.int64(2))[0] == {"pass@2": 1.0}


@pytest.mark.parametrize(
    ("references", "predictions", "message"),
    [
        (["assert add("], [[RIGHT]], "test of problem 0 does not parse"),
        (["assert 1 == 1"], [[RIGHT]], "code_eval/0: its test never calls the pro"),
        ([], [], "nothing to score: predictions holds no program"),
        ([ADD, ADD], [[], []], "nothing to score: predictions holds no program"),
    ],
)
def test_what_cannot_be_scored_is_refused(references, predictions, message):
    with pytest.raises(ValueError, match=message):
        run(references, predictions)
