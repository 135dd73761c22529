"""The training loop with Accelerate: one set of functions for notebook, script and launcher.

It does what the tutorials' loops do, and keeps four promises: accumulated micro-batches give the gradient of one large
batch, any number of processes gives the same result as one, a killed run ends with the weights of an undisturbed one
(bit for bit on a processor; some kernels of GPUs add in any order), and the learning rate counts optimizer steps. It
knows nothing of the Hub: `on_checkpoint` is called where one is.
"""

import math
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, skip_first_batches
from accelerate.state import AcceleratorState
from accelerate.utils import DataLoaderConfiguration, GradientAccumulationPlugin, ProjectConfiguration, set_seed
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase, get_scheduler

from course_utils.data.packing import ConstantLengthDataset
from course_utils.environment import Precision, choose_device, choose_precision
from course_utils.models.causal import build_causal_lm, check_context
from course_utils.training import checkpoints, tracking
from course_utils.training.checkpoints import Position
from course_utils.training.config import TrainConfig
from course_utils.training.heldout import Evaluation, evaluate
from course_utils.training.loaders import create_dataloaders, set_epoch
from course_utils.training.losses import LossSums, causal_loss_sums, choose_loss, keytoken_ids
from course_utils.training.optimization import get_grouped_params, scale_gradients, steps_per_pass
from course_utils.training.pretraining import PackedData

MOST_SKIPS = 50  # optimizer steps in a row that fp16 may skip; its scale is then 2^50 times smaller


class TrainingDiverged(RuntimeError):
    """The loss is no number any more."""


@dataclass(frozen=True)
class StepResult:
    """What one optimizer step showed: loss over all its rows, gradient length before clipping, rate, tokens.

    `skipped`: fp16 made the gradients too large, the weights stayed, and smaller ones are tried next.
    """

    loss: float
    gradient_norm: float
    learning_rate: float
    tokens: int
    skipped: bool = False


@dataclass
class Run:
    """Everything that one training needs, prepared; `position` says how far it is."""

    config: TrainConfig
    accelerator: Accelerator
    precision: Precision
    identity: checkpoints.Identity
    model: torch.nn.Module
    optimizer: Any
    scheduler: Any
    train_loader: Any
    eval_loader: Any
    loss_sums: LossSums
    total_steps: int
    tokens_per_byte: float
    position: Position = field(default_factory=Position)
    history: list[dict[str, float]] = field(default_factory=list)


@dataclass(frozen=True)
class Summary:
    """Result of a training: steps done, the last evaluation, speed, and the log (one entry per line of the log)."""

    steps: int
    evaluation: Evaluation
    tokens: int
    tokens_per_second: float
    history: list[dict[str, float]]


def make_accelerator(config: TrainConfig, folder: Path | str) -> tuple[Accelerator, Precision]:
    """Make the accelerator for a run, and return it with the number format it uses and why.

    Raises `ValueError` or `ImportError` for a tracker that cannot be used, and `ValueError` for another number format
    than that of a run whose log is open.
    """
    tracking.check_tracker(config.tracker)
    device = choose_device()
    precision = _precision(config, device)
    _forget_other_precision(precision)
    accelerator = Accelerator(
        cpu=device.type == "cpu",
        mixed_precision=precision.mixed_precision,
        gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=config.profile.accumulation_steps),
        dataloader_config=DataLoaderConfiguration(dispatch_batches=False, non_blocking=device.type == "cuda"),
        log_with=None if config.tracker == "none" else config.tracker,
        project_config=ProjectConfiguration(str(folder), logging_dir=str(Path(folder) / "logs")),
    )
    return accelerator, precision


def _precision(config: TrainConfig, device: torch.device) -> Precision:
    if config.precision == "auto":
        return choose_precision(device)
    if config.precision == "fp16" and device.type != "cuda":
        raise ValueError(f"fp16 needs a CUDA GPU, this is {device.type}; use precision auto, bf16 or fp32.")
    return Precision(config.precision, "asked for")


def _forget_other_precision(precision: Precision) -> None:
    """Let another run of this process have another number format: Accelerate keeps the first one's."""
    if not AcceleratorState._shared_state or AcceleratorState().mixed_precision == precision.mixed_precision:
        return
    if tracking.is_open():
        raise ValueError(
            f"a run with mixed precision {AcceleratorState().mixed_precision} is still open, so none with "
            f"{precision.name} can start. Call tracking.finish_logging() first, or restart the kernel."
        )
    AcceleratorState._reset_state()


def prepare(
    config: TrainConfig, tokenizer: PreTrainedTokenizerBase, data: PackedData, accelerator: Accelerator,
    precision: Precision,
) -> Run:  # fmt: skip
    """Build model, optimizer, schedule and loaders from the settings, and let Accelerate prepare them.

    The schedule is not prepared: Accelerate would advance it once per process, and it counts optimizer steps. Raises
    `ValueError` for too few rows, and for rows that are longer than the model's context.
    """
    profile = config.profile
    model = build_model(config, tokenizer)
    train = data.train if not config.stream else _stream(config, tokenizer, data)
    train_loader, eval_loader = create_dataloaders(
        train,
        data.validation,
        profile.batch_size,
        processes=accelerator.num_processes,
        accumulation_steps=profile.accumulation_steps,
        num_workers=config.num_workers,
        seed=profile.seed,
    )
    for rows in (data.validation,) if config.stream else (data.train, data.validation):
        check_context(model, len(rows[0]["input_ids"]))
    total_steps = profile.train_steps
    if total_steps == -1:  # one pass; a stream without a number of steps was refused with the settings
        per_step = (profile.batch_size, accelerator.num_processes, profile.accumulation_steps)
        total_steps = steps_per_pass(len(data.train), *per_step)
    groups = get_grouped_params(model, profile.weight_decay)
    # Fused is fastest, but hides from Accelerate which steps the gradient scaler of fp16 skipped.
    optimizer = torch.optim.AdamW(groups, lr=profile.learning_rate, fused=accelerator.scaler is None)
    scheduler = get_scheduler(config.schedule, optimizer, config.warmup_steps(total_steps), total_steps)
    keytokens = keytoken_ids(tokenizer, config.keywords, accelerator.print) if config.keywords else []
    model, optimizer, train_loader, eval_loader = accelerator.prepare(model, optimizer, train_loader, eval_loader)
    accelerator.register_for_checkpointing(scheduler)
    set_seed(profile.seed, device_specific=True)  # another dropout on every process
    device = accelerator.device
    identity = checkpoints.Identity(config, accelerator.num_processes, device.type, precision.name, data.digest)
    return Run(
        config, accelerator, precision, identity, model, optimizer, scheduler, train_loader, eval_loader,
        choose_loss(keytokens, config.alpha, device), total_steps, data.tokens_per_byte,
    )  # fmt: skip


def build_model(config: TrainConfig, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """Make the model of a run with fresh weights; the options of E4 and E6 are switched on where asked for."""
    options = {
        name: True for name in ("scale_attn_by_inverse_layer_idx", "reorder_and_upcast_attn") if getattr(config, name)
    }
    model = build_causal_lm(config.profile, tokenizer, config.dropout, **options)
    model.config.use_cache = False  # of keys and values, which only generation needs
    if config.gradient_checkpointing:
        # The first is the name since transformers 5.20; older versions know the second only.
        enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
        enable({"use_reentrant": False})
    return model


def _stream(config: TrainConfig, tokenizer: PreTrainedTokenizerBase, data: PackedData) -> ConstantLengthDataset:
    documents = data.train
    if config.shuffle_buffer:
        documents = _shuffled(documents, config)
    return ConstantLengthDataset(
        tokenizer,
        documents,
        seq_length=config.profile.context_length,
        num_of_sequences=config.buffer_sequences,
        shuffle=True,
        seed=config.profile.seed,
        process_index=0,  # Accelerate shares out the rows
        num_processes=1,
    )


def _shuffled(documents: Any, config: TrainConfig) -> Any:
    # Newer versions of datasets read several files at once, and then wait 5 seconds at the end of each pass.
    option = "max_buffer_input_shards"
    one_file = {option: 1} if option in signature(documents.shuffle).parameters else {}
    return documents.shuffle(seed=config.profile.seed, buffer_size=config.shuffle_buffer, **one_file)


def batches(loader: Any, position: Position, infinite: bool = True) -> Iterator[dict[str, torch.Tensor]]:
    """Yield batches from where `position` stands, pass after pass, and keep it up to date.

    Raises `ValueError` for a pass without batches.
    """
    while True:
        set_epoch(loader, position.epoch)
        rest = skip_first_batches(loader, position.batch) if position.batch else loader
        set_epoch(rest, position.epoch)
        for batch in rest:
            position.batch += 1  # before it is used: a checkpoint that follows must not repeat it
            yield batch
        if position.batch == 0:
            raise ValueError("the training data hold less than one sequence; give more text.")
        if not infinite:
            return
        position.epoch, position.batch = position.epoch + 1, 0


def optimizer_steps(run: Run) -> Iterator[StepResult]:
    """Train, and yield after each optimizer step.

    The losses of a step are added up over its micro-batches and processes and divided once, by the sum of all weights.
    So a short last batch, padding or unequal weights give the gradient that one large batch would give.
    """
    accelerator, model, optimizer = run.accelerator, run.model, run.optimizer
    profile = run.config.profile
    # A constant near the final divisor keeps the numbers small, which fp16 needs.
    rough = profile.batch_size * (profile.context_length - 1 if run.loss_sums is causal_loss_sums else 1)
    undo = rough * accelerator.num_processes * profile.accumulation_steps  # what the means divided by
    sums = torch.zeros(3, device=accelerator.device)  # losses, weights, tokens of this process
    model.train()
    for batch in batches(run.train_loader, run.position, run.config.infinite):
        # All accelerators of a process share this number: one that was made meanwhile has changed it.
        accelerator.gradient_accumulation_steps = profile.accumulation_steps
        with accelerator.accumulate(model):
            labels = batch["labels"]
            logits = model(input_ids=batch["input_ids"]).logits  # (B, T, V)
            loss, weight = run.loss_sums(labels, logits)
            accelerator.backward(loss / rough)
            sums += torch.stack([loss.detach(), weight, (labels >= 0).sum()])
            if accelerator.sync_gradients:
                reduced = accelerator.reduce(sums, "sum")
                scale_gradients(model, undo / reduced[1])  # by 1 where all batches are full
                norm = accelerator.clip_grad_norm_(model.parameters(), run.config.max_grad_norm)
                sums = torch.zeros_like(sums)
            optimizer.step()  # Accelerate lets it pass until the gradients are complete
            optimizer.zero_grad()
        if accelerator.sync_gradients:
            used, skipped = run.scheduler.get_last_lr()[0], accelerator.optimizer_step_was_skipped
            if not skipped:
                run.scheduler.step()
            total, weight, tokens, length = torch.stack([*reduced, norm]).tolist()  # waits for the device, once
            yield StepResult(total / weight, length, used, int(tokens), skipped)


class _Meter:
    """Time and losses between two lines of the log."""

    def __init__(self, run: Run) -> None:
        self.run, self.last, self.skips = run, None, 0
        self.tokens = self.seconds = 0.0
        self.restart()

    def restart(self) -> None:
        """Start the clock again: evaluation and checkpoints are no training time."""
        self.clock = time.perf_counter()

    def add(self, result: StepResult) -> None:
        """Count one optimizer step."""
        now = time.perf_counter()
        self.run.position.losses.append(result.loss)
        self.last, self.skips = result, self.skips + 1 if result.skipped else 0
        self.tokens += result.tokens
        self.seconds += now - self.clock
        self.run.position.seconds += now - self.clock
        self.clock = now

    def report(self) -> dict[str, float]:
        """Log the line and begin the next."""
        losses = self.run.position.losses
        metrics = {
            "loss": sum(losses) / len(losses),
            "learning_rate": self.last.learning_rate,
            "gradient_norm": self.last.gradient_norm,
            "tokens_seen": self.run.position.tokens,
            "tokens_per_second": self.tokens / self.seconds,
            "memory_gb": tracking.memory_gb(self.run.accelerator.device),
        }
        tracking.log_metrics(self.run.position.step, metrics)
        self.run.position.losses, self.tokens, self.seconds = [], 0.0, 0.0
        return {"step": self.run.position.step, **metrics}


def train(
    run: Run,
    folder: Path,
    resume: Path | None = None,
    on_checkpoint: Callable[[Path, int], None] | None = None,
    show_progress: bool = True,
) -> Summary:
    """Train a prepared run to its last step, going on from the checkpoint `resume` if one is given.

    Evaluates, logs and writes checkpoints to `folder/checkpoints` at the distances of the settings, and at the end.
    `on_checkpoint(path, step)` is called on the main process after each checkpoint. Raises `TrainingDiverged` when
    the loss is no number; the checkpoints before stay.
    """
    if resume is not None:
        run.position, run.history = checkpoints.load(run.accelerator, resume, run.identity)
        tracking.current_run().logger.info("going on from %s", resume)
    position, distances = run.position, run.config.profile
    evaluated = saved = position.step if resume is not None else None
    if resume is None:
        evaluated = _evaluate(run, folder)
    meter = _Meter(run)
    with _progress(run, show_progress) as bar:
        for result in optimizer_steps(run) if position.step < run.total_steps else ():
            position.step += 1
            position.tokens += result.tokens
            meter.add(result)
            _check_result(run, result, meter.skips, folder)
            bar.update()
            if position.step % run.config.log_steps == 0:
                run.history.append(meter.report())
            if position.step % distances.eval_steps == 0:
                evaluated = _evaluate(run, folder)
            if position.step % distances.save_steps == 0:
                saved = _save(run, folder, on_checkpoint)
            meter.restart()
            if position.step == run.total_steps:
                break
    if evaluated != position.step:
        _evaluate(run, folder)
    if saved != position.step:
        _save(run, folder, on_checkpoint)
    return _summary(run)


def _progress(run: Run, show: bool) -> tqdm:
    shown = show and run.accelerator.is_main_process
    step = run.position.step
    return tqdm(total=run.total_steps, initial=step, unit=" steps", desc="training", disable=not shown)


def _check_result(run: Run, result: StepResult, skips: int, folder: Path) -> None:
    # A step that fp16 skipped did no harm; many in a row mean that nothing is learned any more.
    if math.isfinite(result.loss) and (math.isfinite(result.gradient_norm) or result.skipped) and skips < MOST_SKIPS:
        return
    what = f"the loss is {result.loss} and the length of the gradient {result.gradient_norm}"
    _stop(run, f"{what}, at a learning rate of {result.learning_rate:.3g}", folder)


def _stop(run: Run, what: str, folder: Path) -> None:
    last = checkpoints.find_last(folder / "checkpoints", run.accelerator.print)
    where = f"pass {run.position.epoch + 1}, batch {run.position.batch}"
    raise TrainingDiverged(
        f"step {run.position.step} of {run.total_steps} ({where}): {what}. The training stops here. Last good "
        f"checkpoint: {last or 'none yet'}. A lower learning rate, a longer warm-up or precision fp32 usually help."
    )


def _save(run: Run, folder: Path, on_checkpoint: Callable[[Path, int], None] | None) -> int:
    written = checkpoints.save(run.accelerator, folder / "checkpoints", run.position, run.identity, run.history)
    if on_checkpoint is not None and run.accelerator.is_main_process:
        on_checkpoint(written, run.position.step)
    return run.position.step


def _evaluate(run: Run, folder: Path) -> int:
    result = evaluate(run.model, run.eval_loader, run.accelerator, run.tokens_per_byte)
    if not math.isfinite(result.loss):  # before a checkpoint of such a model is written
        _stop(run, f"the held-out loss is {result.loss}", folder)
    metrics = {f"eval_{name}": value for name, value in result._asdict().items()}
    tracking.log_metrics(run.position.step, metrics)
    run.history.append({"step": run.position.step, "tokens_seen": run.position.tokens, **metrics})
    return run.position.step


def _summary(run: Run) -> Summary:
    last = [entry for entry in run.history if "eval_loss" in entry][-1]
    evaluation = Evaluation(*(last[f"eval_{name}"] for name in Evaluation._fields))
    speed = run.position.tokens / run.position.seconds
    return Summary(run.position.step, evaluation, run.position.tokens, speed, run.history)


def save_final(run: Run, tokenizer: PreTrainedTokenizerBase, folder: Path) -> Path:
    """Write weights, configuration and tokenizer to `folder/final`, as `from_pretrained` reads them."""
    final, temporary = folder / "final", folder / "final.tmp"
    if run.accelerator.is_main_process:
        shutil.rmtree(temporary, ignore_errors=True)
        model = run.accelerator.unwrap_model(run.model)
        model.config.use_cache = True
        with checkpoints.whole_or_removed(temporary):
            model.save_pretrained(temporary)
            tokenizer.save_pretrained(temporary)
        shutil.rmtree(final, ignore_errors=True)
        temporary.rename(final)
    run.accelerator.wait_for_everyone()
    return final
