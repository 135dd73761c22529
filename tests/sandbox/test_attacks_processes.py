"""Hostile programs that start, stop or outlive processes."""

import os
import subprocess
import sys
import time

import psutil
import pytest
from attack import ENDLESS_THREADS, attack, under

from course_utils.sandbox import confinement

pytestmark = pytest.mark.usefixtures("whatever_the_environment")


@under("processes")
def test_no_process_is_started(level):
    program = """
        import _posixsubprocess, multiprocessing, pty
        def daemon():
            if os.fork() == 0:
                os.setsid()
                if os.fork() == 0:
                    import time; time.sleep(60)
                os._exit(0)
        def attempt(_):
            return went_through(
                fork=os.fork, forkpty=os.forkpty, daemon=daemon,
                run=lambda: subprocess.run(["true"], check=True), shell=lambda: os.popen("true").read(),
                spawn=lambda: os.posix_spawn("/bin/true", ["true"], {}), exec=lambda: os.execv("/bin/true", ["true"]),
                worker=lambda: multiprocessing.get_context("fork").Process(target=print).start(),
                vfork=lambda: system("vfork"), clone=lambda: system("syscall", 56, 17, 0, 0, 0, 0),
                clone3=lambda: system("syscall", 435, 0, 0), unshare=lambda: system("unshare", 0x10000000),
            )
    """
    result = attack(program, level)
    assert result.outcome == "passed", result


@under("processes")
def test_a_fork_bomb_is_forbidden(level):
    result = attack("def attempt(_):\n    while True: os.fork()", level)
    assert (result.outcome, "PermissionError" in result.detail) == ("forbidden", True)


@under("processes")
def test_threads_are_allowed(level):
    program = """
        import concurrent.futures
        def attempt(_):
            with concurrent.futures.ThreadPoolExecutor(4) as pool:
                assert list(pool.map(abs, range(8))) == list(range(8))
            return []
    """
    result = attack(program, level)
    assert result.outcome == "passed", result


@under("processes")
def test_no_child_is_left(level):
    for program in ("def attempt(_): return []", ENDLESS_THREADS):
        attack(program, level, time_limit=1.0)
    deadline = time.monotonic() + 10
    while left := [p for p in psutil.Process().children(recursive=True) if "sandbox_child" in " ".join(cmdline(p))]:
        assert time.monotonic() < deadline, left
        time.sleep(0.05)


def cmdline(process):
    try:
        return process.cmdline()
    except psutil.Error:
        return []


@under("signals")
def test_other_processes_are_left_alone(level):
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as victim:
        niceness = os.getpriority(os.PRIO_PROCESS, victim.pid)
        program = """
            import fcntl, resource, signal
            def owned(pid):
                read, write = os.pipe()
                fcntl.fcntl(read, fcntl.F_SETOWN, pid)
            def attempt(pids):
                return [through for pid in (*pids, os.getppid()) for through in went_through(
                    kill=lambda: os.kill(pid, 9), group=lambda: os.killpg(pid, 9), all=lambda: os.kill(-1, 0),
                    tkill=lambda: system("syscall", 200, pid, 9), tgkill=lambda: system("syscall", 234, pid, pid, 9),
                    pidfd=lambda: os.pidfd_open(pid), queue=lambda: system("sigqueue", pid, 9, 0),
                    limits=lambda: resource.prlimit(pid, resource.RLIMIT_CPU, (0, 0)), owner=lambda: owned(pid),
                    trace=lambda: system("ptrace", 16, pid, 0, 0), seize=lambda: system("ptrace", 0x4206, pid, 0, 0),
                    memory=lambda: open(f"/proc/{pid}/mem", "r+b"),
                    nice=lambda: os.setpriority(os.PRIO_PROCESS, pid, 5),
                    read=lambda: system("process_vm_readv", pid, 0, 0, 0, 0, 0),
                    affinity=lambda: os.sched_setaffinity(pid, {0}),
                )]
        """
        result = attack(program, level, (victim.pid, os.getpid()))
        assert result.outcome == "passed", result
        assert victim.poll() is None
        assert os.getpriority(os.PRIO_PROCESS, victim.pid) == niceness
        victim.kill()


@under("signals")
def test_every_call_of_the_filter_is_refused(level):
    column = 1 + ("x86_64", "aarch64").index(os.uname().machine)
    calls = [call.split() for call in ", ".join(confinement._FORBIDDEN.values()).split(", ")]
    numbers = {call[0]: int(call[column]) for call in calls if call[column] != "-"}
    program = """
        def attempt(numbers):
            libc, wrong = ctypes.CDLL(None, use_errno=True), []
            for name, number in numbers.items():
                ctypes.set_errno(0)
                if (libc.syscall(number, 0, 0, 0, 0, 0, 0), ctypes.get_errno()) != (-1, 1): wrong.append(name)
            return wrong
    """
    assert len(numbers) > 60
    assert attack(program, level, numbers).outcome == "passed"


@under("signals")
def test_nothing_shared_outlives_the_program(level):
    program = """
        def attempt(_):
            return went_through(
                memory=lambda: system("shmget", 0, 4096, 0o1600), semaphore=lambda: system("semget", 0, 1, 0o1600),
                messages=lambda: system("msgget", 0, 0o1600), memfd=lambda: os.memfd_create("x"),
                keys=lambda: system("syscall", 250, 0, 0), uring=lambda: system("syscall", 425, 1, 0),
            )
    """
    assert attack(program, level).outcome == "passed"
