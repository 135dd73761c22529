"""All settings of one training run of the Accelerate loop: a profile, and what only the loop knows."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from course_utils.profiles import PROFILES, Profile, check_settings, setting
from course_utils.training.optimization import warmup_within

SCHEDULES = ("cosine", "linear", "constant_with_warmup")
PRECISIONS = ("auto", "fp32", "bf16", "fp16")
TRACKERS = ("tensorboard", "wandb", "trackio", "none")
# Settings that change what is printed or kept, never the weights: a resumed run may have others.
HARMLESS = {"log_steps", "keep_checkpoints", "tracker", "profile.eval_steps", "profile.save_steps"}


@dataclass(frozen=True)
class TrainConfig:
    """Settings of a run; raises `ValueError` for impossible ones. A step is an optimizer step, on all processes."""

    profile: Profile = setting(PROFILES["laptop"], "-", "Model, data, batch, learning rate, steps, seed.")
    stream: bool = setting(False, "-", "Tokenize and pack while training, instead of once before.")
    infinite: bool = setting(True, "-", "Repeat the data when it runs out; otherwise stop.")
    shuffle_buffer: int = setting(1000, "documents", "Shuffle a stream among so many; 0 keeps its order.", least=0)
    buffer_sequences: int = setting(1024, "sequences", "Sequences that a stream packs at once.", least=1)
    num_workers: int = setting(0, "processes", "Data-loader workers of each process.", least=0)
    dropout: float = setting(0.0, "share", "Values set to 0 while training.", least=0, below=1)
    scale_attn_by_inverse_layer_idx: bool = setting(False, "-", "Attention divided by the number of the block (E4).")
    reorder_and_upcast_attn: bool = setting(False, "-", "Attention in fp32, scaled before the product (E4).")
    gradient_checkpointing: bool = setting(False, "-", "Compute activations again instead of keeping them (E6).")
    schedule: str = setting("cosine", "-", "How the learning rate falls after the warm-up.", choices=SCHEDULES)
    max_grad_norm: float = setting(1.0, "-", "Longer gradients are shortened to this length.", above=0)
    keywords: tuple[str, ...] = setting((), "words", "Key tokens whose rows weigh more; none: the plain loss.")
    alpha: float = setting(1.0, "-", "What one key token adds to the weight of its row, which is 1.", least=0)
    precision: str = setting("auto", "-", "Number format of products; auto: the device's.", choices=PRECISIONS)
    log_steps: int = setting(10, "optimizer steps", "Distance between two lines of the log.", least=1)
    keep_checkpoints: int = setting(2, "checkpoints", "Newest checkpoints that are kept.", least=1)
    tracker: str = setting("tensorboard", "-", "Where metrics go besides the log file.", choices=TRACKERS)

    def __post_init__(self) -> None:
        """Refuse impossible values early."""
        if isinstance(self.keywords, list):
            object.__setattr__(self, "keywords", tuple(self.keywords))
        check_settings(self)
        if self.stream and self.profile.train_steps == -1:
            remedy = "set a number of steps (--max-steps, COURSE_TRAIN_STEPS), or stream = False."
            raise ValueError(f"a stream has no known length, so train_steps = -1 gives the schedule no end; {remedy}")

    def warmup_steps(self, total_steps: int) -> int:
        """Return the steps of the warm-up, at most half of all."""
        return warmup_within(self.profile.warmup_steps, total_steps)

    def as_dict(self) -> dict[str, Any]:
        """Return the settings as JSON has them, those of the profile named like `profile.seed`."""
        own = {f.name: getattr(self, f.name) for f in fields(self)[1:]}
        return json.loads(json.dumps({f"profile.{k}": v for k, v in self.profile.pretraining.items()} | own))


_TUTORIALS = replace(
    PROFILES["full"], vocab_size=32_768, context_length=1024, weight_decay=0.1, save_steps=50_000, eval_sequences=1000,
    seed=1,
)  # fmt: skip
# The two sizes of the tutorials (C5). Their batch is per process; they ran on 16.
PRESETS: Mapping[str, TrainConfig] = {
    "codeparrot-small": TrainConfig(
        profile=replace(
            _TUTORIALS, name="codeparrot-small", model_layers=12, model_width=768, model_heads=12,
            batch_size=12, accumulation_steps=1, learning_rate=5e-4, warmup_steps=2000, train_steps=150_000,
        ), stream=True,
    ),
    "codeparrot": TrainConfig(
        profile=replace(
            _TUTORIALS, name="codeparrot", model_layers=48, model_width=1600, model_heads=25,
            batch_size=2, accumulation_steps=16, learning_rate=2e-4, warmup_steps=750, train_steps=50_000,
        ), stream=True, gradient_checkpointing=True, scale_attn_by_inverse_layer_idx=True, reorder_and_upcast_attn=True,
    ),
}  # fmt: skip
