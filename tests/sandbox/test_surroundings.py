"""Hostile programs and what is around them: files, processes, servers and secrets that must stay as they were.

Should a program get through, it must do no harm to who runs the tests: its victims are files and processes made here.
"""

import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from attack import attack, under, with_this_path

from course_utils.sandbox import confinement, levels
from course_utils.sandbox.levels import Level

pytestmark = pytest.mark.usefixtures("whatever_the_environment")


@under("writing")
def test_nothing_is_written_removed_or_changed(level, tmp_path, monkeypatch):
    library = tmp_path / "site-packages" / "library.py"  # which may be read
    library.parent.mkdir()
    monkeypatch.syspath_prepend(library.parent)
    victims = [tmp_path / "victim.txt", library]
    for victim in victims:
        victim.write_text("precious")
        victim.chmod(0o600)
    before = [(victim.stat().st_mode, victim.stat().st_mtime) for victim in victims]
    program = """
        import array, fcntl
        def attempt(argument):
            places, victim, library = argument
            def ask(request): return lambda: fcntl.ioctl(os.open(library, os.O_RDONLY), request, array.array("l", [0]))
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
            return went_through(**files, **changed, pipe=lambda: os.mkfifo("pipe"), folder=lambda: os.mkdir("folder"),
                get_flags=ask(0x80086601), set_flags=ask(0x40086602))
    """
    places = ["/tmp", "/var/tmp", "/dev/shm", "/run", "/", "/dev", "/var/lock", "/etc", "/usr/lib", levels.NOWHERE]
    places += map(str, [Path.home(), tmp_path, library.parent, Path.cwd(), Path(os.__file__).parent])
    result = attack(program, level, (places, *map(str, victims)))
    markers = [marker for place in places if (marker := Path(place) / "sandbox-attack-marker").exists()]
    for marker in markers:
        marker.unlink()
    assert (result.outcome, markers) == ("passed", []), result
    assert before == [(victim.stat().st_mode, victim.stat().st_mtime) for victim in victims]
    assert [victim.read_text() for victim in victims] == ["precious"] * 2


@under("disk")
def test_no_file_gets_a_byte(level, tmp_path):
    program = """
        import mmap, sqlite3
        def attempt(folder):
            def opened(name): return os.open(os.path.join(folder, name), os.O_RDWR | os.O_CREAT)
            def grown(file): os.ftruncate(file, 1); mmap.mmap(file, 1)[0] = 1
            source = os.open(os.__file__, os.O_RDONLY)
            return went_through(
                write=lambda: os.write(opened("a"), b"x"), later=lambda: os.pwrite(opened("b"), b"x", 1 << 20),
                grow=lambda: grown(opened("c")), reserve=lambda: os.posix_fallocate(opened("d"), 0, 1 << 20),
                sparse=lambda: system("fallocate", opened("e"), 1, 0, 1 << 20),
                copy=lambda: os.copy_file_range(source, opened("f"), 100),
                send=lambda: os.sendfile(opened("g"), source, 0, 100),
            )
    """
    result = attack(program, level, str(tmp_path))
    assert result.outcome == "passed" or "gave ['sparse']" in result.detail, result
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) == 0


@under("network")
def test_no_server_of_this_machine_is_reached(level, tmp_path):
    reached, unix = [], str(tmp_path / "s")
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
        # A name is looked up in a file, not in the network.
        assert result.outcome == "passed" or result.detail.endswith("gave ['name']"), result
        assert reached == []
        with socket.create_connection(server.getsockname()):  # the listener does listen
            deadline = time.monotonic() + 5
            while not reached:
                assert time.monotonic() < deadline
                time.sleep(0.01)


def accept(listener, reached):
    with suppress(OSError):
        while True:
            reached.append(listener.accept())


@under("signals")
def test_other_processes_are_left_alone(level):
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as victim:
        niceness = os.getpriority(os.PRIO_PROCESS, victim.pid)
        program = """
            import fcntl, resource, signal
            def owned(pid):
                read, write = os.pipe()
                fcntl.fcntl(read, fcntl.F_SETOWN, pid)
            def attempt(pid):
                return went_through(
                    kill=lambda: os.kill(pid, 9), group=lambda: os.killpg(pid, 0), all=lambda: os.kill(-1, 0),
                    parent=lambda: os.kill(os.getppid(), 0),
                    tkill=lambda: system("syscall", 200, pid, 9), tgkill=lambda: system("syscall", 234, pid, pid, 9),
                    pidfd=lambda: os.pidfd_open(pid), queue=lambda: system("sigqueue", pid, 9, 0),
                    limits=lambda: resource.prlimit(pid, resource.RLIMIT_CPU, (0, 0)), owner=lambda: owned(pid),
                    trace=lambda: system("ptrace", 16, pid, 0, 0), seize=lambda: system("ptrace", 0x4206, pid, 0, 0),
                    memory=lambda: open(f"/proc/{pid}/mem", "r+b"),
                    nice=lambda: os.setpriority(os.PRIO_PROCESS, pid, 5),
                    read=lambda: system("process_vm_readv", pid, 0, 0, 0, 0, 0),
                    affinity=lambda: os.sched_setaffinity(pid, {0}),
                )
        """
        result = attack(program, level, victim.pid)
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


@under("environment")
def test_no_token_is_read_from_the_environment(level):
    script = """
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
    """
    command = [sys.executable, "-c", textwrap.dedent(script), level]
    variables = with_this_path(HF_TOKEN="very-secret")
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=True)
    assert "very-secret" not in done.stdout
    refused = r"refused: The environment of this process has .*HF_TOKEN"
    assert re.match(refused if level == Level.LIMITS else "passed$", done.stdout), done.stdout


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
    allowed = [*levels.readable(), str(course / "sandbox"), sys._base_executable, "/dev/null", "/dev/urandom"]
    result = attack(program, level, ([str(path) for path in paths], [*allowed, levels.NOWHERE]))
    assert result.outcome == "passed", result
    assert attack(program, level, (["/etc/ld.so.cache"], [])).outcome == "wrong answer"  # what is allowed is noticed


@under("reading")
def test_an_installed_course_is_not_read_either(level, tmp_path, monkeypatch):
    hidden = tmp_path / "site-packages" / "course_utils"
    hidden.mkdir(parents=True)
    (hidden / "test.jsonl").write_text("the tests")
    (hidden.parent / "neighbour.py").write_text("ANSWER = []\n")
    monkeypatch.syspath_prepend(hidden.parent)
    monkeypatch.setattr(levels, "_PACKAGE", hidden)  # as if it were installed there
    program = "def attempt(path):\n import neighbour\n return neighbour.ANSWER + went_through(read=lambda: open(path))"
    assert attack(program, level, str(hidden / "test.jsonl")).outcome == "passed"


@under("processes")
def test_no_child_is_left(level):
    for body in ("return []", "\n    while True: pass"):
        attack(f"def attempt(_): {body}", level, time_limit=1.0)
    deadline = time.monotonic() + 10
    while left := [child for child in psutil.Process().children(recursive=True) if runs_a_program(child)]:
        assert time.monotonic() < deadline, left
        time.sleep(0.05)


def runs_a_program(process):
    with suppress(psutil.Error):
        return "import child" in " ".join(process.cmdline())


@under("time")
@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C cannot be sent to one process of a console")
def test_ctrl_c_ends_all_children(level):
    script = """
        import signal, sys
        from attack import PROBLEM
        from course_utils.sandbox import levels, run_problems
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
        levels.secret_names = list
        PROBLEM["test"] = PROBLEM["test"].replace("ARGUMENT", "1")
        jobs = [(PROBLEM, "    while True: pass\\n")] * 8
        run_problems(jobs, workers=2, time_limit=100, level=sys.argv[1], progress=False)
    """
    command = [sys.executable, "-c", textwrap.dedent(script), level]
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
    """Return children that have used some CPU, so that the program is surely running."""
    with suppress(psutil.Error):
        return [child for child in psutil.Process(pid).children(recursive=True) if child.cpu_times().user > 0.3]
    return []
