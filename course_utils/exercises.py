"""The "Try it" exercises: check an answer, show the reference, show any function's source.

What the exercises are stands in `course_utils.exercise_catalog`; how a difference is found, in
`course_utils.counterexamples`. A check never stops a notebook: it prints what it found.
"""

import dis
import importlib
import inspect
import random
import re
import textwrap
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from course_utils.counterexamples import Difference, equal, explained, returns_nothing, shown, smallest_difference

RANDOM_CASES = 200
# Failed tries of each exercise in this process; they decide which hint comes next.
_tries: Counter[str] = Counter()
# What is left of a function whose body is `...`, `pass` or a docstring.
_STUB_OPERATIONS = {"RESUME", "NOP", "CACHE", "LOAD_CONST", "RETURN_VALUE", "RETURN_CONST"}


def _whole(value: Any) -> Any:
    return value


def _always(*arguments: Any) -> bool:
    return True


@dataclass(frozen=True)
class Exercise:
    """One exercise: either a function to write (`reference`), or something open to look at (`examine`).

    `reference` is a function or an import path ("package.module:name"), so that naming it costs nothing.
    `examples` and `edge_cases` are tuples of arguments; `random_arguments` makes more from a seeded generator.
    `same(got, expected)` replaces the comparison by value; `result(value)` picks what is asked for, if the reference
    returns more; `fair(*arguments)` says whether a simplified input still makes sense; `describe(*arguments)` adds a
    line to a failing input; `examine(value)` returns what is wrong with an open answer, as sentences; `core` is the
    import path of a second function that `solution` shows, where the work is done.
    """

    id: str
    title: str
    hints: tuple[str, ...]
    reference: Callable[..., Any] | str | None = None
    examples: tuple[tuple[Any, ...], ...] = ()
    edge_cases: tuple[tuple[Any, ...], ...] = ()
    random_arguments: Callable[[random.Random], tuple[Any, ...]] | None = None
    same: Callable[[Any, Any], bool] = equal
    result: Callable[[Any], Any] = _whole
    fair: Callable[..., bool] = _always
    describe: Callable[..., str] | None = None
    examine: Callable[[Any], list[str]] | None = None
    core: str = ""

    def __post_init__(self) -> None:
        """Refuse a catalogue entry that could not be checked."""
        if not re.fullmatch(r"\d\d\.[a-z0-9_]+", self.id):
            raise ValueError(f"exercise id {self.id!r}: use the notebook's number and a name, as in '03.pack'.")
        if (self.reference is None) == (self.examine is None):
            raise ValueError(f"exercise {self.id}: give either a reference or an examine function.")
        if self.reference is not None and not self.examples:
            raise ValueError(f"exercise {self.id}: give at least one example.")

    @property
    def name(self) -> str:
        """Name of the function to write."""
        if isinstance(self.reference, str):
            return self.reference.partition(":")[2]
        return getattr(self.reference or self.examine, "__name__", "answer")

    def load_reference(self) -> Callable[..., Any]:
        """Return the function that knows the answer (for an open exercise, the one that looks at it)."""
        if isinstance(self.reference, str):
            return _import(self.reference)
        return self.reference or self.examine  # type: ignore[return-value]

    def cases(self) -> list[tuple[Any, ...]]:
        """Return all inputs of a check; the random ones are the same in every process."""
        rng = random.Random(self.id)
        made = [self.random_arguments(rng) for _ in range(RANDOM_CASES)] if self.random_arguments else []
        return [*self.examples, *self.edge_cases, *made]


def check(exercise_id: str, candidate: Any) -> bool | None:
    """Compare an answer with the reference and print the result: True if right, False if not, None if not tried.

    Never raises, whatever the answer does, except `ValueError` for an exercise that does not exist.
    """
    exercise = _find(exercise_id)
    try:
        return _check(exercise, candidate)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        print(f"{exercise.id}: this could not be checked. {explained(error)}")
        return None


def solution(exercise_id: str) -> None:
    """Print the source of the reference; of an open exercise, of the function that looks at the answer."""
    exercise = _find(exercise_id)
    if exercise.examine is not None:
        print("# An open exercise has no single solution. This is what the check looks at:")
    show(exercise.load_reference())
    if exercise.core:
        print()
        show(_import(exercise.core))


def show(function: Callable[..., Any]) -> None:
    """Print the source of a function; raises `ValueError` for one that is not written in Python."""
    try:
        source = inspect.getsource(inspect.unwrap(function))
    except (TypeError, OSError) as error:
        raise ValueError(f"no source for {shown(function)} ({error}); give a function written in Python.") from None
    print(textwrap.dedent(source).rstrip())


def _import(path: str) -> Callable[..., Any]:
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


def _find(exercise_id: str) -> Exercise:
    from course_utils.exercise_catalog import all_exercises

    known = all_exercises()
    if exercise_id not in known:
        raise ValueError(f"there is no exercise {exercise_id!r}; there are {', '.join(sorted(known))}.")
    return known[exercise_id]


def _check(exercise: Exercise, candidate: Any) -> bool | None:
    if candidate is None or candidate is ... or (exercise.examine is not None and _is_stub(candidate)):
        return _not_tried(exercise)
    if exercise.examine is not None:
        findings = exercise.examine(candidate)
        if findings:
            return _wrong(exercise, "What to look at:", [f"- {finding}" for finding in findings])
        return _right(exercise, "everything that can be checked is there")
    if not callable(candidate):
        return _wrong(exercise, f"The answer must be a function; this is {shown(candidate)}.", [])
    if returns_nothing(candidate, exercise.examples):
        note = "" if _is_stub(candidate) else f" ({exercise.name} returns None for every example; is `return` missing?)"
        return _not_tried(exercise, note)
    reference = exercise.load_reference()

    def expected(*arguments: Any) -> Any:
        if not exercise.fair(*arguments):
            raise ValueError(f"{shown(arguments)} is no fair input for {exercise.id}.")
        return exercise.result(reference(*arguments))

    difference, wrong, total = smallest_difference(
        candidate, expected, exercise.cases(), lambda got, right: exercise.same(exercise.result(got), right)
    )
    if difference is None:
        return _right(exercise, f"{total} inputs, all as expected")
    share = "" if difference.endless else f"{wrong} of {total} inputs come out differently. "
    return _wrong(exercise, f"{share}The smallest one found:", _lines(exercise, difference))


def _lines(exercise: Exercise, difference: Difference) -> list[str]:
    call = ", ".join(map(shown, difference.arguments))
    lines = [f"{exercise.name}({call})"]
    if exercise.describe is not None:
        lines.append(f"  where     {exercise.describe(*difference.arguments)}")
    lines += [f"  got       {difference.got}", f"  expected  {shown(difference.expected)}"]
    if difference.printed:
        lines.append(f"  printed   {shown(difference.printed)}")
    return lines


def _is_stub(candidate: Callable[..., Any]) -> bool:
    code = getattr(candidate, "__code__", None)
    return inspect.iscode(code) and {i.opname for i in dis.get_instructions(code)} <= _STUB_OPERATIONS


def _not_tried(exercise: Exercise, note: str = "") -> None:
    print(f"{exercise.id}: not tried yet{note}")


def _right(exercise: Exercise, note: str) -> bool:
    _tries.pop(exercise.id, None)
    print(f"{exercise.id}: right ({note}).")
    return True


def _wrong(exercise: Exercise, message: str, lines: list[str]) -> bool:
    print(f"{exercise.id}: not right yet. {message}")
    for line in lines:
        print(f"  {line}")
    tries = _tries[exercise.id]
    _tries[exercise.id] += 1
    if 1 <= tries <= len(exercise.hints):
        print(f"Hint {tries} of {len(exercise.hints)}: {exercise.hints[tries - 1]}")
    elif tries:
        print(f'No more hints. solution("{exercise.id}") shows one way to write it.')
    return False
