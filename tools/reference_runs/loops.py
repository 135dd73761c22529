"""Trainings of notebook 05: the plain and the weighted loss, and what the weights change for key tokens and others."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from course_utils import artifacts, train
from course_utils.profiles import Profile
from course_utils.training import losses
from course_utils.training.config import TrainConfig
from tools.records import Record

DRAWS = 2000  # of a bootstrap
ROWS = 50  # at once


def make(record: Record, profile: Profile, seeds: list[int]) -> str:
    """Train both with all seeds, compare them on all held-out rows; return the differences as text."""
    lines = []
    for seed in seeds:
        configs = {name: config(profile, seed, name) for name in ("plain", "weighted")}
        for name, chosen in configs.items():
            record.run(partial(training, chosen), setting=name, seed=seed)
        found = record.run(partial(differences, profile, configs), setting="weighted - plain", seed=seed)
        lines += [f"seed {seed}, {part}: {found[part]}" for part in ("key tokens", "other tokens")]
    return "\n".join(lines)


def config(profile: Profile, seed: int, name: str) -> TrainConfig:
    """Return the settings of the notebook's cell `config`."""
    steps = max(5, profile.train_steps // 3)
    distance = max(1, steps // 12)
    budget = replace(profile, train_steps=steps, eval_steps=distance, save_steps=4 * distance, seed=seed)
    return TrainConfig(budget, keywords=losses.KEYWORDS if name == "weighted" else ())


def training(chosen: TrainConfig) -> dict[str, Any]:
    """Train, from the last checkpoint of an interrupted training; return its curve."""
    summary = train.train_once(chosen)[1]
    points = [entry for entry in summary.history if "eval_loss" in entry]
    columns = {"step": "step", "tokens": "tokens_seen", "loss": "eval_loss", "bits_per_byte": "eval_bits_per_byte"}
    return {new: [point[old] for point in points] for new, old in columns.items()}


def differences(profile: Profile, configs: dict[str, TrainConfig]) -> dict[str, Any]:
    """Return, for key tokens and others, both mean losses in nats, and weighted - plain with a 95 % interval."""
    tokenizer = artifacts.code_tokenizer(profile)
    keys = losses.keytoken_ids(tokenizer, losses.KEYWORDS, say=lambda text: None)
    rows = artifacts.packed_data(replace(profile, eval_sequences=10**9)).validation["input_ids"][:].long()
    is_key = torch.isin(rows[:, 1:], torch.tensor(keys)).numpy()  # (N, T - 1)
    found = {name: token_losses(train.train_once(chosen)[0] / "final", rows) for name, chosen in configs.items()}
    result: dict[str, Any] = {"rows": len(rows)}
    for part, mask in (("key tokens", is_key), ("other tokens", ~is_key)):
        means = {name: float(values[mask].mean()) for name, values in found.items()}
        change = ((found["weighted"] - found["plain"]) * mask).sum(1)  # (N,)
        low, high = interval(change, mask.sum(1))
        result[part] = means | {"difference": means["weighted"] - means["plain"], "low": low, "high": high}
    return result


@torch.inference_mode()
def token_losses(folder: Path, rows: torch.Tensor) -> np.ndarray:
    """Return the loss of every predicted token, (N, T - 1), of a saved model."""
    model = artifacts.load_model(folder)
    parts = [losses.token_losses(part, model(part).logits.float()).cpu() for part in rows.to(model.device).split(ROWS)]
    return torch.cat(parts)[:, :-1].numpy()


def interval(sums: np.ndarray, counts: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """Return the 95 % interval of a mean over tokens, sum / count, when rows are drawn again with replacement."""
    rng, ratios = np.random.default_rng(seed), []
    for _ in range(DRAWS):
        drawn = rng.integers(len(sums), size=len(sums))
        ratios.append(sums[drawn].sum() / counts[drawn].sum())
    return tuple(map(float, np.quantile(ratios, [0.025, 0.975])))
