"""Running generated programs against a problem's test, so that they can neither forge a pass nor do harm.

The test runs in this process, which is trusted, with a proxy for the function under test. Each call of the proxy is
answered by a fresh child process, which is confined and never sees the test; arguments and answers travel as plain
values. So a test cannot see what the function prints or does to its arguments, patch what it calls, prepare files for
it, nor compare objects of the program's own classes.
Tests are code of the data set and run unconfined, without a time limit of their own: take them only from sources you
trust, and let them compare answers, not compute with them (range(answer) may never end).
"""

import ast
import builtins
import contextlib
import functools
import os
import reprlib
import shutil
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from numbers import Integral, Real
from types import CodeType, SimpleNamespace

from tqdm.auto import tqdm

from course_utils.evaluation.problems import COLUMNS, check_problem
from course_utils.sandbox import levels, values
from course_utils.sandbox.child_process import Child, Ended, Unconfined
from course_utils.sandbox.levels import Level

OUTCOMES = ("passed", "wrong answer", "exception", "time-out", "memory", "forbidden", "crash")
TIME_LIMIT = 10.0  # seconds, without the start of the child's Python
LONGEST_TIME = 86_400  # seconds
LEAST_MEMORY = 32 << 20  # bytes; Python alone does not start with much less
MEMORY_LIMIT = 1 << 30  # bytes; pandas and scikit-learn take half of it in address space
_short = reprlib.Repr()
_short.maxstring = _short.maxother = _short.maxlong = 200
_TRIAL = """
import os, socket
def trial():
    went_through = []
    for name, action in (("fork", os.fork), ("socket", socket.socket), ("signal", lambda: os.kill(os.getppid(), 0)),
                         ("reading", lambda: open("/proc/self/environ")), ("writing", lambda: open("/tmp/x", "x"))):
        try:
            action()
            went_through.append(name)
        except OSError:
            pass
    return went_through
"""


@dataclass(frozen=True)
class Result:
    """How a program did: one of `OUTCOMES`, the level it ran under, what went wrong in words, and seconds."""

    outcome: str
    level: str
    detail: str = ""
    seconds: float = 0.0


def run_problem(
    problem: Mapping[str, str],
    completion: str,
    *,
    time_limit: float = TIME_LIMIT,
    memory_limit: int = MEMORY_LIMIT,
    level: str | None = None,
    stop: threading.Event | None = None,
) -> Result:
    """Run prompt + completion against the problem's test; `problem` has HumanEval's columns.

    time_limit in seconds for the whole run, memory_limit in bytes. `level` is the strongest one that works here unless
    given; `stop`, once set, ends the run with `KeyboardInterrupt`. sys.exit counts as "exception", the end of the
    process as "crash", an answer of a type that cannot be sent as "wrong answer". Raises `ValueError` for bad arguments
    and for a problem that is broken; where the program fails, also if the problem's own solution fails, in this process
    or in the sandbox. Raises `RuntimeError` if the level does not work here.
    """
    _check_job(problem, completion)
    _check_limits(time_limit, memory_limit)
    level = _usable(level)
    own = _own_solution(level, *(problem[column] for column in COLUMNS))
    first = completion == problem["canonical_solution"] and not own.passed
    with own.lock if first else contextlib.nullcontext():  # whoever asks for the own solution's result waits for it
        result = _run(problem, completion, level, time_limit, memory_limit, stop)
        own.passed |= first and result.outcome == "passed"
    if result.outcome != "passed" and problem.get("solution_known", True):  # code_eval has tests without solutions
        check_solution(problem)
        with own.lock:
            limits = max(time_limit, TIME_LIMIT), max(memory_limit, MEMORY_LIMIT)
            own.passed = own.passed or _passes(problem, level, *limits, stop)
    return result


@functools.lru_cache(maxsize=4096)
def _own_solution(level: Level, *columns: str) -> SimpleNamespace:
    """Keep whether a problem's own solution has passed in the sandbox, and a lock, so that one thread only tries it."""
    return SimpleNamespace(lock=threading.Lock(), passed=False)


def _passes(problem: Mapping[str, str], level: Level, *settings: object) -> bool:
    result = _run(problem, problem["canonical_solution"], level, *settings)
    if result.outcome == "passed":
        return True
    raise ValueError(
        f"{problem['task_id']} cannot be used: its own solution passes its test in one process, but not in the sandbox "
        f"at the level {level} ({result.outcome}: {result.detail}). There the function has a process of its own, so a "
        "test cannot capture what it prints, patch what it calls, prepare files for it or seed its random numbers. "
        "Correct the test, or leave the problem out."
    )


def _run(
    problem: Mapping[str, str],
    completion: str,
    level: Level,
    time_limit: float,
    memory_limit: int,
    stop: threading.Event | None,
) -> Result:
    start = time.monotonic()
    with Child(level, time_limit, memory_limit, stop) as child:
        candidate = _Candidate(child)
        try:
            candidate.load(problem["prompt"] + completion, problem["entry_point"])
            detail = _failure(problem, candidate)
            ended = candidate.ended or Ended("wrong answer" if detail else "passed", detail)
        except Ended as error:
            ended = candidate.ended or error
    return Result(ended.outcome, level.value, ended.detail, time.monotonic() - start)


def run_problems(
    jobs: Iterable[tuple[Mapping[str, str], str]],
    *,
    workers: int | None = None,
    time_limit: float = TIME_LIMIT,
    memory_limit: int = MEMORY_LIMIT,
    level: str | None = None,
    progress: bool = True,
) -> list[Result]:
    """Run many (problem, completion) pairs, as many at a time as there are cores; results in the order of the jobs.

    Ctrl-C ends all children. Raises what `run_problem` raises; what can be seen without running it, before any runs.
    """
    jobs, level, stop = list(jobs), _usable(level), threading.Event()
    for problem, completion in jobs:
        _check_job(problem, completion)
    _check_limits(time_limit, memory_limit)
    settings = {"time_limit": time_limit, "memory_limit": memory_limit, "level": level, "stop": stop}
    with ThreadPoolExecutor(workers or _cores()) as pool:
        try:
            running = [pool.submit(run_problem, problem, completion, **settings) for problem, completion in jobs]
            bar = tqdm(running, desc=f"programs ({level})", unit="program", disable=not progress)
            return [future.result() for future in bar]
        except BaseException:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _check_job(problem: Mapping[str, str], completion: str) -> None:
    if not isinstance(problem, Mapping):
        raise ValueError(
            f"the problem is {_short.repr(problem)}; give a dictionary with the keys {', '.join(COLUMNS)}."
        )
    check_problem(problem)
    if not isinstance(completion, str):
        raise ValueError(f"the completion of {problem['task_id']} is {type(completion).__name__}; give its text.")


def _check_limits(time_limit: float, memory_limit: int) -> None:
    if not isinstance(time_limit, Real) or not 0 < time_limit <= LONGEST_TIME:
        raise ValueError(f"time_limit {time_limit!r} must be positive and at most {LONGEST_TIME} seconds.")
    if not isinstance(memory_limit, Integral) or not LEAST_MEMORY <= memory_limit < 1 << 62:
        raise ValueError(f"memory_limit {memory_limit!r} must be a whole number of bytes, at least {LEAST_MEMORY}.")


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def strongest_level() -> Level:
    """Return the strongest level that works here; `Level.LIMITS` only if the variable COURSE_SANDBOX is "limits".

    Raises `RuntimeError` that says what the others lack, and what resource limits alone do not protect from.
    """
    found, wish = probe(), os.environ.get("COURSE_SANDBOX", "")
    if wish not in ("", "strong", Level.LIMITS):
        raise ValueError(f"COURSE_SANDBOX={wish!r} is not known; set it to strong (as without it) or limits.")
    for level, problem in found.items():
        if problem is None and (level != Level.LIMITS or wish == Level.LIMITS):
            return level
    missing = "; ".join(f"{level}: {problem}" for level, problem in found.items() if problem)
    raise RuntimeError(
        f"Generated programs cannot be confined here ({missing}). On Linux, install bubblewrap (apt-get install "
        "bubblewrap) or use a kernel with Landlock. Only if you trust the programs as your own, choose "
        'level="limits", or set COURSE_SANDBOX=limits. It promises none of this: '
        f"{'; '.join(levels.broken_promises(Level.LIMITS))}."
    )


@functools.cache
def probe() -> dict[Level, str | None]:
    """Let a child under each level try what is forbidden: None where all of it failed, else why the level is no use.

    Resource limits need no trial.
    """
    return {level: None if level == Level.LIMITS else _probe(level) for level in Level}


def _probe(level: Level) -> str | None:
    if sys.platform != "linux":
        return f"this system ({sys.platform}) has none; only Linux does"
    if level == Level.BUBBLEWRAP and shutil.which("bwrap") is None:
        return "the program bwrap is not installed"
    try:
        with Child(level, TIME_LIMIT, MEMORY_LIMIT) as child:
            candidate = _Candidate(child)
            candidate.load(_TRIAL, "trial")
            went_through = candidate()
    except (Unconfined, Ended, OSError) as error:
        return getattr(error, "detail", str(error))
    return f"a child could still use: {', '.join(map(str, went_through))}" if went_through != [] else None


def _usable(level: str | None) -> Level:
    level = strongest_level() if level is None else level
    if level not in list(Level):
        raise ValueError(f"there is no level {level!r}; there are {', '.join(Level)}.")
    level = Level(level)
    problem = None if level == Level.LIMITS else probe()[level]
    if problem is not None:
        raise RuntimeError(f"The level {level} does not work here: {problem}. strongest_level() returns one that does.")
    secrets = levels.secret_names() if level == Level.LIMITS else []
    if secrets:
        raise RuntimeError(
            f"The environment of this process has {', '.join(secrets)}. At the level {level} programs can read it "
            "(deleting a variable now does not help): start Python again without it, or use a stronger level."
        )
    return level


class _Candidate:
    """Stands for the function under test: each call asks the child. Keeps what happened, since a test may hide it."""

    def __init__(self, child: Child) -> None:
        self.child = child
        self.ended: Ended | None = None
        self.raised: Exception | None = None  # by the last call
        self.error = ""  # the same in words
        self.last_call = ""
        self.unsendable = ""  # what the test tried to send

    def load(self, program: str, name: str) -> None:
        """Run the program, up to where it has defined its functions."""
        try:
            self._ask(["load", program, name])
        except Exception as error:
            raise Ended("exception", self.error or str(error)) from error  # without it: the text is too long to send

    def __call__(self, *arguments: object, **keywords: object) -> object:
        shown = [_short.repr(argument) for argument in arguments]
        shown += [f"{name}={_short.repr(argument)}" for name, argument in keywords.items()]
        self.last_call = f"candidate({', '.join(shown)})"
        try:
            answer = self._ask(["call", values.encode(arguments), values.encode(keywords)])
        except values.NotPlain as error:
            self.unsendable = f"calls the function with {error}; only plain values can be sent"
            raise
        self.last_call += f" gave {_short.repr(answer)}"
        return answer

    def _ask(self, message: list) -> object:
        self.raised = None
        try:
            if self.ended:
                raise self.ended
            return self._read(self.child.exchange(message))
        except Ended as error:
            self.ended = error
            raise

    def _read(self, answer: object) -> object:
        match answer:
            case ["value", tree]:
                try:
                    return values.decode(tree)
                except ValueError as error:
                    self.child.end("crash", f"it wrote something else to the pipe than answers: {error}")
            case ["not plain", str(text)]:
                self.child.end("wrong answer", f"{self.last_call} gave {_printable(text)}, which cannot be compared")
            case ["exception", str(kind), [*_], str(text), ("memory" | "forbidden") as outcome]:
                self.child.end(outcome, f"{_printable(kind)}: {_printable(text)}")
            case ["exception", str(kind), [*bases], str(text), ""]:
                self._raise(_printable(kind), bases, _printable(text))
        self.child.end("crash", "it wrote something else to the pipe than answers")

    def _raise(self, name: str, bases: list, text: str) -> None:
        """Raise the builtin exception that a test may expect; what is none (SystemExit) ends the run."""
        self.error = f"{self.last_call or 'loading the program'} raised {name}: {text}"
        known = [getattr(builtins, base, None) for base in bases if isinstance(base, str)]
        kind = next((k for k in known if isinstance(k, type) and issubclass(k, BaseException)), Exception)
        # StopIteration would end a test's own `all(map(candidate, ...))` early, as if all had been right.
        if not issubclass(kind, Exception) or issubclass(kind, StopIteration | StopAsyncIteration):
            self.child.end("exception", self.error)
        try:
            self.raised = kind(text)
        except TypeError:  # the decoding errors, which want more arguments
            self.raised = ValueError(text)
        raise self.raised


def _printable(text: str) -> str:
    """Shorten a text of the child, and replace what a terminal would obey or could not print."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text[:600])


def _failure(problem: Mapping[str, str], candidate: _Candidate) -> str:
    """Run the test; return what failed, or nothing."""
    try:
        _run_test(problem, candidate)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # also SystemExit, and what test libraries fail with
        if candidate.ended:
            raise candidate.ended from error
        if error is candidate.raised:
            raise Ended("exception", candidate.error) from error
        if candidate.unsendable and not problem.get("solution_known", True):
            raise ValueError(f"{problem['task_id']}: its test {candidate.unsendable}.") from error
        return f"{_failed_line(problem, error)}; {candidate.last_call}"
    if not candidate.last_call:
        raise ValueError(f"{problem['task_id']}: its check never calls candidate, so that everything would pass.")
    return ""


def check_solution(problem: Mapping[str, str]) -> None:
    """Raise `ValueError` if a problem's own solution fails its test, or if the test needs more than plain values.

    The solution runs in this process, with copies of its arguments, as a program in the sandbox has them. A test that
    captures output, patches functions or prepares files passes here: `run_problem` refuses it where a program fails.
    """
    _check_solution(*(problem[column] for column in COLUMNS))


@functools.lru_cache(maxsize=4096)
def _check_solution(*columns: str) -> None:
    problem = dict(zip(COLUMNS, columns, strict=True))
    try:
        _run_test(problem, None)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise ValueError(
            f"{problem['task_id']} is broken: its own solution fails its test ({_failed_line(problem, error)}). "
            "Tests compare plain values, and see no change of their arguments. Correct it, or leave it out."
        ) from error


def _run_test(problem: Mapping[str, str], candidate: Callable | None) -> None:
    """Run the test on `candidate`, or else on the problem's own solution. Helpers of the prompt are the test's too."""
    names = {"__name__": "trusted_test"}
    exec(_compiled(problem["prompt"] + problem["canonical_solution"], "<solution>"), names)
    solution = names[problem["entry_point"]]
    candidate = candidate or (lambda *args, **kwargs: _copy(solution(*_copy(args), **_copy(kwargs)), convert=True))
    names[problem["entry_point"]] = candidate
    exec(_compiled(problem["test"], _file(problem)), names)
    names["check"](candidate)


def _copy(value: object, convert: bool = False) -> object:
    return values.unpacked(values.packed(values.encode(value, convert)))


@functools.lru_cache(maxsize=4096)
def _compiled(code: str, file: str) -> CodeType:
    return compile(code, file, "exec", dont_inherit=True, optimize=0)  # asserts stay, even under python -O


def _file(problem: Mapping[str, str]) -> str:
    return f"<test of {problem['task_id']}>"


def _failed_line(problem: Mapping[str, str], error: BaseException) -> str:
    """Return the source of the assertion that failed, or the error and the line it came from."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == _file(problem)]
    kind = "" if isinstance(error, AssertionError) else f"{type(error).__name__}: {error}; "
    if not frames:
        return f"{type(error).__name__}: {error}"
    line, test = frames[-1].lineno, problem["test"]
    around = [n for n in ast.walk(ast.parse(test)) if isinstance(n, ast.stmt) and n.lineno <= line <= n.end_lineno]
    return (kind + (ast.get_source_segment(test, around[-1]) or ""))[:1000]  # the innermost is walked last
