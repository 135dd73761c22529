"""Exercises of notebook 05: weights of rows, steps of a pass, a loss and a log of your own."""

import math
import random
from pathlib import Path
from typing import Any

from course_utils.exercises import Exercise


def _rows(rng: random.Random) -> tuple[list[list[int]], list[int], float]:
    length = rng.randint(1, 6)
    rows = [[rng.randint(0, 9) for _ in range(length)] for _ in range(rng.randint(1, 4))]
    return rows, rng.sample(range(10), rng.randint(1, 4)), rng.choice([0.0, 0.5, 1.0, 2.0])


def _one_length(rows: list[list[int]], keytoken_ids: list[int], alpha: float) -> bool:
    return bool(rows and keytoken_ids) and alpha >= 0 and min(map(len, rows)) == max(map(len, rows)) > 0


def _pass(rng: random.Random) -> tuple[int, int, int, int]:
    return rng.randint(1, 2000), rng.randint(1, 32), rng.randint(1, 4), rng.randint(1, 8)


def own_loss(value: Any) -> list[str]:
    """Say what keeps a loss from being trained with: a finite mean in nats, with gradients, smaller for better answers.

    Equal logits must give about ln 20. A tolerance of 10 % leaves room for other forms, such as a focal loss.
    """
    import torch

    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(20, (3, 8), generator=generator)
    right = torch.nn.functional.one_hot(labels.roll(-1, 1), 20).float() * 8  # position t knows token t + 1
    random_logits = torch.randn(3, 8, 20, generator=generator)
    findings, losses = [], []
    for logits in (right, random_logits, torch.zeros(3, 8, 20)):
        logits = logits.clone().requires_grad_()
        try:
            loss = value(labels, logits)
        except Exception as error:
            return [f"your_loss(labels (3, 8), logits (3, 8, 20)) raises {type(error).__name__}: {error}"]
        if not isinstance(loss, torch.Tensor) or loss.ndim != 0:
            return [f"It returns {getattr(loss, 'shape', type(loss).__name__)}; a loss is a tensor with one number."]
        if not torch.isfinite(loss):
            return [f"It returns {loss.item()}; a loss must be a finite number."]
        if not loss.requires_grad:
            return ["It has no gradient. Use torch functions only, and no .item(), .detach() or numpy."]
        loss.backward()
        losses.append(loss.item())
        if logits.grad is None:
            return ["It does not depend on the logits, so the model cannot learn from it."]
        if not logits.grad.isfinite().all():
            findings.append("Some of its gradients are not finite.")
    if losses[0] >= losses[1]:
        findings.append(
            f"Logits that name the next token get {losses[0]:.2f}, random ones {losses[1]:.2f}; the first should be "
            "smaller. Does your loss compare position t with the token at t + 1?"
        )
    elif abs(losses[2] / math.log(20) - 1) > 0.1:
        findings.append(
            f"Where all 20 tokens are equally likely, it is {losses[2]:.2f} instead of ln 20 = {math.log(20):.2f}. Is "
            "it a mean, divided by the sum of your weights? After the last position of a row nothing follows, so the "
            "7 positions before it count."
        )
    return findings


def own_log(value: Any) -> list[str]:
    """Say what is missing in a folder of TensorBoard files: at least one number with two steps or more."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = Path(str(value)).expanduser()
    files = sorted({path.parent for path in folder.rglob("events.out.tfevents*")})
    if not files:
        return [f"{folder} has no files of TensorBoard (events.out.tfevents…). Was the log closed with end_training()?"]
    for place in files:
        events = EventAccumulator(str(place))
        events.Reload()
        if any(len({event.step for event in events.Scalars(tag)}) >= 2 for tag in events.Tags()["scalars"]):
            return []
    return ["No number in these files was logged at two different steps; give `step=` when you log."]


EXERCISES = (
    Exercise(
        id="05.row_weights",
        title="How much does each row weigh?",
        reference="course_utils.training.losses:row_weights",
        examples=(([[5, 7, 1], [2, 2, 3]], [7, 2], 1.0), ([[4, 4], [1, 9]], [4], 0.5)),
        edge_cases=(([[1]], [1], 0.0), ([[1, 2]], [3], 2.0), ([[3, 3, 3]], [3, 4], 1.0)),
        random_arguments=_rows,
        fair=_one_length,
        hints=(
            "Count how many tokens of a row are in `keytoken_ids`. The same token twice counts twice.",
            "A row without key tokens weighs 1, and every key token adds `alpha`.",
            "`[1 + alpha * sum(token in keytoken_ids for token in row) for row in rows]`",
        ),
    ),
    Exercise(
        id="05.steps_per_pass",
        title="How many optimizer steps has one pass over the data?",
        reference="course_utils.training.optimization:steps_per_pass",
        examples=((1000, 4, 2, 8), (9, 1, 1, 4)),
        edge_cases=((1, 8, 1, 1), (64, 8, 2, 4), (65, 8, 2, 4), (16, 16, 1, 1)),
        random_arguments=_pass,
        fair=lambda *numbers: min(numbers) >= 1,
        hints=(
            "How many rows go into one optimizer step, on all processes together?",
            "One step takes batch_size x processes x accumulation rows. What is left over makes one more.",
            "Round the division up: `math.ceil(rows / rows_per_step)`.",
        ),
    ),
    Exercise(
        id="05.own_loss",
        title="A loss of your own",
        examine=own_loss,
        hints=(
            "Start from `token_losses(labels, logits)[:, :-1]`, a loss for every position but the last, which has no "
            "next token. Weight it as you like.",
            "Divide by the sum of your weights, so that an untrained model's loss stays near ln(vocabulary).",
        ),
    ),
    Exercise(
        id="05.own_log",
        title="A log of your own",
        examine=own_log,
        hints=(
            'An accelerator made with `log_with="tensorboard", project_dir=folder` has a tracker.',
            "Call `init_trackers(name)`, then `log({...}, step=step)` in the loop, and `end_training()` at the end.",
        ),
    ),
)
