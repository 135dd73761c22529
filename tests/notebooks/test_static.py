"""Every notebook keeps the rules of the course, and every rule finds what breaks it."""

import copy
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from notebook_rules import (
    COLAB_CELL,
    METADATA,
    check_notebook,
    exercise_calls,
    long_sentences,
    normal_form,
    prose,
    repository_url,
    strip_notebook,
)

from course_utils.exercises import all_exercises

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
by_name = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


@by_name
def test_notebook_keeps_the_rules(path):
    assert check_notebook(path) == []


@by_name
def test_sentences_are_short(path):
    assert long_sentences(path) == []


@by_name
def test_every_exercise_stands_in_its_notebook(path):
    checked = {exercise_id for _, exercise_id in exercise_calls(nbformat.read(path, as_version=4))}
    assert checked == {exercise_id for exercise_id in all_exercises() if path.name.startswith(exercise_id[:2])}


def test_there_is_a_notebook_for_every_exercise():
    numbers = {exercise_id[:2] for exercise_id in all_exercises()}
    assert numbers <= {path.name[:2] for path in NOTEBOOKS}


@pytest.mark.parametrize("command", [["check"], ["format", "--check"]], ids=" ".join)
def test_ruff(command):
    done = subprocess.run(
        [sys.executable, "-m", "ruff", *command, "notebooks"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def markdown(cell_id, source):
    return new_markdown_cell(source, id=cell_id)


def code(cell_id, source):
    return new_code_cell(source, id=cell_id)


def good_notebook():
    text = "A file of 300 tokens gives two full pieces, and 44 tokens are left over. Long contexts lose more.\n\n" * 40
    cells = [
        markdown("title", "# 03 · Chunks"),
        markdown(
            "goal", "At the end you have a packed corpus.\n\n![A corpus is cut into pieces of equal length.](x.svg)"
        ),
        markdown("cost", "Two minutes and 1 GB of memory without a GPU, one minute with one."),
        code("colab", COLAB_CELL.format(repository=repository_url(ROOT / "notebooks")).strip("\n")),
        code("setup", "from course_utils import plots\nfrom course_utils.exercises import check"),
        markdown("lost-tokens", "## What happens to the end of a file?\n\n" + text),
        code("count-lost", "lost = 300 % 128"),
        code("plot-lost", '%time\nplots.bars({"128": 2.1}, x="context", y="lost", alt="One bar of 2.1 %.")'),
        markdown(
            "try-pack", "### Try it\n\nWrite `pack`! Compare `a != b`, and read [the text](https://example.org/a)."
        ),
        code("exercise-pack", 'def pack(token_lists, eos_id, length): ...\n\n\ncheck("03.pack", pack)'),
        markdown(
            "recap", "## What did we learn?\n\n- Cutting loses.\n- Packing keeps.\n- EOS teaches.\n\nNext: training."
        ),
    ]
    for cell in cells:
        cell.source = cell.source.strip("\n")
    cells[7].source = cells[7].source.replace("`pack`!", "`pack`.")
    return new_notebook(cells=cells, metadata=nbformat.from_dict(METADATA))


def save(notebook, folder, name="03_chunks.ipynb"):
    path = folder / name
    path.write_text(nbformat.v4.writes(notebook) + "\n", encoding="utf-8", newline="\n")
    return path


def cell(notebook, cell_id):
    return next(cell for cell in notebook.cells if cell.id == cell_id)


def change(cell_id, old, new):
    def apply(notebook):
        target = cell(notebook, cell_id)
        assert old in target.source
        target.source = target.source.replace(old, new)

    return apply


def add(cell_id, text):
    def apply(notebook):
        cell(notebook, cell_id).source += text

    return apply


def set_field(cell_id, field, value):
    def apply(notebook):
        cell(notebook, cell_id)[field] = value

    return apply


def drop(cell_id):
    return lambda notebook: notebook.cells.remove(cell(notebook, cell_id))


BROKEN = {
    "execution count": (set_field("setup", "execution_count", 3), "cell setup: has outputs or an execution count"),
    "output": (
        set_field("setup", "outputs", [nbformat.v4.new_output("stream", text="x")]),
        "cell setup: has outputs or an execution count",
    ),
    "language version": (
        lambda notebook: notebook.metadata.language_info.update(version="3.11"),
        "metadata is not the course's",
    ),
    "widget state": (lambda notebook: notebook.metadata.update(widgets={}), "not the course's (['widgets'])"),
    "other kernel": (lambda notebook: notebook.metadata.kernelspec.update(name="venv"), "metadata is not the course's"),
    "old format": (lambda notebook: notebook.update(nbformat_minor=4), "is in format 4.4"),
    "meaningless id": (set_field("setup", "id", "3f2a91bc"), "cell 3f2a91bc: the id says nothing"),
    "capitals in id": (set_field("plot-lost", "id", "PlotLost"), "cell PlotLost: the id says nothing"),
    "same id twice": (set_field("plot-lost", "id", "setup"), "cell setup: 2 cells have this id"),
    "no title": (set_field("title", "source", "03 · Chunks"), "the first cell is no title"),
    "second title": (add("recap", "\n\n# Again"), "there are 2 headings of level 1"),
    "heading jumps": (change("lost-tokens", "## What", "### What"), "a heading jumps from level 1 to 3"),
    "part missing": (drop("cost"), "the cells ['cost'] are missing"),
    "part is code": (set_field("setup", "cell_type", "raw"), "no valid notebook"),
    "order": (lambda notebook: notebook.cells.insert(1, notebook.cells.pop(4)), "stand in the order"),
    "no picture": (change("goal", "![A corpus is cut into pieces of equal length.](x.svg)", ""), "there is no picture"),
    "no time": (change("cost", "inute", "oment"), "cell cost: says nothing of time"),
    "no memory": (change("cost", "1 GB of memory", "memory"), "cell cost: says nothing of memory"),
    "no GPU": (change("cost", "GPU", "card"), "cell cost: says nothing of GPU"),
    "two takeaways": (change("recap", "- EOS teaches.\n", ""), "cell recap: lists 2 takeaways"),
    "no next step": (change("recap", "Next", "Then"), "cell recap: does not say what comes next"),
    "long cell": (add("setup", "\nx = 1" * 25), "cell setup: has 27 lines of code"),
    "empty cell": (set_field("plot-lost", "source", ""), "cell plot-lost: is empty"),
    "shell": (add("setup", "\n!pip install x"), "cell setup: runs a shell or pip"),
    "pip magic": (add("setup", "\n%pip install x"), "cell setup: runs a shell or pip"),
    "bash cell": (set_field("setup", "source", "%%bash\nls"), "cell setup: runs a shell or pip"),
    "no Python": (add("setup", "\nx = = 1"), "cell setup: is no valid Python (line 3"),
    "other Colab cell": (change("colab", "--quiet", "-q"), "cell colab: differs from notebook_rules.COLAB_CELL"),
    "other repository": (change("colab", "git+https://", "git+http://"), "cell colab: differs"),
    "image without alt": (change("goal", "![A corpus is cut into pieces of equal length.]", "![ ]"), "has no alt text"),
    "tag without alt": (add("recap", '\n\n<img src="x.png" alt="">'), "cell recap: an image has no alt text"),
    "figure without alt": (change("plot-lost", ', alt="One bar of 2.1 %."', ""), "plots.bars(…) has no alt text"),
    "figure with empty alt": (change("plot-lost", "One bar of 2.1 %.", " "), "plots.bars(…) has no alt text"),
    "imported figure": (
        set_field("plot-lost", "source", "from course_utils.plots import bars\n\nbars({})"),
        "bars(…) has no alt text",
    ),
    "pyplot": (add("plot-lost", "\nplt.show()"), "cell plot-lost: calls plt.show()"),
    "unknown exercise": (change("exercise-pack", "03.pack", "03.pak"), "there is no exercise '03.pak'"),
    "exercise of another notebook": (change("exercise-pack", "03.pack", "01.import"), "belongs to another notebook"),
    "unknown solution": (add("exercise-pack", '\nsolution("03.pak")'), "there is no exercise '03.pak'"),
    "simply": (add("recap", " Simply go on."), "cell recap: says 'simply'"),
    "just": (add("recap", " It is just a cut."), "cell recap: says 'just'"),
    "obviously": (add("recap", " This is obviously so."), "cell recap: says 'obviously'"),
    "exclamation mark": (add("recap", " Well done!"), "cell recap: a sentence ends with an exclamation mark"),
    "emoji": (add("recap", " 🎉"), "cell recap: contains an emoji"),
    "few words": (set_field("lost-tokens", "source", "## Why?\n\nSee."), "at least 600 are wanted"),
}  # fmt: skip


def test_good_notebook_has_no_findings(tmp_path):
    path = save(good_notebook(), tmp_path)
    assert check_notebook(path, repository=repository_url(ROOT / "notebooks")) == []
    assert long_sentences(path) == []


@pytest.mark.parametrize("fault", BROKEN)
def test_broken_notebook_is_found(fault, tmp_path):
    notebook = copy.deepcopy(good_notebook())
    damage, message = BROKEN[fault]
    damage(notebook)
    findings = check_notebook(save(notebook, tmp_path), repository=repository_url(ROOT / "notebooks"))
    assert any(message in finding and finding.startswith("03_chunks.ipynb: ") for finding in findings), findings
    assert len(findings) <= 3, findings


@pytest.mark.parametrize("text", ["", "{}", "[1", '{"cells": []}', "\x00"])
def test_what_is_no_notebook_is_said(text, tmp_path):
    path = tmp_path / "03_chunks.ipynb"
    path.write_text(text, encoding="utf-8")
    assert "is no valid notebook" in check_notebook(path, repository="")[0]


def test_file_form_counts(tmp_path):
    path = save(good_notebook(), tmp_path)
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    findings = check_notebook(path, repository=repository_url(ROOT / "notebooks"))
    assert findings == ["03_chunks.ipynb: is not saved in its normal form; call strip_notebook on it."]


def test_strip_notebook_repairs_what_jupyter_adds(tmp_path):
    notebook = good_notebook()
    notebook.metadata.update({"widgets": {"state": {}}, "language_info": {"name": "python", "version": "3.11.7"}})
    setup = cell(notebook, "setup")
    setup.execution_count, setup.outputs = 1, [nbformat.v4.new_output("stream", text="x")]
    setup.metadata.update({"collapsed": True, "tags": ["keep"]})
    path = save(notebook, tmp_path)
    strip_notebook(path)
    once = path.read_bytes()
    strip_notebook(path)
    assert path.read_bytes() == once
    assert b"\r" not in once
    assert once.endswith(b"}\n")
    assert cell(nbformat.read(path, as_version=4), "setup").metadata == {"tags": ["keep"]}
    assert check_notebook(path, repository=repository_url(ROOT / "notebooks")) == []
    assert normal_form(path).encode() == once


def test_repository_is_named_once(tmp_path):
    with pytest.raises(ValueError, match=r"no pyproject\.toml above"):
        repository_url(tmp_path / "03_chunks.ipynb")


def test_long_sentences_are_counted_in_prose_only(tmp_path):
    words = " ".join(["word"] * 20)
    notebook = good_notebook()
    skipped = (
        f"`{words}` {words}.\n\n| {words} | {words} |\n|---|---|\n\n```\n{words} {words}\n```\n\n- {words}\n- {words}"
    )
    cell(notebook, "recap").source += f"\n\n{skipped}\n\n[{words}](https://example.org/{'a/' * 30})"
    path = save(notebook, tmp_path)
    assert long_sentences(path) == []
    cell(notebook, "recap").source += f"\n\n> **Watch out.** {words}\n> {words}."
    assert [finding.split(",")[0] for finding in long_sentences(save(notebook, tmp_path))] == [
        "03_chunks.ipynb: cell recap: 40 words"
    ]


def test_prose_leaves_out_code_links_and_formulas():
    text = prose("Use `x = 1`, see [the docs](https://a.b/c), $y = 2$ and\n```python\nsimply()\n```\n<b>bold</b>.")
    assert "the docs" in text
    assert all(part not in text for part in ("x = 1", "https", "y = 2", "simply()", "<b>"))
