"""All settings of one training run of the Accelerate loop: a profile, and what only the loop knows."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from course_utils.models.causal import CONFIGURATIONS, model_size, qwen3_config
from course_utils.profiles import PROFILES, Profile, check_settings, setting
from course_utils.training.optimization import warmup_within

SCHEDULES = ("cosine", "linear", "constant_with_warmup", "warmup_stable_decay")
PRECISIONS = ("auto", "fp32", "bf16", "fp16")
TRACKERS = ("tensorboard", "wandb", "trackio", "none")
# Settings that change what is printed or kept, never the weights: a resumed run may have others.
HARMLESS = {"log_steps", "keep_checkpoints", "tracker", "push_to", "profile.eval_steps", "profile.save_steps"}


@dataclass(frozen=True)
class TrainConfig:
    """Settings of a run; raises `ValueError` for impossible ones. A step is an optimizer step, on all processes."""

    profile: Profile = setting(PROFILES["laptop"], "-", "Model, data, batch, learning rate, steps, seed.")
    stream: bool = setting(False, "-", "Tokenize and pack while training, instead of once before.")
    infinite: bool = setting(True, "-", "Repeat the data when it runs out; otherwise stop.")
    shuffle_buffer: int = setting(1000, "documents", "Shuffle a stream among so many; 0 keeps its order.", least=0)
    buffer_sequences: int = setting(1024, "sequences", "Sequences that a stream packs at once.", least=1)
    num_workers: int = setting(0, "processes", "Data-loader workers of each process.", least=0)
    architecture: str = setting("gpt2", "-", "Blocks of 2019, or of today.", choices=tuple(CONFIGURATIONS))
    dropout: float = setting(0.0, "share", "Values set to 0 while training.", least=0, below=1)
    scale_attn_by_inverse_layer_idx: bool = setting(False, "-", "Attention divided by the number of the block (E4).")
    reorder_and_upcast_attn: bool = setting(False, "-", "Attention in fp32, scaled before the product (E4).")
    gradient_checkpointing: bool = setting(False, "-", "Compute activations again instead of keeping them (E6).")
    optimizer: str = setting("adamw", "-", "What updates the matrices; the rest gets AdamW.", choices=("adamw", "muon"))
    matrix_rate: float = setting(6e-3, "-", "Peak learning rate of the matrices under Muon.", above=0)
    schedule: str = setting("cosine", "-", "How the learning rate falls after the warm-up.", choices=SCHEDULES)
    max_grad_norm: float = setting(1.0, "-", "Longer gradients are shortened to this length.", above=0)
    keywords: tuple[str, ...] = setting((), "words", "Key tokens whose rows weigh more; none: the plain loss.")
    alpha: float = setting(1.0, "-", "What one key token adds to the weight of its row, which is 1.", least=0)
    precision: str = setting("auto", "-", "Number format of products; auto: the device's.", choices=PRECISIONS)
    float32_logits: bool = setting(True, "-", "Logits copied to fp32, as Accelerate does; the loss needs no copy.")
    compile: bool = setting(False, "-", "Compile model and loss first, where that is possible.")
    log_steps: int = setting(10, "optimizer steps", "Distance between two lines of the log.", least=1)
    keep_checkpoints: int = setting(2, "checkpoints", "Newest checkpoints that are kept.", least=1)
    tracker: str = setting("tensorboard", "-", "Where metrics go besides the log file.", choices=TRACKERS)
    push_to: str = setting("", "owner/name", "Hub repository that gets the checkpoints, on a branch per run.")

    def __post_init__(self) -> None:
        """Refuse impossible values early."""
        if isinstance(self.keywords, list):
            object.__setattr__(self, "keywords", tuple(self.keywords))
        check_settings(self)
        for name in ("scale_attn_by_inverse_layer_idx", "reorder_and_upcast_attn"):
            if self.architecture != "gpt2" and getattr(self, name):
                raise ValueError(f"{name} is an option of gpt2, not of {self.architecture}; leave it off.")
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


def modern(depth: int = 6, base: Profile = PROFILES["laptop"]) -> TrainConfig:
    """Return today's recipe for a model of `depth` blocks, which sets its other sizes; `base` names data and seed.

    Measured are 6 blocks on two cores, for 10 and for 55 minutes; the rest are rules of thumb.
    """
    if depth < 1:
        raise ValueError(f"depth = {depth} is not allowed; a model has at least 1 block.")
    heads = math.ceil(2 * depth / 3)  # narrow like Qwen3-0.6B, which has 28 blocks of width 1024
    width, context_length = 64 * heads, 256
    # With unlimited text, 20 tokens per parameter would be the best use of time. 6 blocks read `laptop`'s 4.5 million
    # three times so, and further passes teach less and less.
    tokens = 2 * model_size(qwen3_config(base.vocab_size, context_length, depth, width, heads))
    # The largest batch that wastes no text grows like the root of the tokens: 16 rows for 14 million.
    batch_size = 2 ** round(math.log2(16 * math.sqrt(tokens / 14e6)))
    steps = math.ceil(tokens / (batch_size * context_length))
    # A step of Muon turns a square matrix by 0.2 x rate x root of the width: by as much as at 256.
    slower, every = math.sqrt(256 / width), math.ceil(steps / 20)
    profile = replace(
        base, name="modern", model_layers=depth, model_width=width, model_heads=heads, context_length=context_length,
        batch_size=batch_size, accumulation_steps=1, train_steps=steps, warmup_steps=math.ceil(steps / 50),
        learning_rate=3e-3 * slower, eval_steps=every, save_steps=every,
    )  # fmt: skip
    more = {"schedule": "warmup_stable_decay", "float32_logits": False, "compile": True}
    return TrainConfig(profile, architecture="qwen3", optimizer="muon", matrix_rate=6e-3 * slower, **more)
