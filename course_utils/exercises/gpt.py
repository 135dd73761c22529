"""Exercises of notebook 09: attention, a leaking mask, a block, counting parameters, reading heads."""

from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import torch

from course_utils.exercises.comparing import Endless, in_time, shown
from course_utils.exercises.exercise import exercise


def _tensor(name: str, function: Callable, shape: tuple[int, ...], *arguments: Any) -> tuple[torch.Tensor, str]:
    """Call a learner's function; return the tensor that it made, or what is wrong instead."""
    try:
        made = in_time(function, arguments)
    except (Exception, Endless) as error:
        return torch.empty(0), f"{name} gives {shown(error)}"
    if not isinstance(made, torch.Tensor) or tuple(made.shape) != shape:
        got = f"shape {tuple(made.shape)}" if isinstance(made, torch.Tensor) else shown(made)
        return torch.empty(0), f"{name} must return a tensor of shape {shape}, for inputs of that shape; it gave {got}."
    return made, ""


def _attend_fault(answer: Callable) -> str:
    if not callable(answer):
        return f"The answer must be a function; this is {shown(answer)}."
    random = torch.Generator().manual_seed(9)
    q, k = 1 + torch.randn(2, 4, 4, generator=random, dtype=torch.float64)
    v = torch.eye(4, dtype=torch.float64)  # then the result is the table of weights
    right = my_attend(q, k, v)
    weights, fault = _tensor("attend", answer, (4, 4), q, k, v)
    if fault or torch.allclose(weights, right):
        return fault or _attend_shapes_fault(answer)
    if weights.isnan().any():
        return "the result has NaN: a row of scores is −∞ throughout; every token may look at itself."
    rows = ", ".join(f"{total:.2f}" for total in weights.sum(1).tolist())
    if torch.allclose(weights.sum(0), torch.ones_like(weights[0])):
        return f"your rows of weights sum to {rows}: the softmax must run along the rows, softmax(-1)."
    if not torch.allclose(weights.sum(1), torch.ones_like(weights[0])):
        return f"your rows of weights sum to {rows}: set the scores of later tokens to −∞ before the softmax."
    if weights.triu(1).abs().max() > 1e-6:
        return f"token 0 gives {weights[0, 1:].sum():.2f} of its weight to later tokens; the mask is missing or turned."
    if torch.allclose(weights, my_attend(2 * q, k, v)):
        return "your scores are √D times too large: divide them by √D."
    if torch.allclose(weights, my_attend(k, q, v)):
        return "your queries and keys are exchanged: row i must hold the scores of query i."
    got, wanted = (", ".join(f"{weight:.2f}" for weight in table[1, :2].tolist()) for table in (weights, right))
    return f"token 1 looks at tokens 0 and 1 with {got}; right are {wanted}."


def _attend_shapes_fault(answer: Callable) -> str:
    """Return what is wrong with the values, or with more dimensions."""
    for shape in ((5, 2), (2, 5, 2), (2, 3, 5, 4)):
        q, k, v = torch.randn(3, *shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        made, fault = _tensor("attend", answer, shape, q, k, v)
        if fault:
            return fault
        if not torch.allclose(made, my_attend(q, k, v)):
            return f"with inputs of shape {shape} the numbers are wrong; transpose(-2, -1), softmax(-1), weights @ v."
    return ""


@exercise(
    "09.attend",
    "Scores: `q @ k.transpose(-2, -1)`, divided by the root of `q.shape[-1]`.",
    "The mask: `torch.ones(T, T, dtype=torch.bool, device=q.device).triu(1)`, with `masked_fill` and `-torch.inf`.",
    "The weights are `softmax(-1)` of the scores, and the result is `weights @ v`.",
    examine=_attend_fault,
)
def my_attend(q, k, v):
    import torch

    T, D = q.shape[-2:]
    scores = q @ k.transpose(-2, -1) / D**0.5  # (..., T, T)
    later = torch.ones(T, T, dtype=torch.bool, device=q.device).triu(1)
    weights = scores.masked_fill(later, -torch.inf).softmax(-1)  # every row sums to 1
    return weights @ v  # (..., T, D)


def _leaking(T: int) -> torch.Tensor:
    return torch.ones(T, T, dtype=torch.bool).triu(2)


@exercise(
    "09.leak",
    "Changing token 2 must change nothing for tokens 0 and 1: they may look at themselves and at earlier tokens only.",
    "Token 0 sees nobody now, not even itself: its row is True throughout, and its softmax would be NaN.",
    "Rows look, columns are looked at. Yours is turned: token 0 sees token 2, and token 2 does not see token 0.",
    "`triu(d)` keeps what is on or above the diagonal number d; 0 is the main one.",
    examples=[(3,), (2,), (1,), (5,)],
    random_inputs=lambda rng: (rng.randint(1, 6),),
    mistakes={
        1: lambda T: torch.ones(T, T, dtype=torch.bool).triu(0),
        2: lambda T: torch.ones(T, T, dtype=torch.bool).tril(-1),
    },
    bug=_leaking,
)
def my_later_places(T):
    import torch

    return torch.ones(T, T, dtype=torch.bool).triu(1)


def _block_fault(answer: Callable) -> str:
    if not callable(answer):
        return f"The answer must be a function; this is {shown(answer)}."
    x = torch.tensor([[[1.0, -2.0, 4.0]]], dtype=torch.float64)
    parts = {"norm1": lambda x: x / 2, "att": lambda x: 3 * x + 1, "norm2": lambda x: x / 5, "ff": lambda x: x**2}

    def run(**changed: Callable) -> tuple[torch.Tensor, str]:
        return _tensor("forward", answer, (1, 1, 3), SimpleNamespace(**(parts | changed)), x.clone())

    made, fault = run(att=torch.zeros_like, ff=torch.zeros_like)
    if fault:
        return fault
    if not torch.allclose(made, x):
        if torch.allclose(made, torch.zeros_like(x)):
            return "with all weights 0 your output is 0, it should be x: add what a part gives to what came in."
        return "with all weights 0 the output should be x itself: GPT-2 normalizes before each part, not after the sum."
    made, _ = run()
    if torch.allclose(made, my_forward(SimpleNamespace(**parts), x)):
        return ""
    for name in parts:
        if torch.allclose(made, run(**{name: lambda x: x + 7})[0]):
            return f"your result does not depend on self.{name}."
    if torch.allclose(made, x + parts["att"](parts["norm1"](x)) + parts["ff"](parts["norm2"](x))):
        return "the feed-forward network reads x itself; it should read the sum of x and the attention's result."
    return "the numbers are wrong; the order is norm1, att, sum, then norm2, ff, sum."


@exercise(
    "09.block",
    "The first half: `x = x + self.att(self.norm1(x))`.",
    "The second half reads the new x.",
    examine=_block_fault,
)
def my_forward(self, x):
    x = x + self.att(self.norm1(x))  # tokens look at each other
    return x + self.ff(self.norm2(x))  # each token by itself


@exercise(
    "09.parameters",
    "A linear layer from a to b has a · b weights and b biases. A norm has 2 · C numbers.",
    "Outside the blocks: a vector per token and per position. The head is the token table again: count it once.",
    "In a block: C → 3C and C → C in the attention, C → 4C and 4C → C after it. Their biases are 9C numbers.",
    "A block has two norms, 4C numbers together.",
    "2C too few, 1 536 for GPT-2 small: after the last block there is one more norm.",
    examples=[(100, 16, 8, 1), (50257, 1024, 768, 12)],
    random_inputs=lambda rng: (rng.randint(1, 50), rng.randint(1, 32), rng.randint(1, 8), rng.randint(1, 4)),
    mistakes={
        0: lambda v, t, c, n: (v + t) * c + 12 * n * c * c,
        1: lambda v, t, c, n: my_count(v, t, c, n) + v * c,
        2: lambda v, t, c, n: my_count(v, t, c, n) - 9 * n * c,
        3: lambda v, t, c, n: my_count(v, t, c, n) - 4 * n * c,
        4: lambda v, t, c, n: my_count(v, t, c, n) - 2 * c,
    },
)
def my_count(vocab_size, context_length, emb_dim, n_layers):
    attention = 4 * emb_dim * emb_dim + 4 * emb_dim  # C → 3C and C → C
    feed_forward = 8 * emb_dim * emb_dim + 5 * emb_dim  # C → 4C and 4C → C
    norms = 2 * 2 * emb_dim
    outside = (vocab_size + context_length) * emb_dim + 2 * emb_dim  # two tables and the last norm
    return outside + n_layers * (attention + feed_forward + norms)


def _head_fault(answer: Any, measured: Mapping[str, Mapping[tuple[int, int], float]]) -> str:
    before, first = measured["the token before"], measured["the first token"]
    answer = tuple(answer) if isinstance(answer, list) else answer
    if not isinstance(answer, tuple) or answer not in before:
        return f"Type (block, head), both counted from 0, such as (0, 1); this is {shown(answer)}."
    if answer in sorted(before, key=before.get)[-2:]:
        return ""
    if first[answer] > before[answer]:
        return f"that head gives {first[answer]:.0%} to the first token; you want the line below the diagonal."
    return f"that head gives {before[answer]:.0%} to the token before; another gives {max(before.values()):.0%}."


@exercise(
    "09.previous",
    "Look for a dark line directly below the diagonal.",
    "A line farther from the diagonal is a head that looks at a token two or more places back.",
    examine=_head_fault,
)
def my_head():
    """Look at the pages: the right one has its dark line directly below the diagonal."""
