"""Every notebook keeps the rules of the course, and every rule finds what breaks it."""

from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell
from notebook_rules import check, exercise_calls, normal_form, prose

from course_utils.exercises import all_exercises

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_keeps_the_rules(path):
    notebook = nbformat.read(path, as_version=4)
    assert check(notebook, path.name) == []
    assert path.read_bytes() == normal_form(notebook, path.name).encode(), "call notebook_rules.py on it"


# What a notebook teaches stands in its cells, in the library's own words.
LESSONS = {
    "00": ["pipeline(", ".softmax(-1)", ".topk(", "Counter"],
    "01": ["filter_streaming_dataset(", "for document in tqdm(", "near_duplicates(", "unified_diff(", "md5("],
    "02": ["train_new_from_iterator(", "pairwise(", "pre_tokenize_str(", "save_pretrained("],
    "03": ["return_overflowing_tokens=True", ".map(", "ConstantLengthDataset(", "set_epoch(", "attention_mask="],
    "04": ["GPT2Config(", "GPT2LMHeadModel(", "DataCollatorForLanguageModeling(", "TrainingArguments(", "Trainer("],
    "05": ["loss.backward()", "optimizer.step()", "zero_grad()", "Accelerator(", "accelerator.backward(", "AdamW("],
    "06": ["AdamW(", "get_scheduler(", "DataCollatorWithPadding(", "add_batch(", "metric.compute(", "no_grad()"],
    "07": ["log_softmax(", "calibration_curve(", "np.add.at("],
    "08": ["masked_fill(", "cumsum(", ".generate(", "run_problem(", "softmax("],
    "09": ["class Head", "class MultiHeadAttention", "class Block", "class GPT", "masked_fill(", "load_gpt2_weights("],
    "10": ["Qwen3Config(", "Muon(", "torch.compile(", "autocast(", "load_config_from_file(", "FlopCounterMode("],
}
LESSONS["11"] = ["whoami(", "create_repo(", ".push_to_hub(", "EvalResult(", "ModelCard(", "run_as_future=True"]
LESSONS["11"] += ["create_branch(", "list_repo_commits(", "create_tag(", "revision=", "get_paths_info("]
LESSONS["04"] += ["trainer.train(", "resume_from_checkpoint", "TrainerCallback"]
LESSONS["05"] += ["accelerator.accumulate(", "clip_grad_norm_(", "scheduler.step()"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_lesson_stands_in_the_notebook(path):
    code = "\n".join(cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code")
    assert [call for call in LESSONS[path.name[:2]] if call not in code] == []


def test_every_exercise_stands_in_a_notebook():
    calls = [call for path in NOTEBOOKS for call in exercise_calls(nbformat.read(path, as_version=4), "check")]
    assert {exercise_id for _, exercise_id in calls} == all_exercises().keys()


def cell(notebook, cell_id):
    return next(cell for cell in notebook.cells if cell.id == cell_id)


def text(source):
    return lambda notebook: notebook.cells.insert(-1, new_markdown_cell(source, id="new-text"))


def code(source):
    return lambda notebook: notebook.cells.insert(-1, new_code_cell(source, id="new-code"))


def change(cell_id, **values):
    return lambda notebook: cell(notebook, cell_id).update(values)


def replace(cell_id, old, new):
    return lambda notebook: change(cell_id, source=cell(notebook, cell_id).source.replace(old, new))(notebook)


def dull(number=5):
    return [new_code_cell("x = 1", id=f"new-code-{place}") for place in range(number)]


BROKEN = [
    (lambda notebook: notebook.update(nbformat_minor=4), "is not in format 4.5"),
    (change("setup", id="3f2a91bc"), "cell 3f2a91bc: the id says nothing"),
    (lambda notebook: notebook.cells.append(cell(notebook, "recap")), "cell recap: 2 cells have this id"),
    (text("# Again"), "there are 2 headings of level 1"),
    (text("#### Deep"), "a heading skips a level"),
    (lambda notebook: notebook.cells.remove(cell(notebook, "cost")), "the required cells are"),
    (lambda notebook: notebook.cells.__setitem__(slice(4, 4), dull()), "there is no picture"),
    (change("cost", source="1 GB, with a GPU too."), "cell cost: says nothing about time"),
    (change("recap", source="- One.\n- Two.\n\nNext: more."), "cell recap: lists 2 takeaways"),
    (change("recap", source="- One.\n- Two.\n- Three."), "cell recap: does not say what comes next"),
    (code("x = 1\n" * 26), "cell new-code: has 26 lines of code"),
    (code("!pip install x"), "cell new-code: runs a shell or pip"),
    (replace("colab", "git+https://", "git+http://"), "cell colab: differs"),
    (text("![ ](x.svg)"), "cell new-text: an image has no alt text"),
    (text('<img src="x.png" alt="">'), "cell new-text: an image has no alt text"),
    (code("plots.bars({})"), "cell new-code: plots.bars(…) has no alt text"),
    (code("from course_utils.plots import bars"), "cell new-code: imports from plots"),
    (code("plt.show()"), "cell new-code: plt.show(…) has no alt text"),
    (code('solution("03.pack")'), "there is no exercise '03.pack' of this notebook"),
    (text("Simply go on."), "cell new-text: contains 'Simply'"),
    (text("Well done!"), "cell new-text: contains '!'"),
    (text("Done 🎉"), "cell new-text: contains '🎉'"),
    (text(" ".join(["word"] * 26) + "."), "cell new-text: 26 words, make it two sentences"),
    (text("Word. " * 2300), "900 to 2200 are wanted"),
    (lambda notebook: notebook.cells.__setitem__(slice(-1, -1), dull(50)), "at most 50 are wanted"),
    (code('check("00.complete", 1)'), "ends with check"),
    (code('say("a" if x else f"{b}")'), "needs a literal template"),
    (code('say("{a} and {b:.1%}", a=1)'), "has no value for b"),
]  # fmt: skip


@pytest.mark.parametrize(("damage", "message"), BROKEN, ids=[message for _, message in BROKEN])
def test_broken_notebook_is_found(damage, message):
    notebook = nbformat.read(NOTEBOOKS[0], as_version=4)
    damage(notebook)
    findings = check(notebook, NOTEBOOKS[0].name)
    assert any(message in finding for finding in findings), findings
    assert len(findings) <= 3, findings


def test_the_normal_form_repairs_what_jupyter_adds():
    notebook = nbformat.read(NOTEBOOKS[0], as_version=4)
    name = NOTEBOOKS[0].name
    before = normal_form(notebook, name)
    notebook.metadata.update({"widgets": {"state": {}}, "language_info": {"name": "python", "version": "3.11.7"}})
    setup = cell(notebook, "setup")
    setup.execution_count, setup.outputs = 1, [nbformat.v4.new_output("stream", text="x")]
    setup.metadata.update({"collapsed": True})
    notebook.cells[0].source = notebook.cells[0].source.partition("\n\n[![")[0]
    cell(notebook, "colab").source = "%pip install old"
    assert normal_form(notebook, name) == before


def test_long_sentences_and_words_are_counted_in_prose_only():
    words = " ".join(["word"] * 20)
    skipped = f"`{words}` {words}.\n\n| {words} | {words} |\n|---|---|\n\n```\n{words} simply\n```\n\n- {words}\n- x"
    notebook = nbformat.read(NOTEBOOKS[0], as_version=4)
    text(f"{skipped}\n\n[{words}](https://example.org/{'a/' * 30})\n\nCompare `a != b`.")(notebook)
    assert check(notebook, NOTEBOOKS[0].name) == []
    found = prose("Use `x = 1`, see [the docs](https://a.b/c), $y = 2$ and\n```python\nsimply()\n```\n<b>bold</b>.")
    assert "the docs" in found
    assert all(part not in found for part in ("x = 1", "https", "y = 2", "simply()", "<b>"))
