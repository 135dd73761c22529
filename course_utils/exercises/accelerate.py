"""Exercises of notebook 05: weights of rows, steps of a pass, a loss and a log of your own."""

import math
from pathlib import Path
from typing import Any

from course_utils.exercises.comparing import in_time
from course_utils.exercises.exercise import exercise

# Two rows to measure a loss on: the first is full of words that a loss may weight, the second has no key word.
_CODE = (
    "import pandas as pd\nimport matplotlib.pyplot as plt\nplt.plot(pd, plt); model. fit(pd); sk. predict(plt)\n",
    "def area(width, height):\n    total = width * height\n    for i in range(3):\n        total += i\n",
)


@exercise(
    "05.row_weights",
    "Count how many tokens of a row are in `keytoken_ids`. The same token twice counts twice.",
    "A row without key tokens weighs 1, and every key token adds `alpha`.",
    "`token in keytoken_ids` is True or False, and `sum` counts True as 1.",
    examples=[([[5, 7, 1], [2, 2, 3]], [7, 2], 1.0), ([[4, 4], [1, 9]], [4], 0.5)],
    random_inputs=lambda rng: ([rng.choices(range(5), k=3) for _ in range(2)], [1, 3], rng.choice([0.0, 0.5, 2.0])),
    mistakes={0: lambda rows, ids, alpha: [1 + alpha * len(set(row) & set(ids)) for row in rows]},
)
def my_row_weights(rows, keytoken_ids, alpha):
    weights = []
    for row in rows:
        key_tokens = sum(token in keytoken_ids for token in row)
        weights.append(1 + alpha * key_tokens)
    return weights


@exercise(
    "05.steps_per_pass",
    "How many rows go into one optimizer step, on all processes together?",
    "One step takes batch_size x processes x accumulation rows.",
    "What is left over makes one more step: round up, as `math.ceil` does.",
    examples=[(100, 8, 2, 4), (9, 1, 1, 4), (64, 8, 2, 4), (1, 8, 1, 1)],
    random_inputs=lambda rng: (rng.randint(1, 40), rng.randint(1, 5), rng.randint(1, 3), rng.randint(1, 3)),
    mistakes={2: lambda rows, batch_size, processes, accumulation: rows // (batch_size * processes * accumulation)},
)
def my_steps_per_pass(rows, batch_size, processes, accumulation):
    import math

    rows_per_step = batch_size * processes * accumulation
    return math.ceil(rows / rows_per_step)


def _own_loss(value: Any) -> list[str]:
    """Return what keeps a loss from being trained with: a finite mean in nats, with gradients, smaller if right.

    Measured with the tokenizer of the notebook, whose ids the key tokens are. With equal logits every token costs ln V;
    so does every mean of them, however weighted, but no sum that lacks its division. 2 % leave room for a focal loss.
    """
    import torch

    from course_utils import artifacts
    from course_utils.profiles import get_profile

    tokenizer = artifacts.code_tokenizer(get_profile())
    rows = [tokenizer(code)["input_ids"] for code in _CODE]
    labels = torch.tensor([row[: min(map(len, rows))] for row in rows])
    right = torch.nn.functional.one_hot(labels.roll(-1, 1), len(tokenizer)).float() * 30  # t knows token t + 1
    noise = torch.randn(right.shape, generator=torch.Generator().manual_seed(0))
    losses = []
    for ids, logits in ((labels, right), (labels, noise), *((row[None], noise[:1] * 0) for row in labels)):
        logits.requires_grad_()
        try:
            loss = in_time(value, (ids, logits))
            gradient = torch.autograd.grad(loss, logits)[0]
        except Exception as error:
            shapes = f"labels {tuple(ids.shape)} and logits {tuple(logits.shape)}"
            return [
                f"With {shapes} there is no gradient: {type(error).__name__}: {error}",
                "A loss is a tensor with one number: use torch functions only, and no .item(), .detach() or numpy.",
            ]
        if not (loss.isfinite() and gradient.isfinite().all()):
            return [f"It returns {loss.item()}, or gradients that are not finite numbers."]
        losses.append(loss.item())
    (known, random_loss, key_row, other_row), ideal = losses, math.log(len(tokenizer))
    if known >= random_loss:
        return [
            f"Right logits cost {known:.2f}, random ones {random_loss:.2f}. Does position t name the token at t + 1?"
        ]
    if max(abs(key_row - ideal), abs(other_row - ideal)) > 0.02 * ideal or abs(key_row - other_row) > 0.001 * ideal:
        return [
            f"With equal logits every token costs ln V = {ideal:.3f}, and so does any mean. Yours is {key_row:.3f} "
            f"for a row with key tokens, {other_row:.3f} for one without. Divide by the sum of your weights, and leave "
            "out the last position of a row: nothing follows it."
        ]
    return []


@exercise(
    "05.own_loss",
    "Start from `losses.token_losses(labels, logits)[:, :-1]`, a loss for every position that has a next token.",
    "Divide by the sum of your weights, so that an untrained model's loss stays near ln(vocabulary).",
    examine=_own_loss,
)
def my_loss(labels, logits):
    import torch
    from torch.nn import functional as F

    guesses, answers = logits[:, :-1], labels[:, 1:]  # (B, T - 1, V), (B, T - 1)
    token_loss = F.cross_entropy(guesses.transpose(1, 2), answers, reduction="none")  # (B, T - 1)
    weights = 1 - torch.exp(-token_loss.detach()) + 0.01  # 1 minus the probability of the right token
    return (token_loss * weights).sum() / weights.sum()


def _own_log(value: Any) -> list[str]:
    """Return what is missing in a folder of TensorBoard files: at least one number with two steps or more."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = Path(str(value)).expanduser()
    files = sorted({path.parent for path in folder.rglob("events.out.tfevents*")})
    if not files:
        return [f"{folder} has no files of TensorBoard (events.out.tfevents…). Was the log closed with end_training()?"]
    for place in files:
        events = EventAccumulator(str(place)).Reload()
        if any(len({event.step for event in events.Scalars(tag)}) >= 2 for tag in events.Tags()["scalars"]):
            return []
    return ["No number in these files was logged at two different steps; give `step=` when you log."]


@exercise(
    "05.own_log",
    'An accelerator made with `log_with="tensorboard", project_dir=folder` has a tracker.',
    "Call `init_trackers(name)`, then `log({...}, step=step)` in the loop, and `end_training()` at the end.",
    examine=_own_log,
)
def my_log_folder():
    from accelerate import Accelerator

    accelerator = Accelerator(log_with="tensorboard", project_dir="my-log")
    accelerator.init_trackers("try-it")
    for step, loss in enumerate([7.6, 6.9, 6.4], start=1):
        accelerator.log({"loss": loss}, step=step)
    accelerator.end_training()
    return "my-log"
