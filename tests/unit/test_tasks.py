"""Comment-to-code tasks: the judge tells right answers from wrong ones and never raises; the tasks stay unseen."""

import ast
import builtins
import json
import re
from collections import Counter
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from course_utils import artifacts
from course_utils.data.documents import SPLITS
from course_utils.evaluation import tasks
from course_utils.evaluation.metrics import share_interval
from course_utils.evaluation.tasks import judge, load_tasks, score_tasks
from course_utils.models.prompts import TUTORIAL_PROMPTS, UNSEEN_IDIOMS
from course_utils.profiles import get_profile

TASKS = {task.name: task for task in load_tasks()}
DATA = json.loads(Path(tasks.__file__).with_suffix(".json").read_text(encoding="utf-8"))
# name: {"right": [answer, answer], "wrong": [[answer, is the function right?], ...]}
ANSWERS = json.loads(Path(__file__).with_name("tasks_answers.json").read_text(encoding="utf-8"))

every_task = pytest.mark.parametrize("task", TASKS.values(), ids=list(TASKS))


def texts_with(parts: list[str], profile: str) -> list[str]:
    """Return the documents of a corpus in which one of the parts stands, however wide its spaces are."""
    texts = pl.concat(
        pl.Series(artifacts.code_corpus(get_profile(profile)).load(split)["content"][:]) for split in SPLITS
    )
    squeezed = texts.str.replace_all(r"[^\S\n]+", " ")
    return texts.filter(squeezed.str.contains_any([re.sub(r"[^\S\n]+", " ", part) for part in parts])).to_list()


def squeezed(text: str) -> list[str]:
    """Return the lines that are not empty, with single spaces."""
    return [" ".join(line.split()) for line in text.splitlines() if line.strip()]


@every_task
def test_right_and_wrong_answers_are_told_apart(task):
    table = [(text, True, True) for text in ANSWERS[task.name]["right"]]
    table += [(text, function, False) for text, function in ANSWERS[task.name]["wrong"]]
    assert [len(ANSWERS[task.name][kind]) for kind in ("right", "wrong")] == [2, 3]
    for text, *expected in table:
        other_layout = "\n" + ast.unparse(ast.parse(text))
        for written in (text, other_layout, f"{text}\n\n# and then\nplt.show("):
            assert [*judge(task, written)] == expected, written


@every_task
def test_a_task_is_whole_and_its_patterns_are_right_answers(task):
    *context, gap, comment, end = task.prompt.split("\n")
    assert comment.startswith("# ")
    assert gap == end == ""
    assert 1 <= len([line for line in context if line]) <= 5
    assert ast.parse(task.prompt)
    for pattern in task.accept:
        if "_" not in {node.id for node in ast.walk(ast.parse(pattern)) if isinstance(node, ast.Name)}:
            opened = pattern.replace("plt.set(", "ax.set(")
            assert judge(task, opened) == (True, True), pattern


def test_the_tasks_are_as_many_as_the_card_says_and_all_different():
    assert Counter(task.library for task in TASKS.values()) == dict.fromkeys(
        ("pandas", "NumPy", "matplotlib", "scikit-learn"), 25
    )
    assert DATA["card"]["size"].startswith(f"{len(TASKS)} tasks: 25 each")
    assert list(ANSWERS) == list(TASKS)
    assert {task.prompt for task in TASKS.values()} > set(TUTORIAL_PROMPTS.values())
    assert len({task.prompt.split("\n")[-2] for task in TASKS.values()}) == len(TASKS)
    patterns = Counter(pattern for task in TASKS.values() for pattern in task.accept)
    assert patterns.most_common(1)[0][1] == 1


def test_arguments_by_position_have_names():
    known = DATA["signatures"]
    any_number = {".reshape", ".legend", ".setp", ".meshgrid", "train_test_split", "make_pipeline", "initials"}
    for pattern in (pattern for task in TASKS.values() for pattern in task.accept):
        for call in (node for node in ast.walk(ast.parse(pattern)) if isinstance(node, ast.Call) and node.args):
            name = ast.unparse(call.func)
            assert {name, "." + name.rpartition(".")[2]} & (known.keys() | any_number | vars(builtins).keys()), pattern


@pytest.mark.parametrize(
    ("name", "completion", "function", "arguments"),
    [
        ("scatter plot", "import matplotlib.pyplot as plt\nplt.figure()\nplt.scatter(y=y, x=x)", True, True),
        ("scatter plot", "fig = plt.figure()\nax = fig.add_subplot(111)\nax.scatter(x, y)", True, True),
        ("scatter plot", "ax.scatter(x, y)", False, False),  # there is no ax
        ("scatter plot", "sizes = np.ones(100)\nplt.scatter(x, y, s=sizes)", True, True),
        ("scatter plot", "x = x[:9]\ny = y[:9]\nplt.scatter(x, y)", True, False),
        ("scatter plot", "print(x)\nplt.scatter(x, y)", False, False),  # not the first statement
        ("scatter plot", "plt.scatter(x, y, z, t, u)", True, False),
        ("scatter plot", "plt.scatter(*data)", True, False),
        ("scatter plot", "    plt.scatter(x, y)", False, False),
        ("scatter plot", "plt.scatter(x, y", False, False),
        ("groupby", "jobs = df.groupby('profession')\nincome = jobs['income']\nprint(income.mean())", True, True),
        ("groupby", "df.groupby('profession').mean()['income']", True, True),
        ("groupby", "df.groupby(['profession'])[['income']].mean(numeric_only=True).round(2)", True, True),
        ("groupby", "df['m'] = df.groupby('profession')['income'].mean()", False, False),  # rows do not fit
        ("random forest", "n = 300\nrf = RandomForestRegressor(n)\nrf.fit(X, y)\nrf.predict(X)", True, True),
        ("label of the x axis", "ax.set(xlabel='time (s)', ylabel='speed')", True, True),
        ("label of the x axis", "ax.xlabel('time (s)')", False, False),
        ("one of four plots", "plt.sca(axes[1, 0])\nplt.scatter(width, height)", False, False),
        ("accuracy", "print(f'{svm.score(X_test, y_test):.2f}')", True, True),
        ("mean squared error", "print('MSE: %.2f' % mean_squared_error(y_valid, forecast))", True, True),
        ("any missing", "if np.isnan(readings).any():\n    print('yes')", True, True),
        ("keep rows", "flights[flights.delay >= 60]", True, False),
    ],
)
def test_what_means_the_same_is_judged_the_same(name, completion, function, arguments):
    assert judge(TASKS[name], completion) == (function, arguments)


SYNTAX = "()[]{}'\"=.,*:- \n\\#\0\f\ud800xf9"
TEXTS = st.one_of(
    st.text(max_size=40),
    st.text(SYNTAX, max_size=40),
    st.builds(lambda piece, n: piece * n, st.text(SYNTAX, min_size=1, max_size=3), st.integers(0, 5000)),
    st.builds(lambda name, end: ANSWERS[name]["right"][1][:end], st.sampled_from(list(TASKS)), st.integers(0, 80)),
)


@given(st.sampled_from(list(TASKS.values())), TEXTS)
def test_any_text_gets_a_judgement(task, text):
    function, arguments = judge(task, text)
    assert {type(function), type(arguments)} == {bool}
    assert function or not arguments


def test_completions_are_scored_per_task_and_not_run(tmp_path):
    some = [TASKS["sine"], TASKS["fit"], TASKS["legend"]]
    texts = iter(["np.sin(angles)", "model.fit(X)", f"open({str(tmp_path / 'made')!r}, 'w')"])
    table = score_tasks(lambda prompt: next(texts), some)
    assert table["name"].tolist() == ["sine", "fit", "legend"]
    assert table["function"].tolist() == [True, True, False]
    assert table["arguments"].tolist() == [True, False, False]
    assert not (tmp_path / "made").exists()
    low, high = share_interval(table["function"])
    assert 0 < low < 2 / 3 < high < 1


@pytest.mark.parametrize("profile", ["tiny", "laptop"])
def test_tasks_and_idioms_are_unseen(profile):
    comments, found = {task.prompt.split("\n")[-2]: task for task in TASKS.values()}, []
    known, prompts = "plt.colorbar(", [prompt for _, prompt, _ in UNSEEN_IDIOMS]
    texts = texts_with([known, *comments, *prompts], profile)
    assert any(known in text for text in texts)  # so it does look
    for text in texts:
        found += [prompt for prompt in prompts if prompt in text]
        lines = [*squeezed(text), ""]
        for number, task in ((number, comments[line]) for number, line in enumerate(lines) if line in comments):
            context = squeezed(task.prompt)
            repeated = lines[: number + 1][-len(context) :] == context
            found += [task.name] * (repeated or judge(task, lines[number + 1]).arguments)
    assert found == []
