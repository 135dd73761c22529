"""Exercises of notebook 05: weights of rows, steps of a pass, a loss and a log of your own."""

import math
from pathlib import Path

import torch

from course_utils import artifacts
from course_utils.exercises.comparing import in_time
from course_utils.exercises.exercise import exercise
from course_utils.profiles import get_profile

# Two rows to measure a loss on: the first is full of words that a loss may weight, the second has no key word.
_CODE = (
    "import pandas as pd\nplt.plot(pd, plt); sk. fit(pd)\n",
    "def area(width, height):\n    total = width * height\n",
)


@exercise(
    "05.row_weights",
    "Count how many tokens of a row are in `keytoken_ids`. The same token twice counts twice.",
    "A row without key tokens weighs 1, and every key token adds `alpha`.",
    examples=[([[5, 7, 1], [2, 2, 3]], [7, 2], 1.0), ([[4, 4], [1, 9]], [4], 0.5)],
    random_inputs=lambda rng: ([rng.choices(range(5), k=3) for _ in range(2)], [1, 3], rng.choice([0.0, 0.5, 2.0])),
    mistakes={0: lambda rows, ids, alpha: [1 + alpha * len(set(row) & set(ids)) for row in rows]},
)
def my_row_weights(rows, keytoken_ids, alpha):
    return [1 + alpha * sum(token in keytoken_ids for token in row) for row in rows]


@exercise(
    "05.steps_per_pass",
    "One optimizer step takes batch_size x processes x accumulation rows, on all processes together.",
    "What is left over makes one more step: round up, as `math.ceil` does.",
    examples=[(100, 8, 2, 4), (9, 1, 1, 4), (64, 8, 2, 4), (1, 8, 1, 1)],
    random_inputs=lambda rng: (rng.randint(1, 40), rng.randint(1, 5), rng.randint(1, 3), rng.randint(1, 3)),
    mistakes={1: lambda rows, batch_size, processes, accumulation: rows // (batch_size * processes * accumulation)},
)
def my_steps_per_pass(rows, batch_size, processes, accumulation):
    import math

    return math.ceil(rows / (batch_size * processes * accumulation))


def _own_loss(value: object) -> str:
    """Return what keeps a loss from being trained with: a finite mean in nats, with gradients, smaller if right."""
    tokenizer = artifacts.code_tokenizer(get_profile())  # that of the notebook, whose ids the key tokens are
    rows = [tokenizer(code)["input_ids"] for code in _CODE]
    labels = torch.tensor([row[: min(map(len, rows))] for row in rows])
    right = torch.nn.functional.one_hot(labels.roll(-1, 1), len(tokenizer)).float() * 30  # t knows token t + 1
    costs = []
    for ids, logits in ((labels, right), *((row[None], right[:1] * 0) for row in labels)):
        try:
            loss = in_time(value, (ids, logits.requires_grad_()))
            gradient = torch.autograd.grad(loss, logits)[0]
        except Exception as error:
            shapes = f"labels {tuple(ids.shape)} and logits {tuple(logits.shape)}"
            needed = "a tensor with one number, by torch functions only, and no .item(), .detach() or numpy"
            return f"With {shapes} there is no gradient ({type(error).__name__}: {error}). A loss is {needed}."
        if not (loss.isfinite() and gradient.isfinite().all()):
            return f"It returns {loss.item()}, or gradients that are not finite numbers."
        costs.append(loss.item())
    (known, key_row, other_row), ideal = costs, math.log(len(tokenizer))
    if known >= key_row:
        return f"Right logits cost {known:.2f}, equal ones {key_row:.2f}. Does position t name the token at t + 1?"
    # With equal logits every mean is ln V, however weighted, but no undivided sum. 2 % leave room for a focal loss.
    if max(abs(key_row - ideal), abs(other_row - ideal)) > 0.02 * ideal or abs(key_row - other_row) > 0.001 * ideal:
        row_costs = f"yours is {key_row:.3f} for a row with key tokens, {other_row:.3f} for one without"
        advice = "Divide by the sum of your weights, and leave out the last position: nothing follows it."
        return f"With equal logits every token, and so any mean, costs ln V = {ideal:.3f}; {row_costs}. {advice}"
    return ""


@exercise(
    "05.own_loss",
    "Start from `losses.token_losses(labels, logits)[:, :-1]`, a loss for every position that has a next token.",
    "Divide by the sum of your weights, so that an untrained model's loss stays near ln(vocabulary).",
    examine=_own_loss,
)
def my_loss(labels, logits):
    from course_utils.training import losses

    token_loss = losses.token_losses(labels, logits)[:, :-1]  # (B, T - 1)
    weights = 1 - (-token_loss.detach()).exp() + 0.01  # 1 minus the probability of the right token
    return (token_loss * weights).sum() / weights.sum()


def _own_log(value: object) -> str:
    """Return what is missing in a folder of TensorBoard files: at least one number with two steps or more."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = Path(str(value)).expanduser()
    places = {path.parent for path in folder.rglob("events.out.tfevents*")}
    if not places:
        return f"{folder} has no files of TensorBoard (events.out.tfevents…). Was the log closed with end_training()?"
    for log in [EventAccumulator(str(place)).Reload() for place in places]:
        if any(len({event.step for event in log.Scalars(tag)}) >= 2 for tag in log.Tags()["scalars"]):
            return ""
    return "No number in these files was logged at two different steps; give `step=` when you log."


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
