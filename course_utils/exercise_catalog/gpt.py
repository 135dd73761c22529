"""Exercises of notebook 08: attention weights, top-p, counting parameters."""

import math
import random

from course_utils.exercises import Exercise


def attention_weights(scores: list[list[float]]) -> list[list[float]]:
    """Return the causal attention weights of T rows of T scores: a softmax over each row's own and earlier places."""
    weights = []
    for place, row in enumerate(scores):
        best = max(row[: place + 1])  # the largest exponent becomes 0, so that none is too large
        seen = [math.exp(score - best) for score in row[: place + 1]]
        weights.append([value / sum(seen) for value in seen] + [0.0] * (len(row) - place - 1))
    return weights


def top_p(probabilities: list[float], p: float) -> list[int]:
    """Return the positions of the fewest tokens whose probabilities reach `p` together, the likeliest first."""
    chosen, total = [], 0.0
    for position in sorted(range(len(probabilities)), key=lambda i: (-probabilities[i], i)):
        chosen.append(position)
        total += probabilities[position]
        if total >= p - 1e-9:  # sums of decimals are not exact
            break
    return chosen


def parameters(vocab_size: int, context_length: int, emb_dim: int, n_layers: int) -> int:
    """Return the number of parameters of a GPT-2 with tied weights and all biases."""
    attention = 4 * emb_dim * emb_dim + 4 * emb_dim
    feed_forward = 8 * emb_dim * emb_dim + 5 * emb_dim
    norms = 4 * emb_dim
    return (vocab_size + context_length) * emb_dim + n_layers * (attention + feed_forward + norms) + 2 * emb_dim


def _scores(rng: random.Random) -> tuple[list[list[float]]]:
    size = rng.randint(1, 4)
    return ([[float(rng.randint(-3, 3)) for _ in range(size)] for _ in range(size)],)


def _probabilities(rng: random.Random) -> tuple[list[float], float]:
    counts = [rng.randint(1, 9) for _ in range(rng.randint(1, 6))]
    return [count / sum(counts) for count in counts], rng.randint(1, 19) / 20


def _sizes(rng: random.Random) -> tuple[int, int, int, int]:
    return rng.randint(1, 100), rng.randint(1, 64), rng.randint(1, 16), rng.randint(1, 4)


EXERCISES = (
    Exercise(
        id="08.attention_weights",
        title="Attention weights by hand",
        reference="course_utils.exercise_catalog.gpt:attention_weights",
        examples=(([[0.0, 5.0], [1.0, 1.0]],), ([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]],)),
        edge_cases=(([[3.0]],), ([[0.0, 0.0], [-2.0, 2.0]],)),
        random_arguments=_scores,
        fair=lambda scores: len(scores) > 0 and all(len(row) == len(scores) for row in scores),
        hints=(
            "Row i may see the places 0 to i only: `row[: i + 1]`. All later weights are 0.",
            "The softmax of a row: exp of each score, divided by their sum.",
            "The sum runs over the visible places only, or the rows do not sum to 1.",
        ),
    ),
    Exercise(
        id="08.top_p",
        title="The fewest tokens that reach p",
        reference="course_utils.exercise_catalog.gpt:top_p",
        examples=(([0.5, 0.3, 0.2], 0.7), ([0.1, 0.6, 0.3], 0.5)),
        edge_cases=(([1.0], 0.5), ([0.25, 0.25, 0.25, 0.25], 0.5), ([0.2, 0.8], 0.95)),
        random_arguments=_probabilities,
        fair=lambda probabilities, p: bool(probabilities) and 0 < p < 1 and abs(sum(probabilities) - 1) < 1e-6,
        hints=(
            "Sort the positions by probability, the highest first; of equal ones the lower position first.",
            "Go on adding until the sum is at least p. The token that reaches p belongs to it.",
            "Sums of decimals are not exact: compare with p - 1e-9.",
        ),
    ),
    Exercise(
        id="08.parameters",
        title="How many parameters has a GPT-2?",
        reference="course_utils.exercise_catalog.gpt:parameters",
        examples=((50257, 1024, 768, 12), (100, 16, 8, 1)),
        edge_cases=((1, 1, 1, 1), (10, 5, 2, 2)),
        random_arguments=_sizes,
        fair=lambda *sizes: min(sizes) >= 1,
        hints=(
            "A linear layer from a to b has a · b weights and b biases. A norm has 2 · C numbers.",
            "A block: C → 3C and C → C in the attention, C → 4C and 4C → C after it, and two norms.",
            "Outside the blocks: a vector per token and per position, and one norm. The head is the token table again.",
        ),
    ),
)
