"""The Python files of this environment: real code that every machine has."""

import sysconfig
from collections.abc import Iterator
from pathlib import Path


def installed_files() -> Iterator[tuple[str, str]]:
    """Yield (path, text) of the installed packages' files that are UTF-8, in the order of their paths."""
    root = Path(sysconfig.get_path("purelib"))
    for file in sorted(root.rglob("*.py")):
        try:
            yield file.relative_to(root).as_posix(), file.read_text(encoding="utf-8")
        except (UnicodeDecodeError, OSError):
            continue
