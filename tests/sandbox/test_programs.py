"""Honest programs: right ones of every kind pass at every level, and each failure is named; which level is taken."""

import errno
import re
import struct
import sys
import textwrap

import pytest
from attack import promising

from course_utils.evaluation.metrics import code_eval
from course_utils.sandbox import confinement, levels, run_problem, run_problems, running, strongest_level
from course_utils.sandbox.levels import Level

pytestmark = pytest.mark.usefixtures("whatever_the_environment")


def problem(name, prompt, solution, test):
    return {"task_id": name, "prompt": prompt, "entry_point": name, "canonical_solution": solution, "test": test}


HELPED = problem(  # a helper of the prompt in the test, which changes what it sent, with random, math and copy
    "find_root",
    "import math\n\n\ndef poly(xs: list, x: float):\n    return sum(c * x**i for i, c in enumerate(xs))\n\n"
    "\ndef find_root(xs: list):\n    '''A root of a linear function.'''\n",
    "    return -xs[0] / xs[1]\n",
    "\n\nMETADATA = {\n    'author': 'jt',\n    'dataset': 'test'\n}\n\n\ndef check(candidate):\n"
    "    import math\n    import random\n    import copy\n    rng = random.Random(42)\n    for _ in range(20):\n"
    "        coeffs = []\n        for _ in range(2):\n            coeffs.append(rng.randint(1, 10))\n"
    "        root = candidate(copy.deepcopy(coeffs))\n        assert math.fabs(poly(coeffs, root)) < 1e-4\n"
    "    assert True, 'good for debugging'\n",
)
KINDS = {  # of programs and of values that they return: the program, and what a test asserts
    "long integers": ("from math import factorial as f", "import math\nassert f(2000) == math.factorial(2000)"),
    "values": (
        "import fractions\ndef f(*x): return x + (fractions.Fraction(1, 3), {1}, frozenset('a'), b'x', 1j)",
        "import collections, datetime, decimal, fractions\nthird = decimal.Decimal(1) / 3\n"
        "day = datetime.datetime(2024, 2, 9, 5)\n"
        "sent = collections.deque([7, 8], 2), day.date(), day, third, range(4), {1: {2}}\n"
        "assert f(*sent) == (*sent, fractions.Fraction(1, 3), {1}, frozenset('a'), b'x', 1j)\n"
        "assert f(third)[0].as_tuple() == third.as_tuple() and f(sent[0])[0].maxlen == 2"),
    "views": (
        "def f(d): return d.keys(), d.values(), d.items()",
        "keys, values, items = f({'a': [1], 2: 3})\nassert keys == {'a', 2} and list(values) == [[1], 3]\n"
        "assert sorted(items, key=str) == [('a', [1]), (2, 3)] and len(items) == 2"),
    "a million numbers": ("def f(x): return [2 * i for i in x]", "assert f([*range(10 ** 6)])[-1] == 1999998"),
    "nan": ("def f(x): return float('nan')", "assert f(1) != f(1)"),
    "an expected exception": (
        "def f(a, b):\n    if not b: raise ValueError('zero')\n    return a / b",
        "assert f(1, b=4) == 0.25\ntry:\n    f(1, 0)\n    assert False\nexcept ValueError as error:\n"
        "    assert str(error) == 'zero'"),
    "a changed argument": ("def f(x):\n x.pop()\n return x", "x = [1, 2]\nfor _ in '12':\n    assert f(x) == [1]"),
    "numpy, pandas": (
        "import numpy as np, pandas as pd\ndef f(x):\n    s = pd.Series(x)\n"
        "    return {'mean': s.mean(), 'all': s, 'n': np.int64(len(x)), 'index': pd.DataFrame({'x': x}).columns}",
        "assert f([1, 2]) == {'mean': 1.5, 'all': [1, 2], 'n': 2, 'index': ['x']}"),
    "matplotlib": ("import matplotlib.pyplot as plt\ndef f(x): return len(plt.plot(x))", "assert f([1, 2]) == 1"),
    "torch": ("import torch\ndef f(x): return torch.tensor(x).sum().item()", "assert f([1, 2]) == 3"),
    "classes of its own": (
        "import dataclasses, enum\nclass Mark(str, enum.Enum): END = '$'\n@dataclasses.dataclass\nclass P:\n x: int\n"
        "def f(x): return [P(x).x, Mark.END]", "assert f(1) == [1, '$']"),
    "threads": (
        "from concurrent.futures import ThreadPoolExecutor\ndef f(x):\n    with ThreadPoolExecutor(4) as pool:\n"
        "        return [*pool.map(abs, x)]", "assert f([-1, 2]) == [1, 2]"),
    "asyncio": (
        "import asyncio\nasync def g(x): return await asyncio.to_thread(abs, x)\ndef f(x): return asyncio.run(g(x))",
        "assert f(-4) == 4"),
    "prints to nowhere": (
        "import contextlib, os, sys\ndef f(x):\n    print(x, file=sys.stderr)\n"
        "    with open(os.devnull, 'w') as n, contextlib.redirect_stdout(n): print(x)\n    return sys.stdin.read()",
        "assert f(1) == ''"),
    "chance, memory files, pipes": (
        "import io, os, random, secrets, sqlite3, uuid\ndef f(x):\n    os.set_blocking(os.pipe()[0], False)\n"
        "    io.StringIO().write(secrets.token_hex() + str(uuid.uuid4()) + str(random.random()))\n"
        "    return sqlite3.connect(':memory:').execute('select 1').fetchone() if not os.isatty(0) else None",
        "assert f(1) == (1,)"),
    "time zones": ("import zoneinfo as z\ndef f(x): return z.ZoneInfo(x).key", "assert f('Asia/Baku') == 'Asia/Baku'"),
}  # fmt: skip


def as_problem(name):
    program, test = KINDS[name]
    return problem(name, "", program + "\n", "def check(f):\n" + textwrap.indent(test, "    ")) | {"entry_point": "f"}


ADD = problem(
    "add",
    "def add(a, b):\n    '''a + b'''\n",
    "    return a + b\n",
    "def check(candidate):\n    assert candidate(1, 2) == 3\n    assert candidate(-1, 1) == 0, 'zero'\n",
)


@pytest.mark.parametrize("level", promising("verdict"))
def test_right_programs_pass_and_none_does_not(level):
    right = [HELPED, *map(as_problem, KINDS)]
    jobs = [*((one, one["canonical_solution"]) for one in right), (HELPED, "    return None\n")]
    jobs[0] = {name: value for name, value in HELPED.items() if name != "canonical_solution"}, jobs[0][1]
    results = run_problems(jobs, level=level, workers=2, time_limit=60, memory_limit=2 << 30, progress=False)
    assert [result.outcome for result in results] == ["passed"] * len(right) + ["wrong answer"], results
    assert {result.level for result in results} == {level}


def test_right_programs_pass_as_code_eval_too():
    tests, programs = [test for _, test in KINDS.values()], [[program] for program, _ in KINDS.values()]
    scores, results = code_eval().compute(references=tests, predictions=programs, k=[1], timeout=60)
    assert scores == {"pass@1": 1.0}, [row for rows in results.values() for row in rows if not row[1]["passed"]]


@pytest.mark.parametrize(
    ("completion", "outcome", "detail"),
    [
        ("    return a + b", "passed", ""),
        ("    return a - b\n", "wrong answer", "assert candidate(1, 2) == 3; add(1, 2) gave -1"),
        ("    return a / 0\n", "exception", "add(1, 2) raised ZeroDivisionError: division by zero"),
        ("    return (\n", "exception", "loading the program raised SyntaxError: '(' was never closed"),
        ("    import no_such_module\n", "exception", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("    assert a < 0\n", "exception", "add(1, 2) raised AssertionError"),
        ("    return add(a, b)\n", "exception", "RecursionError"),
        ("    class Odd(ValueError): pass\n    raise Odd('x')\n", "exception", "add(1, 2) raised Odd: x"),
        ("    yield a\n", "cannot be judged", "gave a value of type generator, which cannot be sent"),
        ("    return a + b\n" + "#" * (9 << 20), "cannot be judged", "would send a value of 9"),
        ("    import os\n    os.abort()\n", "crash", "the process ended"),
        ("    open('x', 'w')\n", "forbidden", "add(1, 2) raised"),
    ],
)
def test_each_outcome_is_named(completion, outcome, detail):
    result = run_problem(ADD, completion, time_limit=60)
    assert (result.outcome, result.level) == (outcome, strongest_level()), result
    assert detail in result.detail
    assert result.seconds > 0


@pytest.mark.parametrize(
    ("test", "outcome"),
    [
        ("    assert candidate(candidate(1, 2), object()) == 3\n", "cannot be judged"),
        ("    assert candidat(1, 2) == 3\n", "wrong answer"),
        ("    if candidate(1, 2) == 3:\n        raise SystemExit(0)\n", "wrong answer"),
        ("    if candidate(1, 2) == 3:\n        __import__('pytest').fail('no')\n", "wrong answer"),
    ],
)
def test_a_test_that_ends_otherwise_passes_nothing(test, outcome):
    assert run_problem(ADD | {"test": "def check(candidate):\n" + test}, "    return a + b\n").outcome == outcome


def test_results_come_in_the_order_of_the_jobs_and_the_bar_shows_throughput(capsys):
    slow = "    import time; time.sleep(1)\n    return a + b\n"
    results = run_problems([(ADD, slow), (ADD, "    return 1\n"), (ADD, ADD["canonical_solution"])], workers=2)
    assert [result.outcome for result in results] == ["passed", "wrong answer", "passed"]
    assert re.search(r"program/s|s/program", capsys.readouterr().err)


# --- the levels


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can confine")
def test_on_linux_one_level_confines():
    assert any(problem is None for level, problem in running.probe().items() if level != Level.LIMITS)


def test_weak_confinement_has_to_be_asked_for(monkeypatch):
    monkeypatch.delenv("COURSE_SANDBOX", raising=False)
    monkeypatch.setattr(running, "probe", lambda: dict.fromkeys(Level, "missing") | {Level.LIMITS: None})
    with pytest.raises(RuntimeError, match=r"bubblewrap: missing; landlock: missing.*promises none of this: it starts"):
        run_problem(ADD, "    return a + b\n")
    monkeypatch.setenv("COURSE_SANDBOX", "limits")
    assert run_problem(ADD, "    return a + b\n").level == "limits"
    with pytest.raises(RuntimeError, match="The level landlock does not work here: missing"):
        run_problem(ADD, "", level="landlock")
    monkeypatch.setattr(levels, "secret_names", lambda: ["HF_TOKEN"])
    with pytest.raises(RuntimeError, match="environment of this process has HF_TOKEN"):
        run_problem(ADD, "    return a + b\n")  # a level chosen by the variable asks for no less
    monkeypatch.setenv("COURSE_SANDBOX", "Limits")
    with pytest.raises(ValueError, match="COURSE_SANDBOX='Limits' is not known"):
        strongest_level()


def test_a_level_that_lets_something_through_is_not_used(monkeypatch):
    monkeypatch.setattr(running, "_TRIAL", "def trial(): return ['socket']")
    monkeypatch.setattr(running, "probe", running.probe.__wrapped__)
    for level in (Level.BUBBLEWRAP, Level.LANDLOCK):
        if not running.probe()[level].startswith("a child could still use: socket"):
            pytest.skip(f"{level} does not work here")
        with pytest.raises(RuntimeError, match=f"{level} does not work here: a child could still use: socket"):
            run_problem(ADD, "    return a + b\n", level=level)
    monkeypatch.setenv("PATH", "")
    assert "bwrap is not installed" in running.probe()[Level.BUBBLEWRAP]


def test_names_of_secrets_are_recognised(monkeypatch):
    monkeypatch.undo()  # the fixture's
    secret = "HF_TOKEN WANDB_API_KEY AWS_SECRET_ACCESS_KEY DB_PASSWORD MY_CREDENTIALS MYSQL_PWD SMTP_PASS GITHUB_PAT "
    secret += "DATABASE_URL AZURE_STORAGE_CONNECTION_STRING SENTRY_DSN GPG_PASSPHRASE"
    harmless = "KEYBOARD MONKEY TOKENIZERS_PARALLELISM PWD OLDPWD PATH COMPASS PYTHONPATH"
    for name in (secret + " " + harmless).split():
        monkeypatch.setenv(name, "x")
        assert (name in levels.secret_names()) == (name in secret.split())
    for value, found in (("http://me:word@host:80", True), ("http://host:80/a@b", False), ("http://me@host", False)):
        monkeypatch.setenv("http_proxy", value)
        assert ("http_proxy" in levels.secret_names()) == found


# --- the filter, run by a small interpreter of what the kernel runs

X86, ARM = 0xC000003E, 0xC00000B7


def verdict(machine, architecture, number, *arguments):
    code = list(struct.iter_unpack("HBBI", confinement.seccomp_program(machine, 4242)))
    data = struct.pack("=iIQ6Q", number, architecture, 0, *arguments, *[0] * (6 - len(arguments)))
    place = value = 0
    while True:
        kind, yes, no, constant = code[place]
        place += 1
        if kind == 0x20:
            (value,) = struct.unpack_from("=I", data, constant)
        elif kind == 0x06:
            return {0x7FFF0000: "allow", 0x80000000: "kill"}.get(constant) or errno.errorcode[constant & 0xFFFF]
        else:
            holds = {0x15: value == constant, 0x35: value >= constant, 0x45: value & constant != 0}[kind]
            place += yes if holds else no


@pytest.mark.parametrize(
    ("x86", "arm", "arguments", "expected"),
    [
        (0, 63, (), "allow"), (59, 221, (), "EPERM"), (41, 198, (), "EPERM"), (30, 196, (), "EPERM"),  # read execve …
        (56, 220, (17,), "EPERM"), (56, 220, (0x10F00,), "allow"),  # clone of a process, of a thread
        (435, 435, (), "ENOSYS"), (9999, 9999, (), "ENOSYS"),  # clone3, unknown
        (0x40000000 + 59, 0x40000000 + 221, (), "ENOSYS"),  # execve of the x32 ABI
        (234, 131, (4242,), "allow"), (234, 131, (4243,), "EPERM"),  # tgkill to itself, to another
        (157, 167, (15,), "allow"), (157, 167, (1,), "EPERM"),  # prctl PR_SET_NAME, PR_SET_PDEATHSIG
        (302, 261, (0,), "allow"), (302, 261, (1,), "EPERM"),  # prlimit64 of itself, of another
        (72, 25, (3, 1), "allow"), (72, 25, (3, 8), "EPERM"), (72, 25, (3, 15), "EPERM"),  # fcntl F_GETFD, F_SETOWN, …
        (53, 199, (1, 0x80001), "allow"), (53, 199, (1, 2), "EPERM"), (53, 199, (2, 1), "EPERM"),  # socketpair: streams
        (16, 29, (3, 0x5401), "allow"), (16, 29, (3, 0x40086602), "EPERM"),  # ioctl TCGETS, FS_IOC_SETFLAGS
    ],
)  # fmt: skip
def test_the_filter_decides_on_both_machines(x86, arm, arguments, expected):
    assert verdict("x86_64", X86, x86, *arguments) == expected
    assert verdict("aarch64", ARM, arm, *arguments) == expected
    assert verdict("x86_64", ARM, x86, *arguments) == "kill"
    with pytest.raises(OSError, match="no seccomp filter for riscv64"):
        confinement.seccomp_program("riscv64", 1)
