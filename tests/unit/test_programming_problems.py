"""Programming problems: the course's own tell a solution from a wrong one; others are checked where they are loaded."""

import ast
import doctest
import json
from collections import Counter
from pathlib import Path

import pytest
from datasets import Dataset, load_dataset

import course_utils
from course_utils.evaluation.problems import load_problems
from course_utils.sandbox import run_problems

FOLDER = Path(course_utils.__file__).parent / "data" / "programming_problems"
PROBLEMS = [json.loads(line) for line in (FOLDER / "test.jsonl").read_text(encoding="utf-8").strip().split("\n")]
COLUMNS = ["task_id", "prompt", "entry_point", "canonical_solution", "test", "level"]  # HumanEval's, and the level
LEVELS = {"idiom": 14, "one-liner": 16, "function": 12, "data frame": 10}

every_problem = pytest.mark.parametrize("problem", PROBLEMS, ids=lambda problem: problem["task_id"])


def solved(problem):
    return problem["prompt"] + problem["canonical_solution"]


def passes(problem, source):
    """Run a problem's test as HumanEval does, in the namespace of the program; return whether it passes."""
    namespace = {}
    try:
        exec(source, namespace)
        function = namespace[problem["entry_point"]]
        exec(problem["test"], namespace)
        namespace["check"](function)
    except Exception:
        return False
    return True


def with_body(problem, body):
    """Return the problem's program with another body of the function."""
    tree = ast.parse(solved(problem))
    (function,) = (node for node in tree.body if getattr(node, "name", None) == problem["entry_point"])
    function.body = ast.parse(body.format(first=function.args.args[0].arg)).body
    return ast.unparse(tree)


def test_columns_ids_and_levels():
    assert [list(problem) for problem in PROBLEMS] == [COLUMNS] * len(PROBLEMS)
    assert [problem["task_id"] for problem in PROBLEMS] == [f"course/{i}" for i in range(len(PROBLEMS))]
    assert Counter(problem["level"] for problem in PROBLEMS) == LEVELS
    levels = [list(LEVELS).index(problem["level"]) for problem in PROBLEMS]
    assert levels == sorted(levels)  # from the easiest to the hardest
    assert all(isinstance(value, str) and value for problem in PROBLEMS for value in problem.values())


@every_problem
def test_a_constant_or_an_argument_is_no_solution(problem):
    assert passes(problem, solved(problem))
    assert not passes(problem, with_body(problem, "pass"))
    for value in ("None", "True", "False", "0", "1", "0.5", "''", "[]", "{{}}", "()", "{first}", "len({first})"):
        assert not passes(problem, with_body(problem, f"return {value}")), value


@every_problem
def test_the_examples_of_the_docstring_are_right(problem):
    namespace = {}
    exec(solved(problem), namespace)
    docstring = namespace[problem["entry_point"]].__doc__
    examples = doctest.DocTestParser().get_doctest(docstring, namespace, problem["task_id"], None, None)
    assert examples.examples or problem["level"] == "idiom"
    report = []
    doctest.DocTestRunner().run(examples, out=report.append)
    assert not report, "".join(report)


def test_the_card_says_what_the_file_holds_and_the_hub_library_reads_both():
    card = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert f"{len(PROBLEMS)} small Python problems" in card
    for level, count in LEVELS.items():
        ids = [problem["task_id"] for problem in PROBLEMS if problem["level"] == level]
        assert f"| {level} | {count} | {ids[0]} to {ids[-1]} |" in card
    assert load_problems().to_list() == load_dataset(str(FOLDER))["test"].to_list() == PROBLEMS


def test_in_the_sandbox_every_solution_passes():
    jobs = [(problem, problem["canonical_solution"]) for problem in PROBLEMS]
    results = run_problems(jobs, time_limit=60, progress=False)
    assert [r for r in results if r.outcome != "passed"] == []


GOOD = {
    "task_id": "x/0",
    "prompt": "def one():\n    '''1'''\n",
    "entry_point": "one",
    "canonical_solution": "    return 1\n",
    "test": "def check(candidate):\n    assert candidate() == 1\n",
}
PRINTS = {
    "canonical_solution": "    print(1)\n    return 1\n",
    "test": "import contextlib, io\ndef check(candidate):\n    with contextlib.redirect_stdout(io.StringIO()) as out:\n"
    "        candidate()\n    assert out.getvalue() == '1\\n'\n",
}


def saved(path, *rows):
    Dataset.from_list(list(rows)).to_json(str(path))
    return str(path)


def test_a_folder_and_a_file_are_locations(tmp_path):
    saved(tmp_path / "test.jsonl", GOOD, GOOD | {"task_id": "x/1"})
    for location in (str(tmp_path), str(tmp_path / "test.jsonl")):
        assert [row["task_id"] for row in load_problems(location)] == ["x/0", "x/1"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"entry_point": ""}, "x/0: entry_point is ''"),
        ({"entry_point": "two"}, "x/0: prompt . canonical_solution do not define the entry_point 'two'"),
        ({"test": "def check(candidate)\n    pass\n"}, "x/0: test is not Python"),
        ({"test": "def test(candidate):\n    pass\n"}, "x/0: test defines no check"),
        ({"test": "def check(candidate):\n    pass\n"}, "x/0: its test never calls the program"),
        ({"canonical_solution": "return 1\n"}, "x/0: prompt . canonical_solution is not Python"),
        ({"canonical_solution": "    return 2\n"}, "x/0 cannot be used: its own solution does not pass .wrong answer"),
        (PRINTS, "x/0 cannot be used: its own solution does not pass .wrong answer: assert out"),
        ({"task_id": None}, "task_id is None"),
    ],
)
def test_problems_that_cannot_be_used_are_named(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        load_problems(saved(tmp_path / "test.jsonl", GOOD | change))


def test_duplicates_and_splits_are_named(tmp_path):
    with pytest.raises(ValueError, match="has a task_id twice"):
        load_problems(saved(tmp_path / "twice.jsonl", GOOD, GOOD))
    (tmp_path / "splits").mkdir()
    for split in ("train", "validation"):
        saved(tmp_path / "splits" / f"{split}.jsonl", GOOD)
    with pytest.raises(ValueError, match="has no split test; it has train, validation"):
        load_problems(str(tmp_path / "splits"))
