"""The "Try it" exercises: check an answer, show a solution, show any function's source.

Each notebook has a module here with its exercises. A check never stops a notebook: it prints what it found.
"""

import contextlib
import copy
import dis
import importlib
import inspect
import json
import os
import pkgutil
import re
import textwrap
import time
import types
from collections import defaultdict
from collections.abc import Callable
from numbers import Real
from typing import Any

from IPython.display import Code, display

from course_utils.cache import expanded
from course_utils.language import text
from course_utils.pictures import Picture
from course_utils.say import say

from .comparing import Result, equal, general_hint, outcome, shown, try_out
from .exercise import EXERCISES, NOT_TRIED, Exercise

for module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{module.name}")  # each registers its exercises

# The hints that an exercise has given since it was last solved; one for each failed try, "" for a try without a hint.
_given: defaultdict[str, list[str]] = defaultdict(list)
# What is left of a function whose body is `...`, `pass`, a docstring or `raise NotImplementedError`.
_STUB = {"RESUME", "NOP", "CACHE", "LOAD_CONST", "RETURN_VALUE", "RETURN_CONST", "LOAD_GLOBAL", "RAISE_VARARGS"}


def all_exercises() -> dict[str, Exercise]:
    """Return every exercise by its id, in the order of the notebooks."""
    return dict(sorted(EXERCISES.items()))


def check(exercise_id: str, answer: Any, measured: Any = None) -> Any:
    """Compare an answer with the solution, or a prediction with what was measured, and print what was found.

    Returns the answer if it is right, else what is right: the course's function, or `measured`. Never raises, whatever
    the answer does, except `ValueError` for an exercise that does not exist.
    """
    exercise = _find(exercise_id)
    verdict = _verdict(exercise, answer, measured)
    _note(exercise, verdict)
    return answer if verdict else exercise.solution if measured is None else measured


def _verdict(exercise: Exercise, answer: Any, measured: Any) -> bool | None:
    """Print what was found: True if right, False if not, None if not tried."""
    try:
        if _is_untouched(answer):
            return _not_tried(exercise)
        if exercise.examine:
            fault = exercise.examine(answer) if measured is None else exercise.examine(answer, measured)
            if fault == NOT_TRIED:
                return _not_tried(exercise)
            return (
                _wrong(exercise, fault, [])
                if fault
                else _right(exercise, text("everything that can be checked is there"))
            )
        if not callable(answer):
            return _wrong(exercise, f"The answer must be a function; this is {shown(answer)}.", [])
        return _compare(exercise, answer)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        say("{id}: this could not be checked; {error}", id=exercise.id, error=shown(error))
        return None


def _note(exercise: Exercise, verdict: bool | None) -> None:
    """Add the result as a line of JSON to the file that COURSE_CHECKS names, if it is set: for instructors."""
    if path := os.environ.get("COURSE_CHECKS"):
        line = {"exercise": exercise.id, "right": verdict, "time": time.strftime("%Y-%m-%dT%H:%M:%S%z")}
        with contextlib.suppress(OSError), expanded(path).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def attempt(function: Callable, *arguments: Any) -> str:
    """Return what a learner's function gives, as text; like `check`, it never raises, and stops endless answers."""
    got = outcome(function, copy.deepcopy(arguments))
    return shown_number(got) if isinstance(got, Real) else shown(got)


def reveal(guess: Any, measured: Any, unit: str = "") -> None:
    """Print what was measured, and beside it the guess that the learner made, if he made one."""
    value, unit = shown_number(measured), unit and f" {text(unit)}"
    if guess is None:
        say("Measured: {value}{unit}. You made no guess.", value=value, unit=unit)
    elif isinstance(guess, Real) and isinstance(measured, Real) and not isinstance(guess, bool):
        off = abs(guess - measured)
        close = off <= 0.1 * abs(measured)
        say(
            "Your guess: {guess}{unit}. Measured: {value}{unit}, so you were close."
            if close
            else "Your guess: {guess}{unit}. Measured: {value}{unit}, so you were off by {off}{unit}.",
            guess=shown_number(guess), value=value, off=shown_number(off), unit=unit,
        )  # fmt: skip
    else:
        right = guess == measured
        say(
            "Your guess: {guess}. Right." if right else "Your guess: {guess}. Measured: {value}.",
            guess=guess,
            value=value,
        )


def shown_number(value: Any) -> str:
    """Return a number with three digits, thousands apart; anything else as it is."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return str(value)
    return f"{value:,.0f}" if value == round(value) or abs(value) >= 1000 else f"{value:.3g}"


def solution(exercise_id: str) -> None:
    """Show an answer that a learner could have written, unless COURSE_SOLUTIONS is off."""
    exercise = _find(exercise_id)
    if os.environ.get("COURSE_SOLUTIONS", "").lower() == "off":
        say("Solutions are switched off (COURSE_SOLUTIONS=off); ask your instructor.")
    else:
        show(exercise.solution, folded=False)


def show(function: Callable, folded: bool = True) -> None:
    """Show a function's source, highlighted in a notebook, plain in a terminal; folded, as it may be a solution."""
    source = textwrap.dedent(inspect.getsource(function)).rstrip()
    source = re.sub(r"(?s)\A@exercise.*?\n(?=def )", "", source)  # the hints of a solution
    page = Code(data=source, language="python")._repr_html_()
    if folded:
        page = f"<details><summary>{text('The code that is used from here on')}</summary>{page}</details>"
    display(Picture(page, source))


def _find(exercise_id: str) -> Exercise:
    if exercise_id not in EXERCISES:
        raise ValueError(f"there is no exercise {exercise_id!r}; there are {', '.join(all_exercises())}.")
    return EXERCISES[exercise_id]


def _compare(exercise: Exercise, answer: Callable) -> bool | None:
    results = try_out(answer, exercise.solution, exercise.cases())
    failures = [result for result in results if not result.right]
    if not failures:
        return _right(exercise, text(f"{len(results)} inputs, all as expected"))
    if exercise.bug and _alike(exercise.bug, results):
        return _not_tried(exercise)
    first = failures[0]
    name = shown(answer) if shown(answer).isidentifier() else exercise.solution.__name__  # a lambda has none
    lines = [f"{name}({', '.join(map(shown, first.arguments))})"]
    if callable(first.arguments[0]):  # `encode`, which comes with texts to encode
        encode, texts = first.arguments
        lines.append(f"{text('  where     ')}{', '.join(f'encode({text!r}) = {encode(text)}' for text in texts)}")
    lines += [text("  got       ") + shown(first.got) + first.note, text("  expected  ") + shown(first.expected)]
    if first.printed:
        lines.append(text("  printed   ") + shown(first.printed))
    fitting = [exercise.hints[i] for i, mistake in exercise.mistakes.items() if _alike(mistake, results)]
    message = text(f"{len(failures)} of {len(results)} inputs tried come out differently. For example:")
    return _wrong(exercise, message, lines, *fitting, general_hint(failures))


def _alike(function: Callable, results: list[Result]) -> bool:
    return all(equal(result.got, outcome(function, copy.deepcopy(result.arguments))) for result in results)


def _not_tried(exercise: Exercise) -> None:
    say("{id}: not tried yet", id=exercise.id)


def _is_untouched(answer: Any) -> bool:
    if not isinstance(answer, types.FunctionType):
        return answer is None or answer is ...
    code, operations = answer.__code__, {instruction.opname for instruction in dis.get_instructions(answer)}
    nothing = {*code.co_consts} <= {None, ..., answer.__doc__} and {*code.co_names} <= {"NotImplementedError"}
    return nothing and operations <= _STUB


def _right(exercise: Exercise, note: str) -> bool:
    _given.pop(exercise.id, None)
    say("{id}: right ({note}).", id=exercise.id, note=note)
    return True


def _wrong(exercise: Exercise, message: str, lines: list[str], *fitting: str) -> bool:
    """Print what is wrong and a new hint: one that fits the error, or, from the second try, the next one."""
    say("{id}: not right yet. {message}", id=exercise.id, message="\n  ".join([text(message), *lines]))
    given = _given[exercise.id]
    hints = [*fitting, *(exercise.hints if given else ())]
    hint = next((hint for hint in hints if hint and hint not in given), "")
    if hint:
        say("Hint: {hint}", hint=text(hint))
    elif given:
        say('No more hints. solution("{id}") shows one way to write it.', id=exercise.id)
    given.append(hint)
    return False
