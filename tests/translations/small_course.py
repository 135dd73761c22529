"""A small course to translate, in a folder of its own."""

import json
import re
from pathlib import Path

import polib

from translations.__main__ import main
from translations.segments import ADDRESS, CODE_SPAN, FORMULA, TAG

COLAB = "https://colab.research.google.com/github/o/r/blob/v1/notebooks"
CELLS = {
    "00_start": {
        "title": "# Start here\n\nYou need [the data](01_data.ipynb).\n\n"
        f"[![Open in Colab](https://x.org/badge.svg)]({COLAB}/00_start.ipynb)",
        "colab": "# Installs the course.\n%pip install course",
        "first": 'say("{n} tokens are left", n=3)  # the first number\nplots.bars({"left": 1}, y="number of tokens")',
        "many": "It has 3 parts:\n\n- the `first` part\n- the second part\n\n> See [the rules](../README.md).",
        "table": "| profile | time |\n| --- | --- |\n| `tiny` | half a minute |",
        "last": "The model reads the text in 12 small pieces, one after the other.",
    },
    "01_data": {"title": "# The data\n\nA short text about data.", "code": "x = 1\n# noqa: this stays\nprint(x)"},
}
README = f"""# A course

Read [the rules](#the-rules), [the license](LICENSE), or open it [in Colab]({COLAB}/00_start.ipynb).

## The rules

Text.
"""
RULES = "# Translations\n\nText for all.\n\n## More\n\nNot this.\n"


class Course:
    """A folder with a small course, and what is done to it."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def __call__(self, *arguments: str) -> int:
        return main(["--root", str(self.root), *arguments])

    def write(self, name: str, cells: dict[str, str]) -> None:
        made = [
            {"id": cell, "metadata": {}, "source": source.splitlines(keepends=True)}
            | ({"cell_type": "markdown"} if is_markdown(source) else
               {"cell_type": "code", "outputs": [], "execution_count": None})
            for cell, source in cells.items()
        ]  # fmt: skip
        text = json.dumps({"cells": made, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}, indent=1)
        (self.root / "notebooks" / f"{name}.ipynb").write_text(text, encoding="utf-8")

    def change(self, name: str, cell: str, source: str | None) -> None:
        cells = {**CELLS[name], cell: source}
        self.write(name, {cell: source for cell, source in cells.items() if source is not None})

    def path(self, name: str = "00_start", code: str = "eo") -> Path:
        return self.root / "translations" / code / "LC_MESSAGES" / f"{name}.po"

    def po(self, name: str = "00_start", code: str = "eo") -> polib.POFile:
        return polib.pofile(str(self.path(name, code)))

    def entry(self, text: str, name: str = "00_start") -> polib.POEntry:
        return self.po(name).find(text, include_obsolete_entries=True)

    def translate(self, code: str = "eo", how=None, name: str = "*") -> None:
        """Fill in every message of a language, as `pseudo` does it or otherwise."""
        for path in self.path("x", code).parent.glob(f"{name}.po"):
            catalog = polib.pofile(str(path))
            for entry in catalog:
                entry.msgstr = entry.msgstr or (how or pseudo)(entry.msgid)
            catalog.save(str(path))

    def set(self, text: str, translation: str, name: str = "00_start", **values) -> None:
        catalog = self.po(name)
        entry = catalog.find(text)
        entry.msgstr = translation
        for field, value in values.items():
            setattr(entry, field, value)
        catalog.save(str(self.path(name)))

    def built(self, name: str = "00_start", code: str = "eo") -> dict[str, str]:
        path = self.root / "translations" / code / "notebooks" / f"{name}.ipynb"
        return {c["id"]: "".join(c["source"]) for c in json.loads(path.read_text(encoding="utf-8"))["cells"]}

    def files(self) -> dict[str, bytes]:
        return {str(p): p.read_bytes() for p in sorted(self.root.rglob("*")) if p.is_file()}


def is_markdown(source: str) -> bool:
    return not source.startswith(("x =", "say(", "# Installs"))


def pseudo(text: str) -> str:
    """Put an accent on every vowel that a translator may change."""
    kept = (CODE_SPAN, FORMULA, TAG, ADDRESS, re.compile(r"\{[^{}]*\}"))
    places = [match.span() for pattern in kept for match in pattern.finditer(text)]
    accents = str.maketrans("aeiouAEIOU", "áéíóúÁÉÍÓÚ")
    return "".join(
        letter if any(start <= place < end for start, end in places) else letter.translate(accents)
        for place, letter in enumerate(text)
    )
