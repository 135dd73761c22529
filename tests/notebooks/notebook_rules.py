"""What every notebook of the course must be, checked without running it, and the normal form it is saved in.

`python tests/notebooks/notebook_rules.py FILES` saves notebooks in their normal form and prints what is wrong.
Each rule looks at one thing and yields findings: cell, what is wrong, what to do.
"""

import ast
import copy
import itertools
import re
import string
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from course_utils.exercises import all_exercises

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
REPOSITORY, RELEASE = PROJECT["urls"]["Repository"], f"v{PROJECT['version']}"
# Every notebook has these cells in this order.
PARTS = {"title": "markdown", "cost": "markdown", "colab": "code", "setup": "code"}
PARTS |= {"recap": "markdown"}
MAX_CODE_LINES, MAX_SENTENCE_WORDS, MAX_CELLS = 25, 25, 50
MIN_WORDS, MAX_WORDS = 900, 2200
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
COLAB_CELL = f"""\
# Colab and other fresh machines: install the course's helper package. Elsewhere this cell does nothing.
import importlib.util
import os

if importlib.util.find_spec("course_utils") is None:
    source = os.environ.get(
        "COURSE_SOURCE", "git+{REPOSITORY}@{RELEASE}"
    )
    %pip install --quiet "{{source}}\""""

BADGE = f"[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]({REPOSITORY}/blob/{RELEASE}/notebooks/"
BADGE = BADGE.replace("https://github.com/", "https://colab.research.google.com/github/")

_MAGIC = re.compile(r"^(\s*)[%!].*$", re.MULTILINE)
_SHELL = re.compile(r"^\s*(!|%(pip|conda|sx|system)\b|%%(bash|sh|script|!|system|sx)\b)", re.MULTILINE)
_IMAGE = re.compile(r"!\[(?P<alt>[^\]]*)\]\(|<img\b(?P<tag>[^>]*)>", re.IGNORECASE)
_TAG_ALT = re.compile(r"""\balt\s*=\s*(["'])\s*\S.*?\1""", re.IGNORECASE | re.DOTALL)
_FENCE = re.compile(r"^(```|~~~).*?^\1[^\n]*$", re.MULTILINE | re.DOTALL)
_UNWANTED = re.compile(
    r"\b(?:simply|just|obviously)\b|(?<=[\w)\]\"'*_])!(?=[\s\"')*_]|$)|[\U0001f000-\U0001faff\u2600-\u27bf\u2b50\ufe0f]",
    re.IGNORECASE,
)


def normal_form(notebook: NotebookNode, name: str) -> str:
    """Return the text that a notebook's file must have: no outputs, the course's metadata, links to this release."""
    notebook = copy.deepcopy(notebook)
    title = notebook.cells[0]
    title.source = re.sub(r"\n*\[!\[Open in Colab\].*", "", title.source) + f"\n\n{BADGE}{name})"
    notebook.metadata = {"kernelspec": KERNEL, "language_info": {"name": "python"}}
    for cell in notebook.cells:
        cell.metadata = {}
        cell.source = COLAB_CELL if cell.id == "colab" else cell.source.strip("\n")
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    return nbformat.v4.writes(nbformat.from_dict(notebook)) + "\n"


def check(notebook: NotebookNode, name: str) -> list[str]:
    """Return everything that is wrong with a notebook's content; `name` is that of its file."""
    if (notebook.nbformat, notebook.nbformat_minor) != (4, 5):
        return ["is not in format 4.5, the first that keeps cell ids; save it anew."]
    rules = (_ids, _parts, _headings, _code, _figures, _exercises, _sentences_of_code, _language)
    return [finding for rule in rules for finding in rule(notebook, name)]


def exercise_calls(notebook: NotebookNode, *functions: str) -> list[tuple[str, str]]:
    """Return (cell id, exercise id) of every call such as `check("NN.name", …)`."""
    return [
        (cell.id, node.args[0].value)
        for cell, tree in _trees(notebook)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) in functions and isinstance(node.args[0], ast.Constant)
    ]


def _ids(notebook: NotebookNode, name: str) -> Iterator[str]:
    for cell_id, count in Counter(cell.id for cell in notebook.cells).items():
        if count > 1:
            yield f"cell {cell_id}: {count} cells have this id; give each its own."
        if not re.fullmatch(r"[a-z0-9][a-z0-9-]{2,63}", cell_id) or re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f-]+)?", cell_id):
            yield f"cell {cell_id}: the id says nothing; use words such as `load-data`, they stay when cells move."


def _parts(notebook: NotebookNode, name: str) -> Iterator[str]:
    kinds = [(cell.id, cell.cell_type) for cell in notebook.cells if cell.id in PARTS]
    if kinds != list(PARTS.items()):
        yield f"the required cells are {kinds}; make them {list(PARTS.items())}."
        return
    text = {cell.id: cell.source for cell in notebook.cells}
    if not any(re.search(r"plots\.|pipeline\(", cell.source) for cell in _cells(notebook, "code")[2:6]):
        yield "there is no picture of the thing itself in the first four cells after the setup; draw it there."
    for word, pattern in (("GPU", r"\bGPU\b"), ("time", r"\b(second|minute|hour)"), ("memory", r"\b[GM]B\b")):
        if not re.search(pattern, text["cost"]):
            yield f"cell cost: says nothing about {word}; give time and memory, with and without a GPU."
    if (takeaways := len(re.findall(r"^(?:\d+\.|[-*]) ", text["recap"], re.MULTILINE))) != 3:
        yield f"cell recap: lists {takeaways} takeaways; make them three list items."
    if "next" not in text["recap"].lower():
        yield "cell recap: does not say what comes next; add a sentence with `Next`."


def _headings(notebook: NotebookNode, name: str) -> Iterator[str]:
    text = _FENCE.sub("", "\n\n".join(cell.source for cell in _cells(notebook, "markdown")))
    levels = [len(marks) for marks in re.findall(r"^(#{1,6}) \S", text, re.MULTILINE)]
    if not notebook.cells[0].source.startswith("# ") or levels.count(1) != 1:
        yield f"there are {levels.count(1)} headings of level 1; keep one, the title in the first cell."
    if any(after > before + 1 for before, after in itertools.pairwise(levels)):
        yield "a heading skips a level; use the next one."


def _code(notebook: NotebookNode, name: str) -> Iterator[str]:
    for cell in _cells(notebook, "code"):
        if cell.id == "colab" and cell.source != COLAB_CELL:
            yield "cell colab: differs from notebook_rules.COLAB_CELL; copy it from there."
        if not 1 <= (lines := len(cell.source.splitlines())) <= MAX_CODE_LINES:
            yield f"cell {cell.id}: has {lines} lines of code; split it or move a part into course_utils."
        if cell.id != "colab" and _SHELL.search(cell.source):
            yield f"cell {cell.id}: runs a shell or pip; only the cell colab may install something."


def _figures(notebook: NotebookNode, name: str) -> Iterator[str]:
    for cell in _cells(notebook, "markdown"):
        for match in _IMAGE.finditer(_FENCE.sub("", cell.source)):
            if not (_TAG_ALT.search(match["tag"]) if match["tag"] is not None else match["alt"].strip()):
                yield f"cell {cell.id}: an image has no alt text; say in it what the picture shows."
    for cell, tree in _trees(notebook):
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module == "course_utils.plots":
                yield f"cell {cell.id}: imports from plots; call plots.lines(…), so that its alt text can be checked."
            called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            alt = {word.arg: ast.unparse(word.value).strip("'\" ") for word in getattr(node, "keywords", ())}.get("alt")
            if called.endswith("plt.show") or (called.startswith("plots.") and not alt):
                yield f"cell {cell.id}: {called}(…) has no alt text; draw with course_utils.plots and pass alt=."


def _exercises(notebook: NotebookNode, name: str) -> Iterator[str]:
    for cell, tree in _trees(notebook):
        last = tree.body[-1] if tree.body else None
        shown = isinstance(last, ast.Expr) and isinstance(last.value, ast.Call) and not cell.source.endswith(";")
        if shown and ast.unparse(last.value.func) == "check":
            yield f"cell {cell.id}: ends with check(…), whose value would be shown; use the value, or add a semicolon."
    for cell_id, exercise_id in exercise_calls(notebook, "check", "solution"):
        if exercise_id not in all_exercises() or not name.startswith(exercise_id[:2]):
            yield f"cell {cell_id}: there is no exercise {exercise_id!r} of this notebook; correct the id or add it."


def _sentences_of_code(notebook: NotebookNode, name: str) -> Iterator[str]:
    """Find sentences that could not be translated: `say` wants a literal template, or two, and its own values."""
    for cell, tree in _trees(notebook):
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call) or ast.unparse(node.func) != "say":
                continue
            for template in _branches(node.args[0]):
                if template is None:
                    yield f"cell {cell.id}: say(…) needs a literal template, or several with if and else."
                elif missing := _placeholders(template) - {word.arg for word in node.keywords}:
                    yield f"cell {cell.id}: say(…) has no value for {', '.join(sorted(missing))} in {template!r}."


def _branches(node: ast.expr) -> list[str | None]:
    """Return the templates between which an expression chooses; None for one that is not literal."""
    if isinstance(node, ast.IfExp):
        return [*_branches(node.body), *_branches(node.orelse)]
    return [node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None]


def _placeholders(template: str) -> set[str]:
    return {field.split(".")[0].split("[")[0] for _, field, _, _ in string.Formatter().parse(template) if field}


def _language(notebook: NotebookNode, name: str) -> Iterator[str]:
    words = 0
    for cell in _cells(notebook, "markdown"):
        text = prose(cell.source)
        words += len(re.findall(r"\w+", text))
        for found in _UNWANTED.findall(text):
            yield f"cell {cell.id}: contains {found!r}, which helps nobody who is stuck; leave it out."
        for sentence in _sentences(text):
            if (length := len(re.findall(r"\w[\w'’.,-]*", sentence))) > MAX_SENTENCE_WORDS:
                yield f"cell {cell.id}: {length} words, make it two sentences: {sentence}"
    if not MIN_WORDS <= words <= MAX_WORDS:
        yield f"has {words} words of text, {MIN_WORDS} to {MAX_WORDS} are wanted."
    if len(notebook.cells) > MAX_CELLS:
        yield f"has {len(notebook.cells)} cells, at most {MAX_CELLS} are wanted."


def prose(markdown: str) -> str:
    """Return the running text of a markdown cell: no code, formulas, tables, tags, images or addresses."""
    text = _FENCE.sub("\n\n", markdown)
    text = re.sub(r"\$\$.*?\$\$|\$[^$\n]+\$", " ", text, flags=re.DOTALL)
    text = re.sub(r"(`+).+?\1", " code ", text, flags=re.DOTALL)
    text = re.sub(r"^\s*>?\s*\|.*$", "", text, flags=re.MULTILINE)
    text = re.sub(r"!\[[^\]]*\]\([^)]*\)|<[^>]+>|https?://\S+", " ", text)
    return re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text)


def _sentences(text: str) -> Iterator[str]:
    text = re.sub(r"^\s*>\s?", "", text, flags=re.MULTILINE)
    # A heading, a list item and a blank line end a sentence, a line break does not.
    for block in re.split(r"\n\s*\n|\n(?=\s*(?:[-*+]|\d+\.|#{1,6})\s)|(?<=^#)[^\n]*\n", text):
        yield from re.split(r"(?<=[.?!])[\"')*_”]*\s+", " ".join(block.split()))


def _trees(notebook: NotebookNode) -> list[tuple[NotebookNode, ast.Module]]:
    return [(cell, ast.parse(_MAGIC.sub(r"\1pass", cell.source), cell.id)) for cell in _cells(notebook, "code")]


def _cells(notebook: NotebookNode, kind: str) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == kind]


if __name__ == "__main__":
    for path in map(Path, sys.argv[1:]):
        notebook = nbformat.read(path, as_version=4)
        path.write_text(normal_form(notebook, path.name), encoding="utf-8", newline="\n")
        for finding in check(notebook, path.name):
            print(f"{path.name}: {finding}")
