"""Training the hand-written GPT in a loop that can be read at a sitting, and saving it: one process, no Trainer.

The loop for real runs, on several devices and with checkpoints that survive a kill, is the module loop.
"""

import json
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_model as fill_model
from safetensors.torch import save_model as write_model
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from course_utils.models.decoding import eval_mode, generate_text, text_to_token_ids, token_ids_to_text
from course_utils.models.gpt import GPTModel
from course_utils.training.losses import IGNORED


@dataclass
class History:
    """How a training went, and how far it is.

    The losses (nats per token) were measured when `track_tokens_seen` tokens had been trained on, `epochs_seen` passes
    over the data (with fractions). `learning_rates` has one value per optimizer step.
    """

    train_losses: list[float] = field(default_factory=list)
    val_losses: list[float] = field(default_factory=list)
    track_tokens_seen: list[int] = field(default_factory=list)
    epochs_seen: list[float] = field(default_factory=list)
    learning_rates: list[float] = field(default_factory=list)
    epoch: int = 0  # complete passes
    tokens_seen: int = 0

    def __iter__(self) -> Iterator[list]:
        """Give the lists that the tutorial's function returns: `train_losses, val_losses, track_tokens_seen`."""
        return iter((self.train_losses, self.val_losses, self.track_tokens_seen))

    @property
    def step(self) -> int:
        """Optimizer steps so far."""
        return len(self.learning_rates)


def calc_loss_batch(
    input_batch: Tensor, target_batch: Tensor, model: Callable[[Tensor], Any], device: torch.device | str
) -> Tensor:
    """Mean cross-entropy in nats of the targets (B, T), given the inputs (B, T); a scalar with a gradient."""
    logits = model(input_batch.to(device))
    logits = getattr(logits, "logits", logits)  # (B, T, V)
    return F.cross_entropy(logits.flatten(0, 1), target_batch.to(device).flatten(), ignore_index=IGNORED)


@torch.no_grad()
def calc_loss_loader(
    data_loader: Iterable[tuple[Tensor, Tensor]],
    model: Callable[[Tensor], Any],
    device: torch.device | str,
    num_batches: int | None = None,
) -> float:
    """Mean loss in nats per token over a loader, or its first `num_batches`; dropout is off meanwhile.

    Every token counts once, so a smaller last batch does not count too much. Raises `ValueError` if there is none,
    and for `num_batches` below 1.
    """
    if num_batches is not None:
        _check_counts(num_batches=num_batches)
    total, tokens = 0.0, 0
    with eval_mode(model):
        for number, (inputs, targets) in enumerate(data_loader):
            if number == num_batches:
                break
            count = int((targets != IGNORED).sum())
            if count:
                total += calc_loss_batch(inputs, targets, model, device).item() * count
                tokens += count
    if not tokens:
        raise ValueError("there is no token to predict; use a longer text, a smaller batch_size or drop_last=False.")
    return total / tokens


def evaluate_model(
    model: nn.Module, train_loader: DataLoader, val_loader: DataLoader, device: torch.device | str, eval_iter: int
) -> tuple[float, float]:
    """Return training and validation loss over `eval_iter` batches each; the model keeps its mode."""
    train, val = (calc_loss_loader(loader, model, device, eval_iter) for loader in (train_loader, val_loader))
    return train, val


def generate_and_print_sample(
    model: nn.Module,
    tokenizer: Any,
    device: torch.device | str,
    start_context: str,
    max_new_tokens: int = 50,
    say: Callable[[str], None] = print,
) -> None:
    """Print the most likely continuation of `start_context` in one line; the model keeps its mode."""
    ids = text_to_token_ids(start_context, tokenizer).to(device)
    ids = generate_text(model, ids, max_new_tokens, model.cfg["context_length"])
    say(token_ids_to_text(ids, tokenizer).replace("\n", " "))


def warmup_cosine(
    step: int, warmup_steps: int, total_steps: int, peak: float, initial: float = 0.0, minimum: float = 0.0
) -> float:
    """Return the learning rate of optimizer step `step`, counted from 0: a straight line up, half a cosine down.

    `initial` at step 0, `peak` at step `warmup_steps`, `minimum` at the last step and after it. Raises `ValueError`
    for a warm-up that is not shorter than the training.
    """
    if not 0 <= warmup_steps < total_steps:
        raise ValueError(
            f"warmup_steps is {warmup_steps}; it must be at least 0 and less than total_steps, {total_steps}."
        )
    if step < warmup_steps:
        return initial + (peak - initial) * step / warmup_steps
    progress = min(1.0, (step - warmup_steps) / max(1, total_steps - 1 - warmup_steps))
    return minimum + (peak - minimum) * 0.5 * (1 + math.cos(math.pi * progress))


def train_model_simple(
    model: GPTModel,
    train_loader: DataLoader,
    val_loader: DataLoader,
    optimizer: torch.optim.Optimizer,
    device: torch.device | str,
    num_epochs: int,
    eval_freq: int,
    eval_iter: int,
    start_context: str | None,
    tokenizer: Any,
    *,
    max_norm: float | None = None,
    learning_rate: Callable[[int], float] | None = None,
    seed: int = 0,
    history: History | None = None,
    after_epoch: Callable[[History], Any] | None = None,
    show_progress: bool = True,
    say: Callable[[str], None] = tqdm.write,
) -> History:
    """Train until `num_epochs` passes over the data are complete, and return how it went.

    Losses are measured before the first step, every `eval_freq` steps and after each epoch; then follow a sample from
    `start_context` (None: none) and `after_epoch(history)`, which may save. Switches: `max_norm` clips the gradient,
    `learning_rate(step)` sets the rate of every step. Each epoch has its own seed for order and dropout, so that a
    training that goes on from a checkpoint with its `history` ends with the same weights as one without a break.
    Raises `ValueError` for counts below 1, an empty loader, and a training loader with persistent workers.
    """
    _check_counts(num_epochs=num_epochs, eval_freq=eval_freq, eval_iter=eval_iter, train_batches=len(train_loader))
    if train_loader.persistent_workers:  # their loader has one iterator only, and measuring would start it again
        raise ValueError("the training loader has persistent_workers; make it without, it is read while it is in use.")
    history = history or History()
    batches_per_epoch = len(train_loader)
    all_rows = batches_per_epoch * train_loader.batch_size if train_loader.drop_last else len(train_loader.sampler)

    def measure(passed: float) -> None:
        losses = evaluate_model(model, train_loader, val_loader, device, eval_iter)
        history.train_losses.append(losses[0])
        history.val_losses.append(losses[1])
        history.track_tokens_seen.append(history.tokens_seen)
        history.epochs_seen.append(history.epoch + passed)
        if show_progress:
            place = f"epoch {history.epochs_seen[-1]:.2f} (step {history.step:,})"
            say(f"{place}: loss {losses[0]:.3f} in training, {losses[1]:.3f} in validation")

    if history.step == 0:
        _seed(seed, train_loader, val_loader)
        measure(passed=0)
    model.train()
    while history.epoch < num_epochs:
        _seed(seed + history.epoch, train_loader, val_loader)
        rows = 0
        batches = (batch for batch in train_loader)  # some bars call iter() twice, which would draw another order
        bar = {"desc": f"epoch {history.epoch + 1}", "total": batches_per_epoch, "disable": not show_progress}
        for number, (inputs, targets) in enumerate(tqdm(batches, leave=False, **bar), 1):
            if learning_rate is not None:
                for group in optimizer.param_groups:
                    group["lr"] = learning_rate(history.step)
            _update(model, optimizer, calc_loss_batch(inputs, targets, model, device), max_norm)
            history.learning_rates.append(optimizer.param_groups[0]["lr"])
            history.tokens_seen += inputs.numel()
            rows += len(inputs)
            if history.step % eval_freq == 0 or number == batches_per_epoch:
                measure(1 if number == batches_per_epoch else rows / all_rows)
        history.epoch += 1
        if start_context is not None:
            generate_and_print_sample(model, tokenizer, device, start_context, say=say)
        if after_epoch is not None:
            after_epoch(history)
    return history


def _update(model: nn.Module, optimizer: torch.optim.Optimizer, loss: Tensor, max_norm: float | None) -> None:
    optimizer.zero_grad()
    loss.backward()
    if max_norm is not None:
        nn.utils.clip_grad_norm_(model.parameters(), max_norm)
    optimizer.step()


def save_checkpoint(path: str | Path, model: GPTModel, optimizer: torch.optim.Optimizer, history: History) -> None:
    """Write what `train_model_simple` needs to go on after a complete epoch; the file is there whole or not at all."""
    content = {
        "config": model.cfg,
        "model_state_dict": model.state_dict(),
        "optimizer_state_dict": optimizer.state_dict(),
        "history": asdict(history),
    }
    _write(path, lambda temporary: torch.save(content, temporary))


def load_checkpoint(path: str | Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Read what `save_checkpoint` wrote: `config`, `model_state_dict`, `optimizer_state_dict` and `history`.

    Only tensors and plain values are read (`weights_only`), so a file from elsewhere cannot run anything.

    To go on: build `GPTModel(config)` and the optimizer, call `load_state_dict` of both, train with `history=`. Mind
    the learning rate: the optimizer's state holds the old one and overwrites what its constructor was given. To change
    it, set `group["lr"]` in `optimizer.param_groups` after loading, or train with `learning_rate=`. Raises
    `ValueError` if the file is no such checkpoint.
    """
    try:
        content = torch.load(path, map_location=device, weights_only=True)
        content["history"] = History(**content["history"])
    except FileNotFoundError:
        raise ValueError(f"there is no checkpoint {path}; was it saved in another folder?") from None
    except Exception as error:  # a damaged file makes torch raise almost anything
        raise ValueError(
            f"{path} is no checkpoint of save_checkpoint, or damaged ({type(error).__name__}); train again, or use an "
            "older one."
        ) from error
    return content


def save_model(path: str | Path, model: GPTModel) -> None:
    """Write the weights, for use and not for going on, as safetensors with the configuration in the file's head."""
    _write(path, lambda temporary: write_model(model, str(temporary), {"config": json.dumps(model.cfg)}))


def load_model(path: str | Path, device: torch.device | str = "cpu") -> GPTModel:
    """Read what `save_model` wrote, in eval mode; raises `ValueError` for any other file, a damaged one or a pickle.

    The weights come in float32, whatever format they were saved in.
    """
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
        if "config" not in metadata:
            raise ValueError(f"{path} has no configuration; write it with save_model, or use load_gpt2_weights.")
        model = GPTModel(json.loads(metadata["config"]))
        fill_model(model, str(path))
    except FileNotFoundError:
        raise ValueError(f"there is no model {path}; was it saved in another folder?") from None
    except (SafetensorError, RuntimeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is no file of save_model, or damaged ({error}); write it with save_model.") from error
    return model.to(device).eval()


def _write(path: str | Path, write: Callable[[Path], Any]) -> None:
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        write(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _seed(seed: int, *loaders: DataLoader) -> None:
    torch.manual_seed(seed)
    for loader in loaders:
        if loader.generator is not None:
            loader.generator.manual_seed(seed)


def _check_counts(**counts: int) -> None:
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"{name} is {count}; it must be at least 1.")
