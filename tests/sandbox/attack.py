"""Hostile programs are run against one problem: its function has to return []."""

import os
import sys
import textwrap
from pathlib import Path

import pytest

from course_utils.sandbox import levels, running
from course_utils.sandbox.levels import Level

PROBLEM = {
    "task_id": "attack",
    "prompt": "def attempt(argument):\n",
    "entry_point": "attempt",
    "canonical_solution": "    return []\n",
    "test": "def check(candidate):\n    assert candidate(ARGUMENT) == []\n",
}
# Every attempt is a function; the program returns the names of those that went through.
TRY = """
import ctypes, os, socket, subprocess, sys, threading, time

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

def answer(data, framed=True):
    data = len(data).to_bytes(4, "big") + data if framed else data
    for descriptor in range(3, 20):
        try: os.write(descriptor, data)
        except OSError: pass
    time.sleep(30)
"""


def attack(program, level, argument=None, test=PROBLEM["test"], **settings):
    """Run a program that defines attempt(argument), after the helpers above."""
    problem = PROBLEM | {"test": test.replace("ARGUMENT", repr(argument))}
    completion = "    pass\n" + TRY + textwrap.dedent(program)
    return running.run_problem(problem, completion, level=level, **({"time_limit": 20.0} | settings))


def promising(promise):
    """Return the levels that make this promise; those that do not work here are reported as skipped."""
    missing = running.probe()
    return [
        pytest.param(level, marks=pytest.mark.skipif(bool(missing[level]), reason=f"{level}: {missing[level]}"))
        for level in Level
        if level in levels.PROMISES[promise][1]
    ]


def under(promise):
    return pytest.mark.parametrize("level", promising(promise))


def with_this_path(**variables):
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])} | variables
