"""Hostile programs that never end, or take too much memory, output or time of the harness."""

import re
import signal
import subprocess
import sys
import textwrap
import time

import psutil
import pytest
from attack import ENDLESS_THREADS, LINUX, attack, under, with_this_path

from course_utils.sandbox import child_process

pytestmark = pytest.mark.usefixtures("whatever_the_environment")


def never_ends(program, level):
    start = time.monotonic()
    result = attack(program, level, time_limit=1.0)
    assert time.monotonic() - start < 15
    return result


ENDLESS = {
    "loop": "def attempt(_):\n    while True: pass",
    "while it is loaded": "while True: pass",
    "catching everything": """
        def attempt(_):
            while True:
                try:
                    while True: pass
                except BaseException:
                    pass
    """,
    "ignoring signals": """
        import signal, time
        def attempt(_):
            for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:
                signal.signal(number, signal.SIG_IGN)
            time.sleep(1000)
    """,
    "threads": ENDLESS_THREADS,
    "in C": "def attempt(_):\n    return 7 ** (10 ** 9)",
}


@under("time")
@pytest.mark.parametrize("way", ENDLESS)
def test_an_endless_program_is_ended(level, way):
    assert never_ends(ENDLESS[way], level).outcome == "time-out"


@under("time")
def test_threads_that_never_end_do_not_hold_up_an_answer(level):
    program = """
        def spin():
            while True: pass
        def attempt(_):
            threading.Thread(target=spin).start()
            return []
    """
    start = time.monotonic()
    assert attack(program, level).outcome == "passed"
    assert time.monotonic() - start < 15


@under("time")
@pytest.mark.skipif(not LINUX, reason="other systems limit memory in other ways, if at all")
def test_thousands_of_threads_are_not_to_be_had(level):
    program = """
        import time
        def attempt(_):
            threading.stack_size(32768)
            for _ in range(3000): threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
    """
    result = attack(program, level, memory_limit=4 << 30)
    assert result.outcome in ("forbidden", "exception"), result
    assert re.search("more than 256 threads|can't start new thread", result.detail)


# What ended it, and how that is called. Bubblewrap cannot tell a signal from a high exit code.
ENDS = {
    "os._exit(137)": ("crash", "with code 137"),
    "os._exit(152)": ("crash", "with code 152"),
    "signal.raise_signal(signal.SIGKILL)": ("crash", "by signal 9"),
    "signal.raise_signal(signal.SIGXCPU)": ("crash", "by signal 24"),
    "burn()": ("time-out", "more than 1 s of CPU time"),
    "signal.signal(signal.SIGXCPU, signal.SIG_IGN); burn()": ("time-out", "more than 1 s of CPU time"),
}


@under("time")
@pytest.mark.skipif(not LINUX, reason="these signals and the limit of CPU time are Linux's")
@pytest.mark.parametrize("end", ENDS)
def test_an_end_is_called_what_it_was(level, end, monkeypatch):
    program = f"""
        import signal
        def burn():
            while True: pass
        def attempt(_): {end}
    """
    set_limits = child_process.Child.__init__

    def with_a_second_of_cpu(self, *arguments):
        set_limits(self, *arguments)
        self._limits["seconds"] = 1

    monkeypatch.setattr(child_process.Child, "__init__", with_a_second_of_cpu)
    result = attack(program, level)
    outcome, words = ENDS[end]
    assert result.outcome == outcome, result
    assert words in result.detail


@under("memory")
@pytest.mark.skipif(not LINUX, reason="promised on Linux only")
@pytest.mark.parametrize(
    "body",
    [
        "return bytearray(10 ** 10)",
        "import numpy; return numpy.ones(10 ** 10).sum()",
        "kept = []\n    while True: kept.append(bytearray(10 ** 8))",
        "import resource\n    try: resource.setrlimit(resource.RLIMIT_AS, (-1, -1))\n    except ValueError: pass\n"
        "    return bytearray(10 ** 10)",
    ],
)
def test_ten_gigabytes_are_not_to_be_had(level, body):
    assert attack(f"def attempt(_):\n    {body}", level).outcome == "memory"


@under("output")
def test_300_megabytes_of_output_go_nowhere(level, capfd):
    program = """
        import sys
        def attempt(_):
            for _ in range(100):
                sys.stdout.write("x" * 10 ** 6)
                sys.stderr.write("x" * 10 ** 6)
                os.write(1, b"x" * 10 ** 6)
            return []
    """
    assert attack(program, level).outcome == "passed"
    assert capfd.readouterr() == ("", "")


@under("time")
@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C cannot be sent to one process of a console")
def test_ctrl_c_ends_all_children(level, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent("""
        import sys
        from attack import PROBLEM
        from course_utils.sandbox import levels
        levels.secret_names = list
        from course_utils.sandbox.running import run_problems
        PROBLEM["test"] = PROBLEM["test"].replace("ARGUMENT", "1")
        program = "    while True: pass\\n"
        run_problems([(PROBLEM, program)] * 8, workers=2, time_limit=100, level=sys.argv[1], progress=False)
        """)
    )
    command = [sys.executable, script, level]
    with subprocess.Popen(command, env=with_this_path(), stderr=subprocess.PIPE, text=True) as harness:
        deadline = time.monotonic() + 60
        while len(children := burning(harness.pid)) < 2:
            assert time.monotonic() < deadline, "the children did not start"
            time.sleep(0.05)
        harness.send_signal(signal.SIGINT)
        _, errors = harness.communicate(timeout=30)
    assert "KeyboardInterrupt" in errors
    assert psutil.wait_procs(children, timeout=10)[1] == []


def burning(pid):
    """Children that have used some CPU, so that the program is surely running."""
    found = []
    for child in psutil.Process(pid).children(recursive=True):
        try:
            if child.cpu_times().user > 0.3:
                found.append(child)
        except psutil.Error:
            continue
    return found
