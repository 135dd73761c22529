"""The three ways to confine a child, what each promises, and how a child is started under it.

The adversarial tests hold each level to `PROMISES`; nothing else is promised. No level evens out timing or protects
from faults of the kernel. Landlock guards contents: whether a path exists, its size, dates and owner can be asked for.
"""

import os
import re
import sys
import sysconfig
from enum import StrEnum
from pathlib import Path


class Level(StrEnum):
    """Ways to confine a child, the strongest first."""

    BUBBLEWRAP = "bubblewrap"  # own namespaces by the program bwrap, and the seccomp filter
    LANDLOCK = "landlock"  # Landlock and the seccomp filter, both set by the child itself
    LIMITS = "limits"  # resource limits only


_STRONG, _ALL = frozenset({Level.BUBBLEWRAP, Level.LANDLOCK}), frozenset(Level)
PROMISES = {
    "verdict": ("in its own process a program finds neither test nor verdict, so it cannot forge a pass", _ALL),
    "time": ("it ends at the time limit, and the harness never hangs", _ALL),
    "memory": ("no process has more memory than the limit (Linux)", _ALL),
    "output": ("what it prints goes nowhere", _ALL),
    "disk": ("no file gets a byte, so it fills no disk (except on Windows)", _ALL),
    "environment": ("it reads no token of the environment (at `limits`: does not run beside one)", _ALL),
    "processes": ("it starts no other process, so nothing outlives it", _STRONG),
    "signals": ("it cannot end, trace or read other processes", _STRONG),
    "reading": ("it reads the contents of no files but Python's and installed libraries'", _STRONG),
    "writing": ("it makes, changes and removes no files, and changes no modes or owners", _STRONG),
    "network": ("it reaches no network, this machine's neither", _STRONG),
}
NOWHERE = "/sys" if sys.platform == "linux" else "/"  # a child's folder, in which nobody can make a file
_PACKAGE = Path(__file__).resolve().parents[1]
_SECRET = re.compile(
    r"(?i)TOKEN(?!IZ)|SECRET|PASSW|PASSPHRASE|CREDENTIAL|API_?KEY|CONNECTION_STRING|DATABASE_URL|_PWD(_|$)"
    r"|(^|_)(KEY|PAT|PASS|DSN)(_|$)"
)
_SECRET_VALUE = re.compile(r"://[^/@\s]*:[^/@\s]+@")  # an address with a password
_SYSTEM = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/usr/share/zoneinfo", "/etc/localtime",
           "/etc/ld.so.cache")  # fmt: skip


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
    at_start = Path("/proc/self/environ")
    entries = at_start.read_text(errors="replace").split("\0") if at_start.exists() else []
    found = [*os.environ.items(), *(entry.partition("=")[::2] for entry in entries)]
    return sorted({name for name, value in found if value and (_SECRET.search(name) or _SECRET_VALUE.search(value))})


def package_folders() -> list[str]:
    """Return the folders of installed packages that this process imports from."""
    return [entry for entry in sys.path if Path(entry).name in ("site-packages", "dist-packages")]


def readable() -> list[str]:
    """Return what a child may read: the standard and shared libraries, installed packages; not this one's tests."""
    return sorted({str(part) for path in _roots() for part in _without(path, _PACKAGE)})


def listable() -> list[str]:
    """Return the folders that a child may only list, to find what is readable in them: those on the way here."""
    roots = {path.resolve() for path in _roots()}
    return [str(folder) for folder in _PACKAGE.parents if roots & {folder, *folder.parents}]


def _roots() -> list[Path]:
    base = {"platbase": sys.base_prefix}  # not the virtual environment, which has none
    standard = [sysconfig.get_path(name, vars=base) for name in ("stdlib", "platstdlib")]
    paths = [*standard, f"{sys.base_prefix}/lib", *_SYSTEM, *package_folders()]
    return [Path(path) for path in paths if Path(path).exists()]


def _without(path: Path, hidden: Path) -> list[Path]:
    if path.resolve() not in (hidden, *hidden.parents):
        return [path]
    return [] if path.resolve() == hidden else [part for entry in path.iterdir() for part in _without(entry, hidden)]


def environment() -> dict[str, str]:
    """Return the whole environment of a child; nothing of this process's own but what Windows needs."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    places = dict.fromkeys(("HOME", "MPLCONFIGDIR"), NOWHERE)
    system = {name: os.environ[name] for name in ("SYSTEMROOT",) if name in os.environ}
    return {"PATH": os.defpath, "LANG": "C.UTF-8", "MPLBACKEND": "Agg"} | threads | places | system


def command(level: Level) -> list[str]:
    """Return the command that starts a child: Python alone, or within bubblewrap's namespaces."""
    own = str(Path(__file__).parent)
    start = f"import sys; sys.path.insert(0, {own!r}); import child; child.main()"
    python = getattr(sys, "_base_executable", None) or sys.executable  # starts without the virtual environment's set-up
    child = [python, "-I", "-S", "-B", "-c", start]
    if level != Level.BUBBLEWRAP:
        return child
    alone = [f"--unshare-{kind}" for kind in ("user", "ipc", "pid", "net", "uts", "cgroup-try")]
    alone += ["--die-with-parent", "--cap-drop", "ALL"]
    binds = [part for path in (*readable(), python, own) for part in ("--ro-bind", path, path)]
    devices = [part for name in ("/dev/null", "/dev/urandom") for part in ("--dev-bind", name, name)]
    folder = ["--dir", NOWHERE, "--remount-ro", "/", "--chdir", NOWHERE]
    return ["bwrap", *alone, *binds, *devices, *folder, "--", *child]
