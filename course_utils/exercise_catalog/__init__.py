"""The exercises of all notebooks, one module per notebook; importing them costs nothing, references load when used."""

import functools
import importlib

from course_utils.exercises import Exercise

_MODULES = (
    "start",
    "filtering",
    "tokenizer",
    "chunking",
    "pretraining",
    "accelerate",
    "finetuning",
    "evaluation",
    "gpt",
)


@functools.cache
def all_exercises() -> dict[str, Exercise]:
    """Return every exercise by its id; raises `ValueError` if two have the same one."""
    found: dict[str, Exercise] = {}
    for name in _MODULES:
        for exercise in importlib.import_module(f"{__name__}.{name}").EXERCISES:
            if exercise.id in found:
                raise ValueError(f"exercise id {exercise.id!r} is used twice; rename the one in {name}.py.")
            found[exercise.id] = exercise
    return found
