"""What every notebook of the course must be, checked without running it, and the normal form it is saved in.

Each rule looks at one thing and returns findings: file, cell, what is wrong, what to do. Whether a notebook runs is
not decided here.
"""

import ast
import re
import sys
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import nbformat
from nbformat import NotebookNode

CELL_ID = re.compile(r"[a-z0-9][a-z0-9-]{2,63}")
REQUIRED_CELLS = ("title", "goal", "cost", "colab", "setup", "recap")
MAX_CODE_LINES = 25
MIN_WORDS = 600
MAX_SENTENCE_WORDS = 25
BANNED_WORDS = ("simply", "just", "obviously")
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
COLAB_CELL = """\
# Colab and other fresh machines: install the course's helper package. Elsewhere this cell does nothing.
import importlib.util
import os

if importlib.util.find_spec("course_utils") is None:
    source = os.environ.get("COURSE_SOURCE", "git+{repository}")
    %pip install --quiet "{{source}}"
"""

_SHELL = re.compile(r"^\s*(!|%(pip|conda|sx|system)\b|%%(bash|sh|script|!|system|sx)\b)", re.MULTILINE)
_MAGIC = re.compile(r"^(\s*)[%!].*$", re.MULTILINE)
_IMAGE = re.compile(r"!\[(?P<alt>[^\]]*)\]\(|<img\b(?P<tag>[^>]*)>", re.IGNORECASE)
_TAG_ALT = re.compile(r"""\balt\s*=\s*(["'])\s*\S.*?\1""", re.IGNORECASE | re.DOTALL)
_FENCE = re.compile(r"^(```|~~~).*?^\1[^\n]*$", re.MULTILINE | re.DOTALL)
_EMOJI = re.compile("[\U0001f000-\U0001faff\u2600-\u27bf\u2b50\u2b55\ufe0f]")
_SENTENCE_END = re.compile(r"(?<=[.?!])[\"')*_”]*\s+")

Rule = Callable[[NotebookNode, str], Iterator[str]]


def check_notebook(path: Path, repository: str | None = None) -> list[str]:
    """Return everything that is wrong with a notebook file, as sentences: file, cell, what, remedy.

    `repository` is the address that the Colab cell must install from; by default it is read from the pyproject.toml
    above the file. Raises `ValueError` if there is none.
    """
    path = Path(path)
    try:
        notebook = _read(path)
    except ValueError as error:
        return [f"{path.name}: {error}"]
    expected = COLAB_CELL.format(repository=repository or repository_url(path)).rstrip("\n")
    findings = [f"{path.name}: {finding}" for rule in RULES for finding in rule(notebook, path.name)]
    colab = next((cell.source for cell in notebook.cells if cell.get("id") == "colab"), expected)
    if colab != expected:
        findings.append(f"{path.name}: cell colab: differs from notebook_rules.COLAB_CELL; copy it from there.")
    if path.read_bytes() != normal_form(path).encode():
        findings.append(f"{path.name}: is not saved in its normal form; call strip_notebook on it.")
    return findings


def long_sentences(path: Path) -> list[str]:
    """Return the sentences with too many words, as warnings; code, links' addresses and tables do not count."""
    notebook = _read(path)
    found = []
    for cell in _markdown(notebook):
        for sentence in _sentences(cell.source):
            words = len(re.findall(r"\w[\w'’.,-]*", sentence))
            if words > MAX_SENTENCE_WORDS:
                found.append(f"{Path(path).name}: cell {cell.id}: {words} words, make it two sentences: {sentence}")
    return found


def strip_notebook(path: Path) -> None:
    """Save a notebook in its normal form: no outputs, the course's metadata, sorted keys, LF."""
    Path(path).write_text(normal_form(path), encoding="utf-8", newline="\n")


def normal_form(path: Path) -> str:
    """Return the text that a notebook file must have; raises `ValueError` if it is no notebook of format 4.5."""
    notebook = _read(path)
    notebook.metadata = nbformat.from_dict(METADATA)
    for cell in notebook.cells:
        tags = cell.metadata.get("tags")
        cell.metadata = nbformat.from_dict({"tags": tags} if tags else {})
        cell.source = cell.source.strip("\n")
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    return nbformat.v4.writes(notebook).rstrip("\n") + "\n"


def _read(path: Path) -> NotebookNode:
    """Read without the silent repairs of nbformat.read, which would hide what is to be found."""
    try:
        notebook = nbformat.reader.reads(Path(path).read_text(encoding="utf-8"))
        version = (notebook.nbformat, notebook.nbformat_minor)
    except Exception as error:
        raise ValueError(f"is no valid notebook ({error}); write it anew.") from error
    if version != (4, 5):
        raise ValueError(f"is in format {version[0]}.{version[1]}; save it as 4.5, the first that keeps cell ids.")
    error = next(nbformat.validator.iter_validate(notebook), None)
    if error is not None:
        raise ValueError(f"is no valid notebook ({str(error).splitlines()[0]}); write it anew.")
    return notebook


def repository_url(path: Path) -> str:
    """Return the repository that pyproject.toml names, looked for in the folders above a file."""
    for folder in Path(path).resolve().parents:
        project = folder / "pyproject.toml"
        if project.is_file():
            return tomllib.loads(project.read_text(encoding="utf-8"))["project"]["urls"]["Repository"]
    raise ValueError(f"no pyproject.toml above {path}; pass repository=, the address that Colab installs from.")


def exercise_calls(notebook: NotebookNode, function: str = "check") -> list[tuple[str, str]]:
    """Return (cell id, exercise id) of every `check("NN.name", …)` in a notebook."""
    return [
        (cell.id, node.args[0].value)
        for cell, tree in _parsed(notebook)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == function
        and node.args
        and isinstance(node.args[0], ast.Constant)
    ]


def _outputs(notebook: NotebookNode, name: str) -> Iterator[str]:
    for cell in _code(notebook):
        if cell.outputs or cell.execution_count is not None:
            yield f"cell {cell.id}: has outputs or an execution count; call strip_notebook on the file."


def _metadata(notebook: NotebookNode, name: str) -> Iterator[str]:
    if notebook.metadata != METADATA:
        extra = sorted(set(notebook.metadata) - set(METADATA)) or "kernelspec or language_info"
        yield f"its metadata is not the course's ({extra}); call strip_notebook on it."


def _cell_ids(notebook: NotebookNode, name: str) -> Iterator[str]:
    ids = Counter(cell.get("id", "") for cell in notebook.cells)
    for cell_id, count in ids.items():
        if count > 1:
            yield f"cell {cell_id}: {count} cells have this id; give each its own."
        if not CELL_ID.fullmatch(cell_id) or re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f-]{27})?", cell_id):
            yield f"cell {cell_id}: the id says nothing; use words such as `load-data`, they stay when cells move."


def _parts(notebook: NotebookNode, name: str) -> Iterator[str]:
    cells = {cell.get("id"): cell for cell in notebook.cells}
    missing = [part for part in REQUIRED_CELLS if part not in cells]
    if missing:
        yield f"the cells {missing} are missing; every notebook has {list(REQUIRED_CELLS)}."
        return
    order = [cell.get("id") for cell in notebook.cells if cell.get("id") in REQUIRED_CELLS]
    if order != list(REQUIRED_CELLS):
        yield f"the required cells stand in the order {order}; bring them into {list(REQUIRED_CELLS)}."
    for part in REQUIRED_CELLS:
        kind = "code" if part in ("colab", "setup") else "markdown"
        if cells[part].cell_type != kind:
            yield f"cell {part}: is a {cells[part].cell_type} cell; make it {kind}."
    after_setup = [cell.source for cell in _code(notebook)][2:3]
    if not (_IMAGE.search(cells["goal"].source) or any("plots." in source for source in after_setup)):
        yield "cell goal: there is no picture of what you will have built; add one, or draw it right after the setup."
    for word, pattern in (("GPU", r"\bGPU\b"), ("time", r"\b(second|minute|hour)"), ("memory", r"\b[GM]B\b")):
        if not re.search(pattern, cells["cost"].source):
            yield f"cell cost: says nothing of {word}; give time and memory, with and without a GPU."
    takeaways = re.findall(r"^(?:\d+\.|[-*]) ", cells["recap"].source, re.MULTILINE)
    if len(takeaways) != 3:
        yield f"cell recap: lists {len(takeaways)} takeaways; make them three list items."
    if "next" not in cells["recap"].source.lower():
        yield "cell recap: does not say what comes next; add a sentence with `Next`."


def _headings(notebook: NotebookNode, name: str) -> Iterator[str]:
    first = notebook.cells[0] if notebook.cells else None
    if first is None or first.cell_type != "markdown" or not first.source.startswith("# "):
        yield "the first cell is no title; begin with a markdown cell `# Title`."
    level = 0
    titles = 0
    for cell in _markdown(notebook):
        for marks in re.findall(r"^(#{1,6}) \S", _FENCE.sub("", cell.source), re.MULTILINE):
            titles += len(marks) == 1
            if len(marks) > level + 1 and level:
                yield f"cell {cell.id}: a heading jumps from level {level} to {len(marks)}; use {level + 1}."
            level = len(marks)
    if titles != 1:
        yield f"there are {titles} headings of level 1; keep one, the title."


def _code_cells(notebook: NotebookNode, name: str) -> Iterator[str]:
    for cell in _code(notebook):
        lines = len(cell.source.splitlines())
        if lines > MAX_CODE_LINES:
            yield f"cell {cell.id}: has {lines} lines of code; split it or move a part into course_utils."
        if not cell.source.strip():
            yield f"cell {cell.id}: is empty; remove it."
        if cell.id != "colab" and _SHELL.search(cell.source):
            yield f"cell {cell.id}: runs a shell or pip; only the cell colab may install something."
        try:
            ast.parse(_plain_python(cell.source))
        except SyntaxError as error:
            yield f"cell {cell.id}: is no valid Python (line {error.lineno}: {error.msg})."


def _figures(notebook: NotebookNode, name: str) -> Iterator[str]:
    for cell in _markdown(notebook):
        for match in _IMAGE.finditer(_FENCE.sub("", cell.source)):
            tag = match["tag"]
            if not (_TAG_ALT.search(tag) if tag is not None else match["alt"].strip()):
                yield f"cell {cell.id}: an image has no alt text; say in it what the picture shows."
    drawing = {"plots"}
    for cell, tree in _parsed(notebook):
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module == "course_utils.plots":
                drawing |= {alias.asname or alias.name for alias in node.names}
            if not isinstance(node, ast.Call):
                continue
            called = ast.unparse(node.func)
            if called.endswith("plt.show"):
                yield f"cell {cell.id}: calls plt.show(), which has no alt text; draw with course_utils.plots."
            if called.split(".")[0] in drawing and not any(_says_something(k) for k in node.keywords):
                yield f"cell {cell.id}: {called}(…) has no alt text; pass alt= with what the figure shows."


def _says_something(keyword: ast.keyword) -> bool:
    empty = isinstance(keyword.value, ast.Constant) and not str(keyword.value.value or "").strip()
    return keyword.arg == "alt" and not empty


def _exercises(notebook: NotebookNode, name: str) -> Iterator[str]:
    from course_utils.exercises import all_exercises

    for function in ("check", "solution"):
        for cell_id, exercise_id in exercise_calls(notebook, function):
            if exercise_id not in all_exercises():
                yield f"cell {cell_id}: there is no exercise {exercise_id!r}; correct the id or add it."
            elif not name.startswith(str(exercise_id)[:2]):
                yield f"cell {cell_id}: the exercise {exercise_id!r} belongs to another notebook; use one of this."


def _language(notebook: NotebookNode, name: str) -> Iterator[str]:
    words = 0
    for cell in _markdown(notebook):
        text = prose(cell.source)
        words += len(re.findall(r"\w+", text))
        for word in BANNED_WORDS:
            if re.search(rf"\b{word}\b", text, re.IGNORECASE):
                yield f"cell {cell.id}: says {word!r}; leave the word out, it helps nobody who is stuck."
        if re.search(r"[\w)\]\"'*_]!(?=[\s\"')*_]|$)", text):
            yield f"cell {cell.id}: a sentence ends with an exclamation mark; use a full stop."
        if _EMOJI.search(text):
            yield f"cell {cell.id}: contains an emoji; say it in words."
    if words < MIN_WORDS:
        yield f"has {words} words of text, at least {MIN_WORDS} are wanted: one should understand it without running."


RULES: tuple[Rule, ...] = (
    _outputs,
    _metadata,
    _cell_ids,
    _parts,
    _headings,
    _code_cells,
    _figures,
    _exercises,
    _language,
)


def prose(markdown: str) -> str:
    """Return the running text of a markdown cell: no code, formulas, tables, tags, images or addresses."""
    text = _FENCE.sub("\n\n", markdown)
    text = re.sub(r"\$\$.*?\$\$|\$[^$\n]+\$", " ", text, flags=re.DOTALL)
    text = re.sub(r"(`+).+?\1", " code ", text, flags=re.DOTALL)
    text = re.sub(r"^\s*>?\s*\|.*$", "", text, flags=re.MULTILINE)
    text = re.sub(r"!\[[^\]]*\]\([^)]*\)|<[^>]+>|https?://\S+", " ", text)
    return re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text)


def _sentences(markdown: str) -> Iterator[str]:
    text = re.sub(r"^\s*>\s?", "", prose(markdown), flags=re.MULTILINE)
    # A heading, a list item and a blank line end a sentence, a line break does not.
    for block in re.split(r"\n\s*\n|\n(?=\s*(?:[-*+]|\d+\.|#{1,6})\s)|(?<=^#)[^\n]*\n", text):
        yield from (s for s in _SENTENCE_END.split(" ".join(block.split())) if s)


def _plain_python(source: str) -> str:
    return _MAGIC.sub(r"\1pass", source)


def _parsed(notebook: NotebookNode) -> Iterator[tuple[NotebookNode, ast.Module]]:
    for cell in _code(notebook):
        try:
            yield cell, ast.parse(_plain_python(cell.source))
        except SyntaxError:
            continue  # reported by its own rule


def _markdown(notebook: NotebookNode) -> Iterator[NotebookNode]:
    return (cell for cell in notebook.cells if cell.cell_type == "markdown")


def _code(notebook: NotebookNode) -> Iterator[NotebookNode]:
    return (cell for cell in notebook.cells if cell.cell_type == "code")


def main(arguments: list[str]) -> int:
    """Bring notebook files into their normal form and print what is wrong with them."""
    findings, warnings = [], []
    for path in map(Path, arguments):
        strip_notebook(path)
        findings += check_notebook(path)
        warnings += long_sentences(path)
    for line in (*findings, *warnings):
        print(line)
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
