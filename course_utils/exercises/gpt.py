"""Exercises of notebook 09: attention weights, top-p, counting parameters."""

import math

from course_utils.exercises.exercise import exercise

_TENTHS = ((10,), (5, 5), (3, 7), (2, 5, 3), (1, 2, 4, 3), (4, 2, 2, 2), (1, 1, 1, 7))


@exercise(
    "09.attention_weights",
    "Row i may see the places 0 to i only: `row[: i + 1]`. All later weights are 0.",
    "The softmax of a row: exp of each score, divided by their sum.",
    "The sum runs over the visible places only, or the rows do not sum to 1.",
    examples=[([[0.0, 5.0], [1.0, 1.0]],), ([[3.0]],), ([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]],)],
    random_inputs=lambda rng: ([rng.choices([-2.0, 0.0, 1.0, 3.0], k=3) for _ in range(3)],),
    mistakes={0: lambda scores: [[math.exp(s) / sum(map(math.exp, row)) for s in row] for row in scores]},
)
def my_attention_weights(scores):
    import math

    weights = []
    for place, row in enumerate(scores):
        visible = [math.exp(score) for score in row[: place + 1]]
        hidden = [0.0] * (len(row) - len(visible))
        weights.append([value / sum(visible) for value in visible] + hidden)
    return weights


@exercise(
    "09.top_p",
    "Sort the positions by probability, the highest first; of equal ones the lower position first.",
    "Keep adding until the sum is at least p. The token that reaches p belongs to it.",
    "Sums of decimals are not exact: compare with p - 1e-9.",
    examples=[([0.5, 0.3, 0.2], 0.7), ([0.1, 0.6, 0.3], 0.5), ([0.25, 0.25, 0.25, 0.25], 0.5)],
    random_inputs=lambda rng: ([tenths / 10 for tenths in rng.choice(_TENTHS)], rng.randint(1, 19) / 20),
    mistakes={1: lambda probabilities, p: my_top_p(probabilities, p)[:-1]},
)
def my_top_p(probabilities, p):
    likeliest_first = sorted(range(len(probabilities)), key=lambda i: -probabilities[i])
    chosen, total = [], 0.0
    while total < p - 1e-9:  # sums of decimals are not exact
        chosen.append(likeliest_first[len(chosen)])
        total += probabilities[chosen[-1]]
    return chosen


@exercise(
    "09.parameters",
    "A linear layer from a to b has a · b weights and b biases. A norm has 2 · C numbers.",
    "Outside the blocks: a vector per token and per position. The head is the token table again: count it once.",
    "In a block: C → 3C and C → C in the attention, C → 4C and 4C → C after it. Their biases are 9C numbers.",
    "A block has two norms, 4C numbers together.",
    "After the last block there is one more norm.",
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
