"""Hostile programs, one a row: the promise that it wants to break, and what becomes of it at every level that makes it.

"passed" means that the program found everything refused.
"""

import re
import time
from typing import NamedTuple

import pytest
from attack import PROBLEM, attack, promising

from course_utils.sandbox import levels

pytestmark = pytest.mark.usefixtures("whatever_the_environment")


class Attack(NamedTuple):
    promise: str
    name: str
    program: str
    outcome: str | tuple[str, ...]
    detail: str = ""  # a regular expression
    test: str = PROBLEM["test"]
    settings: dict = {}  # noqa: RUF012 - of run_problem


BROAD = "def check(candidate):\n    try:\n        candidate(1)\n        assert False\n    except:\n        pass\n"
QUICK = "def check(candidate):\n    for turn in range(100):\n        assert candidate(turn) == []\n"
ALL = "def check(candidate):\n    assert all(map(lambda case: candidate(case) == [], [1, 2]))\n"
SOON = {"time_limit": 1.0}
FORGED = {
    "equal to everything": (
        "class Same:\n def __eq__(self, other): return True\n def __getattr__(self, name): return self\n"
        " def tolist(self): return self\ndef attempt(_): return Same()", "cannot be judged"),
    "a list equal to everything": (
        "class Same(list):\n def __eq__(self, other): return True\ndef attempt(_): return Same([1])", "wrong answer"),
    "a type with a plain type's name": (
        "class date:\n __module__ = 'datetime'\n year = month = day = []\n __eq__ = lambda *_: True\n"
        "def attempt(_): return date()", "crash"),
    "patched builtins": (
        "import builtins\nbuiltins.AssertionError = Exception\nbuiltins.type = lambda value: list\n"
        "builtins.len = lambda value: 0\nbuiltins.list = lambda *a: []\ndef attempt(_): return 1", "crash"),
    "patched JSON": (
        "import json, values, child\njson.dumps = lambda *a, **k: '[\"passed\"]'\n"
        "values.packed = lambda tree: b'\\0\\0\\0\\x0a[\"passed\"]'\ndef attempt(_): return 1", "crash"),
    "sys.exit in the call": ("def attempt(_): sys.exit(0)", "exception"),
    "sys.exit while it is loaded": ("raise SystemExit(0)", "exception"),
    "os._exit in the call": ("def attempt(_): os._exit(0)", "crash"),
    "closed pipe": ("def attempt(_):\n os.closerange(3, 64)\n time.sleep(1)", "crash"),
    "deep": ("def attempt(_):\n deep = []\n for _ in range(10 ** 5): deep = [deep]\n return deep", "cannot be judged"),
    "huge": ("def attempt(_): return 'x' * 10 ** 8", "cannot be judged"),
}  # fmt: skip
GARBAGE = {
    "noise": "os.urandom(1) * 1000, framed=False",
    "deep": "b'[' * 10 ** 6",
    "an unknown tag": 'b\'["value", {"eval": ["exit()"]}]\'',
    "numbers of one hash": "b'[\"value\",{\"builtins.set\":[[' + b','.join(b'%d' % (k * (2 ** 61 - 1)) "
    "for k in range(100000)) + b']]}]'",
    "a long number": "b'[\"value\",' + b'9' * 10 ** 6 + b']'",
    "an exception that is none": 'b\'["exception", 1, ["print"], 2, 3]\'',
}
ANSWER = "def attempt(_): answer(%s)"
MADE_UP = """b'["exception", "E", ["%s"], "", ""]'"""
EXITS, ENDS = ("SystemExit", "KeyboardInterrupt", "GeneratorExit", "print"), ("StopIteration", "StopAsyncIteration")
FILLING = {
    "empty files": "for n in range(400_000): os.close(os.open(str(n), os.O_CREAT))",
    "large files": "import itertools\n    for n in itertools.count(): open(f'{n}', 'wb').write(bytes(8 << 20))",
    "folders": "while True: os.mkdir('d'); os.chdir('d')",
    "a temporary file": "import tempfile\n    tempfile.TemporaryFile()",
}
ENDLESS = {
    "loop": "def attempt(_):\n    while True: pass",
    "while it is loaded": "while True: pass",
    "ignoring signals": "import signal\ndef attempt(_):\n for number in set(signal.Signals) - {9, 19}:\n"
    "  signal.signal(number, signal.SIG_IGN)\n time.sleep(1000)",
    "threads": "def spin():\n while True: pass\ndef attempt(_):\n"
    " for _ in range(4): threading.Thread(target=spin).start()\n threading.Event().wait()",
    "in C": "def attempt(_):\n    return 7 ** (10 ** 9)",
}
HUNGRY = {
    "bytes": "return bytearray(10 ** 10)",
    "by and by": "kept = []\n    while True: kept.append(bytearray(10 ** 8))",
    "limits raised": "import resource\n    try: resource.setrlimit(resource.RLIMIT_AS, (-1, -1))\n"
    "    except ValueError: pass\n    return bytearray(10 ** 10)",
}
WRAPPED = ("urllib.request.urlopen('http://127.0.0.1:9')", "requests.get('http://127.0.0.1:9')",
           "http.client.HTTPConnection('[::1]').request('GET', '/')")  # fmt: skip

ATTACKS = [
    *(Attack("verdict", name, *row) for name, row in FORGED.items()),
    *(Attack("verdict", f"garbage: {name}", ANSWER % data, "crash") for name, data in GARBAGE.items()),
    *(Attack("verdict", f"made up: {name}", ANSWER % (MADE_UP % name), "exception") for name in EXITS),
    *(Attack("verdict", name, f"def attempt(_): raise {name}", "exception", test=ALL) for name in ENDS),
    Attack("verdict", "unprintable", r"def attempt(_): raise ValueError('\ud800 \x1b[31m \0 é')", "exception",
           r"\\ud800 \\x1b\[31m \\x00 é$"),
    Attack("verdict", "broad except, crash", "def attempt(_): os._exit(0)", "crash", test=BROAD),
    Attack("verdict", "broad except, no end", ENDLESS["loop"], "time-out", test=BROAD, settings=SOON),
    Attack("verdict", "the test in its memory", """
        import gc
        def attempt(_):
            frame, texts = sys._getframe(), []
            while frame:
                texts += [repr(frame.f_locals), repr(frame.f_globals)]
                frame = frame.f_back
            texts += [repr(part) for part in gc.get_objects() if isinstance(part, (dict, list, tuple, str, bytes))]
            texts += [repr(vars(module)) for module in list(sys.modules.values())] + [repr(sys.argv), repr(os.environ)]
            wanted = "".join(reversed("ZEBRA"))  # only now, or it would find itself
            return [1 for text in texts if wanted in text]
        """, "passed", test="def check(candidate):\n    'ARBEZ'\n    assert candidate(None) == []\n"),
    *(Attack("time", f"endless: {name}", program, "time-out", settings=SOON) for name, program in ENDLESS.items()),
    Attack("time", "many quick answers", "def attempt(_):\n    time.sleep(0.4)\n    return []", "time-out", test=QUICK,
           settings=SOON),
    Attack("time", "threads behind an answer", "def spin():\n while True: pass\ndef attempt(_):\n"
           " threading.Thread(target=spin).start()\n return []", "passed"),
    Attack("time", "thousands of threads", "def attempt(_):\n    threading.stack_size(32768)\n    for _ in range(3000):"
           " threading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n    time.sleep(60)",
           ("forbidden", "exception"), "more than 256 threads|can't start new thread",
           settings={"memory_limit": 4 << 30}),
    Attack("time", "an end with a code", "def attempt(_): os._exit(152)", "crash", "with code 152"),
    Attack("time", "a signal to itself", "import signal\ndef attempt(_): signal.raise_signal(9)", "crash",
           "signal 9|code 137"),
    *(Attack("memory", name, f"def attempt(_):\n    {body}", "memory") for name, body in HUNGRY.items()),
    Attack("output", "300 MB", "def attempt(_):\n    for _ in range(100):\n        sys.stdout.write('x' * 10 ** 6);"
           " sys.stderr.write('x' * 10 ** 6); os.write(1, b'x' * 10 ** 6)\n    return []", "passed"),
    *(Attack("disk", name, f"def attempt(_):\n    {body}", "forbidden") for name, body in FILLING.items()),
    Attack("processes", "every way to start one", """
        import _posixsubprocess, multiprocessing, pty
        def attempt(_):
            return went_through(
                fork=os.fork, forkpty=os.forkpty, run=lambda: subprocess.run(["true"], check=True),
                shell=lambda: os.popen("true").read(), exec=lambda: os.execv("/bin/true", ["true"]),
                spawn=lambda: os.posix_spawn("/bin/true", ["true"], {}),
                worker=lambda: multiprocessing.get_context("fork").Process(target=print).start(),
                vfork=lambda: system("vfork"), clone=lambda: system("syscall", 56, 17, 0, 0, 0, 0),
                clone3=lambda: system("syscall", 435, 0, 0), unshare=lambda: system("unshare", 0x10000000),
            )
        """, "passed"),
    Attack("processes", "a fork", "def attempt(_): os.fork()", "forbidden", "PermissionError"),
    Attack("network", "a swallowed refusal", "def attempt(_):\n try: socket.socket()\n except OSError: return 1",
           "wrong answer"),
    Attack("network", "a raised refusal", "def attempt(_): socket.socket()", "forbidden"),
    Attack("network", "a made-up refusal", "def attempt(_): raise PermissionError('made up')", "exception"),
    Attack("network", "its own cause", "def attempt(_):\n e = OSError()\n e.__cause__ = e\n raise e", "exception"),
    Attack("network", "a handled refusal", "def attempt(_):\n try: socket.socket()\n"
           " except OSError: raise ValueError from None", "exception"),
    *(Attack("network", call, f"def attempt(_):\n import http.client, requests, urllib.request\n {call}", "forbidden")
      for call in WRAPPED),
]  # fmt: skip
ROWS = [
    pytest.param(row, *level.values, id=f"{row.promise}: {row.name}-{level.values[0]}", marks=level.marks)
    for row in ATTACKS
    for level in promising(row.promise)
]


@pytest.mark.parametrize(("row", "level"), ROWS)
def test_no_attack_succeeds(row, level, capfd):
    start = time.monotonic()
    result = attack(row.program, level, test=row.test, **row.settings)
    assert result.outcome in ([row.outcome] if isinstance(row.outcome, str) else row.outcome), result
    assert re.search(row.detail, result.detail), result
    assert result.level == level
    assert (result.detail + " ").isprintable()
    assert capfd.readouterr() == ("", "")
    if row.outcome == "time-out":
        assert time.monotonic() - start < 15


def test_every_promise_has_its_attack():  # those of "others" are in test_surroundings
    others = {"environment", "writing", "reading", "signals"}
    assert {row.promise for row in ATTACKS} | others == {*levels.PROMISES}
