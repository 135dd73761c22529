"""The training loop with Accelerate: one set of functions for notebook, script and launcher.

Its promises: accumulated micro-batches give the gradient of one large batch, any number of processes gives the same
result as one, a killed run ends with the weights of an undisturbed one (bit for bit on a processor; some kernels of
GPUs add in any order), and the learning rate counts optimizer steps.
"""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator, skip_first_batches
from accelerate.utils import DataLoaderConfiguration, GradientAccumulationPlugin, ProjectConfiguration, set_seed
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase, get_scheduler

from course_utils import cache
from course_utils.environment import Precision, choose_device, choose_precision
from course_utils.models.causal import build_causal_lm
from course_utils.training import checkpoints, optimization, tracking
from course_utils.training.checkpoints import Position
from course_utils.training.compiling import compile_or_explain
from course_utils.training.config import HARMLESS, TrainConfig
from course_utils.training.heldout import Evaluation, evaluate
from course_utils.training.loaders import create_dataloaders, packed_stream
from course_utils.training.losses import LossSums, choose_loss, keytoken_ids
from course_utils.training.optimization import TrainingDiverged, get_grouped_params, scale_gradients, steps_per_pass
from course_utils.training.pretraining import PackedData


class StepResult(NamedTuple):
    """What one optimizer step showed: loss over all its rows, gradient length before clipping, rate, tokens."""

    loss: float
    gradient_norm: float
    learning_rate: float
    tokens: int
    skipped: bool = False  # fp16 made the gradients too large, the weights stayed, and smaller ones are tried next


@dataclass
class Run:
    """Everything that one training needs, prepared; `position` is its progress, `settings` are those that shape it."""

    config: TrainConfig
    accelerator: Accelerator
    settings: dict[str, Any]
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
    on_save: Callable[[Path], None] | None = None  # the main process calls it with each checkpoint


class Summary(NamedTuple):
    """Result of a training: steps done, the last evaluation, speed, and the log (one entry per line of the log)."""

    steps: int
    evaluation: Evaluation
    tokens: int
    tokens_per_second: float
    history: list[dict[str, float]]


def make_accelerator(config: TrainConfig, folder: Path | str) -> tuple[Accelerator, Precision]:
    """Make the accelerator for a run, and return it with the number format it uses and why."""
    device = choose_device()
    tracking.check_tracker(config.tracker)
    if config.precision == "fp16" and device.type != "cuda":  # which would be ignored without a word
        raise ValueError(f"fp16 needs a CUDA GPU, this is {device.type}; use precision auto, bf16 or fp32.")
    precision = choose_precision(device) if config.precision == "auto" else Precision(config.precision, "asked for")
    accelerator = Accelerator(
        cpu=device.type == "cpu", mixed_precision=precision.mixed_precision,
        gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=config.profile.accumulation_steps),
        dataloader_config=DataLoaderConfiguration(dispatch_batches=False, non_blocking=device.type == "cuda"),
        log_with=None if config.tracker == "none" else config.tracker,
        project_config=ProjectConfiguration(str(folder), logging_dir=str(Path(folder) / "logs")),
    )  # fmt: skip
    return accelerator, precision


def prepare(config: TrainConfig, tokenizer: PreTrainedTokenizerBase, data: PackedData, accelerator: Accelerator) -> Run:
    """Build model, optimizer, schedule and loaders from the settings, and let Accelerate prepare them."""
    profile, processes, device = config.profile, accelerator.num_processes, accelerator.device
    model = build_model(config, tokenizer)
    train_loader, eval_loader = create_dataloaders(
        packed_stream(config, tokenizer, data.train) if config.stream else data.train, data.validation,
        profile.batch_size, processes=processes, accumulation_steps=profile.accumulation_steps,
        num_workers=config.num_workers, seed=profile.seed,
    )  # fmt: skip
    total_steps = profile.train_steps
    if total_steps == -1:  # one pass; a stream without a number of steps was refused with the settings
        total_steps = steps_per_pass(len(data.train), profile.batch_size, processes, profile.accumulation_steps)
    groups = get_grouped_params(model, profile.weight_decay)
    # Fused is fastest, but hides from Accelerate which steps the gradient scaler of fp16 skipped.
    fused, rate = accelerator.scaler is None, profile.learning_rate
    if config.optimizer == "muon":
        optimizer = optimization.MuonWithAdamW(*groups, config.matrix_rate, rate, fused)
    else:
        optimizer = torch.optim.AdamW(groups, lr=rate, fused=fused)
    more = {"num_decay_steps": total_steps // 2} if config.schedule == "warmup_stable_decay" else {}
    warmup_steps = config.warmup_steps(total_steps)
    scheduler = get_scheduler(config.schedule, optimizer, warmup_steps, total_steps, scheduler_specific_kwargs=more)
    keytokens = keytoken_ids(tokenizer, config.keywords, accelerator.print) if config.keywords else []
    loss_sums = choose_loss(keytokens, config.alpha, device)
    # Accelerate would advance a prepared schedule once per process; this one counts optimizer steps.
    model, optimizer, train_loader, eval_loader = accelerator.prepare(model, optimizer, train_loader, eval_loader)
    bare = accelerator.unwrap_model(model, keep_fp32_wrapper=config.float32_logits)  # else it stays off
    if config.compile:
        ids = torch.zeros(profile.batch_size, len(data.validation[0]["input_ids"]), dtype=torch.long, device=device)
        loss_sums = compile_or_explain(bare, loss_sums, ids, accelerator, accelerator.print)
    accelerator.register_for_checkpointing(scheduler)
    set_seed(profile.seed, device_specific=True)  # another dropout on every process
    settings = {name: value for name, value in config.as_dict().items() if name not in HARMLESS}
    settings |= {"processes": processes, "device": device.type, "data": data.digest}
    settings["precision"] = accelerator.mixed_precision
    return Run(
        config, accelerator, settings, model, optimizer, scheduler, train_loader, eval_loader,
        loss_sums, total_steps, data.tokens_per_byte,
    )  # fmt: skip


def build_model(config: TrainConfig, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """Make the model of a run with fresh weights; the options of E4 and E6 are switched on where asked for."""
    names = ("scale_attn_by_inverse_layer_idx", "reorder_and_upcast_attn") if config.architecture == "gpt2" else ()
    options = {name: getattr(config, name) for name in names}
    model = build_causal_lm(config.profile, tokenizer, config.dropout, config.architecture, **options)
    model.config.use_cache = False  # of keys and values, which only generation needs
    if config.gradient_checkpointing:
        # The first is the name since transformers 5.20; older versions know the second only.
        enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
        enable({"use_reentrant": False})
    return model


def batches(loader: Any, position: Position, infinite: bool = True) -> Iterator[dict[str, torch.Tensor]]:
    """Yield batches from where `position` stands, pass after pass, and keep it up to date."""
    while True:
        loader.set_epoch(position.epoch)
        for batch in skip_first_batches(loader, position.batch) if position.batch else loader:
            position.batch += 1  # before it is used: a checkpoint that follows must not repeat it
            yield batch
        if position.batch == 0:
            raise ValueError("the training data hold less than one sequence; give more text.")
        if not infinite:
            return
        position.epoch, position.batch = position.epoch + 1, 0


def optimizer_steps(run: Run) -> Iterator[StepResult]:
    """Train, and yield after each optimizer step.

    Its losses are added up over micro-batches and processes, and divided once, by the sum of all weights. So a short
    last batch, padding or unequal weights give the gradient that one large batch would give.
    """
    accelerator, model, optimizer = run.accelerator, run.model, run.optimizer
    profile = run.config.profile
    # A constant near the final divisor keeps the numbers small, which fp16 needs.
    rough = profile.batch_size * (profile.context_length - 1 if not run.config.keywords else 1)
    undo = rough * accelerator.num_processes * profile.accumulation_steps  # what the means divided by
    sums = torch.zeros(3, device=accelerator.device)  # losses, weights, tokens of this process
    model.train()
    for batch in batches(run.train_loader, run.position, run.config.infinite):
        # All accelerators of a process share this number: one that was made meanwhile has changed it.
        accelerator.gradient_accumulation_steps = profile.accumulation_steps
        with accelerator.accumulate(model):
            labels = batch["labels"]
            with accelerator.autocast():
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


def train(run: Run, folder: Path, resume: Path | None = None) -> Summary:
    """Train a prepared run to its last step, from the checkpoint `resume` if one is given.

    Evaluates, logs and writes to `folder/checkpoints` at the distances of the settings, and at the end.
    """
    saved = None
    if resume is not None:
        run.position, run.history = checkpoints.load(run.accelerator, resume, run.settings)
        tracking.logger.info("going on from %s", resume)
        saved = run.position.step
    position, config = run.position, run.config
    _evaluate(run)
    last_line, clock = replace(position), time.perf_counter()
    quiet = not run.accelerator.is_main_process
    with tqdm(total=run.total_steps, initial=position.step, unit=" steps", desc="training", disable=quiet) as bar:
        for result in islice(optimizer_steps(run), run.total_steps - position.step):
            position.step += 1
            position.tokens += result.tokens
            position.seconds += time.perf_counter() - clock
            position.losses.append(result.loss)
            # An infinite gradient that fp16 skipped did no harm.
            if not (math.isfinite(result.loss) and (math.isfinite(result.gradient_norm) or result.skipped)):
                _stop(run, f"the loss is {result.loss} and the length of the gradient {result.gradient_norm}")
            bar.update()
            if position.step % config.log_steps == 0:
                last_line = _log(run, result, last_line)
            if position.step % config.profile.eval_steps == 0:
                _evaluate(run)
            if position.step % config.profile.save_steps == 0:
                saved = _save(run, folder)
            clock = time.perf_counter()  # evaluation and checkpoints are not training time
    evaluation = _evaluate(run)
    if saved != position.step:
        _save(run, folder)
    return Summary(position.step, evaluation, position.tokens, position.tokens / position.seconds, run.history)


def _stop(run: Run, what: str) -> None:
    where = f"step {run.position.step} of {run.total_steps} (pass {run.position.epoch + 1}, batch {run.position.batch})"
    remedy = "Earlier checkpoints stay. A lower learning rate, a longer warm-up or precision fp32 usually help."
    raise TrainingDiverged(f"{where}: {what}. {remedy}")


def _log(run: Run, result: StepResult, last_line: Position) -> Position:
    """Write a line of the log; return where the next one begins."""
    position = run.position
    metrics = {
        "loss": sum(position.losses) / len(position.losses),
        "learning_rate": result.learning_rate,
        "gradient_norm": result.gradient_norm,
        "tokens_seen": position.tokens,
        "tokens_per_second": (position.tokens - last_line.tokens) / (position.seconds - last_line.seconds),
        "memory_gb": tracking.memory_gb(run.accelerator.device),
    }
    tracking.log_metrics(position.step, metrics)
    run.history.append({"step": position.step, **metrics})
    position.losses = []
    return replace(position)


def _evaluate(run: Run) -> Evaluation:
    """Evaluate, unless the log ends with this very evaluation."""
    step = run.position.step
    last = run.history[-1] if run.history else {}
    if last.get("step") == step and "eval_loss" in last:
        return Evaluation(*(last[f"eval_{name}"] for name in Evaluation._fields))
    result = evaluate(run.model, run.eval_loader, run.accelerator, run.tokens_per_byte)
    if not math.isfinite(result.loss):  # before a checkpoint of such a model is written
        _stop(run, f"the held-out loss is {result.loss}")
    metrics = {f"eval_{name}": value for name, value in result._asdict().items()}
    tracking.log_metrics(step, metrics)
    run.history.append({"step": step, "tokens_seen": run.position.tokens, **metrics})
    return result


def _save(run: Run, folder: Path) -> int:
    checkpoint = folder / "checkpoints" / f"step-{run.position.step:08d}"
    state = {"settings": run.settings, "position": asdict(run.position), "history": run.history}
    checkpoints.save(run.accelerator, checkpoint, run.config.keep_checkpoints, **state)
    if run.on_save and run.accelerator.is_main_process:
        run.on_save(checkpoint)
    return run.position.step


def save_final(run: Run, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write weights, configuration and tokenizer to `folder/final`, as `from_pretrained` reads them."""
    state = run.accelerator.get_state_dict(run.model)  # under FSDP, every process has a part of each weight
    if run.accelerator.is_main_process:
        model = run.accelerator.unwrap_model(run.model)
        model.config.use_cache = True
        with cache.replacing(folder / "final") as temporary:
            model.save_pretrained(temporary, state_dict=state)
            tokenizer.save_pretrained(temporary)
    run.accelerator.wait_for_everyone()
