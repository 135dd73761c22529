"""Exercises of notebook 00: read a picture of probabilities, continue a text, predict what a training costs."""

from collections import Counter
from numbers import Real
from typing import Any

from course_utils.exercises.comparing import shown
from course_utils.exercises.exercise import exercise

SMALLEST = 3  # so many tokens count as the most surprising one


def _surprise(answer: Any, probabilities: dict[int, float]) -> str:
    """Judge the number of a token by the probability that each one had, by number."""
    if type(answer) is not int or answer not in probabilities:
        numbers = f"{min(probabilities)} to {max(probabilities)}"
        return f"Give the number of a token, {numbers}, as the slider shows it; this is {shown(answer)}."
    ranked = sorted(probabilities, key=probabilities.get)
    if answer in ranked[:SMALLEST]:
        return ""
    if answer + 1 in ranked[:SMALLEST]:
        return "This is the token before. The bars of a page are about the token that comes next."
    if answer in ranked[-SMALLEST:]:
        return f"The model was almost sure of token {answer}. You want the smallest probability of an outlined token."
    less = ranked.index(answer)
    return f"Token {answer} had a probability of {probabilities[answer]:.2%}; {less} others had a smaller one."


@exercise(
    "00.surprise",
    "On each page, look at the outlined bar only: that is the token which the snippet really has.",
    "Look at the beginning of a new name, which no program could foresee.",
    examine=_surprise,
)
def most_surprising(probabilities):
    return min(probabilities, key=probabilities.get)


class Table(dict):
    """What came next and how often, by history; a call looks up the longest history that is there."""

    def __call__(self, history: list[int]) -> tuple[Counter, int]:
        """Return what came next, counted, and how many tokens of the history were used."""
        found = next(n for n in range(len(history), -1, -1) if tuple(history[len(history) - n :]) in self)
        return Counter(self[tuple(history[len(history) - found :])]), found


def _case(rng) -> tuple[list[int], int, Table]:
    histories = [(), *((token,) for token in rng.sample(range(1, 5), 3))]
    table = Table({history: dict(zip(rng.sample(range(1, 5), 2), (5, 2), strict=True)) for history in histories})
    return rng.choices(range(1, 5), k=rng.randint(0, 2)), rng.randint(0, 4), table


def _same_again(history, number, next_tokens):
    return [next_tokens(history)[0].most_common(1)[0][0] for _ in range(number)]


def _history_too(history, number, next_tokens):
    return history + complete(history, number, next_tokens)


def _pairs(history, number, next_tokens):
    new = complete(history, number, next_tokens)
    return [next_tokens(history + new[:i])[0].most_common(1)[0] for i in range(number)]


@exercise(
    "00.complete",
    "The new token belongs to the history now: ask for the next one with the longer list.",
    "Return the new tokens only, without the history that they continue.",
    "`found.most_common(1)` is a list with one pair: a token, and how often it came. You want the token.",
    examples=[
        ([1], 3, Table({(): {1: 4}, (1,): {2: 3, 1: 1}, (2,): {3: 2}})),
        ([1], 0, Table({(): {1: 4}})),
        ([], 2, Table({(): {1: 4}, (1,): {2: 3, 1: 1}})),
        ([1, 2], 2, Table({(): {1: 4}, (2,): {3: 2}, (1, 2): {4: 1}})),
    ],
    random_inputs=_case,
    mistakes={0: _same_again, 1: _history_too, 2: _pairs},
)
def complete(history, number, next_tokens):
    new = []
    for _ in range(number):
        found = next_tokens(history + new)[0]
        new.append(found.most_common(1)[0][0])
    return new


def _scale(answer: Any, costs: dict[str, Any]) -> str:
    """Judge predicted minutes of `full` by what `laptop` costs, and by how much more work `full` is."""
    if not isinstance(answer, Real) or isinstance(answer, bool) or not answer > 0:
        return f"Give a number of minutes; this is {shown(answer)}."
    known, asked = costs["laptop"], costs["full"]
    minutes, parameters, tokens = known.minutes, asked.parameters / known.parameters, asked.tokens / known.tokens
    right = minutes * parameters * tokens

    def near(value: float, factor: float = 1.25) -> bool:
        return value / factor <= answer <= value * factor

    if near(right, 2):
        return ""
    if near(minutes * parameters):
        return "You counted the parameters only; `full` also reads more tokens."
    if near(minutes * tokens) or near(minutes * (parameters + tokens)):
        return "Each token passes through every parameter, so the two numbers are multiplied."
    if near(parameters * tokens):
        return "That is how many times the work of `laptop` it is; multiply it by the minutes of `laptop`."
    if near(right / 60) or near(right / (24 * 60)):
        return "That is about right in hours or days; the question is in minutes."
    factor = max(answer / right, right / answer)
    return f"This is {'more' if answer > right else 'less'} than the work says, by a factor of {factor:,.0f}."


@exercise(
    "00.scale",
    "How many times the parameters of `laptop` does `full` have, and how many times its tokens?",
    "Minutes of `laptop`, times parameters of `full` per parameter of `laptop`, times the same for tokens.",
    examine=_scale,
)
def minutes_of_full(minutes_of_laptop, times_parameters, times_tokens):
    return minutes_of_laptop * times_parameters * times_tokens
