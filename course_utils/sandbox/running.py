"""Running generated programs against a problem's test, so that they can neither forge a pass nor do harm.

The test runs in this process, which is trusted, with stand-ins for the program's functions. Each of their calls is
answered by a fresh child process, which is confined and never sees the test; arguments and answers travel as plain
values. So a test sees only answers: not what a function prints, changes or calls, nor objects of the program's own
classes. A program that writes a file, even a temporary one, is "forbidden". Tests are code of the data set and run
unconfined, without a time limit: take them only from sources you trust, and let them compare answers, not compute with
them (sum(range(answer)) may never end).
"""

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
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from types import CodeType
from typing import NamedTuple

from tqdm.auto import tqdm

from course_utils import limits
from course_utils.sandbox import levels, values
from course_utils.sandbox.child_process import Child, Ended, Unconfined
from course_utils.sandbox.levels import Level

TIME_LIMIT = 10.0  # seconds, without the start of the child's Python
MEMORY_LIMIT = 1 << 30  # bytes; pandas and scikit-learn take half of it in address space
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
_short = reprlib.Repr()
_short.maxstring = _short.maxother = _short.maxlong = 200


class Result(NamedTuple):
    """How a program did, the level it ran under, what went wrong in words, and seconds.

    The outcome is "passed", "wrong answer", "exception", "time-out", "memory", "forbidden", "crash" (its process
    ended), or "cannot be judged": an argument or answer cannot be sent, or the test asks for more than answers.
    """

    outcome: str
    level: str
    detail: str = ""
    seconds: float = 0.0


def run_problem(
    problem: Mapping[str, str], completion: str, *, time_limit: float = TIME_LIMIT, memory_limit: int = MEMORY_LIMIT,
    level: str | None = None, stop: threading.Event | None = None,
) -> Result:  # fmt: skip
    """Run prompt + completion against the problem's test; `problem` has HumanEval's columns.

    Without an `entry_point` the test is a script that calls the program's functions by their names. time_limit in
    seconds for the whole run, memory_limit in bytes; `level` None is the strongest that works here; setting `stop` ends
    the run with `KeyboardInterrupt`. Raises `ValueError` for a test that never calls the program.
    """
    level, start = _usable(level), time.monotonic()
    with Child(level, time_limit, memory_limit, stop) as child:
        program = _Program(child)
        outcome, detail = _judged(problem, program, completion)
    if outcome == "passed" and not program.asked:
        raise ValueError(f"{problem['task_id']}: its test never calls the program, so that everything would pass.")
    return Result(outcome, level.value, detail, time.monotonic() - start)


def run_problems(
    jobs: Iterable[tuple[Mapping[str, str], str]], *, workers: int | None = None, progress: bool = True, **settings
) -> list[Result]:
    """Run many (problem, completion) pairs, with `settings` of `run_problem`; results in the order of the jobs.

    As many run at a time as there are cores. Ctrl-C ends all children.
    """
    settings |= {"level": _usable(settings.get("level")), "stop": threading.Event()}
    with ThreadPoolExecutor(workers or max(1, int(limits.cores()[0]))) as pool:
        try:
            running = [pool.submit(run_problem, problem, completion, **settings) for problem, completion in jobs]
            bar = tqdm(running, desc=f"programs ({settings['level']})", unit="program", disable=not progress)
            return [future.result() for future in bar]
        except BaseException:
            settings["stop"].set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def strongest_level() -> Level:
    """Return the strongest level that works here; `Level.LIMITS` only if the variable COURSE_SANDBOX is "limits"."""
    found, wish = probe(), os.environ.get("COURSE_SANDBOX", "")
    if wish not in ("", "strong", Level.LIMITS):
        raise ValueError(f"COURSE_SANDBOX={wish!r} is not known; set it to strong (as without it) or limits.")
    for level, problem in found.items():
        if problem is None and (level != Level.LIMITS or wish == Level.LIMITS):
            return level
    missing = "; ".join(f"{level}: {problem}" for level, problem in found.items() if problem)
    raise RuntimeError(
        f"Generated programs cannot be confined here ({missing}). On Linux, install bubblewrap or use a kernel with "
        "Landlock. Only if you trust the programs as your own, set COURSE_SANDBOX=limits. It promises none of this: "
        f"{'; '.join(words for words, kept_by in levels.PROMISES.values() if Level.LIMITS not in kept_by)}."
    )


@functools.cache
def probe() -> dict[Level, str | None]:
    """Let a child under each level try what is forbidden: None where all of it failed, else why the level is no use."""
    return {level: _missing(level) for level in Level}


def _missing(level: Level) -> str | None:
    if level == Level.LIMITS:
        return None
    if sys.platform != "linux":
        return f"this system ({sys.platform}) has none; only Linux does"
    if level == Level.BUBBLEWRAP and shutil.which("bwrap") is None:
        return "the program bwrap is not installed"
    try:
        with Child(level, TIME_LIMIT, MEMORY_LIMIT) as child:
            program = _Program(child)
            program.ask("load", _TRIAL)
            went_through = program.call("trial")
    except (Unconfined, Ended, OSError) as error:
        return str(error.args[-1])
    return f"a child could still use: {', '.join(map(str, went_through))}" if went_through != [] else None


def _usable(level: str | None) -> Level:
    level = strongest_level() if level is None else Level(level)
    if problem := probe()[level]:
        raise RuntimeError(f"The level {level} does not work here: {problem}. strongest_level() returns one that does.")
    if level == Level.LIMITS and (secrets := levels.secret_names()):
        raise RuntimeError(
            f"The environment of this process has {', '.join(secrets)}, which programs at the level {level} can read, "
            "even after they are deleted. Start Python again without them, or use a stronger level."
        )
    return level


class _Program:
    """The trusted side's view of a program. Keeps what happened, since a test may hide it."""

    def __init__(self, child: Child) -> None:
        self.child = child
        self.raised: Exception | None = None  # by the last call
        self.error = self.last_call = ""  # the same in words, and what was called
        self.asked = self.changed = False  # whether the test used the program, and a call changed its arguments

    def call(self, name: str, *arguments: object, **keywords: object) -> object:
        """Call a function of the program with plain values; return its answer, or raise what it raised."""
        shown = [*map(_shown, arguments), *(f"{key}={_shown(argument)}" for key, argument in keywords.items())]
        self.last_call = f"{name}({', '.join(shown)})"
        answer = self.ask("call", name, arguments, keywords)
        self.last_call += f" gave {_shown(answer)}"
        return answer

    def ask(self, kind: str, what: str, *arguments: object) -> object:
        """Send the child a program to load, a name to look up, or a call; return the answer."""
        self.raised, self.asked = None, kind != "load"
        where = self.last_call or ("loading the program" if kind == "load" else what)
        try:
            answer = self.child.exchange([kind, what, *map(values.encode, arguments)])
        except values.NotPlain as error:
            self.child.end("cannot be judged", f"{where} would send {error}")
        match answer:
            case ["function"]:
                return functools.partial(self.call, what)
            case ["value" | "changed" as how, tree]:
                self.changed |= how == "changed"
                with contextlib.suppress(ValueError):
                    return values.decode(tree)
            case ["not plain", str(text)]:
                self.child.end("cannot be judged", f"{where} gave {_printable(text)}, which cannot be sent")
            case ["exception", str(name), [*bases], str(text), "" | "memory" | "forbidden" | "exception" as outcome]:
                self.error = f"{where} raised {_printable(name)}: {_printable(text)}"
                self.raised = self._exception(bases, _printable(text), outcome)
                raise self.raised
        self.child.end("crash", "it wrote something else to the pipe than answers")

    def _exception(self, bases: list, text: str, outcome: str) -> Exception:
        """Return the builtin exception that a test may expect; what is not an error (SystemExit) ends the run."""
        known = [vars(builtins).get(base) for base in bases if isinstance(base, str)]
        kind = next((k for k in known if isinstance(k, type) and issubclass(k, BaseException)), BaseException)
        # StopIteration would end a test's own `all(map(candidate, ...))` early, as if all had been right.
        if outcome or not issubclass(kind, Exception) or issubclass(kind, StopIteration | StopAsyncIteration):
            self.child.end(outcome or "exception", self.error)
        try:
            return kind(text)
        except TypeError:  # the decoding errors, which want more arguments
            return ValueError(text)


class _Names(dict):
    """Python's builtins, and after them the names of `program`."""

    def __missing__(self, name: str) -> object:
        return self.program.ask("look", name)


def _shown(value: object) -> str:
    try:
        return _short.repr(value)
    except ValueError:  # a number of more digits than Python writes out
        return f"a long {type(value).__name__}"


def _printable(text: str) -> str:
    """Shorten a text of the child, and replace what a terminal would obey or could not print."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text[:600])


def _judged(problem: Mapping[str, str], program: _Program, completion: str) -> tuple[str, str]:
    """Load the program and run the test; return the outcome and what failed, or nothing."""
    names, file = {"__name__": "trusted_test"}, f"<test of {problem['task_id']}>"
    try:
        redefined = program.ask("load", problem["prompt"] + completion)
        test = _compiled(problem["test"], file)
        if "entry_point" in problem:  # HumanEval's form, `check(candidate)`. Helpers of the prompt are the test's too.
            solution = problem.get("canonical_solution") or "    pass" * bool(problem["prompt"].strip())
            exec(_compiled(problem["prompt"] + solution, "<solution>"), names)
            names[problem["entry_point"]] = candidate = functools.partial(program.call, problem["entry_point"])
            exec(test, names)
            names["check"](candidate)
        else:  # A script that calls functions by name. What neither it nor Python defines is the program's.
            for name in _names(test).intersection(redefined):
                program.child.end("cannot be judged", f"the program defines {name}, but in the test this is Python's")
            names["__builtins__"] = _Names(vars(builtins))
            names["__builtins__"].program = program
            exec(test, names)
        outcome, detail = "passed", ""
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # also SystemExit, and what test libraries fail with
        outcome, detail = "wrong answer", f"{_failed_line(problem['test'], file, error)}; {program.last_call}"
        if error is program.raised:
            outcome, detail = "exception", program.error
        elif program.changed:
            outcome = "wrong answer" if "entry_point" in problem else "cannot be judged"
            detail += ", and changed its arguments, which a test cannot see"
    return program.child.ended.args if program.child.ended else (outcome, detail)


@functools.lru_cache(maxsize=4096)
def _compiled(code: str, file: str) -> CodeType:
    return compile(code, file, "exec", dont_inherit=True, optimize=0)  # asserts stay, even under python -O


def _names(code: CodeType) -> set[str]:
    return {*code.co_names}.union(*(_names(part) for part in code.co_consts if isinstance(part, CodeType)))


def _failed_line(test: str, file: str, error: BaseException) -> str:
    """Return the line of the test that failed, and the error unless it is an assertion's."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    kind = [] if frames and type(error) is AssertionError else [f"{type(error).__name__}: {error}"]
    return "; ".join([*kind, *(test.splitlines()[frame.lineno - 1].strip() for frame in frames[-1:])])[:1000]
