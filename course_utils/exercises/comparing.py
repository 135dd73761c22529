"""Run a learner's function on small inputs and compare what it returns with what a solution returns.

Whatever the function raises, returns or does to its arguments: only the user's `KeyboardInterrupt` leaves this module.
"""

import contextlib
import copy
import gc
import io
import math
import reprlib
import signal
import threading
import time
import traceback
import types
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from course_utils.language import text

# A call that takes longer, or more memory, counts as endless: a list that never stops growing takes gigabytes a second.
SECONDS_PER_CALL = 5.0
BYTES_PER_CALL = 1_000_000_000


class Endless(BaseException):
    """A call was stopped; not an `Exception`, which the called function may well catch."""


class Result(NamedTuple):
    """What a function returned (or raised) for one input, and what the solution returns."""

    arguments: tuple[Any, ...]
    expected: Any
    got: Any
    right: bool
    printed: str
    note: str


def try_out(function: Callable, solution: Callable, cases: Iterable[tuple[Any, ...]]) -> list[Result]:
    """Return the results for all cases in their order; the list ends with a call that had to be stopped."""
    results: list[Result] = []
    for case in cases:
        expected, given = plain(solution(*copy.deepcopy(case))), copy.deepcopy(case)
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            got = outcome(function, given)
        changed = ", ".join(map(shown, given))
        note = "" if equal(given, case) else text(f", but it changed its input into ({changed})")
        right = equal(got, expected) and not note
        results.append(Result(case, expected, got, right, printed.getvalue(), note))
        if isinstance(got, Endless):
            break
    return results


def outcome(function: Callable, arguments: tuple[Any, ...]) -> Any:
    """Return what a call returns, or what it raises."""
    try:
        return plain(in_time(function, arguments))
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return error


def in_time(function: Callable, arguments: tuple[Any, ...]) -> Any:
    """Call a function; raises `Endless` when it takes too long or too much memory.

    Only the main thread of a Unix system can be interrupted. Elsewhere the function runs until the user stops it.
    """
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        return function(*arguments)
    process = psutil.Process()
    end, most = time.monotonic() + SECONDS_PER_CALL, process.memory_info().rss + BYTES_PER_CALL

    def look(number: int, frame: types.FrameType | None) -> None:
        late, large = time.monotonic() > end, process.memory_info().rss > most
        if late or large:
            # Once more in a second: a destructor or the function itself may swallow this exception.
            signal.setitimer(signal.ITIMER_REAL, 1, 1)
            when = f"with {BYTES_PER_CALL / 1e9:g} GB filled" if large else f"after {SECONDS_PER_CALL:g} seconds"
            raise Endless(f"still running {when}; look for a loop that never ends")

    earlier, collecting = signal.signal(signal.SIGALRM, look), gc.isenabled()
    gc.disable()  # in a callback of the garbage collector the exception would be reported, and go no further
    signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
    try:
        return function(*arguments)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, earlier)
        if collecting:
            gc.enable()


def equal(got: Any, expected: Any) -> bool:
    """Compare by value: arrays as lists, tuples as lists, floats to six digits, errors by type; True is not 1."""
    got, expected = plain(got), plain(expected)
    if isinstance(expected, list | tuple):
        return type(got) in (list, tuple) and len(got) == len(expected) and all(map(equal, got, expected))
    if type(expected) is float:
        return type(got) in (int, float) and math.isclose(got, expected, rel_tol=1e-6, abs_tol=1e-12)
    return type(got) is type(expected) and (isinstance(got, BaseException) or bool(got == expected))


def plain(value: Any) -> Any:
    """Return arrays and tensors as lists, their scalars as Python numbers, and everything else as it is."""
    from_library = type(value).__module__.partition(".")[0] in ("numpy", "torch")
    return value.tolist() if from_library and hasattr(value, "tolist") else value


def general_hint(failures: list[Result]) -> str:
    """Return a hint about type or order that fits all failures, or an empty text."""
    kinds = {(type(failure.got).__name__, type(failure.expected).__name__) for failure in failures}
    got, expected = kinds.pop()
    if kinds or isinstance(failures[0].got, BaseException):
        return ""
    if got == "NoneType":
        return "Your function returns None. Use `return`; what it prints is not its result."
    if got != expected and {got, expected} != {"list", "tuple"} and (got, expected) != ("int", "float"):
        return f"Your function returns a value of type {got}; the type {expected} is expected."
    if got in ("list", "tuple") and all(sorted(map(shown, f.got)) == sorted(map(shown, f.expected)) for f in failures):
        return "Your values are right, but their order is not."
    return ""


def shown(value: Any) -> str:
    """Return a short text for any value, however large or hostile; of a function, its name; of an exception, where."""
    short = reprlib.Repr()
    short.maxlist, short.maxtuple, short.maxdict, short.maxstring, short.maxother = 24, 24, 24, 400, 400
    try:
        if isinstance(value, BaseException):
            frames = traceback.extract_tb(value.__traceback__, limit=4)  # the outermost: ours, then the answer's
            lines = [
                f" (line {frame.lineno}: {frame.line})"
                for frame in frames
                if Path(frame.filename).parent != Path(__file__).parent
            ]
            return f"no result, {type(value).__name__}: {value}{''.join(lines[:1])}"
        return value.__name__ if isinstance(value, types.FunctionType) else short.repr(value)
    except KeyboardInterrupt:
        raise
    except BaseException:
        return f"<{type(value).__name__} that cannot be shown>"
