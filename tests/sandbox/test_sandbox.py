"""What the sandbox says of honest programs, broken problems and bad arguments; the filter for both machines."""

import errno
import re
import struct
import sys

import numpy as np
import pytest

from course_utils.sandbox import confinement, levels
from course_utils.sandbox import running as sandbox
from course_utils.sandbox.levels import Level
from course_utils.sandbox.running import Result, check_solution, probe, run_problem, run_problems, strongest_level

pytestmark = pytest.mark.usefixtures("whatever_the_environment")


def problem(name, prompt, solution, test):
    return {"task_id": name, "prompt": prompt, "entry_point": name, "canonical_solution": solution, "test": test}


PROBLEMS = [
    problem(
        "mean_gap",
        "from typing import List\n\n\ndef mean_gap(numbers: List[float]) -> float:\n    '''Mean of the gaps.'''\n",
        "    return sum(b - a for a, b in zip(numbers, numbers[1:])) / (len(numbers) - 1)\n",
        "METADATA = {}\n\n\ndef check(candidate):\n    assert abs(candidate([1.0, 2.5, 3.0]) - 1.0) < 1e-9\n"
        "    assert abs(candidate([0.1, 0.3]) - 0.2) < 1e-9\n",
    ),
    problem(  # the test calls a helper of the prompt
        "decode_pairs",
        "def encode_pairs(text):\n    return ''.join(b + a for a, b in zip(text[::2], text[1::2]))\n\n\n"
        "def decode_pairs(text):\n    '''Undo encode_pairs.'''\n",
        "    return encode_pairs(text)\n",
        "import random\n\n\ndef check(candidate):\n    letters = random.Random(0)\n    for _ in range(20):\n"
        "        text = ''.join(letters.choice('abc') for _ in range(8))\n"
        "        assert candidate(encode_pairs(text)) == text\n",
    ),
    problem(  # tuples, keys that are numbers, a set
        "by_length",
        "def by_length(words):\n    '''Words by their length, and all lengths.'''\n",
        "    found = {}\n    for word in words:\n        found.setdefault(len(word), set()).add(word)\n"
        "    return found, tuple(sorted(found))\n",
        "def check(candidate):\n    assert candidate(['a', 'b', 'cc']) == ({1: {'a', 'b'}, 2: {'cc'}}, (1, 2))\n"
        "    assert type(candidate([])[1]) is tuple\n",
    ),
    problem(  # nan, infinity, an expected exception
        "safe_ratio",
        "def safe_ratio(a, b):\n    '''a / b; nan or infinite for b = 0; ValueError for what is no number.'''\n",
        "    if not isinstance(a, (int, float)):\n        raise ValueError('no number')\n    if b == 0:\n"
        "        return float('nan') if a == 0 else float('inf')\n    return a / b\n",
        "def check(candidate):\n    nan = candidate(0, 0)\n    assert nan != nan\n"
        "    assert candidate(1, b=0) == float('inf')\n"
        "    assert candidate(1, 4) == 0.25\n    try:\n        candidate('1', 1)\n        assert False, 'no error'\n"
        "    except ValueError as error:\n        assert str(error) == 'no number'\n",
    ),
    problem(  # changes its argument, which the test uses again
        "without_last",
        "def without_last(items):\n    '''All but the last.'''\n",
        "    items.pop()\n    return items\n",
        "def check(candidate):\n    items = [1, 2, 3]\n    assert candidate(items) == [1, 2]\n"
        "    assert candidate(items) == [1, 2]\n",
    ),
    problem(  # a dict for each letter of a long word; a member of an enumeration of strings
        "trie",
        "import enum\n\n\nclass Mark(str, enum.Enum):\n    END = '$'\n\n\ndef trie(words):\n    '''By letters.'''\n",
        "    root = {}\n    for word in words:\n        node = root\n        for letter in word:\n"
        "            node = node.setdefault(letter, {})\n        node[Mark.END] = Mark.END\n    return root\n",
        "def check(candidate):\n    assert candidate(['a', 'ab']) == {'a': {'$': '$', 'b': {'$': '$'}}}\n"
        "    assert len(candidate(['supercalifragilisticexpialidocious'])) == 1\n",
    ),
    problem(
        "city_means",
        "import pandas as pd\n\n\ndef city_means(rows):\n    '''Mean value of each city.'''\n",
        "    frame = pd.DataFrame(rows, columns=['city', 'value'])\n"
        "    means = frame.groupby('city')['value'].mean()\n"
        "    return {'cities': means.index, 'means': means, 'rows': frame.shape[0], 'largest': means.max()}\n",
        "def check(candidate):\n    rows = [('Oslo', 1), ('Rome', 4), ('Oslo', 2)]\n"
        "    assert candidate(rows) == {'cities': ['Oslo', 'Rome'], 'means': [1.5, 4.0], 'rows': 3, 'largest': 4.0}\n",
    ),
]
ADD = problem(
    "add",
    "def add(a, b):\n    '''a + b'''\n",
    "    return a + b\n",
    "def check(candidate):\n    assert candidate(1, 2) == 3\n"
    "    assert candidate(\n        -1, 1\n    ) == 0, 'zero'\n",
)
WORKING = [level for level, missing in probe().items() if missing is None]


@pytest.mark.parametrize("level", WORKING)
def test_canonical_solutions_pass_and_none_does_not(level):
    jobs = [(p, completion) for p in PROBLEMS for completion in (p["canonical_solution"], "    return None\n")]
    results = run_problems(jobs, level=level, workers=2, time_limit=60, progress=False)
    assert [result.outcome for result in results] == ["passed", "wrong answer"] * len(PROBLEMS), results
    assert {result.level for result in results} == {level}


@pytest.mark.parametrize(
    ("completion", "outcome", "detail"),
    [
        ("    return a + b\n", "passed", ""),
        ("    return a - b\n", "wrong answer", "assert candidate(1, 2) == 3; candidate(1, 2) gave -1"),
        ("    return abs(a) + b\n", "wrong answer", "'zero'; candidate(-1, 1) gave 2"),
        ("    return a / 0\n", "exception", "candidate(1, 2) raised ZeroDivisionError: division by zero"),
        ("    return (\n", "exception", "loading the program raised SyntaxError: '(' was never closed"),
        ("    pass\ndel add\n", "exception", "the program defines no function add"),
        ("    import no_such_module\n", "exception", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("    assert a < 0\n", "exception", "candidate(1, 2) raised AssertionError"),
        ("    return add(a, b)\n", "exception", "RecursionError"),
        ("    yield a\n", "wrong answer", "gave a value of type generator, which cannot be compared"),
        ("    return object()\n", "wrong answer", "gave a value of type object, which cannot be compared"),
        ("    class Odd(ValueError): pass\n    raise Odd('x')\n", "exception", "candidate(1, 2) raised Odd: x"),
        ("    import os\n    os.kill(os.getpid(), 11)\n    os.abort()\n", ("forbidden", "crash"), ""),
        ("    import os\n    os.abort()\n", "crash", "signal 6"),
    ],
)
def test_each_failure_is_named(completion, outcome, detail):
    result = run_problem(ADD, completion, time_limit=60)
    assert result.outcome in ([outcome] if isinstance(outcome, str) else outcome), result
    assert detail in result.detail
    assert result.seconds > 0
    assert result.level == strongest_level()


def test_results_come_in_the_order_of_the_jobs_and_the_bar_shows_throughput(capsys):
    slow = "    import time; time.sleep(1)\n    return a + b\n"
    results = run_problems([(ADD, slow), (ADD, "    return 1\n"), (ADD, ADD["canonical_solution"])], workers=2)
    assert [result.outcome for result in results] == ["passed", "wrong answer", "passed"]
    assert re.search(r"program/s|s/program", capsys.readouterr().err)
    assert run_problems([], progress=False) == []


def test_results_cannot_be_changed():
    with pytest.raises(AttributeError):
        Result("wrong answer", "landlock").outcome = "passed"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"test": "def check(candidate):\n    assert candidate(1, 2) == 4\n"}, r"own solution fails its test \(assert"),
        ({"test": "def check(candidate):\n    assert candidat(1, 2) == 3\n"}, "NameError: name 'candidat'"),
        ({"test": "raise SystemError('x')\ndef check(candidate): pass"}, "SystemError: x"),
        ({"test": "def check(candidate):\n    pass\n"}, "its check never calls candidate"),
        ({"test": "def check(candidate):\n    candidate(object(), 1)\n"}, "a value of type object"),
        (
            {
                "canonical_solution": "    a.append(b)\n",
                "test": "def check(candidate):\n    a = []\n    candidate(a, 1)\n    assert a == [1]\n",
            },
            "see no change of their arguments",
        ),
    ],
)
def test_a_broken_problem_is_no_failure_of_the_program(change, message):
    with pytest.raises(ValueError, match=f"add.*{message}"):
        run_problem(ADD | change, "    return None\n", time_limit=60)


@pytest.mark.parametrize("way", ["raise SystemExit(0)", "__import__('pytest').fail('no')", "raise GeneratorExit"])
def test_a_test_that_leaves_with_an_exit_fails_and_ends_nothing_else(way):
    exits = ADD | {"test": f"def check(candidate):\n    if candidate(1, 2) != 3:\n        {way}\n"}
    jobs = [(exits, "    return a\n"), (exits, "    return a + b\n"), (ADD, "    return a + b\n")]
    results = run_problems(jobs, progress=False, time_limit=60)
    assert [result.outcome for result in results] == ["wrong answer", "passed", "passed"]
    assert results[0].detail.endswith(f"{way}; candidate(1, 2) gave 1")
    with pytest.raises(ValueError, match="add is broken"):
        run_problem(exits | {"canonical_solution": "    return a\n"}, "    return a\n", time_limit=60)


NEEDS_THE_SAME_PROCESS = {
    "captured output": (
        "    print(a + b)\n    return a + b\n",
        "import contextlib, io\ndef check(candidate):\n    with contextlib.redirect_stdout(io.StringIO()) as text:\n"
        "        candidate(1, 2)\n    assert text.getvalue() == '3\\n'\n",
    ),
    "patched input": (
        "    return a + int(input())\n",
        "from unittest.mock import patch\ndef check(candidate):\n    with patch('builtins.input', lambda: '2'):\n"
        "        assert candidate(1, 2) == 3\n",
    ),
    "a prepared file": (
        "    return a + len(open(b).read())\n",
        "import os, tempfile\ndef check(candidate):\n    file, path = tempfile.mkstemp()\n    try:\n"
        "        os.write(file, b'xx')\n        os.close(file)\n        assert candidate(1, path) == 3\n"
        "    finally:\n        os.remove(path)\n",
    ),
    "seeded random numbers": (
        "    import random\n    return a + b + random.getrandbits(60)\n",
        "import random\ndef check(candidate):\n    random.seed(1)\n    found = candidate(1, 2)\n    random.seed(1)\n"
        "    assert found == 3 + random.getrandbits(60)\n",
    ),
}


@pytest.mark.parametrize("need", NEEDS_THE_SAME_PROCESS)
def test_a_test_that_needs_the_functions_own_process_is_no_failure_of_the_program(need):
    solution, test = NEEDS_THE_SAME_PROCESS[need]
    needy = ADD | {"canonical_solution": solution, "test": test}
    check_solution(needy)
    for completion in (solution, "    return None\n"):
        with pytest.raises(
            ValueError, match="add cannot be used: its own solution passes its test in one process, but"
        ):
            run_problem(needy, completion, time_limit=60)


def test_the_own_solution_runs_once_at_most(monkeypatch):
    runs, run = [], sandbox._run
    monkeypatch.setattr(sandbox, "_run", lambda *arguments: runs.append(arguments[1]) or run(*arguments))
    for number, canonical in enumerate(([ADD["canonical_solution"]] * 2, [])):
        fresh = ADD | {"task_id": f"add/{number}"}
        jobs = [(fresh, completion) for completion in (*canonical, "    return a\n", "    return b\n")]
        results = run_problems(jobs * 2, workers=4, time_limit=60, progress=False)
        assert [result.outcome == "passed" for result in results] == [True, True, False, False][-len(jobs) :] * 2
    assert len(runs) == 8 + 4 + 1


def test_low_limits_do_not_make_a_problem_unusable():
    slow = ADD | {"canonical_solution": "    import time\n    time.sleep(1.5)\n    return a + b\n"}
    assert run_problem(slow, slow["canonical_solution"], time_limit=0.5).outcome == "time-out"


def test_solutions_can_be_checked_without_a_sandbox():
    for good in PROBLEMS:
        check_solution(good)
    with pytest.raises(ValueError, match="add is broken"):
        check_solution(ADD | {"canonical_solution": "    return 0\n"})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"level": "docker"}, "there is no level 'docker'; there are bubblewrap, landlock, limits"),
        ({"time_limit": 0}, "must be positive"),
        ({"time_limit": float("inf")}, "time_limit inf must be positive and at most 86400 seconds"),
        ({"time_limit": float("nan")}, "time_limit nan must be positive"),
        ({"time_limit": "5"}, "time_limit '5' must be positive"),
        ({"memory_limit": -1}, "must be a whole number of bytes"),
        ({"memory_limit": 1.5e9}, "memory_limit 1500000000.0 must be a whole number of bytes"),
        ({"memory_limit": 1 << 70}, "must be a whole number of bytes"),
        ({"memory_limit": 1 << 20}, "must be a whole number of bytes, at least 33554432"),
        ({"problem": None}, "the problem is None; give a dictionary with the keys task_id, prompt"),
        ({"problem": "add"}, "the problem is 'add'; give a dictionary"),
        ({"completion": None}, "the completion of add is NoneType; give its text"),
        ({"problem": ADD | {"test": ""}}, "add: test is ''; it must be a text"),
    ],
)
def test_bad_arguments_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        run_problem(**({"problem": ADD, "completion": "    return a + b\n"} | settings))


@pytest.mark.parametrize("level", WORKING)
def test_the_least_and_the_most_that_may_be_asked_for_work(level):
    least = {"memory_limit": np.int64(sandbox.LEAST_MEMORY), "time_limit": np.float32(60)}
    for settings in (least, {"time_limit": sandbox.LONGEST_TIME, "memory_limit": 1 << 61}):
        assert run_problem(ADD, "    return a + b\n", level=level, **settings).outcome == "passed"


def test_weak_confinement_has_to_be_asked_for(monkeypatch):
    monkeypatch.delenv("COURSE_SANDBOX", raising=False)
    monkeypatch.setattr(sandbox, "probe", lambda: dict.fromkeys(Level, "missing") | {Level.LIMITS: None})
    with pytest.raises(
        RuntimeError, match=r"bubblewrap: missing; landlock: missing.*promises none of this: it starts no"
    ):
        strongest_level()
    with pytest.raises(RuntimeError, match="cannot be confined here"):
        run_problem(ADD, "    return a + b\n")
    monkeypatch.setenv("COURSE_SANDBOX", "limits")
    assert strongest_level() == Level.LIMITS
    assert run_problem(ADD, "    return a + b\n", level="limits").level == "limits"
    with pytest.raises(RuntimeError, match="The level landlock does not work here: missing"):
        run_problem(ADD, "", level="landlock")
    monkeypatch.setattr(levels, "secret_names", lambda: ["HF_TOKEN"])
    monkeypatch.setenv("COURSE_SANDBOX", "limits")
    with pytest.raises(RuntimeError, match="environment of this process has HF_TOKEN"):
        run_problem(ADD, "    return a + b\n")  # a level chosen by the variable asks for no less
    monkeypatch.setenv("COURSE_SANDBOX", "Limits")
    with pytest.raises(ValueError, match="COURSE_SANDBOX='Limits' is not known"):
        strongest_level()


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("print", "a value of type builtin_function_or_method"),
        ("'x' * (5 << 20)", "bytes; at most 4194304 can be sent"),
        ("10 ** 5000", "a value that JSON cannot hold"),
        ("set(range(20000))", "more than 10000 values in keys and elements of sets"),
    ],
)
def test_a_test_that_sends_or_wants_what_cannot_travel_is_broken(argument, words):
    sends = {"canonical_solution": "    return b\n", "test": f"def check(f):\n    assert f({argument}, 1) == 1\n"}
    solution = f"    return {argument}\n"
    wants = {"canonical_solution": solution, "test": f"def check(f):\n    assert f(1, 1) == ({argument})\n"}
    for change in (sends, wants):
        for completion in (change["canonical_solution"], "    return None\n"):
            with pytest.raises(ValueError, match=rf"add is broken.*{words}"):
                run_problem(ADD | change, completion, time_limit=60)


def test_an_answer_that_the_test_cannot_send_back_is_the_programs_fault():
    test = "def check(candidate):\n    half = candidate(1, 2)\n    assert candidate(half, half) == 6\n"
    result = run_problem(ADD | {"test": test}, "    return 'x' * (3 << 20)\n", time_limit=60)
    assert result.outcome == "wrong answer"
    assert "at most 4194304 can be sent" in result.detail


def test_a_program_that_is_too_long_to_send_fails():
    result = run_problem(ADD, "    return a + b\n" + "#" * (5 << 20), time_limit=60)
    assert (result.outcome, "at most 4194304 can be sent" in result.detail) == ("exception", True)


def test_nothing_runs_if_one_job_is_broken():
    with pytest.raises(ValueError, match="the completion of add is int"):
        run_problems([(ADD, "    while True: pass\n"), (ADD, 3)], progress=False)


def test_a_missing_program_is_noticed(monkeypatch):
    monkeypatch.setenv("PATH", "")
    probe.cache_clear()
    try:
        assert "bwrap is not installed" in probe()[Level.BUBBLEWRAP] or sys.platform != "linux"
    finally:
        probe.cache_clear()


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
        (157, 167, (4,), "EPERM"),  # PR_SET_DUMPABLE
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


def test_another_machine_has_no_filter():
    with pytest.raises(OSError, match="no seccomp filter for riscv64"):
        confinement.seccomp_program("riscv64", 1)
