"""Exercises of notebook 03: from documents to sequences of one length."""

from course_utils.exercises.exercise import exercise


@exercise(
    "03.share_lost",
    "Each file is cut alone, not all joined: of 300 tokens in pieces of 128, `300 % 128` are left over.",
    "A file that is shorter than one piece is lost as a whole. Does your formula say so?",
    "Add up the lost tokens of all files and divide by all tokens once; the result is between 0 and 1.",
    examples=[([300, 256], 128), ([2400, 100], 1024), ([128], 128)],
    random_inputs=lambda rng: (rng.choices(range(1, 20), k=rng.randint(1, 3)), rng.randint(2, 8)),
    mistakes={2: lambda counts, length: sum(count % length / count for count in counts) / len(counts)},
)
def share_lost(token_counts, length):
    lost = sum(count % length for count in token_counts)
    return lost / sum(token_counts)


@exercise(
    "03.pack",
    "First make one long list: the tokens of a document, then `eos_id`, then the next document.",
    "Every document gets its `eos_id`, the last one too: the model must learn where texts end.",
    "Then cut the long list, not the documents: `stream[i : i + length]` for i = 0, length, …; keep full pieces only.",
    examples=[([[5, 6, 7], [8]], 0, 2), ([[5, 6, 7, 8], [9, 5]], 0, 4)],
    random_inputs=lambda rng: ([[k] * k for k in rng.choices(range(1, 5), k=rng.randint(1, 3))], 0, rng.randint(2, 4)),
    mistakes={2: lambda lists, eos_id, length: [piece for ids in lists for piece in pack([ids], eos_id, length)]},
)
def pack(token_lists, eos_id, length):
    stream = []
    for tokens in token_lists:
        stream += [*tokens, eos_id]
    return [stream[i : i + length] for i in range(0, len(stream) - length + 1, length)]
