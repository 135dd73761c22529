"""Exercises of notebook 03: from documents to sequences of one length."""

import random
from typing import Any

from course_utils.exercises import Exercise


def _sequences(result: Any) -> Any:
    """Leave out the remainder that the course's `pack` returns beside the full sequences."""
    pair = type(result) is tuple and len(result) == 2 and getattr(result[0], "ndim", 0) == 2
    return result[0] if pair else result


def _pack_arguments(rng: random.Random) -> tuple[list[list[int]], int, int]:
    documents = [[rng.randint(1, 9) for _ in range(rng.randint(1, 9))] for _ in range(rng.randint(1, 6))]
    return documents, 0, rng.randint(2, 8)


def _count_arguments(rng: random.Random) -> tuple[list[int], int]:
    return [rng.randint(1, 600) for _ in range(rng.randint(1, 8))], rng.choice([2, 8, 100, 128])


EXERCISES = (
    Exercise(
        id="03.pack",
        title="Join documents with an end-of-text token, then cut",
        reference="course_utils.data.packing:pack",
        examples=(([[5, 6, 7], [8]], 0, 2), ([[5, 6, 7, 8], [9, 5]], 0, 4)),
        edge_cases=(
            ([[1]], 0, 2),
            ([[1, 2]], 0, 4),
            ([[1, 2, 3]], 0, 2),
            ([[1], [2], [3]], 0, 2),
            ([[1, 2, 3, 4, 5, 6, 7]], 0, 3),
        ),
        random_arguments=_pack_arguments,
        result=_sequences,
        fair=lambda documents, eos_id, length: length > 1 and all(tokens and 0 not in tokens for tokens in documents),
        hints=(
            "First make one long list: the tokens of a document, then `eos_id`, then the next document.",
            "Every document gets its `eos_id`, the last one too: the model must learn where texts end.",
            "Then cut the long list, not the documents: `stream[i : i + length]` for i = 0, length, 2·length, …",
            "The last piece is kept only if it is full.",
        ),
    ),
    Exercise(
        id="03.share_lost",
        title="Which share of the tokens is in left-over pieces?",
        reference="course_utils.data.packing:share_lost",
        examples=(([300], 128), ([2400, 100], 1024)),
        edge_cases=(([128], 128), ([127], 128), ([1, 128, 129], 128)),
        random_arguments=_count_arguments,
        fair=lambda counts, length: length > 1 and counts and 0 not in counts,
        hints=(
            "A file of 300 tokens gives two pieces of 128; `300 % 128` tokens are left over.",
            "A file that is shorter than one piece is lost as a whole. Does your formula say so?",
            "Add up the lost tokens of all files and divide by all tokens once; the result is between 0 and 1.",
        ),
    ),
)
