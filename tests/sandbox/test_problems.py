"""Where problems are loaded from, and which are refused."""

import pytest
from datasets import Dataset

from course_utils.evaluation import problems
from course_utils.evaluation.problems import COLUMNS, load_problems

GOOD = {
    "task_id": "x/0",
    "prompt": "def one():\n    '''1'''\n",
    "entry_point": "one",
    "canonical_solution": "    return 1\n",
    "test": "def check(candidate):\n    assert candidate() == 1\n",
}


def saved(path, *rows):
    Dataset.from_list(list(rows)).to_json(str(path))
    return str(path)


def test_a_folder_and_a_file_are_locations(tmp_path):
    second = GOOD | {"task_id": "x/1"}
    saved(tmp_path / "test.jsonl", GOOD, second)
    for location in (str(tmp_path), str(tmp_path / "test.jsonl")):
        loaded = load_problems(location)
        assert loaded.column_names == list(COLUMNS)
        assert [row["task_id"] for row in loaded] == ["x/0", "x/1"]


def test_the_courses_own_set_lies_in_the_package(tmp_path, monkeypatch):
    saved(tmp_path / "test.jsonl", GOOD)
    assert problems.FOLDER.parts[-3:] == ("course_utils", "data", "programming_problems")
    monkeypatch.setattr(problems, "FOLDER", tmp_path)
    assert len(load_problems()) == 1
    assert len(load_problems("course-problems")) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"entry_point": ""}, "x/0: entry_point is ''"),
        ({"entry_point": "two"}, "x/0: prompt . canonical_solution do not define the entry_point 'two'"),
        ({"test": "def check(candidate)\n    pass\n"}, "x/0: test is no Python"),
        ({"test": "def test(candidate):\n    pass\n"}, "x/0: the test defines no check"),
        ({"canonical_solution": "return 1\n"}, "x/0: prompt . canonical_solution is no Python"),
        ({"task_id": None}, "task_id is None"),
    ],
)
def test_problems_that_cannot_be_used_are_named(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        load_problems(saved(tmp_path / "test.jsonl", GOOD | change))


def test_missing_columns_duplicates_and_unknown_places(tmp_path):
    without = {name: text for name, text in GOOD.items() if name != "test"}
    with pytest.raises(ValueError, match=r"lacks the columns test; HumanEval's columns are task_id, prompt"):
        load_problems(saved(tmp_path / "a.jsonl", without))
    with pytest.raises(ValueError, match="has the task_id 'x/0' twice"):
        load_problems(saved(tmp_path / "b.jsonl", GOOD, GOOD))
    with pytest.raises(ConnectionError, match=r"openai/openai_humaneval is not a local folder or file"):
        load_problems("openai/openai_humaneval")
    (tmp_path / "splits").mkdir()
    for split in ("train", "validation"):
        saved(tmp_path / "splits" / f"{split}.jsonl", GOOD)
    with pytest.raises(ValueError, match="has no split test; it has train, validation"):
        load_problems(str(tmp_path / "splits"))
