"""How much library code and how many tests belong into the training text: short trainings of the modern recipe."""

from dataclasses import replace
from functools import partial
from typing import Any

import pandas as pd

from course_utils import artifacts
from course_utils.evaluation.tasks import load_tasks, score_tasks
from course_utils.models.generation import complete_greedily, score_idioms
from course_utils.profiles import Profile
from course_utils.training.config import modern
from tools import reference_model
from tools.records import Record

# (library_share, tests_share)
SHARES = ((0.25, 0.4), (0.05, 0.4), (0.05, 0.15), (0.25, 0.0))


def make(record: Record, profile: Profile, depth: int, steps: int, only: list[int] | None = None) -> str:
    """Train with each of `SHARES`, or some of them by number; return the table as text."""
    for number, (library, tests) in enumerate(SHARES):
        if only is None or number in only:
            chosen = replace(profile, library_share=library, tests_share=tests)
            trained = partial(_run, chosen, depth, steps)
            record.run(trained, library_share=library, tests_share=tests, depth=depth, steps=steps)
    return pd.DataFrame(record.runs).to_string(index=False)


def _run(profile: Profile, depth: int, steps: int) -> dict[str, Any]:
    warmup = round(steps / 50)
    sizes = {"train_steps": steps, "warmup_steps": warmup, "eval_steps": steps, "save_steps": steps}
    config = modern(depth, profile)
    config = replace(config, profile=replace(config.profile, **sizes), tracker="none")
    model, _ = reference_model.first_steps(config, steps)
    tokenizer = artifacts.code_tokenizer(config.profile)
    found = reference_model.measure(model, config)
    table = score_tasks(partial(complete_greedily, model, tokenizer, new_tokens=48), load_tasks())
    found["idioms"] = sum(score_idioms(model, tokenizer))
    rows = len(artifacts.packed_data(config.profile).train)
    return {"rows": rows} | found | {name: int(table[name].sum()) for name in ("function", "arguments")}
