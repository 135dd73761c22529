"""Pretraining with the library's Trainer, as in the cells of notebook 04: settings, and one run."""

import contextlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import Dataset, IterableDataset
from safetensors.torch import load_file
from transformers import DataCollatorForLanguageModeling, PreTrainedModel, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import TrainerState

from course_utils.data.tokenization import check_tokenizer
from course_utils.environment import choose_device, choose_precision
from course_utils.models.causal import build_causal_lm
from course_utils.profiles import Profile
from course_utils.training import checkpoints
from course_utils.training.heldout import bits_per_byte
from course_utils.training.loaders import check_rows
from course_utils.training.optimization import TrainingDiverged, steps_per_pass, warmup_within
from course_utils.training.tracking import dropped_messages

HISTORY = "history.json"


@dataclass(frozen=True)
class PackedData:
    """Sequences for training and for evaluation, and the length of the held-out text in both units."""

    train: Dataset | IterableDataset  # a stream of documents for a loop that packs while it trains
    validation: Dataset
    validation_tokens: int
    validation_bytes: int
    digest: str = ""  # names tokenizer, text and length; a checkpoint continues with the same data only

    @property
    def tokens_per_byte(self) -> float:
        """Return tokens over UTF-8 bytes of the held-out text."""
        return self.validation_tokens / self.validation_bytes

    def bits_per_byte(self, loss: float) -> float:
        """Convert a held-out loss (nats per token)."""
        return bits_per_byte(loss, self.validation_tokens, self.validation_bytes)


def optimizer_steps(profile: Profile, rows: int) -> int:
    """Return the steps of a training on `rows` sequences; of one pass, where the profile says -1."""
    one_pass = steps_per_pass(rows, profile.batch_size, accumulation_steps=profile.accumulation_steps)
    return one_pass if profile.train_steps == -1 else profile.train_steps


def training_arguments(profile: Profile, output_dir: Path | str, rows: int) -> TrainingArguments:
    """Translate a profile into the Trainer's arguments, for `rows` sequences; the warm-up is at most half of all."""
    steps = optimizer_steps(profile, rows)
    return TrainingArguments(
        output_dir=str(output_dir), report_to="none",
        per_device_train_batch_size=profile.batch_size, per_device_eval_batch_size=profile.batch_size,
        gradient_accumulation_steps=profile.accumulation_steps, max_steps=profile.train_steps, num_train_epochs=1,
        learning_rate=profile.learning_rate, weight_decay=profile.weight_decay,
        lr_scheduler_type="cosine", warmup_steps=warmup_within(profile.warmup_steps, steps),
        eval_strategy="steps", eval_steps=profile.eval_steps, eval_on_start=True, logging_steps=profile.eval_steps,
        logging_nan_inf_filter=False,  # it would show the losses before instead of a NaN
        save_steps=profile.save_steps, save_total_limit=2, seed=profile.seed,
        data_seed=profile.seed,  # without it, a resumed run would see another order if anything else drew numbers
        use_cpu=choose_device().type == "cpu", dataloader_pin_memory=choose_device().type == "cuda",
        **choose_precision().trainer_flags,
    )  # fmt: skip


class Guard(TrainerCallback):
    """Stop at a NaN, and write the checksums of every checkpoint into it."""

    def on_log(self, args, state, control, logs, **kwargs):
        """Look at the losses."""
        for name in ("loss", "eval_loss", "train_loss"):  # before a checkpoint is written
            if not math.isfinite(logs.get(name, 0.0)):
                what = f"step {state.global_step} of {state.max_steps}: {name} is {logs[name]}. No model is saved."
                cause = f"The learning rate {args.learning_rate:g} is probably too high"
                remedy = "set COURSE_LEARNING_RATE lower, or COURSE_WARMUP_STEPS higher."
                raise TrainingDiverged(f"{what} {cause}: {remedy}")

    def on_save(self, args, state, control, **kwargs):
        """Seal the checkpoint."""
        checkpoints.seal(Path(args.output_dir) / f"checkpoint-{state.global_step}")


def make_trainer(profile: Profile, tokenizer: Any, data: PackedData, output_dir: Path, dropout: float = 0.0) -> Trainer:
    """Put fresh model, arguments, collator and data together; the collator copies the inputs to the labels."""
    check_tokenizer(tokenizer)  # with the end-of-text token as padding, the collator would take both out of the labels
    check_rows(data.train, data.validation, profile.batch_size)
    model = build_causal_lm(profile, tokenizer, dropout)
    return Trainer(
        model=model, args=training_arguments(profile, output_dir, rows=len(data.train)), processing_class=tokenizer,
        train_dataset=data.train, eval_dataset=data.validation,
        data_collator=DataCollatorForLanguageModeling(tokenizer, mlm=False),
    )  # fmt: skip


def last_checkpoint(run_folder: Path) -> tuple[Path | None, int]:
    """Return the newest intact checkpoint of a run, None without one, and the number of steps behind it."""
    checkpoint = checkpoints.find_last(run_folder)
    return checkpoint, int(checkpoint.name.rpartition("-")[2]) if checkpoint else 0


def without_tied_layer() -> contextlib.AbstractContextManager:
    """Drop a warning: a checkpoint lacks the output layer, which is the input table and saved once."""
    return dropped_messages("transformers.trainer", "lm_head.weight")


def train(make: Callable[[Path], Trainer], run_folder: Path) -> tuple[PreTrainedModel, list[dict[str, float]]]:
    """Train to the end from the newest intact checkpoint in `run_folder`, if there is one; return model and log.

    The folder must be named by all that makes the weights: nothing else tells one run from another. Raises
    `TrainingDiverged` for a NaN.
    """
    trainer = make(run_folder)
    checkpoint, done = last_checkpoint(run_folder)
    state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json")) if checkpoint else trainer.state
    if checkpoint and done == state.max_steps:  # the Trainer would add a step
        trainer.model.load_state_dict(load_file(checkpoint / "model.safetensors"), strict=False)
        return trainer.model, state.log_history
    trainer.args.eval_on_start = checkpoint is None  # a resumed run was evaluated before it stopped
    trainer.add_callback(Guard())
    with without_tied_layer():
        trainer.train(resume_from_checkpoint=checkpoint and str(checkpoint))
    return trainer.model, trainer.state.log_history
