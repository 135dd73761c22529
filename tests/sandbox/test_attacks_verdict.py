"""Hostile programs that want a pass without solving the problem."""

import textwrap
import time

import pytest
from attack import PROBLEM, attack, under

from course_utils.sandbox.running import run_problem

pytestmark = pytest.mark.usefixtures("whatever_the_environment")


FORGERIES = {
    "equal to everything": """
        class Same:
            def __eq__(self, other): return True
            def __hash__(self): return 0
            def __getattr__(self, name): return self
            def tolist(self): return self
        def attempt(_): return Same()
    """,
    "a list equal to everything": """
        class Same(list):
            def __eq__(self, other): return True
        def attempt(_): return Same([1])
    """,
    "patched builtins": """
        import builtins
        builtins.AssertionError = Exception
        builtins.type = lambda value: list
        builtins.len = lambda value: 0
        builtins.list = lambda *a: []
        def attempt(_): return 1
    """,
    "patched JSON": """
        import json, values, sandbox_child
        json.dumps = lambda *a, **k: '["passed"]'
        values.packed = lambda tree: b"\\0\\0\\0\\x0a" + b'["passed"]'
        def attempt(_): return 1
    """,
    "sys.exit in the call": "import sys\ndef attempt(_): sys.exit(0)",
    "sys.exit while it is loaded": "raise SystemExit(0)",
    "os._exit in the call": "def attempt(_): os._exit(0)",
    "os._exit while it is loaded": "os._exit(0)",
    "a pickle": """
        import pickle
        class Evil:
            def __reduce__(self): return os.system, ("touch forged",)
        def attempt(_): return pickle.dumps(Evil())
    """,
    "swallowed": "def attempt(_): raise AssertionError('passed')",
    "closed pipe": "def attempt(_):\n    os.closerange(3, 64)\n    import time; time.sleep(1)",
    "deep": "def attempt(_):\n    deep = []\n    for _ in range(10 ** 5): deep = [deep]\n    return deep",
    "huge": "def attempt(_): return 'x' * 10 ** 8",
    "huge number": "def attempt(_): return 1 << 10 ** 6",
}
SAID = {
    "patched builtins": "crash",
    "patched JSON": "crash",
    "sys.exit in the call": "exception",
    "sys.exit while it is loaded": "exception",
    "os._exit in the call": "crash",
    "os._exit while it is loaded": "crash",
    "swallowed": "exception",
    "closed pipe": "crash",
}


@under("verdict")
@pytest.mark.parametrize("way", FORGERIES)
def test_no_pass_is_forged(level, way):
    result = attack(FORGERIES[way], level)
    assert result.outcome == SAID.get(way, "wrong answer"), result
    assert result.level == level


QUICK = "def check(candidate):\n    for turn in range(100):\n        assert candidate(turn) == []\n"


@under("time")
def test_many_quick_answers_do_not_outrun_the_limit(level):
    start = time.monotonic()
    program = "    import time\n    time.sleep(0.4)\n    return []\n"  # 40 seconds in all
    result = run_problem(PROBLEM | {"test": QUICK}, program, level=level, time_limit=1.0)
    assert result.outcome == "time-out", result
    assert time.monotonic() - start < 15


@under("disk")
def test_many_quick_answers_do_not_outrun_the_disk_limit(level):
    program = "    open(str(argument), 'wb').write(bytes(12 << 20))\n    return []\n"
    result = run_problem(PROBLEM | {"test": QUICK}, program, level=level)
    assert result.outcome == "forbidden", result


@under("verdict")
@pytest.mark.parametrize("error", ["StopIteration", "StopAsyncIteration"])
def test_the_end_of_an_iteration_does_not_end_the_test(level, error):
    test = "def check(candidate):\n    assert all(map(lambda case: candidate(case) == [], [1, 2]))\n"
    result = run_problem(PROBLEM | {"test": test}, f"    raise {error}\n", level=level)
    assert result.outcome == "exception", result


@under("verdict")
def test_a_reported_error_can_be_printed(level):
    result = attack(r"def attempt(_): raise ValueError('\ud800 \x1b[31m \0 é')", level)
    assert result.outcome == "exception"
    assert result.detail.isprintable()
    assert r"\ud800 \x1b[31m \x00 é" in result.detail
    result.detail.encode()


GARBAGE = {
    "noise": "os.urandom(1) * 1000",
    "nothing that is long": "b'\\xff' * 4",
    "deep": "framed(b'[' * 10 ** 6)",
    "a deep value": "framed(b'[\"value\",' + b'[' * 500 + b']' * 500 + b']')",
    "another object": "framed(b'{\"passed\": true}')",
    "an unknown tag": 'framed(b\'["value", {"eval": ["exit()"]}]\')',
    "an unhashable element": 'framed(b\'["value", {"set": [[]]}]\')',
    "bytes that are none": 'framed(b\'["value", {"bytes": "zz"}]\')',
    "a pickle": "framed(__import__('pickle').dumps(print))",
    "numbers of one hash": "framed(b'[\"value\",{\"set\":[' + b','.join(b'%d' % (k * (2 ** 61 - 1)) "
    "for k in range(100000)) + b']}]')",
    "a long number": "framed(b'[\"value\",' + b'9' * 10 ** 6 + b']')",
    "an exception that is none": 'framed(b\'["exception", 1, ["print"], 2, 3]\')',
}


@under("verdict")
@pytest.mark.parametrize("what", GARBAGE)
def test_garbage_in_the_pipe_is_a_crash(level, what):
    program = f"""
        def framed(data): return len(data).to_bytes(4, "big") + data
        def attempt(_):
            for descriptor in range(3, 20):
                try: os.write(descriptor, {GARBAGE[what]})
                except OSError: pass
            import time; time.sleep(30)
    """
    assert attack(program, level, time_limit=15.0).outcome == "crash"  # not "time-out"


@under("verdict")
@pytest.mark.parametrize("kind", ["SystemExit", "KeyboardInterrupt", "GeneratorExit", "print", "Ended"])
def test_a_made_up_exception_cannot_end_the_harness(level, kind):
    program = f"""
        def attempt(_):
            data = b'["exception", "E", ["{kind}"], "text", ""]'
            for descriptor in range(3, 20):
                try: os.write(descriptor, len(data).to_bytes(4, "big") + data)
                except OSError: pass
            import time; time.sleep(30)
    """
    assert attack(program, level).outcome == "exception"


@under("verdict")
def test_the_test_is_nowhere_in_the_childs_process(level):
    program = """
        import gc, inspect, sys
        def attempt(_):
            frame, texts = sys._getframe(), []
            while frame:
                texts += [repr(frame.f_locals), repr(frame.f_globals)]
                frame = frame.f_back
            texts += [repr(part) for part in gc.get_objects() if isinstance(part, (dict, list, tuple, str, bytes))]
            texts += [repr(vars(module)) for module in list(sys.modules.values())] + [repr(sys.argv), repr(os.environ)]
            wanted = "".join(reversed("ZEBRA"))  # only now, or it would find itself
            return [1 for text in texts if wanted in text]
    """
    problem = PROBLEM | {"test": "def check(candidate):\n    'ARBEZ'\n    assert candidate(None) == []\n"}
    result = run_problem(problem, "    pass\n" + TRY_(program), level=level)
    assert result.outcome == "passed", result


def TRY_(program):
    return "import os\n" + textwrap.dedent(program)


@under("verdict")
def test_a_broad_except_in_the_test_hides_no_death(level):
    test = "def check(candidate):\n    try:\n        candidate(1)\n        assert False\n    except:\n        pass\n"
    for body, outcome in (("os._exit(0)", "crash"), ("while True: pass", "time-out"), ("return 1", "passed")):
        program = TRY_(f"def attempt(_):\n    {body}")
        result = run_problem(PROBLEM | {"test": test}, "    pass\n" + program, level=level, time_limit=2)
        assert result.outcome == outcome
