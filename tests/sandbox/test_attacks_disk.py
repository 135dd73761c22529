"""Hostile programs that write where they must not, or fill the disk."""

import ctypes
import os
import sys
import textwrap
from pathlib import Path

import pytest
from attack import LINUX, attack, under

from course_utils.sandbox import child_process

pytestmark = pytest.mark.usefixtures("whatever_the_environment")


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
