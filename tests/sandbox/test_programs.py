"""Honest programs: right ones of every kind pass at every level, and each failure is named; which level is taken."""

import errno
import re
import struct
import sys
import textwrap

import pytest
from attack import promising

from course_utils.evaluation.metrics import code_eval
from course_utils.sandbox import Result, confinement, levels, run_problem, run_problems, running, strongest_level
from course_utils.sandbox.levels import Level

pytestmark = pytest.mark.usefixtures("whatever_the_environment")


def problem(name, prompt, solution, test):
    return {"task_id": name, "prompt": prompt, "entry_point": name, "canonical_solution": solution, "test": test}


META = "\n\nMETADATA = {\n    'author': 'jt',\n    'dataset': 'test'\n}\n\n\ndef check(candidate):\n"
HUMANEVAL = [  # what its tests do, in problems of our own
    problem(
        "mean_gap",
        "from typing import List\n\n\ndef mean_gap(numbers: List[float]) -> float:\n    '''Mean of the gaps.'''\n",
        "    return sum(b - a for a, b in zip(numbers, numbers[1:])) / (len(numbers) - 1)\n",
        META + "    assert abs(candidate([1.0, 2.5, 3.0]) - 1.0) < 1e-9\n    assert True, 'good for debugging'\n",
    ),
    problem(  # a helper of the prompt in the test, which changes what it sent, with random, math and copy
        "find_root",
        "import math\n\n\ndef poly(xs: list, x: float):\n    return sum(c * x**i for i, c in enumerate(xs))\n\n"
        "\ndef find_root(xs: list):\n    '''A root of a linear function.'''\n",
        "    return -xs[0] / xs[1]\n",
        META + "    import math\n    import random\n    import copy\n    rng = random.Random(42)\n"
        "    for _ in range(20):\n"
        "        coeffs = []\n        for _ in range(2):\n            coeffs.append(rng.randint(1, 10))\n"
        "        root = candidate(copy.deepcopy(coeffs))\n        assert math.fabs(poly(coeffs, root)) < 1e-4\n",
    ),
    problem(
        "decode_pairs",
        "def encode_pairs(s: str):\n    return ''.join(b + a for a, b in zip(s[::2], s[1::2]))\n\n\n"
        "def decode_pairs(s: str):\n    '''Undo encode_pairs.'''\n",
        "    return encode_pairs(s)\n",
        META + "    from random import choice\n    import string\n\n    for _ in range(20):\n"
        "        str = ''.join(choice(string.ascii_lowercase) for i in range(8))\n"
        "        assert candidate(encode_pairs(str)) == str\n",
    ),
    problem(
        "next_smallest",
        "\ndef next_smallest(lst):\n    '''Or None.'''\n",
        "    lst = sorted(set(lst))\n    return None if len(lst) < 2 else lst[1]\n",
        META + "    assert candidate([1, 2, 3, 4, 5]) == 2\n    assert candidate([1, 1]) == None\n"
        "    assert candidate([]) is None\n",
    ),
    problem(  # an expected exception
        "ratio",
        "def ratio(a, b):\n    '''a / b, or ValueError.'''\n",
        "    if not isinstance(a, int):\n        raise ValueError('not a number')\n    return a / b\n",
        META + "    assert candidate(1, b=4) == 0.25\n    try:\n        candidate('1', 1)\n        assert False\n"
        "    except ValueError as error:\n        assert str(error) == 'not a number'\n",
    ),
    problem(  # changes its argument, which the test uses again
        "without_last",
        "def without_last(items):\n    '''All but the last.'''\n",
        "    items.pop()\n    return items\n",
        META + "    items = [1, 2, 3]\n    for _ in range(2):\n        assert candidate(items) == [1, 2]\n",
    ),
]
KINDS = {  # of programs and of values that they return: the program, and what a test asserts
    "long integers": (
        "from math import factorial as f",
        "import math\nassert f(2000) == math.factorial(2000)",
    ),
    "ranges": ("def f(n): return range(n)", "assert f(4) == range(4)\nassert [*f(3)] == [0, 1, 2]"),
    "views": (
        "def f(d): return d.keys(), d.values(), d.items()",
        "keys, values, items = f({'a': [1], 2: 3})\nassert keys == {'a', 2} and list(values) == [[1], 3]\n"
        "assert sorted(items, key=str) == [('a', [1]), (2, 3)] and len(items) == 2",
    ),
    "deque": (
        "from collections import deque\ndef f(n): return deque(range(9), n)",
        "from collections import deque\nassert f(2) == deque([7, 8]) and f(2).maxlen == 2",
    ),
    "decimals": (
        "from decimal import Decimal\ndef f(x): return Decimal(x) / 3",
        "from decimal import Decimal\nassert f(1) == Decimal(1) / 3 and type(f(1)) is Decimal",
    ),
    "fractions": (
        "from fractions import Fraction\ndef f(x): return x / 3",
        "from fractions import Fraction\nassert f(Fraction(1)) == Fraction(1, 3)",
    ),
    "dates": (
        "import datetime\ndef f(day): return day + datetime.timedelta(1), datetime.datetime(2024, 2, 29, 1)",
        "import datetime\nassert f(datetime.date(2024, 2, 28)) == "
        "(datetime.date(2024, 2, 29), datetime.datetime(2024, 2, 29, 1))",
    ),
    "a million numbers": (
        "def f(x): return [2 * i for i in x]",
        "assert f([*range(10 ** 6)])[-1] == 2 * (10 ** 6 - 1)",
    ),
    "nan": ("def f(x): return float('nan')", "assert f(1) != f(1)"),
    "containers": (
        "def f(words):\n    return {len(w): {w} for w in words}, (), frozenset('a'), b'x', 1j",
        "assert f(['a', 'bb']) == ({1: {'a'}, 2: {'bb'}}, (), frozenset('a'), b'x', 1j)",
    ),
    "numpy, pandas": (
        "import numpy as np, pandas as pd\ndef f(x):\n    s = pd.Series(x)\n"
        "    return {'mean': s.mean(), 'all': s, 'n': np.int64(len(x)), 'index': pd.DataFrame({'x': x}).columns}",
        "assert f([1, 2]) == {'mean': 1.5, 'all': [1, 2], 'n': 2, 'index': ['x']}",
    ),
    "matplotlib": ("import matplotlib.pyplot as plt\ndef f(x): return len(plt.plot(x))", "assert f([1, 2]) == 1"),
    "torch": ("import torch\ndef f(x): return torch.tensor(x).sum().item()", "assert f([1, 2]) == 3"),
    "classes of its own": (
        "import dataclasses, enum\nclass Mark(str, enum.Enum): END = '$'\n@dataclasses.dataclass\nclass P:\n x: int\n"
        "def f(x): return [P(x).x, Mark.END]",
        "assert f(1) == [1, '$']",
    ),
    "threads": (
        "from concurrent.futures import ThreadPoolExecutor\ndef f(x):\n    with ThreadPoolExecutor(4) as pool:\n"
        "        return [*pool.map(abs, x)]",
        "assert f([-1, 2]) == [1, 2]",
    ),
    "asyncio": (
        "import asyncio\nasync def g(x): return await asyncio.to_thread(abs, x)\ndef f(x): return asyncio.run(g(x))",
        "assert f(-4) == 4",
    ),
    "prints to nowhere": (
        "import contextlib, os, sys\ndef f(x):\n    print(x, file=sys.stderr)\n"
        "    with open(os.devnull, 'w') as n, contextlib.redirect_stdout(n): print(x)\n    return sys.stdin.read()",
        "assert f(1) == ''",
    ),
    "chance, memory files, pipes": (
        "import io, os, random, secrets, sqlite3, uuid\ndef f(x):\n    os.set_blocking(os.pipe()[0], False)\n"
        "    io.StringIO().write(secrets.token_hex() + str(uuid.uuid4()) + str(random.random()))\n"
        "    return sqlite3.connect(':memory:').execute('select 1').fetchone() if not os.isatty(0) else None",
        "assert f(1) == (1,)",
    ),
    "time zones": (
        "import zoneinfo\ndef f(x): return zoneinfo.ZoneInfo(x).key",
        "assert f('Europe/Oslo') == 'Europe/Oslo'",
    ),
}


def as_problem(name):
    program, test = KINDS[name]
    return problem("f", "", program + "\n", "def check(f):\n" + textwrap.indent(test, "    ")) | {"task_id": name}


ADD = problem(
    "add",
    "def add(a, b):\n    '''a + b'''\n",
    "    return a + b\n",
    "def check(candidate):\n    assert candidate(1, 2) == 3\n    assert candidate(-1, 1) == 0, 'zero'\n",
)


@pytest.mark.parametrize("level", promising("verdict"))
def test_right_programs_pass_and_none_does_not(level):
    right = [*HUMANEVAL, *map(as_problem, KINDS)]
    jobs = [(one, one["canonical_solution"]) for one in right] + [(one, "    return None\n") for one in HUMANEVAL]
    results = run_problems(jobs, level=level, workers=2, time_limit=60, memory_limit=2 << 30, progress=False)
    assert [result.outcome for result in results[: len(right)]] == ["passed"] * len(right), results
    assert {result.outcome for result in results[len(right) :]} == {"wrong answer"}, results
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
        ("    return abs(a) + b\n", "wrong answer", "'zero'; add(-1, 1) gave 2"),
        ("    return a / 0\n", "exception", "add(1, 2) raised ZeroDivisionError: division by zero"),
        ("    return (\n", "exception", "loading the program raised SyntaxError: '(' was never closed"),
        ("    pass\ndel add\n", "exception", "the program does not define add"),
        ("    import no_such_module\n", "exception", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("    assert a < 0\n", "exception", "add(1, 2) raised AssertionError"),
        ("    return add(a, b)\n", "exception", "RecursionError"),
        ("    class Odd(ValueError): pass\n    raise Odd('x')\n", "exception", "add(1, 2) raised Odd: x"),
        ("    yield a\n", "cannot be judged", "gave a value of type generator, which cannot be sent"),
        ("    return object()\n", "cannot be judged", "gave a value of type object, which cannot be sent"),
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


def test_a_test_that_calls_nothing_is_refused():
    with pytest.raises(ValueError, match="add: its test never calls the program"):
        run_problem(ADD | {"test": "def check(candidate):\n    pass\n"}, "    return None\n")


def test_results_come_in_the_order_of_the_jobs_and_the_bar_shows_throughput(capsys):
    slow = "    import time; time.sleep(1)\n    return a + b\n"
    results = run_problems([(ADD, slow), (ADD, "    return 1\n"), (ADD, ADD["canonical_solution"])], workers=2)
    assert [result.outcome for result in results] == ["passed", "wrong answer", "passed"]
    assert re.search(r"program/s|s/program", capsys.readouterr().err)
    with pytest.raises(AttributeError):
        Result("wrong answer", "landlock").outcome = "passed"


# --- the levels


def test_on_linux_one_level_confines_and_the_table_lists_all():
    if sys.platform == "linux":
        assert any(problem is None for level, problem in running.probe().items() if level != Level.LIMITS)
    lines = levels.promise_table().splitlines()
    assert len(lines) == 2 + len(levels.PROMISES)
    assert all(line.count("|") == 2 + len(Level) for line in lines)


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
    monkeypatch.undo()
    secret = "HF_TOKEN WANDB_API_KEY AWS_SECRET_ACCESS_KEY DB_PASSWORD MY_CREDENTIALS MYSQL_PWD SMTP_PASS GITHUB_PAT "
    secret += "DATABASE_URL AZURE_STORAGE_CONNECTION_STRING SENTRY_DSN GPG_PASSPHRASE"
    for name in secret.split():
        monkeypatch.setenv(name, "x")
        assert name in levels.secret_names()
    for name in ("KEYBOARD", "MONKEY", "TOKENIZERS_PARALLELISM", "PWD", "OLDPWD", "PATH", "COMPASS", "PYTHONPATH"):
        monkeypatch.setenv(name, "x")
        assert name not in levels.secret_names()
    for value, secret in (("http://me:word@host:80", True), ("http://host:80/a@b", False), ("http://me@host", False)):
        monkeypatch.setenv("http_proxy", value)
        assert ("http_proxy" in levels.secret_names()) == secret


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
        (0, 63, (), "allow"),  # read
        (59, 221, (), "EPERM"),  # execve
        (41, 198, (), "EPERM"),  # socket
        (56, 220, (17,), "EPERM"),  # clone of a process
        (56, 220, (0x10F00,), "allow"),  # clone of a thread
        (435, 435, (), "ENOSYS"),  # clone3
        (9999, 9999, (), "ENOSYS"),  # unknown
        (0x40000000 + 59, 0x40000000 + 221, (), "ENOSYS"),  # execve of the x32 ABI
        (234, 131, (4242,), "allow"),  # tgkill to itself
        (234, 131, (4243,), "EPERM"),
        (157, 167, (15,), "allow"),  # prctl PR_SET_NAME
        (157, 167, (1,), "EPERM"),  # PR_SET_PDEATHSIG
        (30, 196, (), "EPERM"),  # shmat
        (302, 261, (0,), "allow"),  # prlimit64 of itself
        (302, 261, (1,), "EPERM"),
        (72, 25, (3, 1), "allow"),  # fcntl F_GETFD
        (72, 25, (3, 8), "EPERM"),  # F_SETOWN
        (72, 25, (3, 15), "EPERM"),
        (53, 199, (1, 0x80001), "allow"),  # socketpair of streams
        (53, 199, (1, 2), "EPERM"),  # of datagrams, which can be sent elsewhere
        (53, 199, (2, 1), "EPERM"),
        (16, 29, (3, 0x5401), "allow"),  # ioctl TCGETS
        (16, 29, (3, 0x40086602), "EPERM"),  # FS_IOC_SETFLAGS
    ],
)
def test_the_filter_decides_on_both_machines(x86, arm, arguments, expected):
    assert verdict("x86_64", X86, x86, *arguments) == expected
    assert verdict("aarch64", ARM, arm, *arguments) == expected
    assert verdict("x86_64", ARM, x86, *arguments) == "kill"
    with pytest.raises(OSError, match="no seccomp filter for riscv64"):
        confinement.seccomp_program("riscv64", 1)
