"""Hostile programs, one or more for each promise of `levels.PROMISES`, at every level that makes it."""

import ctypes
import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import psutil
import pytest
from attack import PROBLEM, attack, promising, under

from course_utils.evaluation import child_process, confinement, levels
from course_utils.evaluation.levels import Level
from course_utils.evaluation.sandbox import Result, probe, run_problem

pytestmark = pytest.mark.usefixtures("whatever_the_environment")
LINUX = sys.platform == "linux"


@pytest.mark.parametrize("level", list(Level))
def test_which_levels_are_tested_here(level, record_property):
    missing = probe()[level]
    record_property(f"level {level}", missing or "tested")
    if missing:
        pytest.skip(f"nothing is tested at the level {level}: {missing}")


@pytest.mark.skipif(not LINUX, reason="other systems have resource limits only, and the table says so")
def test_on_linux_one_level_confines():
    assert any(problem is None for level, problem in probe().items() if level != Level.LIMITS), probe()


def test_every_promise_is_tested():
    text = Path(__file__).read_text(encoding="utf-8")
    assert [promise for promise in levels.PROMISES if f'@under("{promise}")' not in text] == []


# --- time


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
    "threads": """
        def spin():
            while True: pass
        def attempt(_):
            for _ in range(4):
                threading.Thread(target=spin).start()
            threading.Event().wait()
    """,
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


# --- memory and output


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


# --- verdict

FORGERIES = {
    "equal to everything": """
        class Same:
            def __eq__(self, other): return True
            def __hash__(self): return 0
            def __getattr__(self, name): return self
            def tolist(self): return self
        def attempt(_): return Same()
    """,
    "a list equal to everything": """
        class Same(list):
            def __eq__(self, other): return True
        def attempt(_): return Same([1])
    """,
    "patched builtins": """
        import builtins
        builtins.AssertionError = Exception
        builtins.type = lambda value: list
        builtins.len = lambda value: 0
        builtins.list = lambda *a: []
        def attempt(_): return 1
    """,
    "patched JSON": """
        import json, values, sandbox_child
        json.dumps = lambda *a, **k: '["passed"]'
        values.packed = lambda tree: b"\\0\\0\\0\\x0a" + b'["passed"]'
        def attempt(_): return 1
    """,
    "sys.exit in the call": "import sys\ndef attempt(_): sys.exit(0)",
    "sys.exit while it is loaded": "raise SystemExit(0)",
    "os._exit in the call": "def attempt(_): os._exit(0)",
    "os._exit while it is loaded": "os._exit(0)",
    "a pickle": """
        import pickle
        class Evil:
            def __reduce__(self): return os.system, ("touch forged",)
        def attempt(_): return pickle.dumps(Evil())
    """,
    "swallowed": "def attempt(_): raise AssertionError('passed')",
    "closed pipe": "def attempt(_):\n    os.closerange(3, 64)\n    import time; time.sleep(1)",
    "deep": "def attempt(_):\n    deep = []\n    for _ in range(10 ** 5): deep = [deep]\n    return deep",
    "huge": "def attempt(_): return 'x' * 10 ** 8",
    "huge number": "def attempt(_): return 1 << 10 ** 6",
}
SAID = {
    "patched builtins": "crash",
    "patched JSON": "crash",
    "sys.exit in the call": "exception",
    "sys.exit while it is loaded": "exception",
    "os._exit in the call": "crash",
    "os._exit while it is loaded": "crash",
    "swallowed": "exception",
    "closed pipe": "crash",
}


@under("verdict")
@pytest.mark.parametrize("way", FORGERIES)
def test_no_pass_is_forged(level, way):
    result = attack(FORGERIES[way], level)
    assert result.outcome == SAID.get(way, "wrong answer"), result
    assert result.level == level


QUICK = "def check(candidate):\n    for turn in range(100):\n        assert candidate(turn) == []\n"


@under("time")
def test_many_quick_answers_do_not_outrun_the_limit(level):
    start = time.monotonic()
    program = "    import time\n    time.sleep(0.04)\n    return []\n"
    result = run_problem(PROBLEM | {"test": QUICK}, program, level=level, time_limit=1.0)
    assert result.outcome == "time-out", result
    assert time.monotonic() - start < 3.5


@under("disk")
def test_many_quick_answers_do_not_outrun_the_disk_limit(level):
    program = "    open(str(argument), 'wb').write(bytes(12 << 20))\n    return []\n"
    result = run_problem(PROBLEM | {"test": QUICK}, program, level=level)
    assert result.outcome == "forbidden", result


@under("verdict")
@pytest.mark.parametrize("error", ["StopIteration", "StopAsyncIteration"])
def test_the_end_of_an_iteration_does_not_end_the_test(level, error):
    test = "def check(candidate):\n    assert all(map(lambda case: candidate(case) == [], [1, 2]))\n"
    result = run_problem(PROBLEM | {"test": test}, f"    raise {error}\n", level=level)
    assert result.outcome == "exception", result


@under("verdict")
def test_a_reported_error_can_be_printed(level):
    result = attack(r"def attempt(_): raise ValueError('\ud800 \x1b[31m \0 é')", level)
    assert result.outcome == "exception"
    assert result.detail.isprintable()
    assert r"\ud800 \x1b[31m \x00 é" in result.detail
    result.detail.encode()


GARBAGE = {
    "noise": "os.urandom(1) * 1000",
    "nothing that is long": "b'\\xff' * 4",
    "deep": "framed(b'[' * 10 ** 6)",
    "a deep value": "framed(b'[\"value\",' + b'[' * 500 + b']' * 500 + b']')",
    "another object": "framed(b'{\"passed\": true}')",
    "an unknown tag": 'framed(b\'["value", {"eval": ["exit()"]}]\')',
    "an unhashable element": 'framed(b\'["value", {"set": [[]]}]\')',
    "bytes that are none": 'framed(b\'["value", {"bytes": "zz"}]\')',
    "a pickle": "framed(__import__('pickle').dumps(print))",
    "numbers of one hash": "framed(b'[\"value\",{\"set\":[' + b','.join(b'%d' % (k * (2 ** 61 - 1)) "
    "for k in range(100000)) + b']}]')",
    "a long number": "framed(b'[\"value\",' + b'9' * 10 ** 6 + b']')",
    "an exception that is none": 'framed(b\'["exception", 1, ["print"], 2, 3]\')',
}


@under("verdict")
@pytest.mark.parametrize("what", GARBAGE)
def test_garbage_in_the_pipe_is_a_crash(level, what):
    program = f"""
        def framed(data): return len(data).to_bytes(4, "big") + data
        def attempt(_):
            for descriptor in range(3, 20):
                try: os.write(descriptor, {GARBAGE[what]})
                except OSError: pass
            import time; time.sleep(30)
    """
    start = time.monotonic()
    assert attack(program, level, time_limit=15.0).outcome == "crash"
    assert time.monotonic() - start < 14


@under("verdict")
@pytest.mark.parametrize("kind", ["SystemExit", "KeyboardInterrupt", "GeneratorExit", "print", "Ended"])
def test_a_made_up_exception_cannot_end_the_harness(level, kind):
    program = f"""
        def attempt(_):
            data = b'["exception", "E", ["{kind}"], "text", ""]'
            for descriptor in range(3, 20):
                try: os.write(descriptor, len(data).to_bytes(4, "big") + data)
                except OSError: pass
            import time; time.sleep(30)
    """
    assert attack(program, level).outcome == "exception"


@under("verdict")
def test_the_test_is_nowhere_in_the_childs_process(level):
    program = """
        import gc, inspect, sys
        def attempt(_):
            frame, texts = sys._getframe(), []
            while frame:
                texts += [repr(frame.f_locals), repr(frame.f_globals)]
                frame = frame.f_back
            texts += [repr(part) for part in gc.get_objects() if isinstance(part, (dict, list, tuple, str, bytes))]
            texts += [repr(vars(module)) for module in list(sys.modules.values())] + [repr(sys.argv), repr(os.environ)]
            wanted = "".join(reversed("ZEBRA"))  # only now, or it would find itself
            return [1 for text in texts if wanted in text]
    """
    problem = PROBLEM | {"test": "def check(candidate):\n    'ARBEZ'\n    assert candidate(None) == []\n"}
    result = run_problem(problem, "    pass\n" + TRY_(program), level=level)
    assert result.outcome == "passed", result


def TRY_(program):
    return "import os\n" + textwrap.dedent(program)


@under("verdict")
def test_a_broad_except_in_the_test_hides_no_death(level):
    test = "def check(candidate):\n    try:\n        candidate(1)\n        assert False\n    except:\n        pass\n"
    for body, outcome in (("os._exit(0)", "crash"), ("while True: pass", "time-out"), ("return 1", "passed")):
        program = TRY_(f"def attempt(_):\n    {body}")
        result = run_problem(PROBLEM | {"test": test}, "    pass\n" + program, level=level, time_limit=2)
        assert result.outcome == outcome


# --- environment and reading


@under("environment")
@pytest.mark.skipif(not LINUX, reason="/proc is Linux's")
def test_no_token_is_read_from_the_environment(level, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent("""
        import os, sys
        from attack import attack
        program = '''
        def attempt(parent):
            texts = [repr(os.environ)]
            for path in (f"/proc/{parent}/environ", "/proc/self/environ", f"/proc/{os.getppid()}/environ"):
                try: texts.append(open(path).read())
                except OSError: pass
            return [1 for text in texts if "-".join(("very", "secret")) in text]
        '''
        try:
            print(attack(program, sys.argv[1], os.getpid()).outcome)
        except RuntimeError as error:
            print("refused:", error)
        """)
    )
    variables = with_this_path(HF_TOKEN="very-secret")
    done = subprocess.run([sys.executable, script, level], env=variables, capture_output=True, text=True, check=True)
    assert "very-secret" not in done.stdout
    if level == Level.LIMITS:
        assert done.stdout.startswith("refused: The environment of this process has ")
        assert "HF_TOKEN" in done.stdout
    else:
        assert done.stdout == "passed\n"


@under("reading")
def test_nothing_of_the_user_or_the_course_is_read(level, tmp_path):
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    course = Path(levels.__file__).parents[1]
    paths = [secret, tmp_path, Path.home(), Path.home() / ".bashrc", __file__, course, course / "data" / "sources.json",
             course.parent, "/", "/etc/passwd", "/etc/shadow", "/etc/hostname", f"/proc/{os.getpid()}/environ",
             f"/proc/{os.getpid()}/mem", f"/proc/{os.getpid()}/maps", "/proc/1/environ", "/proc/self/environ", "/proc",
             "/var/log", "/dev/mem", "/dev/kmsg", "/dev/tty", "/sys/class/net"]  # fmt: skip
    program = """
        def attempt(argument):
            paths, allowed = argument
            def leads_there(path): return any((place + "/").startswith(path + "/") for place in allowed)
            def read(path):
                if not os.path.isdir(path): return open(path)
                if all(leads_there(os.path.join(path, name)) for name in os.listdir(path)): raise OSError
            return went_through(**{path: lambda path=path: read(path) for path in paths})
    """
    # Under bubblewrap, the folders on the way to a readable one are there, but nothing else in them.
    allowed = [
        *levels.readable(),
        str(course / "evaluation"),
        sys._base_executable,
        "/dev/null",
        "/dev/urandom",
        "/sandbox-work",
    ]
    result = attack(program, level, ([str(path) for path in paths], allowed))
    assert result.outcome == "passed", result
    assert attack(program, level, (["/etc/ld.so.cache"], [])).outcome == "wrong answer"  # what is allowed is noticed


INSTALLED = """
import sys
from pathlib import Path
from attack import attack
import course_utils
folder = Path(__file__).parent / "site-packages"
sys.path.append(str(folder))
course_utils.__file__ = str(folder / "course_utils" / "__init__.py")  # as if it were installed there
program = '''
import neighbour
def attempt(path):
    return neighbour.ANSWER + went_through(read=lambda: open(path))
'''
print(attack(program, sys.argv[1], str(folder / "course_utils" / "data" / "test.jsonl")))
"""


@under("reading")
def test_an_installed_course_is_not_read_either(level, tmp_path):
    hidden = tmp_path / "site-packages" / "course_utils"
    (hidden / "data").mkdir(parents=True)
    (hidden / "data" / "test.jsonl").write_text("the tests")
    (hidden.parent / "neighbour.py").write_text("ANSWER = []\n")
    script = tmp_path / "script.py"
    script.write_text(INSTALLED)
    done = subprocess.run([sys.executable, script, level], env=with_this_path(), capture_output=True, text=True)
    assert "outcome='passed'" in done.stdout, (done.stdout, done.stderr)


def with_this_path(**variables):
    folders = [str(Path(__file__).parent), *sys.path]
    return os.environ | {"PYTHONPATH": os.pathsep.join(folders)} | variables


@under("reading")
@pytest.mark.skipif(not hasattr(os, "setxattr"), reason="only Linux has extended attributes")
def test_extended_attributes_are_not_read(level, tmp_path):
    secret = tmp_path / "download"
    secret.touch()
    try:
        os.setxattr(secret, "user.xdg.origin.url", b"https://host/?key=very-secret")
    except OSError:
        secret = Path(os.__file__)  # a disk without such attributes; asking for them is refused all the same
    program = """
        def attempt(path):
            def opened(action): return lambda: action(os.open(os.__file__, os.O_RDONLY))
            return went_through(
                value=lambda: os.getxattr(path, "user.xdg.origin.url"), names=lambda: os.listxattr(path),
                link=lambda: os.listxattr(path, follow_symlinks=False), file=opened(os.listxattr),
            )
    """
    result = attack(program, level, str(secret))
    assert result.outcome == "passed", result


# --- processes and signals


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
    for program in ("def attempt(_): return []", ENDLESS["threads"]):
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


# --- writing and disk

PLACES = ["/tmp", "/var/tmp", "/dev/shm", "/run", "/", "/dev", "/sandbox-work/..", "/var/lock", "/etc", "/usr/lib"]


@under("writing")
def test_nothing_is_written_elsewhere(level, tmp_path):
    victim = tmp_path / "victim.txt"
    victim.write_text("precious")
    victim.chmod(0o600)
    before = victim.stat()
    libraries = Path(os.__file__)
    program = """
        def attempt(argument):
            places, victim, library = argument
            def writer(path): return lambda: open(path, "x")
            files = {place: writer(os.path.join(place, "sandbox-attack-marker")) for place in places}
            changed = {f"{how}{path}": (lambda path=path, action=action: action(path)) for path in (victim, library)
                for how, action in {
                    "append": lambda p: open(p, "a"), "empty": lambda p: os.truncate(p, 0),
                    "open emptying": lambda p: os.open(p, os.O_TRUNC), "chmod": lambda p: os.chmod(p, 0o777),
                    "chown": lambda p: os.chown(p, 1, 1), "time": lambda p: os.utime(p, (0, 0)), "remove": os.remove,
                    "move": lambda p: os.rename(p, "mine"), "link": lambda p: os.link(p, "mine"),
                    "attribute": lambda p: os.setxattr(p, "user.x", b"1"),
                }.items()}
            return went_through(**files, **changed)
    """
    places = [*PLACES, str(Path.home()), str(tmp_path), str(tmp_path.parent), str(Path.cwd()), str(libraries.parent)]
    result = attack(program, level, (places, str(victim), str(libraries)))
    assert result.outcome == "passed", result
    after = victim.stat()
    assert (after.st_mode, after.st_mtime, after.st_nlink) == (before.st_mode, before.st_mtime, 1)
    assert victim.read_text() == "precious"
    assert not [place for place in places if (Path(place) / "sandbox-attack-marker").exists()]


@under("writing")
def test_attributes_of_files_open_for_reading_are_not_changed(level):
    program = """
        import array, fcntl
        def attempt(path):
            file, flags = os.open(path, os.O_RDONLY), array.array("l", [0])
            def ask(request): return lambda: fcntl.ioctl(file, request, flags)
            return went_through(reading=ask(0x80086601), setting_the_same=ask(0x40086602))
    """
    result = attack(program, level, os.__file__)
    assert result.outcome == "passed", result


@under("writing")
def test_terminals_and_pipes_are_asked_as_usual(level):
    program = """
        import fcntl
        def attempt(_):
            with open("file", "w") as file:
                os.set_blocking(os.pipe()[0], False), os.set_inheritable(file.fileno(), True)
                return [] if not file.isatty() and not os.isatty(0) else 1
    """
    assert attack(program, level).outcome == "passed"


MANY = "for n in range(400_000): os.close(os.open(str(n), os.O_CREAT))"
DELETED = """
import ctypes
mmap = ctypes.CDLL(None).mmap
mmap.restype, kept = ctypes.c_void_p, []
while True:
    file = open("file", "wb+")
    file.write(bytes(15 << 20))
    HELD
    os.remove("file")
"""
FILLING = {
    "deleted files, mapped": DELETED.replace(
        "HELD", "mmap(None, ctypes.c_size_t(1), 1, 1, file.fileno(), ctypes.c_long(0)); file.close()"
    ),
    "deleted files, open": DELETED.replace("HELD", "kept.append(file)"),
    "empty files": MANY,
    "empty files, hidden from the user's other processes": f"import ctypes\nctypes.CDLL(None).prctl(4, 0)\n{MANY}",
    "large files": "\n".join(
        ["number = 0", "while True:", "    number += 1", "    open(f'{number}', 'wb').write(bytes(8 << 20))"]
    ),
    "one file": "with open('one', 'wb') as file:\n    while True: file.write(bytes(1 << 20))",
    "deep folders": "while True:\n    os.mkdir('d'); os.chdir('d')\n    open('f', 'wb').write(bytes(1 << 20))",
}


@under("disk")
@pytest.mark.parametrize("way", FILLING)
def test_the_disk_is_not_filled(level, way):
    program = "def attempt(_):\n" + textwrap.indent(FILLING[way], "    ")
    result = attack(program, level, time_limit=15.0)
    assert result.outcome == "forbidden", result


@under("disk")
def test_folders_nested_too_deeply_to_be_watched_are_called_that(level):
    result = attack("def attempt(_):\n    for _ in range(3000): os.mkdir('d' * 200); os.chdir('d' * 200)", level)
    assert result.outcome in ("forbidden", "wrong answer"), result  # under bubblewrap, where entries are counted
    if result.outcome == "forbidden":
        assert "a folder that cannot be looked into" in result.detail


@under("disk")
def test_no_space_is_reserved_beyond_the_end_of_a_file(level):
    program = """
        def attempt(_):
            file = os.open("file", os.O_RDWR | os.O_CREAT)
            return went_through(reserve=lambda: system("fallocate", file, 1, 0, 256 << 20))
    """
    result = attack(program, level)
    assert result.outcome == "passed", result


def test_reserved_space_counts(tmp_path):
    with (tmp_path / "file").open("wb") as file:
        if not LINUX or ctypes.CDLL(None).fallocate(file.fileno(), 1, ctypes.c_long(0), ctypes.c_long(65 << 20)):
            pytest.skip("space is reserved without changing a file's size on Linux only, and not on every disk")
        assert os.fstat(file.fileno()).st_size == 0
        assert child_process._excess_in(tmp_path)


# --- the own folder (at every level)


@under("time")
@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not remove the folder one is in")
@pytest.mark.parametrize(
    "body",
    [
        "import shutil; shutil.rmtree(os.getcwd(), ignore_errors=True)",
        "os.makedirs('a/b'); open('a/b/c', 'w').close(); os.mkdir('d', 0)",
        "for _ in range(2000): os.mkdir('d'); os.chdir('d')",
        "os.symlink('/', 'root'); os.mkfifo('pipe')",
    ],
)
def test_whatever_it_does_to_its_folder_the_folder_is_removed(level, body):
    attack(f"def attempt(_):\n    {body}\n    return []", level)  # the fixture looks for what is left


# --- network


@under("network")
def test_no_network_is_reached(level, tmp_path):
    reached = []
    unix = str(tmp_path / "s")
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_UNIX) as local:
        local.bind(unix)
        for listener in (server, local):
            listener.listen()
            threading.Thread(target=accept, args=(listener, reached), daemon=True).start()
        program = """
            def attempt(argument):
                port, unix = argument
                def datagram(): socket.socket(type=socket.SOCK_DGRAM).sendto(b"x", ("127.0.0.1", port))
                def local(): socket.socket(socket.AF_UNIX).connect(unix)
                return went_through(
                    tcp=lambda: socket.create_connection(("127.0.0.1", port), 3), udp=datagram, unix=local,
                    listen=lambda: socket.create_server(("127.0.0.1", 0)),
                    pair=lambda: socket.socketpair(type=socket.SOCK_DGRAM),
                    elsewhere=lambda: socket.socketpair()[0].sendto(b"x", unix),
                    connected=lambda: socket.socketpair()[0].connect(unix),
                    files=lambda: socket.socketpair()[0].sendmsg([b"x"]),
                    ipv6=lambda: socket.socket(socket.AF_INET6), netlink=lambda: socket.socket(16, 3, 0),
                    name=lambda: socket.getaddrinfo("localhost", 80),
                )
        """
        result = attack(program, level, (server.getsockname()[1], unix))
        assert result.outcome in ("passed", "wrong answer"), result
        if result.outcome == "wrong answer":
            assert result.detail.endswith("gave ['name']"), result  # looked up in a file, not in the network
        assert reached == []
        with socket.create_connection(server.getsockname()):  # the listener does listen
            deadline = time.monotonic() + 5
            while not reached and time.monotonic() < deadline:
                time.sleep(0.01)
        assert len(reached) == 1


@under("network")
def test_asyncio_runs(level):
    program = """
        import asyncio
        async def twice(number):
            await asyncio.sleep(0.01)
            return await asyncio.to_thread(lambda: 2 * number)
        async def both():
            return await asyncio.gather(twice(1), twice(2))
        def attempt(_):
            return [] if asyncio.run(both()) == [2, 4] else 1
    """
    result = attack(program, level)
    assert result.outcome == "passed", result


def accept(listener, reached):
    while True:
        try:
            reached.append(listener.accept())
        except OSError:
            return


@under("network")
def test_a_swallowed_refusal_leaves_only_a_wrong_answer_and_a_raised_one_is_named(level):
    quiet = "def attempt(_):\n    try: socket.socket()\n    except OSError: return 1"
    assert attack(quiet, level).outcome == "wrong answer"
    assert attack("def attempt(_): socket.socket()", level).outcome == "forbidden"
    assert attack("def attempt(_): raise PermissionError('made up')", level).outcome == "exception"
    endless = "def attempt(_):\n    error = OSError()\n    error.__cause__ = error\n    raise error"
    assert attack(endless, level).outcome == "exception"
    handled = "def attempt(_):\n    try: socket.socket()\n    except OSError: raise ValueError from None"
    assert attack(handled, level).outcome == "exception"


@under("network")
@pytest.mark.parametrize(
    "call", ["urllib.request.urlopen", "requests.get", "http.client.HTTPConnection('[::1]').request"]
)
def test_a_refusal_that_a_library_wraps_is_named(level, call):
    address = "'GET', '/'" if "client" in call else "'http://127.0.0.1:9'"
    program = f"def attempt(_):\n    import http.client, requests, urllib.request\n    {call}({address})"
    assert attack(program, level).outcome == "forbidden"


# --- the harness itself


@under("time")
@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C cannot be sent to one process of a console")
def test_ctrl_c_ends_all_children(level, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent("""
        import sys
        from attack import PROBLEM
        from course_utils.evaluation import levels
        levels.secret_names = list
        from course_utils.evaluation.sandbox import run_problems
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


def test_the_table_lists_every_level_and_promise():
    lines = levels.promise_table().splitlines()
    assert len(lines) == 2 + len(levels.PROMISES)
    assert all(line.count("|") == 2 + len(Level) for line in lines)
    assert set(promising("network")) == {Level.BUBBLEWRAP, Level.LANDLOCK}
    assert isinstance(attack("def attempt(_): return []", Level.LIMITS), Result)
