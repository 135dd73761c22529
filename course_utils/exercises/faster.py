"""Exercises of notebook 10: sides of a roofline, a benchmark, a rung of your own, and the share of a machine's peak."""

import statistics
from collections.abc import Mapping
from typing import Any

from course_utils.exercises.comparing import shown
from course_utils.exercises.exercise import NOT_TRIED, exercise

_BOUNDS = ("memory", "arithmetic")
_CHANGES = (("faster", "slower", "same"), ("better", "worse", "same"))


def _roofline(answer: Any, measured: Mapping[str, Any]) -> str:
    """Judge which operations wait for memory: those left of `corner`; the others are (operations per byte, height)."""
    places = {name: at for name, at in measured.items() if name != "corner"}
    if not isinstance(answer, Mapping) or answer.keys() != places.keys():
        return f"Give a dictionary with these names: {', '.join(places)}. This is {shown(answer)}."
    if all(value in (None, ...) for value in answer.values()):
        return NOT_TRIED
    if other := [name for name, value in answer.items() if value not in _BOUNDS]:
        return f'Each value is "memory" or "arithmetic"; {other[0]} has {shown(answer[other[0]])}.'
    corner, by_height = measured["corner"], statistics.median(height for _, height in places.values())
    right = {name: _BOUNDS[x >= corner] for name, (x, _) in places.items()}
    wrong = [name for name in places if answer[name] != right[name]]
    if not wrong:
        return ""
    if all(answer[name] == _BOUNDS[right[name] == "memory"] for name in places):
        return "All are the wrong way round: few operations per byte, left of the corner, mean waiting for memory."
    x, height = places[wrong[0]]
    misled = answer[wrong[0]] == _BOUNDS[height >= by_height]
    remedy = " Look left or right of the corner, not up: a low point can be bound by arithmetic." if misled else ""
    return f"{wrong[0]} does {x:.2g} operations per byte, and the corner is at {corner:.2g}.{remedy}"


@exercise(
    "10.roofline",
    "The corner is where the slanted part of the fp32 roof ends.",
    "Left of the corner, memory decides. Right of it, arithmetic does.",
    examine=_roofline,
)
def my_bounds(points):
    corner = points["corner"]
    return {name: "memory" if at[0] < corner else "arithmetic" for name, at in points.items() if name != "corner"}


@exercise(
    "10.speed",
    "Which function of a list does not care about one extreme value? `statistics` has it.",
    "The first step is out, but one other step took ten times as long: use the median, not the mean.",
    "The first step still counts. Leave it out: `seconds[1:]`.",
    "That is steps per second. Each step has `tokens` tokens.",
    examples=[([2.0, 0.5, 0.5, 0.5], 100), ([3.0, 0.5, 5.0, 0.4, 0.6, 0.5], 100), ([1.0, 0.2], 8)],
    random_inputs=lambda rng: (
        [float(rng.randint(8, 9)), *(rng.choice([0.1, 0.2, 0.3, 0.4, 4.0]) for _ in range(rng.choice([1, 3, 5])))],
        rng.randint(1, 9) * 16,
    ),
    bug=lambda seconds, tokens: tokens / statistics.mean(seconds),
    mistakes={
        1: lambda seconds, tokens: tokens / statistics.mean(seconds[1:]),
        2: lambda seconds, tokens: tokens / statistics.median(seconds),
        3: lambda seconds, tokens: 1 / statistics.median(seconds[1:]),
    },
)
def speed(seconds, tokens):
    import statistics

    return tokens / statistics.median(seconds[1:])


def _own_rung(answer: Any, measured: Any) -> str:
    """Judge two predicted signs by the results of the last rung and of the learner's own."""
    last, mine = measured
    if mine is last:
        return "Nothing was changed, so nothing was trained: fill in `my_changes`, too."
    if not (isinstance(answer, tuple | list) and len(answer) == 2):
        return f'Give two words, such as ("slower", "better"); this is {shown(answer)}.'
    for word, words in zip(answer, _CHANGES, strict=True):
        if word not in words:
            return f"{shown(word)} is none of {', '.join(words)}."
    if abs(mine["seconds"] / last["seconds"] - 1) > 0.25:
        budgets = f"your rung had {mine['seconds']:.1f} s, the last one {last['seconds']:.1f}"
        return f"Other budget: {budgets}. Run both again, with nothing else on the machine."
    faster = mine["tokens per second"] / last["tokens per second"]
    better = last["bits per byte"] - mine["bits per byte"]
    # Smaller differences than these are chance, and any prediction of them is right.
    if abs(faster - 1) > 0.05 and answer[0] != ("faster" if faster > 1 else "slower"):
        return f"You said {answer[0]}; yours makes {faster:.2f} times as many tokens per second."
    if abs(better) > 0.02 and answer[1] != ("better" if better > 0 else "worse"):
        return f"You said {answer[1]}; yours needs {-better:+.3f} bits per byte."
    return ""


@exercise(
    "10.own_rung",
    "Twice the batch: more work per step, but fewer steps in the same seconds.",
    "Twice the rate: no other speed. Whether it helps is a question that only the loss answers.",
    examine=_own_rung,
)
def my_prediction(results):
    last, mine = results
    faster = mine["tokens per second"] > last["tokens per second"]
    better = mine["bits per byte"] < last["bits per byte"]
    return ("faster" if faster else "slower", "better" if better else "worse")


@exercise(
    "10.mfu",
    "Operations per second of the training, divided by the peak.",
    "2 N is the way forward only. The way back costs twice as much again: 6 N for each token.",
    "The peak is in operations per second already; 1e12 must not occur.",
    "The result is a share, not per cent.",
    examples=[(1000.0, 1_000_000, 1e11), (250.0, 4_000_000, 6e10)],
    random_inputs=lambda rng: (float(rng.randint(1, 9000)), rng.randint(1, 500) * 10_000, rng.randint(1, 90) * 1e10),
    mistakes={
        1: lambda tokens_per_second, parameters, peak: 2 * parameters * tokens_per_second / peak,
        2: lambda tokens_per_second, parameters, peak: 6 * parameters * tokens_per_second / (peak / 1e12),
        3: lambda tokens_per_second, parameters, peak: 600 * parameters * tokens_per_second / peak,
    },
)
def mfu(tokens_per_second, parameters, peak):
    return 6 * parameters * tokens_per_second / peak
