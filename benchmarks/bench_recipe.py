"""The modern recipe against the HF course's, as it stands and with fair settings, the Trainer, and nanoGPT's way.

All train a model of the same depth and width on the same rows, and are measured on the same held-out text, in bits per
byte. To the others' loss, the recipe's own smaller size runs, too: to compute less is what its knob is for. Each run is
a process of its own; seed by seed, all take turns. What differs is listed in tools/recipes.py.

    python -m benchmarks recipe            speed and memory over a few steps, three seeds; and with one seed, how soon
                                           the recipe is where the HF course's, as it stands and fair, is after 300 s
    python -m benchmarks recipe --full     the same with all others and three seeds
    python -m benchmarks recipe --quick    the same with `tiny` and in seconds, to see that it works

A time to a loss: trainings of growing length, each with its whole schedule, until one ends below the other's loss. The
seconds are those of steps; the compiler's, warm and cold, are in build/bench_recipe-*.json. An interrupted `--full`
goes on with that file; delete it to measure again.
"""

import statistics
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from course_utils import artifacts
from course_utils.profiles import PROFILES
from tools import recipes
from tools.records import Record, machine
from tools.timed_training import measure

SPEED, MEMORY, TIME = (
    "recipe's steps against {}",
    "recipe's memory against {}",
    "{}: time to the loss of {}, {:g} s",
)
SMALLER = "half the blocks and width"
FULL_SECONDS = 300
TARGETS = {
    SPEED.format(recipes.TUTORIAL): 2.9,
    MEMORY.format(recipes.TUTORIAL): 2,
} | {
    TIME.format(size, other, FULL_SECONDS): factor
    for size in ("same size", SMALLER)
    for other, factor in ((recipes.TUTORIAL, 16), (recipes.FAIR, 5))
}
SEEDS = (1, 2, 3)
STEPS = 16
GROWTH = 2**0.5  # of the budget, from one training of ours to the next
SHORTEST = 45  # of the other's seconds by our first budget
SHARES = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)  # of a training of ours, where it is measured


def run(full: bool = False, quick: bool = False) -> list[dict]:
    profile = PROFILES["tiny" if quick else "laptop"]
    ours = {"same size": recipes.rungs(profile)[-1].name, SMALLER: recipes.sizes(profile)[-1].name}
    others = [recipe.name for recipe in recipes.opponents(profile)]
    path = Path(__file__).parents[1] / "build" / f"bench_recipe-{profile.name}{'-full' if full else ''}.json"
    if not full:
        path.unlink(missing_ok=True)
    data = artifacts.packed_data(profile).digest
    record = Record(path, {"machine": machine(), "data": data, "profile": profile.name})
    with tempfile.TemporaryDirectory() as folder:  # the first training compiles, later ones find that
        train = partial(measure, profile, compiled=Path(folder))
        return rows_of(kept(record, train), ours, others, full, quick)


def kept(record: Record, train: Callable) -> Callable:
    """Return `train(name, seed, **budget)` that trains only what the record lacks."""

    def made(name: str, seed: int, **budget) -> dict:
        wanted = {f"wanted_{unit}": amount for unit, amount in budget.items() if unit != "shares"}
        return record.run(partial(train, name, seed, **budget), name=name, seed=seed, **wanted)

    return made


def rows_of(made, sizes: dict[str, str], others: list[str], full: bool, quick: bool) -> list[dict]:
    ours = next(iter(sizes.values()))
    turns = [{name: made(name, seed, steps=STEPS) for name in (ours, *others)} for seed in SEEDS]
    rows = []
    for other in others:
        speeds = [(turn[ours]["tokens_per_second"], turn[other]["tokens_per_second"]) for turn in turns]
        memory = [(turn[ours]["peak_mb"], turn[other]["peak_mb"]) for turn in turns]
        rows += [row(SPEED.format(other), speeds, "tokens/s"), row(MEMORY.format(other), memory, "MB", less=True)]
    seeds, opponents = (SEEDS, others) if full else (SEEDS[:1], others[:2])
    seconds = 4 if quick else FULL_SECONDS
    return rows + [r for size in sizes.items() for r in times_to_loss(made, *size, opponents, seconds, seeds)]


def times_to_loss(made, size: str, ours: str, others: list[str], seconds: float, seeds: tuple[int, ...]) -> list[dict]:
    """Return a row per opponent: our seconds to what it reached in its seconds; where we never do, twice its own."""
    found = {other: [] for other in others}
    for seed in seeds:
        wanted = {name: made(name, seed, seconds=seconds, shares=(1.0,)) for name in others}
        budget = seconds / SHORTEST
        while wanted:
            result = made(ours, seed, seconds=round(budget, 2), shares=SHARES)
            for other, theirs in list(wanted.items()):
                reached = first_below(result["curve"], theirs["curve"]["bits_per_byte"][-1])
                if reached is None and budget >= 2 * seconds:
                    reached = 2 * seconds
                if reached is not None:
                    found[other].append((reached, wanted.pop(other)["seconds"]))
            budget *= GROWTH
    return [row(TIME.format(size, other, seconds), pairs, "s", less=True) for other, pairs in found.items()]


def first_below(curve: dict[str, list[float]], loss: float) -> float | None:
    """Return the seconds of the first point of a curve that is not above `loss`."""
    points = zip(curve["seconds"], curve["bits_per_byte"], strict=True)
    return next((seconds for seconds, bits in points if bits <= loss), None)


def row(name: str, pairs: list[tuple[float, float]], unit: str, less: bool = False) -> dict:
    """Return the medians of (ours, theirs) over the seeds, and of their ratios with lowest and highest."""
    ratios = [theirs / ours if less else ours / theirs for ours, theirs in pairs]
    ours, theirs = (statistics.median(column) for column in zip(*pairs, strict=True))
    spread = (min(ratios), max(ratios))
    return {
        "name": name, "ours": ours, "theirs": theirs, "unit": unit, "ratio": statistics.median(ratios), "spread": spread
    }  # fmt: skip
