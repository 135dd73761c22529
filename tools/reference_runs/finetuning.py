"""Fine-tunings of notebook 06: the HF course's settings, and the recipe for few pairs, on the course's own pairs."""

from dataclasses import asdict, replace
from functools import partial
from typing import Any

import numpy as np

from course_utils import artifacts
from course_utils.profiles import Profile
from course_utils.training.finetuning import FinetuneConfig, finetune
from tools.records import Record


def make(record: Record, profile: Profile, seeds: list[int]) -> str:
    """Fine-tune with all settings and seeds; return accuracies as text."""
    location, lines = artifacts.encoder_folder(profile.encoder, profile.pairs), {}
    for seed in seeds:
        for name, config in settings(profile).items():
            trained = partial(run, profile.pairs, location, replace(config, seed=seed))
            found = record.run(trained, setting=name, seed=seed, encoder=profile.encoder)
            lines.setdefault(name, []).append(found["metrics"]["validation"]["accuracy"])
    return "\n".join(f"{name}: {np.mean(values):.3f} ± {np.std(values):.3f}" for name, values in lines.items())


def settings(profile: Profile) -> dict[str, FinetuneConfig]:
    """Return the settings that are compared; all see each pair in both orders."""
    recipe = FinetuneConfig(
        profile.finetune_epochs, profile.finetune_rate, profile.finetune_batch,
        dropout=profile.finetune_dropout, max_pairs=profile.finetune_pairs,
    )  # fmt: skip
    tutorial = FinetuneConfig(warmup=0.0, head_factor=1.0, max_pairs=profile.finetune_pairs)
    return {"HF course's settings": tutorial, "recipe": recipe}


def run(pairs: str, location: str, config: FinetuneConfig) -> dict[str, Any]:
    """Fine-tune once; return metrics, curve, and the answers to the validation pairs, which paired intervals need."""
    result = finetune(pairs, location, config)
    return {
        "settings": asdict(config), "metrics": result.metrics, "curve": result.curve,
        "predictions": result.predictions, "probabilities": [round(p, 4) for p in result.probabilities],
        "seconds": round(result.seconds, 1),
    }  # fmt: skip
