"""The three ways to confine a child, what each promises, and how a child is started under it.

`PROMISES` is what the adversarial tests hold each level to; nothing else is promised. No level evens out timing or
protects from faults of the kernel. Landlock guards what is in files and folders: whether a path exists, its size, dates
and owner, and where a symbolic link leads can be asked for there.
"""

import os
import re
import sys
import sysconfig
from enum import StrEnum
from pathlib import Path

import course_utils


class Level(StrEnum):
    """Ways to confine a child, the strongest first."""

    BUBBLEWRAP = "bubblewrap"  # own namespaces by the program bwrap, and the seccomp filter
    LANDLOCK = "landlock"  # Landlock and the seccomp filter, both set by the child itself
    LIMITS = "limits"  # resource limits only


_STRONG, _ALL = frozenset({Level.BUBBLEWRAP, Level.LANDLOCK}), frozenset(Level)
PROMISES = {
    "verdict": (
        "within its own process a program finds neither the test nor the verdict, so it cannot forge a pass there",
        _ALL,
    ),
    "time": ("it ends at the time limit, and the harness never hangs", _ALL),
    "memory": ("no process has more memory than the limit (Linux)", _ALL),
    "output": ("what it prints goes nowhere", _ALL),
    "environment": (
        "it reads no token of the environment (at `limits`: does not run while one seems to be there)",
        _ALL,
    ),
    "processes": ("it starts no other process, so nothing outlives it", _STRONG),
    "signals": ("it cannot end, trace or read other processes", _STRONG),
    "reading": ("it reads the contents of no files but Python's and installed libraries'", _STRONG),
    "writing": ("it writes in its own folder only, and changes no modes or owners", _STRONG),
    "disk": ("that folder stays small", _STRONG),
    "network": ("it reaches no network, this machine's neither", _STRONG),
}
WORK = "/sandbox-work"  # the own folder, as a child under bubblewrap sees it
_SECRET = re.compile(
    r"TOKEN(?!IZ)|SECRET|PASSW|PASSPHRASE|CREDENTIAL|API_?KEY|CONNECTION_STRING|DATABASE_URL|_PWD(_|$)"
    r"|(^|_)(KEY|PAT|PASS|DSN)(_|$)",
    re.IGNORECASE,
)
_SECRET_VALUE = re.compile(r"://[^/@\s]*:[^/@\s]+@")  # an address with a password
_SYSTEM = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/usr/share/zoneinfo", "/etc/localtime",
           "/etc/ld.so.cache")  # fmt: skip


def keeps(level: str, promise: str) -> bool:
    """Say whether `level` makes this promise (a key of `PROMISES`)."""
    return Level(level) in PROMISES[promise][1]


def broken_promises(level: str) -> list[str]:
    """Return in words what `level` does not promise."""
    return [words for words, levels in PROMISES.values() if Level(level) not in levels]


def promise_table() -> str:
    """Return the promises as a Markdown table, one column for each level."""
    lines = [f"| promise | {' | '.join(Level)} |", "|---|" + ":-:|" * len(Level)]
    for words, levels in PROMISES.values():
        lines.append(f"| {words} | {' | '.join('yes' if level in levels else 'no' for level in Level)} |")
    return "\n".join(lines)


def secret_names() -> list[str]:
    """Return the names of environment variables that look like secrets, by their name or an address with a password.

    Also of those that were deleted since this process started: its children can still read them in /proc.
    """
    found = [*os.environ.items()]
    at_start = Path("/proc/self/environ")
    if at_start.exists():
        entries = [entry.partition(b"=") for entry in at_start.read_bytes().split(b"\0")]
        found += [(name.decode(errors="replace"), value.decode(errors="replace")) for name, _, value in entries]
    return sorted({name for name, value in found if value and _is_secret(name, value)})


def _is_secret(name: str, value: str) -> bool:
    return bool(_SECRET.search(name) or _SECRET_VALUE.search(value))


def package_folders() -> list[str]:
    """Return the folders of installed packages that this process imports from."""
    return [entry for entry in sys.path if Path(entry).name in ("site-packages", "dist-packages")]


def readable() -> list[str]:
    """Return what a child may read: the standard library, shared libraries, installed packages.

    Not this package, which has the tests of the course's problems, where it is installed.
    """
    return sorted({str(part) for path in _roots() for part in _without(path, _this_package())})


def listable() -> list[str]:
    """Return the folders that a child may only list, to find what is readable in them: those on the way here."""
    roots = {path.resolve() for path in _roots()}
    return [str(folder) for folder in _this_package().parents if roots & {folder, *folder.parents}]


def _roots() -> list[Path]:
    base = {"platbase": sys.base_prefix}  # not the virtual environment, which has none
    standard = [sysconfig.get_path(name, vars=base) for name in ("stdlib", "platstdlib")]
    paths = [*standard, f"{sys.base_prefix}/lib", *_SYSTEM, *package_folders()]
    return [Path(path) for path in paths if Path(path).exists()]


def _this_package() -> Path:
    return Path(course_utils.__file__).resolve().parent


def _without(path: Path, hidden: Path) -> list[Path]:
    if path.resolve() == hidden:
        return []
    if path.resolve() not in hidden.parents:
        return [path]
    return [part for entry in path.iterdir() for part in _without(entry, hidden)]


def environment(work: str) -> dict[str, str]:
    """Return the whole environment of a child; nothing of this process's own but what Windows needs."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    system = {name: os.environ[name] for name in ("SYSTEMROOT",) if name in os.environ}
    return {"PATH": os.defpath, "HOME": work, "TMPDIR": work, "LANG": "C.UTF-8", "MPLBACKEND": "Agg"} | threads | system


def command(level: Level, readable_paths: list[str], disk_limit: int) -> list[str]:
    """Return the command that starts a child: Python alone, or within bubblewrap's namespaces."""
    own = str(Path(__file__).parent)
    start = f"import sys; sys.path.insert(0, {own!r}); import sandbox_child; sandbox_child.main()"
    python = getattr(sys, "_base_executable", None) or sys.executable  # starts without the virtual environment's set-up
    child = [python, "-I", "-S", "-B", "-c", start]
    if level != Level.BUBBLEWRAP:
        return child
    binds = [part for path in (*readable_paths, python, own) for part in ("--ro-bind", path, path)]
    own_namespaces = [f"--unshare-{kind}" for kind in ("user", "ipc", "pid", "net", "uts", "cgroup-try")]
    folder = ["--size", str(disk_limit), "--tmpfs", WORK, "--chdir", WORK]
    devices = [part for name in ("/dev/null", "/dev/urandom") for part in ("--dev-bind", name, name)]
    alone = [*own_namespaces, "--die-with-parent", "--cap-drop", "ALL"]
    return ["bwrap", *alone, *folder, *binds, *devices, "--remount-ro", "/", "--", *child]
