"""All settings of one training run of the Accelerate loop: a profile, and what only the loop knows."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from course_utils.profiles import PROFILES, Profile, setting
from course_utils.training.optimization import warmup_within

Schedule = Literal["cosine", "linear", "constant_with_warmup"]
PrecisionChoice = Literal["auto", "fp32", "bf16", "fp16"]
Tracker = Literal["tensorboard", "wandb", "trackio", "none"]
# Settings that change what is printed or kept, never the weights: a resumed run may have others.
_FREE = {"log_steps", "keep_checkpoints", "tracker", "profile.eval_steps", "profile.save_steps"}


@dataclass(frozen=True)
class TrainConfig:
    """Settings of a run; raises `ValueError` for a value that is not allowed.

    Model, data, batch, learning rate, distances and seed are the profile's. A step is an optimizer step, on all
    processes together.
    """

    profile: Profile = setting(PROFILES["laptop"], "-", "Model, data, batch, learning rate, steps, seed.")
    stream: bool = setting(False, "-", "Tokenize and pack while training, instead of once before.")
    infinite: bool = setting(True, "-", "Start another pass when the data end; else the training ends there.")
    shuffle_buffer: int = setting(1000, "documents", "Documents among which a stream is shuffled; 0 keeps its order.")
    buffer_sequences: int = setting(1024, "sequences", "Sequences that a stream packs at once.")
    num_workers: int = setting(0, "processes", "Data-loader workers of each process.")
    dropout: float = setting(0.0, "share", "Values set to 0 while training.")
    scale_attn_by_inverse_layer_idx: bool = setting(False, "-", "Attention divided by the number of the block (E4).")
    reorder_and_upcast_attn: bool = setting(False, "-", "Attention in fp32, scaled before the product (E4).")
    gradient_checkpointing: bool = setting(False, "-", "Compute activations again instead of keeping them (E6).")
    schedule: Schedule = setting("cosine", "-", "How the learning rate falls after the warm-up.")
    max_grad_norm: float = setting(1.0, "-", "Longer gradients are shortened to this length.")
    keywords: tuple[str, ...] = setting((), "words", "Key tokens whose rows weigh more; none: the plain loss.")
    alpha: float = setting(1.0, "-", "What one key token adds to the weight of its row, which is 1.")
    precision: PrecisionChoice = setting("auto", "-", "Number format of matrix products; auto: from the device.")
    log_steps: int = setting(10, "optimizer steps", "Distance between two lines of the log.")
    keep_checkpoints: int = setting(2, "checkpoints", "Newest checkpoints that are kept.")
    tracker: Tracker = setting("tensorboard", "-", "Where metrics go besides the log file.")

    def __post_init__(self) -> None:
        """Refuse impossible values early, each with what is allowed."""
        self._require("profile", isinstance(self.profile, Profile), "a Profile, such as get_profile('tiny')")
        self._require("keywords", not isinstance(self.keywords, str), "several words, such as ('plt', 'pd')")
        for f in fields(self):
            if type(f.default) is int:
                self._require(f.name, isinstance(getattr(self, f.name), int), "a whole number")
            if type(f.default) is float:
                self._require(f.name, isinstance(getattr(self, f.name), int | float), "a number")
        for name in ("num_workers", "shuffle_buffer", "alpha"):
            self._require(name, 0 <= getattr(self, name) < math.inf, "0 or more, and finite")
        for name in ("buffer_sequences", "log_steps", "keep_checkpoints"):
            self._require(name, getattr(self, name) >= 1, "at least 1")
        for name, kind in (("schedule", Schedule), ("precision", PrecisionChoice), ("tracker", Tracker)):
            self._require(name, getattr(self, name) in get_args(kind), f"one of {', '.join(get_args(kind))}")
        self._require("dropout", 0 <= self.dropout < 1, "at least 0 and below 1")
        self._require("max_grad_norm", self.max_grad_norm > 0, "greater than 0")
        if self.stream and self.profile.train_steps == -1:
            raise ValueError(
                "a stream has no known length, so train_steps = -1 (one pass) gives the schedule no end. "
                "Set a number of steps (--max-steps, COURSE_TRAIN_STEPS), or stream = False."
            )

    def _require(self, name: str, ok: bool, allowed: str) -> None:
        if not ok:
            raise ValueError(f"{name} = {getattr(self, name)!r} is not allowed; it must be {allowed}.")

    def warmup_steps(self, total_steps: int) -> int:
        """Return the steps of the warm-up, at most half of all."""
        return warmup_within(self.profile.warmup_steps, total_steps)

    def as_dict(self) -> dict[str, Any]:
        """Return the settings as JSON has them."""
        return json.loads(json.dumps(asdict(self) | {"profile": self.profile.pretraining}))


def differences(saved: Mapping[str, Any], config: TrainConfig) -> dict[str, tuple[Any, Any]]:
    """Return the settings that would make other weights: name -> (saved, now)."""
    ours, theirs = flat(config.as_dict()), flat(saved)
    names = sorted((ours.keys() | theirs.keys()) - _FREE)
    return {name: (theirs.get(name), ours.get(name)) for name in names if theirs.get(name) != ours.get(name)}


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings side by side, named like `profile.seed`."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        found |= flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value}
    return found


def describe(config: TrainConfig) -> list[tuple[str, Any, str, str]]:
    """Return all settings as rows: name, value, unit, meaning."""
    return [
        (f.name, getattr(holder, f.name), f.metadata["unit"], f.metadata["text"])
        for holder in (config.profile, config)
        for f in fields(holder)
        if f.name != "profile"
    ]


def _tutorial_profile(name: str, layers: int, width: int, heads: int, **settings: Any) -> Profile:
    full = PROFILES["full"]
    return Profile(
        name=name,
        code_corpus=full.code_corpus,
        filtered_corpus=full.filtered_corpus,
        sample_documents=full.sample_documents,
        vocab_size=32_768,
        context_length=1024,
        model_layers=layers,
        model_width=width,
        model_heads=heads,
        weight_decay=0.1,
        eval_steps=5000,
        save_steps=50_000,
        eval_sequences=1000,
        seed=1,
        **settings,
    )


# The two sizes of the tutorials (C5). Their batch is per process; they ran on 16.
PRESETS: Mapping[str, TrainConfig] = {
    "codeparrot-small": TrainConfig(
        profile=_tutorial_profile(
            "codeparrot-small", 12, 768, 12,
            batch_size=12, accumulation_steps=1, learning_rate=5e-4, warmup_steps=2000, train_steps=150_000,
        ),
        stream=True,
    ),
    "codeparrot": TrainConfig(
        profile=_tutorial_profile(
            "codeparrot", 48, 1600, 25,
            batch_size=2, accumulation_steps=16, learning_rate=2e-4, warmup_steps=750, train_steps=50_000,
        ),
        stream=True,
        gradient_checkpointing=True,
        scale_attn_by_inverse_layer_idx=True,
        reorder_and_upcast_attn=True,
    ),
}  # fmt: skip
