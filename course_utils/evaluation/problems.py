"""Programming problems with tests, in HumanEval's columns: where they are, and whether they can be used."""

import ast
from collections.abc import Mapping
from pathlib import Path

from datasets import Dataset

from course_utils.data.reading import open_location
from course_utils.sandbox import run_problems

PROBLEMS = "course-problems"
FOLDER = Path(__file__).parents[1] / "data" / "programming_problems"
COLUMNS = ("task_id", "prompt", "entry_point", "canonical_solution", "test")


def load_problems(location: str = PROBLEMS) -> Dataset:
    """Load problems: the course's own, a folder, a JSONL file, or a Hub id; the split test, or the only one there is.

    Others' problems are checked, and their own solutions have to pass: else `ValueError`.
    """
    if location == PROBLEMS:
        return open_location(str(FOLDER), instead="")["test"]
    loaded = open_location(location, instead=f"the course's, {PROBLEMS}")
    if "test" not in loaded and len(loaded) > 1:
        raise ValueError(f"{location} has no split test; it has {', '.join(loaded)}.")
    problems = loaded["test"] if "test" in loaded else next(iter(loaded.values()))
    for problem in problems:
        check_problem(problem)
    ids = problems["task_id"][:]
    if len({*ids}) < len(ids):
        raise ValueError(f"{location} has a task_id twice; give each problem its own.")
    results = run_problems((problem, problem["canonical_solution"]) for problem in problems)
    for problem, result in zip(problems, results, strict=True):
        if result.outcome != "passed":
            raise ValueError(
                f"{problem['task_id']} cannot be used: its own solution does not pass ({result.outcome}: "
                f"{result.detail}). A test sees only the plain values that a function in another process returns, not "
                "what it prints, calls or draws at random. Correct the problem or leave it out."
            )
    return problems


def check_problem(problem: Mapping[str, str]) -> None:
    """Raise `ValueError` for an empty column, or code that does not parse or define its entry point or `check`."""
    for column in COLUMNS:
        text = problem.get(column)
        if not isinstance(text, str) or (not text.strip() and column != "prompt"):
            name = problem.get("task_id", "a problem")
            raise ValueError(f"{name}: {column} is {text!r}; it must be a text that is not empty.")
    name, entry_point, solution = problem["task_id"], problem["entry_point"], problem["canonical_solution"]
    missing = f"do not define the entry_point {entry_point!r}"
    for column, code, function, lacks in (
        ("prompt + canonical_solution", problem["prompt"] + solution, entry_point, missing),
        ("test", problem["test"], "check", "defines no check; it must have a function check(candidate)"),
    ):
        try:
            statements = ast.parse(code).body
            compile(code, name, "exec", dont_inherit=True)  # notices more than the parser: a return without a function
        except (SyntaxError, ValueError) as error:  # ValueError: null bytes
            raise ValueError(f"{name}: {column} is not Python: {error}") from error
        if function not in {part.name for part in statements if isinstance(part, ast.FunctionDef | ast.ClassDef)}:
            raise ValueError(f"{name}: {column} {lacks}. Check the names and the indentation.")
