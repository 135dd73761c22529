"""A confined child process: started, talked to within a deadline, and ended.

A thread of its own talks to it, so that nothing a child does to the pipe can hold up the one that watches the clock.
"""

import os
import signal
import subprocess
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import psutil

from course_utils.sandbox import levels, values
from course_utils.sandbox.levels import Level

_THREADS = 256  # a user's limit on processes leaves room for fewer, but root has none
_START_LIMIT = 60.0  # seconds; a crowded machine may take long to start Python
_TICK = 0.05  # seconds between two looks at the clock and at the threads


class Ended(BaseException):
    """The program has come to its end (outcome, detail). No `except Exception` in a test can catch it."""


class Unconfined(RuntimeError):
    """The child could not be confined, so it ran nothing."""


class Child:
    """A process confined under `level`, for the length of a `with` block. Entering raises `Unconfined`.

    time_limit in seconds from the moment it is ready, memory_limit in bytes. Setting `stop` ends it.
    """

    def __init__(self, level: Level, time_limit: float, memory_limit: int, stop: threading.Event | None = None) -> None:
        """Start nothing yet."""
        self.level, self.time_limit, self._memory_limit = level, time_limit, memory_limit
        self._stop, self.ended = stop or threading.Event(), None
        self._watched: list[psutil.Process] = []  # it and bubblewrap's own, once looked for

    def __enter__(self) -> "Child":
        """Start the process and wait until it is confined."""
        self._deadline = self._next_look = time.monotonic() + _START_LIMIT
        self._process = subprocess.Popen(
            levels.command(self.level), cwd=levels.NOWHERE, env=levels.environment(), start_new_session=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        try:
            self._confine()
        except BaseException:
            self.__exit__()
            raise
        self._deadline, self._next_look = time.monotonic() + self.time_limit, time.monotonic() + _TICK
        return self

    def __exit__(self, *_: object) -> None:
        """End the process."""
        self._kill()
        self._talker.join(timeout=1)
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            with suppress(OSError):  # the end of a message that was not sent
                if not self._talker.is_alive():  # at the weakest level, an escaped process may still hold the pipe
                    pipe.close()

    def _confine(self) -> None:
        load = Path("/proc/loadavg")  # leaves 64 threads: no user has more processes than the machine
        processes = int(load.read_text().split()[3].split("/")[1]) + 64 if load.exists() else 1 << 20
        seconds = int(self.time_limit * (os.cpu_count() or 1)) + 2  # of CPU, where nobody is left to end the child
        allowed = [*levels.readable(), "/dev/urandom"], levels.listable()
        setup = {"limits": [seconds, int(self._memory_limit), processes], "seccomp": self.level != Level.LIMITS}
        setup |= {"landlock": allowed if self.level == Level.LANDLOCK else None, "packages": levels.package_folders()}
        try:
            answer = self.exchange(setup)
        except Ended as error:
            words = self._process.stderr.read(2000).decode(errors="replace").strip()
            raise Unconfined(words or error.args[1]) from error
        if answer != ["ready"]:
            raise Unconfined(str(answer[1]))

    def exchange(self, message: object) -> object:
        """Send a message and return the answer, as JSON has it. Raises `Ended` if the child gives none."""
        if self.ended:
            raise self.ended
        answers: list = []
        self._talker = threading.Thread(target=self._talk, args=(values.packed(message), answers), daemon=True)
        self._talker.start()
        while self._talker.is_alive():
            self._watch()  # also between quick answers, or many of them would outrun every limit
            self._talker.join(_TICK)
        self._watch()
        if isinstance(answers[0], OSError | EOFError):
            self.end("crash", self._cause_of_death())
        if isinstance(answers[0], ValueError):
            self.end("crash", f"it wrote something else to the pipe than answers: {answers[0]}")
        return answers[0]

    def end(self, outcome: str, detail: str) -> NoReturn:
        """End the process, and raise `Ended` with what happened: now, and whenever something is sent."""
        self._kill()
        self.ended = Ended(outcome, detail)
        raise self.ended

    def _talk(self, message: bytes, answers: list) -> None:
        try:
            values.send(self._process.stdin, message)
            answers.append(values.receive(self._process.stdout))
        except (OSError, EOFError, ValueError) as error:
            answers.append(error)

    def _watch(self) -> None:
        if self._stop.is_set():
            raise KeyboardInterrupt
        if time.monotonic() > self._deadline:
            self.end("time-out", f"no end after {self.time_limit:g} s")
        if time.monotonic() > self._next_look:
            self._next_look = time.monotonic() + _TICK
            with suppress(psutil.Error):  # it has just ended
                first = psutil.Process(self._process.pid)
                self._watched = self._watched or [first, *first.children(recursive=True)]
                if max(process.num_threads() for process in self._watched) > _THREADS:
                    self.end("forbidden", f"it started more than {_THREADS} threads")

    def _cause_of_death(self) -> str:
        try:
            code = self._process.wait(timeout=1)
        except subprocess.TimeoutExpired:
            return "it closed the pipe"
        ended = f"by signal {-code}" if code < 0 else f"with code {code}"  # bubblewrap makes 128 + n of signal n
        return f"the process ended {ended}" + ", as when the system is short of memory" * (code in (-9, 137))

    def _kill(self) -> None:
        with suppress(ProcessLookupError, PermissionError, AttributeError):  # Windows has no process groups
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.kill()
        self._process.wait()
