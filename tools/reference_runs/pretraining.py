"""Make the reference curves that notebook 04 shows behind the learner's own: `python -m ... PROFILE --seeds 1 2`.

The data stay the same; the seed of weights, order and dropout changes. The band is what the seeds span, widened by a
tolerance for other machines and number formats. One more run uses the tutorials' settings.
"""

import argparse
import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase, Trainer

from course_utils import artifacts, cache
from course_utils.models import generation
from course_utils.profiles import PROFILES, Profile
from course_utils.training import pretraining

# Relative width added on both sides: a few seeds do not span all that is normal.
TOLERANCE = 0.03


def curve(profile: Profile, data: pretraining.PackedData, seed: int, dropout: float = 0.0) -> dict[str, Any]:
    """Train once with `seed`; return tokens seen, held-out bits per byte, and the share of idioms completed at the end.

    A finished run is not repeated.
    """
    tokenizer = artifacts.code_tokenizer(PROFILES[profile.name])
    make = partial(_trainer, replace(profile, seed=seed), tokenizer, data, dropout)
    settings = f"{profile.learning_rate:g}-{profile.batch_size}x{profile.accumulation_steps}-{profile.train_steps}"
    folder = cache.home() / "reference_runs" / f"{artifacts.run_folder(profile).name}-{settings}-{seed}"
    saved = folder.with_name(f"{folder.name}.json")
    if not saved.is_file():
        model, history = pretraining.train(make, folder)
        points = pretraining.learning_curve(history, data, profile.tokens_per_step)
        result: dict[str, Any] = {key: [point[key] for point in points] for key in ("tokens", "bits_per_byte")}
        result["idioms"] = generation.hit_share(generation.score_idioms(model, tokenizer))
        saved.write_text(json.dumps(result), encoding="utf-8")
    return json.loads(saved.read_text(encoding="utf-8"))


def _trainer(
    profile: Profile, tokenizer: PreTrainedTokenizerBase, data: pretraining.PackedData, dropout: float, folder: Path
) -> Trainer:
    trainer = pretraining.make_trainer(profile, tokenizer, data, folder, dropout)
    trainer.args.warmup_steps = profile.warmup_steps  # the tutorials' own is longer than the whole run, and stays so
    return trainer


def reference(profile: Profile, seeds: list[int]) -> dict:
    """Collect the runs of all seeds and the one with the tutorials' settings (their dropout included)."""
    data = artifacts.packed_data(profile)
    runs = [curve(profile, data, seed) for seed in seeds]
    columns = list(zip(*(run["bits_per_byte"] for run in runs), strict=True))
    return {
        "command": f"python -m {__spec__.name} {profile.name} --seeds {' '.join(map(str, seeds))}",
        "seeds": seeds,
        "held_out": [data.validation_tokens, data.validation_bytes],
        "tokens": runs[0]["tokens"],
        "low": [round(min(column) * (1 - TOLERANCE), 4) for column in columns],
        "high": [round(max(column) * (1 + TOLERANCE), 4) for column in columns],
        "idioms": [run["idioms"] for run in runs],
        "tutorial": curve(pretraining.tutorial_settings(profile), data, seeds[0], dropout=0.1),
    }


def main() -> None:
    """Write the reference of one profile beside the package's code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("profile", choices=sorted(PROFILES))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    options = parser.parse_args()
    result = reference(PROFILES[options.profile], options.seeds)
    path = Path(artifacts.REFERENCES) / f"{options.profile}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8", newline="\n")
    print(f"written: {path}; final bits per byte {result['low'][-1]} to {result['high'][-1]}")


if __name__ == "__main__":
    main()
