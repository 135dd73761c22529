"""What an exercise consists of, and the register of them all."""

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

RANDOM_CASES = 200
NOT_TRIED = "not tried yet"
EXERCISES: dict[str, "Exercise"] = {}


class Exercise(NamedTuple):
    """One "Try it": a function to write or mend, or something else, whose first fault `examine` returns.

    `solution` is plain Python as a learner would write it, imports included. Functions are compared with it on
    `examples` (tuples of arguments) and on tiny ones that `random_inputs` makes. `mistakes[i]` is a wrong function;
    an answer that behaves like it gets `hints[i]`. `bug` is the function to mend, as the notebook shows it: an answer
    that behaves like it was not tried yet. `examine(answer)` returns a fault, "", or `NOT_TRIED`; where the notebook
    measures what is right, it is `examine(answer, measured)`.
    """

    id: str
    solution: Callable
    hints: tuple[str, ...]
    examples: Sequence[tuple[Any, ...]] = ()
    random_inputs: Callable[[random.Random], tuple[Any, ...]] | None = None
    mistakes: Mapping[int, Callable] = {}
    bug: Callable | None = None
    examine: Callable[..., str] | None = None

    def cases(self) -> list[tuple[Any, ...]]:
        """Return the examples, then the random inputs from small to large; the same in every process."""
        rng = random.Random(self.id)
        made = [self.random_inputs(rng) for _ in range(RANDOM_CASES)]
        return [*self.examples, *sorted(made, key=lambda case: len(repr(case)))]


def exercise(exercise_id: str, *hints: str, **fields: Any) -> Callable[[Callable], Callable]:
    """Register the decorated function as the solution of an exercise."""

    def register(solution: Callable) -> Callable:
        EXERCISES[exercise_id] = Exercise(exercise_id, solution, hints, **fields)
        return solution

    return register
