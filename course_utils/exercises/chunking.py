"""Exercises of notebook 03: from documents to sequences of one length."""

from course_utils.exercises.exercise import exercise


def _lists(rng):
    return [[k] * k for k in rng.choices(range(1, 5), k=rng.randint(1, 3))]


def _joined(lists, eos_id):
    return [token for ids in lists for token in (*ids, eos_id)]


def _cut(stream, end, length):
    return [stream[i : i + length] for i in range(0, end, length)]


def _without_last_eos(lists, eos_id, length):
    stream = _joined(lists, eos_id)[:-1]
    return _cut(stream, len(stream) - length + 1, length)


@exercise(
    "03.share_lost",
    "Each file is cut alone: of 300 tokens in pieces of 128, 44 are left over. 84 is what they lack of a full piece.",
    "A file that is shorter than one piece is lost as a whole. Does your formula say so?",
    "Add up what all files lose, and divide once, by all tokens: a file of one token counts less than a long one.",
    examples=[([1, 1000], 128), ([300, 256], 128), ([2400, 100], 1024), ([128], 128)],
    random_inputs=lambda rng: (rng.choices(range(1, 20), k=rng.randint(1, 3)), rng.randint(2, 8)),
    mistakes={
        0: lambda counts, length: sum(length - count % length for count in counts) / sum(counts),
        2: lambda counts, length: sum(count % length / count for count in counts) / len(counts),
    },
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
    random_inputs=lambda rng: (_lists(rng), 0, rng.randint(2, 4)),
    mistakes={
        1: _without_last_eos,
        2: lambda lists, eos_id, length: [piece for ids in lists for piece in pack([ids], eos_id, length)],
    },
)
def pack(token_lists, eos_id, length):
    stream = []
    for tokens in token_lists:
        stream += [*tokens, eos_id]
    return [stream[i : i + length] for i in range(0, len(stream) - length + 1, length)]


@exercise(
    "03.conserve",
    "One fault is left. Does the last document have its `eos_id`? If so: where does `range` stop when the stream fills "
    "the last row exactly?",
    "Now the last row may be too short. The last i that is allowed is `len(stream) - length`.",
    examples=[([[1] * 5, [2] * 5, [3] * 5], 0, 6), ([[7, 8, 9]], 0, 4), ([[1] * 5, [2] * 5], 0, 5)],
    random_inputs=lambda rng: (_lists(rng), 0, rng.randint(2, 4)),
    mistakes={
        0: _without_last_eos,  # loses the same rows as a range that stops too early
        1: lambda lists, eos_id, n: _cut(_joined(lists, eos_id), len(_joined(lists, eos_id)), n),
    },
    bug=lambda lists, eos_id, n: _cut(_joined(lists, eos_id)[:-1], len(_joined(lists, eos_id)) - 1 - n, n),
)
def pack_all(token_lists, eos_id, length):
    stream = []
    for tokens in token_lists:
        stream.extend(tokens)
        stream.append(eos_id)
    return [stream[i : i + length] for i in range(0, len(stream) - length + 1, length)]


def _files(row, eos_id):
    return [row[:place].count(eos_id) for place in range(len(row))]


@exercise(
    "03.mask",
    "A token never looks at later ones. Token `i` may look at token `j` only where `j <= i`.",
    "An end-of-text token belongs to the file that it ends. Count a new file behind it, not at it.",
    "Tokens of other files must be hidden, too. First number the files: how many EOS are before each token?",
    examples=[([11, 12, 0, 21], 0), ([11, 0, 0, 21], 0), ([11], 0), ([], 0)],
    random_inputs=lambda rng: (rng.choices(range(4), k=rng.randint(1, 5)), rng.randint(0, 1)),
    mistakes={
        0: lambda row, eos_id: [[a == b for b in _files(row, eos_id)] for a in _files(row, eos_id)],
        1: lambda row, eos_id: [
            [j <= i and eos_id not in row[j + 1 : i + 1] for j in range(len(row))] for i in range(len(row))
        ],
        2: lambda row, eos_id: [[j <= i for j in range(len(row))] for i in range(len(row))],
    },
)
def may_look(row, eos_id):
    files, number = [], 0
    for token in row:
        files.append(number)
        if token == eos_id:
            number += 1
    places = range(len(row))
    return [[j <= i and files[j] == files[i] for j in places] for i in places]
