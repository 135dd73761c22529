"""A confined child process: started, talked to within a deadline, ended, and cleaned up after.

The thread that waits for an answer never touches the pipe, so that nothing a child does can hold it up.
"""

import os
import queue
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path

import psutil

from course_utils.sandbox import levels, values
from course_utils.sandbox.levels import Level

DISK_LIMIT = 64 << 20  # bytes of the own folder
_ENTRIES = 10_000  # files and folders in it
_THREADS = 256  # a user's limit on processes leaves room for fewer, but root has none
_FILE_LIMIT, _OPEN_FILES = 16 << 20, 64  # bytes of one file, and how many may be open
_START_LIMIT = 60.0  # seconds; a crowded machine may take long to start Python
_TICK = 0.05  # seconds between two looks at the clock and at the disk


class Ended(BaseException):
    """The program has failed for good. No `except Exception` in a test can catch it."""

    def __init__(self, outcome: str, detail: str) -> None:
        """Keep the outcome and what happened, in words."""
        super().__init__(outcome, detail)
        self.outcome, self.detail = outcome, detail


class Unconfined(RuntimeError):
    """The child could not be confined, so it ran nothing."""


class Child:
    """A process confined under `level`, for the length of a `with` block. Entering raises `Unconfined`.

    time_limit in seconds from the moment it is ready, memory_limit in bytes. Setting `stop` ends it.
    """

    def __init__(self, level: Level, time_limit: float, memory_limit: int, stop: threading.Event | None = None) -> None:
        """Start nothing yet."""
        self.level, self.time_limit, self._stop = level, time_limit, stop or threading.Event()
        self._limits = {"seconds": int(time_limit) + 1, "memory": int(memory_limit)}
        self._limits |= {"file_size": _FILE_LIMIT, "open_files": _OPEN_FILES, "processes": _most_processes()}
        self._deadline = time.monotonic() + _START_LIMIT
        self._requests: queue.SimpleQueue = queue.SimpleQueue()
        self._answers: queue.SimpleQueue = queue.SimpleQueue()
        self._program = self._beside = None  # once it is ready: its process, and the number of bubblewrap's own
        self._cpu_seconds = self._next_look = 0.0
        self._talker = threading.Thread(target=self._talk, daemon=True)

    def __enter__(self) -> "Child":
        """Start the process and wait until it is confined."""
        self._memory_was_short = _times_memory_was_short()
        self._work = Path(tempfile.mkdtemp(prefix="sandbox-")).resolve()
        self._process = None
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """End the process and remove its folder."""
        if self._process is not None:
            self._kill()
            self._requests.put(None)
            self._talker.join(timeout=1)
            if not self._talker.is_alive():  # at the weakest level, an escaped process may still hold the pipe
                for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
                    pipe.close()
        remove_folder(self._work)

    def _start(self) -> None:
        paths = levels.readable()
        seen_as = levels.WORK if self.level == Level.BUBBLEWRAP else str(self._work)
        self._process = subprocess.Popen(
            levels.command(self.level, paths, DISK_LIMIT), cwd=self._work, env=levels.environment(seen_as), bufsize=0,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
        self._talker.start()
        setup = {
            "limits": self._limits,
            "landlock": self.level == Level.LANDLOCK,
            "seccomp": self.level != Level.LIMITS,
            "readable": [*paths, "/dev/urandom"],
            "listable": levels.listable(),
            "writable": [str(self._work), os.devnull],
            "packages": levels.package_folders(),
        }
        try:
            answer = self.exchange(setup)
        except Ended as error:
            words = self._process.stderr.read(2000).decode(errors="replace").strip()
            raise Unconfined(words or error.detail) from error
        if answer != ["ready"]:
            raise Unconfined(str(answer[1]))
        try:
            pid = self._process.pid
            if self.level == Level.BUBBLEWRAP:  # whose child, which the program cannot hide, starts the program
                self._beside = _child_of(pid)
                pid = _child_of(self._beside)
            self._program = psutil.Process(pid)
            self._excess_on_disk()
        except (psutil.Error, OSError, IndexError) as error:
            raise Unconfined(f"what it uses cannot be watched: {error}") from error
        self._deadline = time.monotonic() + self.time_limit

    def exchange(self, message: object) -> object:
        """Send a message and return the answer, as JSON has it. Raises `Ended` if the child gives none."""
        self._requests.put(values.packed(message))
        while True:
            self._watch()  # also between quick answers, or many of them would outrun every limit
            with suppress(queue.Empty):
                answer = self._answers.get(timeout=_TICK)
                break
        if isinstance(answer, OSError | EOFError):
            self.end(*self._cause_of_death())
        if isinstance(answer, ValueError):
            self.end("crash", f"it wrote something else to the pipe than answers: {answer}")
        self._watch()
        return answer

    def end(self, outcome: str, detail: str) -> None:
        """End the process, and raise `Ended` with what happened."""
        self._kill()
        raise Ended(outcome, detail)

    def _talk(self) -> None:
        requests, answers = self._process.stdin.fileno(), self._process.stdout.fileno()
        for message in iter(self._requests.get, None):
            try:
                values.send(requests, message)
                self._answers.put(values.receive(answers))
            except (OSError, EOFError, ValueError) as error:
                self._answers.put(error)

    def _watch(self) -> None:
        if self._stop.is_set():
            raise KeyboardInterrupt
        if time.monotonic() > self._deadline:
            self.end("time-out", f"no end after {self.time_limit:g} s")
        with suppress(psutil.Error, OSError):  # it has just ended
            if self._program and (excess := self._excess()):
                self.end("forbidden", excess)

    def _excess(self) -> str:
        """Say what the program uses too much of, if anything."""
        if excess := self._excess_on_disk():
            return excess
        now = time.monotonic()
        if now < self._next_look:  # not at each of many quick answers: the following takes longer
            return ""
        self._next_look = now + _TICK
        used = self._program.cpu_times()
        self._cpu_seconds = used.user + used.system
        if self._program.num_threads() > _THREADS:
            return f"it started more than {_THREADS} threads"
        return "" if self.level == Level.BUBBLEWRAP else self._excess_in_deleted_files()

    def _excess_on_disk(self) -> str:
        if self.level != Level.BUBBLEWRAP:
            return _excess_in(self._work)
        folder = os.statvfs(f"/proc/{self._beside}/root{levels.WORK}")  # its size is limited
        return f"it made more than {_ENTRIES} files" if folder.f_files - folder.f_ffree > _ENTRIES else ""

    def _excess_in_deleted_files(self) -> str:
        """Say if files that are in no folder any more, but open or mapped, take too much space (Linux)."""
        process = Path(f"/proc/{self._program.pid}")
        if not process.exists():
            return ""
        held = {}
        for file in (process / "fd").iterdir():
            with suppress(FileNotFoundError):  # closed in the meantime
                status = file.stat()
                held |= {status.st_ino: 512 * status.st_blocks} if status.st_nlink == 0 else {}
        for line in (process / "maps").read_bytes().splitlines():
            if line.endswith(b" (deleted)") and bytes(self._work) in line:
                held.setdefault(int(line.split()[4]), _FILE_LIMIT)  # only root may see how large it is
        return f"it keeps more than {DISK_LIMIT >> 20} MB in deleted files" if sum(held.values()) > DISK_LIMIT else ""

    def _cause_of_death(self) -> tuple[str, str]:
        try:
            code = self._process.wait(timeout=1)
        except subprocess.TimeoutExpired:
            return "crash", "it closed the pipe"
        number = -code if code < 0 else code - 128 if self.level == Level.BUBBLEWRAP else 0  # bwrap passes it on so
        name = signal.Signals(number).name if number in list(signal.Signals) else ""
        limit = self._limits["seconds"]
        if name in ("SIGXCPU", "SIGKILL") and self._cpu_seconds > 0.8 * limit:  # as last seen
            return "time-out", f"more than {limit} s of CPU time"
        if name == "SIGKILL" and _times_memory_was_short() != self._memory_was_short:
            return "memory", "the system killed it, as memory was short"
        words = [f"by signal {number}"] * (number > 0) + [f"with code {code}"] * (code >= 0)
        return "crash", f"the process ended {' or '.join(words)}"

    def _kill(self) -> None:
        with suppress(ProcessLookupError, PermissionError, AttributeError):  # Windows has no process groups
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.kill()
        self._process.wait()


def _most_processes() -> int | None:
    """Return a limit that leaves a child 64 threads: no user has more processes than the machine (Linux)."""
    load = Path("/proc/loadavg")
    return int(load.read_text().split()[3].split("/")[1]) + 64 if load.exists() else None


def _child_of(pid: int) -> int:
    listed = Path(f"/proc/{pid}/task/{pid}/children")  # not in every kernel
    return int(listed.read_text().split()[0]) if listed.exists() else psutil.Process(pid).children()[0].pid


def _times_memory_was_short() -> str:
    """Return the kernel's count of processes that it has killed for want of memory (Linux)."""
    counters = Path("/proc/vmstat")
    lines = counters.read_text().splitlines() if counters.exists() else []
    return next((line for line in lines if line.startswith("oom_kill ")), "")


def _excess_in(folder: Path) -> str:
    """Say if a folder holds too much, or hides how much it holds."""
    size, entries, folders = 0, 0, [str(folder)]
    while folders:
        try:
            with os.scandir(folders.pop()) as found:
                for entry in found:
                    entries += 1
                    with suppress(FileNotFoundError):  # deleted in the meantime
                        if entry.is_dir(follow_symlinks=False):
                            folders.append(entry.path)
                        else:
                            status = entry.stat(follow_symlinks=False)
                            size += max(status.st_size, 512 * getattr(status, "st_blocks", 0))  # space may be reserved
                    if size > DISK_LIMIT or entries > _ENTRIES:
                        return f"it wrote more than {DISK_LIMIT >> 20} MB or {_ENTRIES} files"
        except FileNotFoundError:  # deleted in the meantime
            continue
        except OSError as error:  # unreadable, or too deep to look into
            return f"it made a folder that cannot be looked into ({error.strerror})"
    return ""


def remove_folder(folder: Path) -> None:
    """Remove a folder whatever is in it: unreadable folders, thousands of levels, or nothing any more."""
    with suppress(RecursionError):  # in a deep tree
        shutil.rmtree(folder, ignore_errors=True)
    if not folder.exists():
        return
    with suppress(OSError, RecursionError):
        for path, names, _ in os.walk(folder):
            for name in names:
                if not (Path(path) / name).is_symlink():
                    (Path(path) / name).chmod(0o700)
    if shutil.which("rm"):
        subprocess.run(["rm", "-rf", "--", str(folder)], stderr=subprocess.DEVNULL, check=False)
    else:
        shutil.rmtree(folder, ignore_errors=True)
