"""Exercises of notebook 05: the order of the six lines, steps of a pass, an evaluation, a loss of your own."""

import math
import statistics
import warnings
from functools import partial

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


_POINTS = [[(1.0, 3.0)], [(1.0, 2.0), (2.0, 1.0)], [(1.0, 3.0), (2.0, 5.0), (3.0, 7.0)]]


def _fit_line(points, order):
    """Fit a line by the steps `order`, such as "backward, step, rate, clear"."""
    w, b = torch.zeros(1, requires_grad=True), torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.SGD([w, b], lr=0.1)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, gamma=0.5)
    steps = {"step": optimizer.step, "rate": scheduler.step, "clear": optimizer.zero_grad}
    with warnings.catch_warnings(action="ignore"):  # of a schedule that moves first
        for x, y in points:
            steps["backward"] = (w * x + b - y).square().mean().backward
            for name in order.split(", "):
                steps[name]()
    return [w.item(), b.item()]


@exercise(
    "05.order",
    "Which line deletes what `backward` has computed? It must not stand between `backward` and `step`.",
    "Your second step used the sum of two gradients. Clear them once in each turn, after `step` or before `backward`.",
    "Your first step used the second learning rate: the schedule moves after the optimizer.",
    examples=[(points,) for points in _POINTS],
    random_inputs=lambda rng: ([(rng.randint(0, 2) / 2, float(rng.randint(0, 3))) for _ in range(rng.randint(1, 3))],),
    bug=partial(_fit_line, order="backward, clear, step, rate"),
    mistakes={
        1: partial(_fit_line, order="backward, step, rate"),
        2: partial(_fit_line, order="backward, rate, step, clear"),
    },
)
def fit_line(points):
    import torch

    w, b = torch.zeros(1, requires_grad=True), torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.SGD([w, b], lr=0.1)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, gamma=0.5)
    for x, y in points:
        loss = (w * x + b - y).square().mean()
        loss.backward()
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
    return [w.item(), b.item()]


@exercise(
    "05.evaluate",
    "Average losses, not perplexities: e to the power of the mean comes once, at the end.",
    "A batch with one loss must not count as much as a batch with three. Add up losses and numbers over all batches.",
    "Divide by the number of losses, not by rows: where there is None, nothing was predicted.",
    examples=[([[[1.0, 1.0, 1.0]], [[5.0, None]]],), ([[[2.0, None], [1.0, 3.0]]],)],
    random_inputs=lambda rng: (
        [[[float(rng.randint(0, 3)), *rng.choices([None, 1.0, 2.0], k=2)] for _ in range(rng.randint(1, 2))]
         for _ in range(rng.randint(1, 3))],
    ),
    bug=lambda batches: statistics.fmean(math.exp(statistics.fmean(_losses([batch]))) for batch in batches),
    mistakes={
        1: lambda batches: math.exp(statistics.fmean(statistics.fmean(_losses([batch])) for batch in batches)),
        2: lambda batches: math.exp(sum(_losses(batches)) / sum(map(len, batches))),
    },
)  # fmt: skip
def evaluate(batches):
    import math

    losses = [loss for batch in batches for row in batch for loss in row if loss is not None]
    return math.exp(sum(losses) / len(losses))


def _losses(batches):
    return [loss for batch in batches for row in batch for loss in row if loss is not None]


@exercise(
    "05.steps_per_pass",
    "One optimizer step takes batch_size x processes x accumulation rows, on all processes together.",
    "What is left over makes one more step: round up, as `math.ceil` does.",
    examples=[(100, 8, 2, 4), (9, 1, 1, 4), (64, 8, 2, 4), (1, 8, 1, 1)],
    random_inputs=lambda rng: (rng.randint(1, 40), rng.randint(1, 5), rng.randint(1, 3), rng.randint(1, 3)),
    mistakes={1: lambda rows, batch_size, processes, accumulation: rows // (batch_size * processes * accumulation)},
)
def steps_per_pass(rows, batch_size, processes, accumulation):
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
