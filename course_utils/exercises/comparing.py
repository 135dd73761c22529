"""Run a learner's function on small inputs and compare what it returns with what a solution returns.

The function may be anything: it may raise, never end, change its arguments or return an object that cannot be compared.
Nothing of that leaves this module, except a `KeyboardInterrupt` of the user.
"""

import contextlib
import copy
import io
import math
import reprlib
import signal
import threading
import time
import traceback
import types
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import psutil

# A call that takes longer, or more memory, counts as endless: a list that never stops growing takes gigabytes a second.
SECONDS_PER_CALL = 5.0
BYTES_PER_CALL = 1_000_000_000


class Endless(BaseException):
    """A call was stopped; not an `Exception`, which the called function may well catch."""


@dataclass(frozen=True)
class Result:
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
        expected, given = solution(*copy.deepcopy(case)), copy.deepcopy(case)
        printed, note = io.StringIO(), ""
        try:
            with contextlib.redirect_stdout(printed):
                got = plain(in_time(function, given))
            right = equal(got, expected)
            if given != case:
                right, note = False, f", but it changed its input into ({', '.join(map(shown, given))})"
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            right, got = False, error
        results.append(Result(case, expected, got, right, printed.getvalue(), note))
        if isinstance(got, Endless):
            break
    return results


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
            # Once more in a second: a garbage collection or the function itself may swallow this exception.
            signal.setitimer(signal.ITIMER_REAL, 1, 1)
            when = f"with {BYTES_PER_CALL / 1e9:g} GB filled" if large else f"after {SECONDS_PER_CALL:g} seconds"
            raise Endless(f"still running {when}; look for a loop that never ends")

    earlier = signal.signal(signal.SIGALRM, look)
    signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
    try:
        return function(*arguments)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, earlier)


def equal(got: Any, expected: Any) -> bool:
    """Compare by value: arrays as lists, lists and tuples alike, floats to six digits, but True is not 1."""
    got, expected = plain(got), plain(expected)
    if isinstance(expected, list | tuple):
        return type(got) in (list, tuple) and len(got) == len(expected) and all(map(equal, got, expected))
    if type(expected) is float:
        return type(got) in (int, float) and math.isclose(got, expected, rel_tol=1e-6, abs_tol=1e-12)
    return type(got) is type(expected) and bool(got == expected)


def plain(value: Any) -> Any:
    """Return arrays and tensors as lists, their scalars as Python numbers, and everything else as it is."""
    from_library = type(value).__module__.partition(".")[0] in ("numpy", "torch")
    return value.tolist() if from_library and hasattr(value, "tolist") else value


def behaves_like(mistake: Callable, results: list[Result]) -> bool:
    """Return True if a function that is known to be wrong gives the same results, exceptions included."""
    for result in results:
        try:
            same = equal(result.got, mistake(*copy.deepcopy(result.arguments)))
        except Exception as error:
            same = type(result.got) is type(error)
        if not same:
            return False
    return True


def general_hint(failures: list[Result]) -> str:
    """Return a hint about type or order that fits all failures, or an empty text."""
    kinds = {(_kind(failure.got), _kind(failure.expected)) for failure in failures}
    first = failures[0]
    if len(kinds) > 1 or isinstance(first.got, BaseException):
        return ""
    if first.got is None:
        printed = all(failure.printed for failure in failures)
        return f"Your function {'prints its result, but ' if printed else ''}returns None. Use `return`."
    got, expected = kinds.pop()
    if got != expected and (got, expected) != ("int", "float"):
        return f"Your function returns a value of type {got}; the type {type(first.expected).__name__} is expected."
    if got == "list" and all(sorted(map(shown, f.got)) == sorted(map(shown, f.expected)) for f in failures):
        return "Your values are right, but their order is not."
    return ""


def _kind(value: Any) -> str:
    return "list" if isinstance(value, tuple) else type(value).__name__  # a tuple is as good as a list


def shown(value: Any) -> str:
    """Return a short text for any value, however large or hostile; of a function, its name; of an exception, where."""
    short = reprlib.Repr()
    short.maxlist = short.maxtuple = short.maxdict = short.maxset = 24
    short.maxstring = short.maxother = short.maxlong = 400
    try:
        if isinstance(value, BaseException):
            frames = traceback.extract_tb(value.__traceback__, limit=4)  # the outermost: ours, then the answer's
            lines = [f" (line {frame.lineno}: {frame.line})" for frame in frames if frame.filename != __file__]
            return f"no result, {type(value).__name__}: {value}{''.join(lines[:1])}"
        return value.__name__ if isinstance(value, types.FunctionType) else short.repr(value)
    except KeyboardInterrupt:
        raise
    except BaseException:
        return f"<{type(value).__name__} that cannot be shown>"
