"""Hostile programs, and the one problem they are run against: its function has to return []."""

import os
import sys
import textwrap
from pathlib import Path

import pytest

from course_utils.sandbox.levels import Level, keeps
from course_utils.sandbox.running import probe, run_problem

LINUX = sys.platform == "linux"
PROBLEM = {
    "task_id": "attack",
    "prompt": "def attempt(argument):\n",
    "entry_point": "attempt",
    "canonical_solution": "    return []\n",
    "test": "def check(candidate):\n    assert candidate(ARGUMENT) == []\n",
}
# Every attempt is a function; the program returns the names of those that went through.
TRY = """
import ctypes, os, socket, subprocess, threading

def went_through(**attempts):
    through = []
    for name, action in attempts.items():
        try:
            action()
        except (OSError, AttributeError, subprocess.SubprocessError):
            continue
        through.append(name)
    return through

def system(name, *arguments):
    libc = ctypes.CDLL(None, use_errno=True)
    arguments = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    if getattr(libc, name)(*arguments) < 0:
        raise OSError(ctypes.get_errno(), name)
"""

ENDLESS_THREADS = """
def spin():
    while True: pass
def attempt(_):
    for _ in range(4):
        threading.Thread(target=spin).start()
    threading.Event().wait()
"""


def attack(program, level, argument=None, **settings):
    """Run a program that defines attempt(argument), after the helpers above."""
    problem = PROBLEM | {"test": PROBLEM["test"].replace("ARGUMENT", repr(argument))}
    completion = "    pass\n" + TRY + textwrap.dedent(program)
    return run_problem(problem, completion, level=level, **({"time_limit": 20.0} | settings))


def under(promise):
    """Run a test at every level that makes this promise; one that does not work here is reported as skipped."""
    return pytest.mark.parametrize("level", [pytest.param(level, marks=_mark(level)) for level in promising(promise)])


def promising(promise):
    return [level for level in Level if keeps(level, promise)]


def _mark(level):
    missing = probe()[level]
    return pytest.mark.skipif(missing is not None, reason=f"the level {level} does not work here: {missing}")


def with_this_path(**variables):
    folders = [str(Path(__file__).parent), *sys.path]
    return os.environ | {"PYTHONPATH": os.pathsep.join(folders)} | variables
