"""The English text: which notebooks, pages and modules there are, and the messages in each."""

import ast
import functools
import json
from pathlib import Path
from typing import Any

from course_utils.pictures import PAGE_TEXT

from .catalogs import Message, collected
from .segments import MAGIC, Piece, comment_pieces, has_words, markdown_pieces
from .texts import texts_of_code, texts_of_exercises

ROOT = Path(__file__).parents[1]
# Texts that stand in tables or data of notebooks and name bars, lines or pages.
VALUES = {
    "04_trainer_pretraining#idioms": ("common", "unseen"),
    "07_evaluation#ranks": ("with the bug", "same place", "at random"),
    "08_generate_and_test#table": ("one-liner", "idiom", "function", "data frame", "your model"),
    "09_gpt_from_scratch#exercise-look": ("the token before", "the first token", "the same name", "its bracket"),
    "10_faster#goal": ("0 HF course", "1 fair settings", "4 compiled", "7 recipe"),
}
# Sentences that the builder adds to translated notebooks and pages.
SENTENCES = {
    "languages": "This notebook in other languages:",
    "page": "This page in other languages:",
    "colab": "Open in Colab:",
    "credits": "Translated by {names}.",
    "part": "{percent} % of this text is translated. Paragraphs in English are new, or have changed since.",
    "language": "Plots, exercises and messages appear in this language.",
}


def notebooks(root: Path = ROOT) -> dict[str, Path]:
    """Return the English notebooks by their names, in order."""
    return {path.stem: path for path in sorted((root / "notebooks").glob("*.ipynb"))}


def readme(root: Path = ROOT) -> str:
    """Return the course's README, and behind it what translators must know, the first part of their README."""
    rules = (root / "translations/README.md").read_text(encoding="utf-8")
    return (root / "README.md").read_text(encoding="utf-8") + "\n#" + rules.partition("\n## ")[0].rstrip() + "\n"


def released(root: Path = ROOT) -> list[str]:
    """Return the languages that every reader is pointed to, and that must stay complete."""
    return (root / "translations/released.txt").read_text(encoding="utf-8").split()


def places(root: Path, cells: list[str]) -> list[str]:
    """Return `03_name#cell` for each `03#cell`; raises `ValueError` for a cell that is not there."""
    names = {name[:2]: name for name in notebooks(root)}
    found = []
    for word in cells:
        number, _, cell = word.partition("#")
        known = [c["id"] for c in read_notebook(notebooks(root)[names[number]])["cells"]] if number in names else []
        if cell not in known:
            raise ValueError(f"there is no cell {word!r}; give the notebook's number, # and the cell's id.")
        found.append(f"{names[number]}#{cell}")
    return found


@functools.cache
def read_notebook(path: Path) -> dict[str, Any]:
    """Return an English notebook with the source of each cell as one text; read once, not to be changed."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    for cell in notebook["cells"]:
        cell["source"] = "".join(cell["source"])
    return notebook


def pieces_of(cell: dict[str, Any]) -> list[Piece]:
    """Return what is translated in a cell."""
    kinds = {"markdown": markdown_pieces, "code": comment_pieces}
    return kinds[cell["cell_type"]](cell["source"]) if cell["cell_type"] in kinds else []


@functools.cache
def catalogs(root: Path = ROOT) -> dict[str, list[Message]]:
    """Return the messages of every catalog: one for each notebook, `course_utils` and `README`."""
    found: dict[str, list[Message]] = {}
    shown: list[tuple[str, str, str]] = []
    for name, path in notebooks(root).items():
        cells = read_notebook(path)["cells"]
        found[name] = collected(
            (piece.text, piece.kind, f"{name}#{cell['id']}") for cell in cells for piece in pieces_of(cell)
        )
        code = {f"{name}#{cell['id']}": cell["source"] for cell in cells if cell["cell_type"] == "code"}
        shown += texts_of_code({place: ast.parse(MAGIC.sub(r"\1pass", source)) for place, source in code.items()})
    for path in sorted((root / "course_utils").rglob("*.py")):
        tree, place = ast.parse(path.read_text(encoding="utf-8")), path.relative_to(root).as_posix()
        shown += texts_of_code({place: tree})
        if path.parent.name == "exercises":
            shown += ((text, kind, place) for text, kind in texts_of_exercises(tree))
    for path in sorted((root / "course_utils/widgets").glob("*.html")):
        place, page = path.relative_to(root).as_posix(), path.read_text(encoding="utf-8")
        shown += ((text, "widget", place) for text in PAGE_TEXT.findall(page) if has_words(text))
    shown += ((text, "label", place) for place, texts in VALUES.items() for text in texts)
    shown += [(text, "builder", "translations/sources.py") for text in SENTENCES.values()]
    found["course_utils"] = collected(shown)
    found["README"] = collected((piece.text, piece.kind, "README.md") for piece in markdown_pieces(readme(root)))
    return found
