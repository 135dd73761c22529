"""Training the GPT written by hand, in one process; `loop` is the one for several devices and runs that are killed."""

import functools
import itertools
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from course_utils.cache import replacing
from course_utils.models.decoding import eval_mode, generate_text, text_to_token_ids, token_ids_to_text
from course_utils.models.gpt import GPTModel
from course_utils.training.losses import IGNORED

Device = torch.device | str


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
    print(*token_ids_to_text(ids, tokenizer).split())


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
    start_context: str,
    tokenizer: Any,
    *,
    max_norm: float | None = None,
    scheduler: LRScheduler | None = None,
    seed: int = 0,
) -> tuple[list[float], list[float], list[int]]:
    """Train, and return training losses, validation losses and the tokens that were seen when they were measured.

    Losses are measured before the first step, every `eval_freq` steps and after each epoch, which ends with a sample
    from `start_context`. `max_norm` clips the gradient, `scheduler` moves the learning rate after every step. Each
    epoch has a seed of its own for order and dropout, so measuring changes no weight.
    """
    measure = functools.partial(evaluate_model, model, train_loader, val_loader, device, eval_iter)
    found, step, tokens = [(*measure(), 0)], 0, 0
    model.train()
    for epoch in range(num_epochs):
        torch.manual_seed(seed + epoch)
        if train_loader.generator is not None:
            train_loader.generator.manual_seed(seed + epoch)
        once = iter(train_loader)  # some bars call iter() twice, which would draw another order
        batches = tqdm(once, desc=f"epoch {epoch + 1}", total=len(train_loader), leave=False)
        for batch, (inputs, targets) in enumerate(batches, start=1):
            optimizer.zero_grad()
            calc_loss_batch(inputs, targets, model, device).backward()
            if max_norm is not None:
                nn.utils.clip_grad_norm_(model.parameters(), max_norm)
            optimizer.step()
            if scheduler is not None:
                scheduler.step()
            step, tokens = step + 1, tokens + inputs.numel()
            if step % eval_freq == 0 or batch == len(train_loader):
                found.append((*measure(), tokens))
        generate_and_print_sample(model, tokenizer, device, start_context)
    return tuple(map(list, zip(*found, strict=True)))


def save_checkpoint(path: str | Path, model: GPTModel, optimizer: torch.optim.Optimizer, epoch: int) -> None:
    """Write what a training needs to go on after `epoch` complete epochs; the file is whole or not there."""
    states = {"model_state_dict": model.state_dict(), "optimizer_state_dict": optimizer.state_dict()}
    with replacing(Path(path)) as temporary:
        torch.save({"config": model.cfg, **states, "epoch": epoch}, temporary)


def load_checkpoint(path: str | Path, device: Device = "cpu") -> dict[str, Any]:
    """Read what `save_checkpoint` wrote: `config`, `model_state_dict`, `optimizer_state_dict` and `epoch`.

    The optimizer's state brings the old learning rate, whatever its constructor was given (D9). To change it, set
    `group["lr"]` in `optimizer.param_groups` after loading.
    """
    return torch.load(path, map_location=device, weights_only=True)  # a file from elsewhere cannot run anything
