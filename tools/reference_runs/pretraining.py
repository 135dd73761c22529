"""What notebook 04 compares with, by steps: a band around the profile's own training, other settings, two sizes."""

import json
import statistics
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase, Trainer

from course_utils import artifacts, cache
from course_utils.models import causal, generation
from course_utils.models.counting import CountingModel
from course_utils.profiles import PROFILES, Profile
from course_utils.training import pretraining
from tools.recipes import tutorial_settings
from tools.records import Record

# Relative width added on both sides: a few seeds do not span all that is normal.
TOLERANCE = 0.03
# Rows that the counting model reads, as in notebook 04: more take gigabytes of memory.
MOST_COUNTED = 40_000


def curve(profile: Profile, data: pretraining.PackedData, dropout: float = 0.0) -> dict[str, Any]:
    """Train once; return tokens seen, held-out bits per byte, and the share of idioms completed at the end.

    A finished run is not repeated, and an interrupted one goes on from its last checkpoint.
    """
    tokenizer = artifacts.code_tokenizer(PROFILES[profile.name])
    make = partial(_trainer, profile, tokenizer, data, dropout)
    folder = cache.home() / "reference_runs" / artifacts.run_folder(profile, dropout=dropout).name
    saved = folder.with_name(f"{folder.name}.json")
    if not saved.is_file():
        model, history = pretraining.train(make, folder)
        points = [entry for entry in history if "eval_loss" in entry]
        result: dict[str, Any] = {"tokens": [point["step"] * profile.tokens_per_step for point in points]}
        result["bits_per_byte"] = [data.bits_per_byte(point["eval_loss"]) for point in points]
        result["idioms"] = statistics.fmean(generation.score_idioms(model, tokenizer))
        saved.write_text(json.dumps(result), encoding="utf-8")
    return json.loads(saved.read_text(encoding="utf-8"))


def _trainer(
    profile: Profile, tokenizer: PreTrainedTokenizerBase, data: pretraining.PackedData, dropout: float, folder: Path
) -> Trainer:
    trainer = pretraining.make_trainer(profile, tokenizer, data, folder, dropout)
    trainer.args.warmup_steps = profile.warmup_steps  # the tutorials' own is longer than the whole run, and stays so
    return trainer


def band(profile: Profile, seeds: list[int]) -> dict[str, Any]:
    """Return what the seeds span, widened by a tolerance."""
    data = artifacts.packed_data(profile)
    runs = [curve(replace(profile, seed=seed), data) for seed in seeds]
    columns = list(zip(*(run["bits_per_byte"] for run in runs), strict=True))
    return {
        "seeds": seeds,
        "held_out": [data.validation_tokens, data.validation_bytes],
        "tokens": runs[0]["tokens"],
        "low": [round(min(column) * (1 - TOLERANCE), 4) for column in columns],
        "high": [round(max(column) * (1 + TOLERANCE), 4) for column in columns],
        "idioms": [run["idioms"] for run in runs],
    }


def settings(profile: Profile) -> dict[str, tuple[Profile, float]]:
    """Return the profiles and dropouts that are compared: three settings, and a model half as wide."""
    stands = tutorial_settings(profile)
    share = profile.warmup_steps / profile.train_steps
    fitted = replace(stands, warmup_steps=round(share * stands.train_steps))
    half = replace(profile, model_width=profile.model_width // 2)
    return {
        "HF course as it stands": (stands, 0.1),
        "HF course, fitted warm-up, no dropout": (fitted, 0.0),
        "ours": (profile, 0.0),
        "ours, half as wide": (half, 0.0),
    }


def make(record: Record, profile: Profile, seeds: list[int]) -> str:
    """Train all settings with all seeds, and count in the same rows; return the last values as text."""
    data = artifacts.packed_data(profile)
    record.run(partial(_counted, profile, data), setting="counting", seed=seeds[0])
    shown = ("batch_size", "accumulation_steps", "learning_rate", "warmup_steps", "train_steps", "model_width")
    lines = []
    for seed in seeds:
        for name, (chosen, dropout) in settings(profile).items():
            used = {key: getattr(chosen, key) for key in shown} | {"dropout": dropout}
            used["parameters"] = causal.model_size(_configuration(chosen))
            trained = partial(_run, used, replace(chosen, seed=seed), data, dropout)
            run = record.run(trained, setting=name, seed=seed)
            lines.append(f"{name}, seed {seed}: {run['bits_per_byte'][-1]:.3f} bits per byte")
    return "\n".join(lines)


def _run(used: dict[str, Any], profile: Profile, data: pretraining.PackedData, dropout: float) -> dict[str, Any]:
    return {"settings": used, **curve(profile, data, dropout)}


def _counted(profile: Profile, data: pretraining.PackedData) -> dict[str, Any]:
    rows = data.train.with_format("numpy")["input_ids"][:MOST_COUNTED]
    counting = CountingModel(rows, len(artifacts.code_tokenizer(PROFILES[profile.name])))
    loss = counting.loss(data.validation.with_format("numpy")["input_ids"][:])
    return {"tokens": [rows.size], "bits_per_byte": [data.bits_per_byte(loss)]}


def _configuration(profile: Profile) -> Any:
    shape = (profile.context_length, profile.model_layers, profile.model_width, profile.model_heads)
    return causal.gpt2_config(len(artifacts.code_tokenizer(PROFILES[profile.name])), *shape)
