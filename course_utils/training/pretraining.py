"""Pretraining with the library's Trainer: settings, one run that can be interrupted, and what it records."""

import json
import math
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from datasets import Dataset, IterableDataset
from transformers import (
    DataCollatorForLanguageModeling,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Trainer,
    TrainerCallback,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer_utils import get_last_checkpoint

from course_utils.data.tokenization import check_tokenizer
from course_utils.environment import Precision, choose_device, choose_precision
from course_utils.models.causal import build_causal_lm, check_context
from course_utils.profiles import Profile
from course_utils.training.config import flat
from course_utils.training.heldout import bits_per_byte
from course_utils.training.optimization import steps_per_pass, warmup_within
from course_utils.training.tracking import dropped_messages

HISTORY = "history.json"
SETTINGS = "settings.json"
# Arguments of the Trainer that change the weights; a run is not continued with others.
_LASTING = (
    *("learning_rate", "warmup_steps", "weight_decay", "max_steps", "seed", "data_seed"),
    *("per_device_train_batch_size", "gradient_accumulation_steps"),
)


@dataclass(frozen=True)
class PackedData:
    """Sequences for training and for evaluation, and the length of the held-out text in both units.

    For a loop that packs while it trains, `train` is a stream of documents instead.
    """

    train: Dataset | IterableDataset
    validation: Dataset
    validation_tokens: int
    validation_bytes: int
    digest: str = ""  # names tokenizer, text and length; a checkpoint goes on with the same data only

    @property
    def tokens_per_byte(self) -> float:
        """Tokens over UTF-8 bytes of the held-out text."""
        return self.validation_tokens / self.validation_bytes

    def bits_per_byte(self, loss: float) -> float:
        """Convert a held-out loss (nats per token)."""
        return bits_per_byte(loss, self.validation_tokens, self.validation_bytes)


def tutorial_settings(profile: Profile) -> Profile:
    """Return `profile` with the tutorials' training settings (A9), and as many tokens of training as before.

    Learning rate 5e-4, 1 000 warm-up steps, 32 x 8 sequences per step. `full` has them already.
    """
    settings = replace(
        profile, batch_size=32, accumulation_steps=8, learning_rate=5e-4, warmup_steps=1000, weight_decay=0.1
    )
    if profile.train_steps == -1:
        return settings
    factor = settings.tokens_per_step / profile.tokens_per_step

    def rescale(steps: int) -> int:
        return max(1, round(steps / factor))

    eval_steps = rescale(profile.eval_steps)
    return replace(
        settings,
        train_steps=rescale(profile.train_steps),
        eval_steps=eval_steps,
        save_steps=eval_steps * max(1, profile.save_steps // profile.eval_steps),
    )


def training_arguments(
    profile: Profile, output_dir: Path | str, precision: Precision | None = None, rows: int | None = None
) -> TrainingArguments:
    """Translate a profile into the Trainer's arguments: cosine schedule, evaluation and checkpoints by steps.

    The warm-up is at most half of the training; where that is one pass, `rows` is the number of sequences in it.
    `data_seed` is set on its own: without it a resumed run would see another order if anything else drew random
    numbers between building the Trainer and training.
    """
    precision = precision or choose_precision()
    steps = profile.train_steps
    if steps == -1 and rows is not None:
        steps = steps_per_pass(rows, profile.batch_size, accumulation_steps=profile.accumulation_steps)
    return TrainingArguments(
        output_dir=str(output_dir),
        per_device_train_batch_size=profile.batch_size,
        per_device_eval_batch_size=profile.batch_size,
        gradient_accumulation_steps=profile.accumulation_steps,
        max_steps=profile.train_steps,
        num_train_epochs=1,
        learning_rate=profile.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=profile.warmup_steps if steps == -1 else warmup_within(profile.warmup_steps, steps),
        weight_decay=profile.weight_decay,
        eval_strategy="steps",
        eval_steps=profile.eval_steps,
        eval_on_start=True,
        logging_steps=profile.eval_steps,
        logging_nan_inf_filter=False,  # it would show the losses before instead of a NaN
        save_steps=profile.save_steps,
        save_total_limit=2,
        seed=profile.seed,
        data_seed=profile.seed,
        use_cpu=choose_device().type == "cpu",
        dataloader_pin_memory=choose_device().type == "cuda",
        report_to="none",
        **precision.trainer_flags,
    )


class StopAt(TrainerCallback):
    """Interrupt a training after a number of optimizer steps, with a checkpoint, as a closed laptop would."""

    def __init__(self, step: int):
        """Stop when `step` optimizer steps are done."""
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        """Ask the Trainer to save and to stop."""
        if state.global_step >= self.step:
            control.should_save = control.should_training_stop = True


class StopAtNaN(TrainerCallback):
    """Raise `TrainingDiverged` for a loss or a weight that is no finite number: neither recovers."""

    def on_log(self, args, state, control, logs=None, **kwargs):
        """Look at the losses of training and evaluation, before a checkpoint is written."""
        for name in ("loss", "eval_loss", "train_loss"):
            if not math.isfinite((logs or {}).get(name, 0.0)):
                self._stop(args, state, f"{name} is {logs[name]}")

    def on_train_end(self, args, state, control, model=None, **kwargs):
        """Look at the weights, which the last step can spoil after the last loss."""
        if not all(parameter.isfinite().all() for parameter in model.parameters()):
            self._stop(args, state, "some weights are not finite")

    def _stop(self, args: TrainingArguments, state: TrainerState, what: str) -> None:
        from course_utils.training.loop import TrainingDiverged  # which imports this module

        raise TrainingDiverged(
            f"step {state.global_step} of {state.max_steps}: {what}. The training stops here, and no model is saved. "
            f"The learning rate {args.learning_rate:g} is probably too high: set COURSE_LEARNING_RATE lower, or "
            "COURSE_WARMUP_STEPS higher."
        )


def make_trainer(
    profile: Profile, tokenizer: PreTrainedTokenizerBase, data: PackedData, output_dir: Path, dropout: float = 0.0
) -> Trainer:
    """Put fresh model, arguments, collator and data together; the collator copies the inputs to the labels.

    Raises `ValueError` if the sequences are longer than the model's context or there are too few of them, and for a
    tokenizer whose padding is the end-of-text token: the collator would take both out of the labels.
    """
    check_tokenizer(tokenizer)
    model = build_causal_lm(profile, tokenizer, dropout)
    if len(data.train) < profile.batch_size or len(data.validation) == 0:
        raise ValueError(
            f"{len(data.train)} training and {len(data.validation)} held-out sequences are too few for batches of "
            f"{profile.batch_size}; use more text, or set COURSE_BATCH_SIZE lower."
        )
    check_context(model, len(data.train[0]["input_ids"]))
    return Trainer(
        model=model,
        args=training_arguments(profile, output_dir, rows=len(data.train)),
        train_dataset=data.train,
        eval_dataset=data.validation,
        data_collator=DataCollatorForLanguageModeling(tokenizer, mlm=False),
        processing_class=tokenizer,
    )


def train(
    make: Callable[[Path], Trainer], run_folder: Path, stop_at: int | None = None
) -> tuple[PreTrainedModel, list[dict[str, float]]]:
    """Train to the end, or to `stop_at` steps, going on from the newest intact checkpoint in `run_folder`.

    Returns the model and the log: one entry per evaluation and per logged training loss. Raises `TrainingDiverged`
    when the loss is no finite number, and `ValueError` if the checkpoint was made with other settings.
    """
    run_folder.mkdir(parents=True, exist_ok=True)
    checkpoint = last_checkpoint(run_folder)
    trainer = make(run_folder)
    _check_settings(trainer, run_folder / SETTINGS, checkpoint)
    trainer.add_callback(StopAtNaN())
    trainer.args.eval_on_start = checkpoint is None  # a resumed run was evaluated before it stopped
    if stop_at is not None:
        trainer.add_callback(StopAt(stop_at))
    # A checkpoint lacks the output layer, which is the input table and saved once.
    with dropped_messages("transformers.trainer", "lm_head.weight"):
        trainer.train(resume_from_checkpoint=checkpoint)
    return trainer.model, trainer.state.log_history


def _check_settings(trainer: Trainer, path: Path, checkpoint: str | None) -> None:
    """Write down what a new run is made of; refuse to go on from a checkpoint with anything else."""
    model = {k: v for k, v in trainer.model.config.to_diff_dict().items() if k != "transformers_version"}
    now = flat(json.loads(json.dumps({name: getattr(trainer.args, name) for name in _LASTING} | {"model": model})))
    if checkpoint is None:
        path.write_text(json.dumps(now, indent=1) + "\n", encoding="utf-8", newline="\n")
    elif path.is_file() and (saved := json.loads(path.read_text(encoding="utf-8"))) != now:
        names = sorted(name for name in saved.keys() | now.keys() if saved.get(name) != now.get(name))
        changes = ", ".join(f"{name} {saved.get(name)} -> {now.get(name)}" for name in names)
        raise ValueError(
            f"{Path(checkpoint).name} in {path.parent} was made with other settings ({changes}). Go on with the old "
            "ones, or give this run a folder of its own."
        )


def last_checkpoint(run_folder: Path) -> str | None:
    """Return the newest checkpoint that can be read, and remove a torn one with a message."""
    while (checkpoint := get_last_checkpoint(str(run_folder)) if run_folder.is_dir() else None) is not None:
        damage = _checkpoint_damage(Path(checkpoint))
        if damage is None:
            return checkpoint
        print(f"The checkpoint {Path(checkpoint).name} is damaged ({damage}); the one before is used.")
        shutil.rmtree(checkpoint)
    return None


def _checkpoint_damage(checkpoint: Path) -> str | None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(checkpoint / "model.safetensors", "pt") as weights:
            weights.keys()
        json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
        for name in ("optimizer.pt", "scheduler.pt"):
            torch.load(checkpoint / name, map_location="cpu", weights_only=True, mmap=True)
        for name in checkpoint.glob("rng_state*.pth"):
            zipfile.ZipFile(name).close()
    except (OSError, ValueError, RuntimeError, SafetensorError, zipfile.BadZipFile) as error:
        return str(error).splitlines()[0][:80]
    return None


def learning_curve(history: list[dict[str, float]], data: PackedData, tokens_per_step: int) -> list[dict[str, float]]:
    """Pick the evaluations out of a Trainer log: step, tokens seen, held-out loss and bits per byte."""
    return [
        {
            "step": entry["step"],
            "tokens": entry["step"] * tokens_per_step,
            "loss": entry["eval_loss"],
            "bits_per_byte": data.bits_per_byte(entry["eval_loss"]),
        }
        for entry in history
        if "eval_loss" in entry
    ]
