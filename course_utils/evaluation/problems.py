"""Programming problems with tests, in HumanEval's columns: where they are, and whether they can be used."""

import ast
import functools
from collections.abc import Mapping
from pathlib import Path

from datasets import Dataset

from course_utils.data.corpus import open_location

PROBLEMS = "course-problems"
FOLDER = Path(__file__).parents[1] / "data" / "programming_problems"
COLUMNS = ("task_id", "prompt", "entry_point", "canonical_solution", "test")


def load_problems(location: str = PROBLEMS) -> Dataset:
    """Load and check problems: the course's own, a folder, a JSONL file, or a Hub id like `openai/openai_humaneval`.

    The split is test, or the only one there is. Raises `ValueError` for problems that cannot be used,
    `ConnectionError` for a Hub id that cannot be opened.
    """
    loaded = open_location(str(FOLDER) if location == PROBLEMS else location, instead=f"the course's, {PROBLEMS}")
    if "test" not in loaded and len(loaded) > 1:
        raise ValueError(f"{location} has no split test; it has {', '.join(loaded)}.")
    problems = loaded["test"] if "test" in loaded else next(iter(loaded.values()))
    _check_all(location, problems)
    return problems


def _check_all(location: str, problems: Dataset) -> None:
    missing = set(COLUMNS) - set(problems.column_names)
    if missing or len(problems) == 0:
        lack = f"the columns {', '.join(sorted(missing))}" if missing else "problems"
        raise ValueError(f"{location} lacks {lack}; HumanEval's columns are {', '.join(COLUMNS)}, a row each problem.")
    seen = set()
    for problem in problems:
        check_problem(problem)
        if problem["task_id"] in seen:
            raise ValueError(f"{location} has the task_id {problem['task_id']!r} twice; give each problem its own.")
        seen.add(problem["task_id"])


def check_problem(problem: Mapping[str, str]) -> None:
    """Raise `ValueError` if a problem cannot be used.

    That is: a missing or empty column, code that does not parse, prompt and solution without the entry point, a test
    without `check(candidate)`.
    """
    for column in COLUMNS:
        text = problem.get(column)
        if not isinstance(text, str) or (not text.strip() and column != "prompt"):
            name = problem.get("task_id", "a problem")
            raise ValueError(f"{name}: {column} is {text!r}; it must be a text that is not empty.")
    _check_code(*(problem[column] for column in COLUMNS))


@functools.lru_cache(maxsize=4096)
def _check_code(task_id: str, prompt: str, entry_point: str, solution: str, test: str) -> None:
    if entry_point not in _defined(task_id, "prompt + canonical_solution", prompt + solution):
        raise ValueError(
            f"{task_id}: prompt + canonical_solution do not define the entry_point {entry_point!r}. Name a function of "
            "theirs, and check the solution's indentation."
        )
    if "check" not in _defined(task_id, "test", test):
        raise ValueError(f"{task_id}: the test defines no check; it must have a function check(candidate).")


def _defined(task_id: str, column: str, code: str) -> set[str]:
    try:
        statements = ast.parse(code).body
        compile(code, task_id, "exec", dont_inherit=True)  # notices more than the parser: a return without a function
    except (SyntaxError, ValueError) as error:  # ValueError: null bytes
        raise ValueError(f"{task_id}: {column} is no Python: {error}") from error
    return {node.name for node in statements if isinstance(node, ast.FunctionDef | ast.ClassDef)}
