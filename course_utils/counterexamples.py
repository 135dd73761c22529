"""Find the smallest input on which a function differs from a reference; knows nothing of exercises or learners.

The function under test may be anything: it may raise, loop for ever, change its arguments or return an object that
cannot be compared. Nothing of that leaves this module, except a `KeyboardInterrupt` of the user.
"""

import contextlib
import copy
import io
import math
import reprlib
import signal
import sys
import threading
import time
import traceback
import types
from _thread import interrupt_main
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import psutil

# A call that takes longer, or more memory, counts as endless; a simplification that takes longer in all is cut short.
SECONDS_PER_CALL = 5.0
BYTES_PER_CALL = 1_000_000_000
LOOK_EVERY = 0.05  # seconds
INTERRUPT_EVERY = 0.25  # seconds
SECONDS_TO_SIMPLIFY = 2.0


@dataclass(frozen=True)
class Difference:
    """One input, what the reference returns for it, and what the function did instead (ready to print)."""

    arguments: tuple[Any, ...]
    expected: Any
    got: str
    printed: str
    endless: bool = False


def smallest_difference(
    function: Callable[..., Any],
    reference: Callable[..., Any],
    cases: Iterable[tuple[Any, ...]],
    same: Callable[[Any, Any], bool],
) -> tuple[Difference | None, int, int]:
    """Return the smallest differing input that could be found, how many cases differ, and how many there are."""
    cases = sorted(cases, key=_size)
    found: list[Difference] = []
    for case in cases:
        difference = _compare(function, reference, case, same)
        if difference is not None:
            found.append(difference)
            if difference.endless:
                return difference, len(found), len(cases)
    if not found:
        return None, 0, len(cases)
    return _simplify(found[0], function, reference, same), len(found), len(cases)


def returns_nothing(function: Callable[..., Any], cases: Iterable[tuple[Any, ...]]) -> bool:
    """Whether a function gives None, `...` or NotImplementedError for every one of the cases."""
    for case in cases:
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                result = _call_in_time(function, copy.deepcopy(case))
        except (KeyboardInterrupt, NotImplementedError) as error:
            if isinstance(error, KeyboardInterrupt):
                raise
        except BaseException:
            return False
        else:
            if result is not None and result is not ...:
                return False
    return True


def equal(got: Any, expected: Any) -> bool:
    """Compare by value: arrays as lists, lists and tuples alike, floats to six digits, but True is not 1."""
    got, expected = plain(got), plain(expected)
    if isinstance(expected, list | tuple):
        if type(got) not in (list, tuple) or len(got) != len(expected):
            return False
        return all(equal(g, e) for g, e in zip(got, expected, strict=True))
    if type(expected) is float:
        if type(got) not in (int, float):
            return False
        return math.isclose(got, expected, rel_tol=1e-6, abs_tol=1e-12) or (math.isnan(got) and math.isnan(expected))
    return type(got) is type(expected) and bool(got == expected)


def plain(value: Any) -> Any:
    """Return arrays and tensors as lists, their scalars as Python numbers, and everything else as it is."""
    if type(value).__module__.partition(".")[0] in ("numpy", "torch") and hasattr(value, "tolist"):
        return value.tolist()
    return value


def shown(value: Any) -> str:
    """Return a short text for any value, however large or hostile; of a function, its name."""
    if isinstance(value, types.FunctionType):
        return value.__name__
    short = reprlib.Repr()
    short.maxlist = short.maxtuple = short.maxdict = short.maxset = 24
    short.maxstring = short.maxother = short.maxlong = 400
    try:
        return short.repr(value)
    except KeyboardInterrupt:
        raise
    except BaseException:
        return f"<{type(value).__name__} that cannot be shown>"


def _compare(
    function: Callable[..., Any], reference: Callable[..., Any], case: tuple[Any, ...], same: Callable[[Any, Any], bool]
) -> Difference | None:
    expected = plain(reference(*copy.deepcopy(case)))
    given = copy.deepcopy(case)
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            got = _call_in_time(function, given)
        right = same(got, expected)
        text = shown(plain(got))
        kinds = {type(plain(got)), type(expected)}
        if not right and len(kinds) == 2 and not kinds <= {int, float}:
            text += f"   (type {type(got).__name__}; expected is of type {type(expected).__name__})"
    except KeyboardInterrupt:
        raise
    except TimeoutError as error:
        return Difference(case, expected, f"no result: {error}", printed.getvalue(), endless=True)
    except BaseException as error:
        right, text = False, f"an exception: {explained(error)}"
    if right and not _unchanged(given, case):
        right, text = False, f"{text}, but it changed its input into ({', '.join(map(shown, given))})"
    return None if right else Difference(case, expected, text, printed.getvalue())


def _unchanged(given: tuple[Any, ...], case: tuple[Any, ...]) -> bool:
    try:
        return bool(given == case)
    except Exception:
        return False


def explained(error: BaseException) -> str:
    """Return type, message and first line of an exception that somebody else's function raised."""
    try:
        text = f"{type(error).__name__}: {error}"
        frames = traceback.extract_tb(error.__traceback__, limit=4)  # the outermost: ours, then the answer's
        own = [f for f in frames if f.filename != __file__]
        return f"{text} (line {own[0].lineno}: {own[0].line})" if own and own[0].line else text
    except Exception:
        return f"{type(error).__name__} (its message cannot be shown)"


class _Alarm:
    """Interrupts the main thread when a call takes too long or too much memory; works on every system.

    `reason` tells the interrupt from the user's Ctrl-C. An endless loop that fills a list takes gigabytes in seconds.
    """

    def __init__(self) -> None:
        self.reason = ""
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def _watch(self) -> None:
        end = time.monotonic() + SECONDS_PER_CALL
        process, before = None, 0
        while not self._done.wait(INTERRUPT_EVERY if self.reason else LOOK_EVERY):
            process = process or psutil.Process()
            used = process.memory_info().rss
            before = before or used
            if time.monotonic() > end:
                self.reason = self.reason or f"still running after {SECONDS_PER_CALL:g} seconds"
            elif used - before > BYTES_PER_CALL:
                self.reason = self.reason or f"still running, with {BYTES_PER_CALL / 1e9:g} GB of memory filled"
            if self.reason:
                interrupt_main()  # again and again: in a callback of the garbage collector one is swallowed

    def stop(self) -> None:
        while True:
            try:
                self._done.set()
                if self.reason:
                    self._thread.join()
                    time.sleep(0.01)  # an interrupt that is still on its way arrives here
                return
            except KeyboardInterrupt:
                if not self.reason:
                    raise

    def start(self) -> None:
        self._thread.start()

    @contextlib.contextmanager
    def quiet(self) -> Iterator[None]:
        """Hide own interrupts that arrive where Python can only report them: in destructors and garbage collections."""
        earlier = sys.unraisablehook

        def report(unraisable: Any) -> None:
            if not (self.reason and issubclass(unraisable.exc_type, KeyboardInterrupt)):
                earlier(unraisable)

        sys.unraisablehook = report
        try:
            yield
        finally:
            sys.unraisablehook = earlier


def _call_in_time(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    if threading.current_thread() is not threading.main_thread():
        return function(*arguments)  # only the main thread can be interrupted
    alarm = _Alarm()
    # Other programs in the process may have left a handler that swallows the interrupt; then nothing would stop.
    earlier = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with alarm.quiet():
            alarm.start()
            try:
                result = function(*arguments)
            finally:
                alarm.stop()
    except KeyboardInterrupt:
        if not alarm.reason:
            raise
    finally:
        signal.signal(signal.SIGINT, signal.SIG_DFL if earlier is None else earlier)
    if alarm.reason:
        raise TimeoutError(f"{alarm.reason}; look for a loop that never ends")
    return result


def _simplify(
    best: Difference,
    function: Callable[..., Any],
    reference: Callable[..., Any],
    same: Callable[[Any, Any], bool],
) -> Difference:
    end = time.monotonic() + SECONDS_TO_SIMPLIFY
    improved = True
    while improved:
        improved = False
        for case in _simpler(best.arguments):
            if time.monotonic() > end:
                return best
            try:
                difference = _compare(function, reference, case, same)
            except Exception:  # the reference refuses this input: not a fair case
                continue
            if difference is not None:
                if difference.endless:
                    return best
                best, improved = difference, True
                break
    return best


def _simpler(value: Any) -> Iterator[Any]:
    """Yield simpler values of the same type: shorter texts and sequences, smaller numbers; words of a list stay."""
    if type(value) is int:
        yield from (n for n in dict.fromkeys((0, 1, value // 2, value - 1)) if 0 <= n < value)
    elif type(value) in (str, list):
        width = len(value)
        while width:
            yield from (value[:i] + value[i + width :] for i in range(0, len(value), width))
            width //= 2
    if type(value) in (list, tuple):
        for i, item in enumerate(value):
            if type(value) is list and type(item) is str:
                continue
            yield from (type(value)([*value[:i], simpler, *value[i + 1 :]]) for simpler in _simpler(item))


def _size(case: tuple[Any, ...]) -> int:
    return len(repr(case))
