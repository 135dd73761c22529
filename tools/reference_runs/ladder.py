"""The ladder of notebook 10: rung by rung from the HF course's recipe to the modern one, in equal seconds."""

import pandas as pd

from course_utils.profiles import Profile
from tools import recipes
from tools.records import Record
from tools.timed_training import measure

# Shares of a training after which it is measured: close together where the curve is steep.
SHARES = (0.03, 0.06, 0.1, 0.15, 0.2, 0.3, 0.4, 0.55, 0.7, 0.85, 1.0)


def climb(record: Record, profile: Profile, seconds: float, seeds: list[int], only: list[str] | None = None) -> None:
    """Train all rungs, then the recipe's two sizes, seed by seed, so that a disturbance hits no rung alone."""
    ladder = list(enumerate([*recipes.rungs(profile), *recipes.sizes(profile)]))
    for seed in seeds:
        for number, recipe in ladder:
            if only is None or str(number) in only:
                # The first of its two setups tells what the compiler costs, the second what it costs again.
                record.run(
                    lambda name=recipe.name, seed=seed: measure(
                        profile, name, seed, seconds=seconds, shares=SHARES
                    ),
                    rung=number, name=recipe.name, seed=seed,
                )  # fmt: skip


def table(record: Record) -> str:
    """Return the means over the seeds as text."""
    rows = pd.DataFrame(record.runs)
    rows["setup"] = [setups[0] for setups in rows["setup_seconds"]]
    rows["bits_per_byte"] = [curve["bits_per_byte"][-1] for curve in rows["curve"]]
    columns = ["seconds", "tokens_per_second", "peak_mb", "setup", "bits_per_byte"]
    return rows.groupby(["rung", "name"])[columns].mean().round(3).to_string()
