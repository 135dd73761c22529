"""Training the GPT written by hand, in one process; `loop` is the one for several devices and runs that are killed."""

import functools
import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from course_utils.cache import replacing
from course_utils.models.decoding import eval_mode, generate_text, text_to_token_ids, token_ids_to_text
from course_utils.models.gpt import GPTModel
from course_utils.training.losses import IGNORED

Device = torch.device | str


@dataclass
class History:
    """How a training went, and how far it is; losses are in nats per token, one learning rate stands for each step."""

    train_losses: list[float] = field(default_factory=list)
    val_losses: list[float] = field(default_factory=list)
    track_tokens_seen: list[int] = field(default_factory=list)
    epochs_seen: list[float] = field(default_factory=list)  # passes over the data when the losses were measured
    learning_rates: list[float] = field(default_factory=list)
    epoch: int = 0  # complete passes
    tokens_seen: int = 0

    def __iter__(self) -> Iterator[list]:
        """Yield what the tutorial's function returns: `train_losses, val_losses, track_tokens_seen`."""
        return iter((self.train_losses, self.val_losses, self.track_tokens_seen))

    @property
    def step(self) -> int:
        """Optimizer steps so far."""
        return len(self.learning_rates)

    def add(self, epochs_seen: float, losses: tuple[float, float], show: bool) -> None:
        """Append what was measured after `epochs_seen` passes: training and validation loss."""
        for values, loss in zip((self.train_losses, self.val_losses), losses, strict=True):
            values.append(loss)
        self.track_tokens_seen.append(self.tokens_seen)
        self.epochs_seen.append(epochs_seen)
        if show:
            place = f"epoch {epochs_seen:.2f} (step {self.step:,})"
            tqdm.write(f"{place}: loss {losses[0]:.3f} in training, {losses[1]:.3f} in validation")


def calc_loss_batch(input_batch: Tensor, target_batch: Tensor, model: nn.Module, device: Device) -> Tensor:
    """Return the mean cross-entropy in nats of the targets (B, T), given the inputs (B, T)."""
    logits = model(input_batch.to(device))  # (B, T, V)
    return F.cross_entropy(logits.flatten(0, 1), target_batch.to(device).flatten(), ignore_index=IGNORED)


@torch.no_grad()
def calc_loss_loader(data_loader: Iterable, model: nn.Module, device: Device, num_batches: int | None = None) -> float:
    """Return the mean loss in nats per token, without dropout: every token counts once, in small batches, too."""
    total, tokens = 0.0, 0
    with eval_mode(model):
        for inputs, targets in itertools.islice(data_loader, num_batches):
            if count := int((targets != IGNORED).sum()):
                total += calc_loss_batch(inputs, targets, model, device).item() * count
                tokens += count
    return total / tokens


def evaluate_model(
    model: nn.Module, train_loader: DataLoader, val_loader: DataLoader, device: Device, eval_iter: int
) -> tuple[float, float]:
    """Return training and validation loss over `eval_iter` batches each."""
    return tuple(calc_loss_loader(loader, model, device, eval_iter) for loader in (train_loader, val_loader))


def generate_and_print_sample(model: GPTModel, tokenizer: Any, device: Device, start_context: str) -> None:
    """Print the most likely continuation of `start_context`, 50 tokens in one line."""
    ids = text_to_token_ids(start_context, tokenizer).to(device)
    ids = generate_text(model, ids, max_new_tokens=50, context_size=model.cfg["context_length"])
    print(token_ids_to_text(ids, tokenizer).replace("\n", " "))


def warmup_cosine(step: int, warmup_steps: int, total_steps: int, peak: float) -> float:
    """Return the learning rate of a step, counted from 0: a line up to `peak`, half a cosine down to 0 at the last."""
    if step < warmup_steps:
        return peak * step / warmup_steps
    progress = (step - warmup_steps) / max(1, total_steps - 1 - warmup_steps)
    return peak * 0.5 * (1 + math.cos(math.pi * progress))


def train_model_simple(
    model: GPTModel,
    train_loader: DataLoader,
    val_loader: DataLoader,
    optimizer: torch.optim.Optimizer,
    device: Device,
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
    show_progress: bool = True,
) -> History:
    """Train until `num_epochs` passes over the data are complete, and return how it went.

    Losses are measured before the first step, every `eval_freq` steps and after each epoch, which ends with a sample
    from `start_context` (None: no sample). `max_norm` clips the gradient, `learning_rate(step)` sets every step's rate.
    Each epoch has its own seed for order and dropout, so a training that continues from a checkpoint with its `history`
    ends with the same weights as one without a break.
    """
    history = history or History()
    losses = functools.partial(evaluate_model, model, train_loader, val_loader, device, eval_iter)
    if history.step == 0:
        _seed(seed, train_loader, val_loader)
        history.add(0, losses(), show_progress)
    model.train()
    while history.epoch < num_epochs:
        _seed(seed + history.epoch, train_loader, val_loader)
        for inputs, targets, passed in _with_progress(train_loader, f"epoch {history.epoch + 1}", show_progress):
            for group in optimizer.param_groups if learning_rate else ():
                group["lr"] = learning_rate(history.step)
            optimizer.zero_grad()
            calc_loss_batch(inputs, targets, model, device).backward()
            if max_norm is not None:
                nn.utils.clip_grad_norm_(model.parameters(), max_norm)
            optimizer.step()
            history.learning_rates.append(optimizer.param_groups[0]["lr"])
            history.tokens_seen += inputs.numel()
            if history.step % eval_freq == 0 or passed == 1:
                history.add(history.epoch + passed, losses(), show_progress)
        history.epoch += 1
        if start_context is not None:
            generate_and_print_sample(model, tokenizer, device, start_context)
    return history


def _with_progress(loader: DataLoader, name: str, show: bool) -> Iterator[tuple[Tensor, Tensor, float]]:
    """Yield the batches, each with the share of the epoch's rows that have passed with it; 1 with the last one."""
    rows = 0
    all_rows = len(loader) * loader.batch_size if loader.drop_last else len(loader.sampler)
    once = iter(loader)  # some bars call iter() twice, which would draw another order
    for inputs, targets in tqdm(once, desc=name, total=len(loader), leave=False, disable=not show):
        rows += len(inputs)
        yield inputs, targets, rows / all_rows


def _seed(seed: int, *loaders: DataLoader) -> None:
    torch.manual_seed(seed)
    for loader in loaders:
        if loader.generator is not None:
            loader.generator.manual_seed(seed)


def save_checkpoint(path: str | Path, model: GPTModel, optimizer: torch.optim.Optimizer, history: History) -> None:
    """Write what `train_model_simple` needs to continue after a complete epoch; the file is whole or not there."""
    states = {"model_state_dict": model.state_dict(), "optimizer_state_dict": optimizer.state_dict()}
    with replacing(Path(path)) as temporary:
        torch.save({"config": model.cfg, **states, "history": asdict(history)}, temporary)


def load_checkpoint(path: str | Path, device: Device = "cpu") -> dict[str, Any]:
    """Read what `save_checkpoint` wrote: `config`, `model_state_dict`, `optimizer_state_dict` and `history`.

    The optimizer's state brings the old learning rate, whatever its constructor was given (D9). To change it, set
    `group["lr"]` in `optimizer.param_groups` after loading, or train with `learning_rate=`.
    """
    content = torch.load(path, map_location=device, weights_only=True)  # a file from elsewhere cannot run anything
    return content | {"history": History(**content["history"])}
