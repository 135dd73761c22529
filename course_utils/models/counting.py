"""A language model that only counts, to show what a network adds: n-grams with Kneser-Ney smoothing."""

from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

DISCOUNT = 0.85  # 0.75 and 0.95 are no better on the course's held-out text


class CountingModel:
    """Predict a token by what followed the last `memory` tokens, the last but one fewer, and so on, down to none.

    What followed a context n of c times gets (n - 0.85) / c. The context without its oldest token shares out the rest,
    and in the end all tokens are alike. A shorter context counts each pair once per different token before it: "York"
    may be frequent, but if it only follows "New", it is unlikely elsewhere.
    """

    def __init__(self, ids: Any, vocab_size: int, memory: int = 4) -> None:
        """Count in the token `ids`, an array of any shape, read as one text with zeros before it."""
        ids = np.concatenate([np.zeros(memory, np.int64), np.asarray(ids).reshape(-1)])
        # One table per length of context. A context's number is its place among `contexts`: pairs of the number without
        # its oldest token and that token, as one integer. `pairs` are these of a context's number and a next token.
        self.vocab_size, self.tables = vocab_size, []
        contexts, numbers = [np.zeros(1, np.int64)], np.zeros(len(ids) - memory, np.int64)
        for length in range(1, memory + 1):
            found, numbers = np.unique(numbers * vocab_size + ids[memory - length : -length], return_inverse=True)
            contexts.append(found)
        pairs, times = np.unique(numbers * vocab_size + ids[memory:], return_counts=True)
        for found in reversed(contexts):
            owners = pairs // vocab_size
            self.tables.insert(0, (found, pairs, times, np.bincount(owners, times), np.bincount(owners)))
            pairs, times = np.unique(found[owners] // vocab_size * vocab_size + pairs % vocab_size, return_counts=True)

    def token_probabilities(self, rows: Any) -> np.ndarray:
        """Return how likely each token is after those before it in its row, (B, T) each; the first after nothing."""
        rows, size = np.asarray(rows).astype(np.int64), self.vocab_size
        probabilities, numbers = np.full(rows.shape, 1 / size), np.zeros_like(rows)
        for length, (contexts, pairs, times, totals, kinds) in enumerate(self.tables[: rows.shape[1]]):
            if length:  # an unseen context, -1, stays unseen
                longer = np.where(numbers < 0, -size, numbers * size)[:, length:] + rows[:, :-length]
                numbers = np.pad(_find(longer, contexts), ((0, 0), (length, 0)), constant_values=-1)
            pair = _find(numbers * size + rows, pairs)
            left = DISCOUNT * kinds[numbers] * probabilities
            mixed = (np.where(pair < 0, 0, times[pair] - DISCOUNT) + left) / totals[numbers]
            probabilities = np.where(numbers < 0, probabilities, mixed)
        return probabilities

    def loss(self, rows: Any) -> float:
        """Return the mean loss of rows (B, T), in nats per token, their first tokens left out as for a network."""
        return float(-np.log(self.token_probabilities(rows)[:, 1:]).mean())

    def next_probabilities(self, ids: list[int]) -> np.ndarray:
        """Return how likely each token of the vocabulary is after `ids`, (V,)."""
        recent = ids[max(0, len(ids) + 1 - len(self.tables)) :]
        rows = [np.full(self.vocab_size, token) for token in recent]
        return self.token_probabilities(np.stack([*rows, np.arange(self.vocab_size)], axis=1))[:, -1]

    def complete(self, tokenizer: PreTrainedTokenizerBase, prompt: str, new_tokens: int = 32) -> str:
        """Continue a prompt with the most likely token each time, at most up to an end of text."""
        ids, made = tokenizer(prompt, add_special_tokens=False)["input_ids"], []
        while len(made) < new_tokens and tokenizer.eos_token_id not in made:
            made.append(int(self.next_probabilities(ids + made).argmax()))
        return tokenizer.decode(made, skip_special_tokens=True)


def _find(wanted: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Return the places of values in a sorted array, -1 for those that it lacks."""
    places = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
    return np.where(known[places] == wanted, places, -1)
