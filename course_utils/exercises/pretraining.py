"""Exercises of notebook 04: labels, measuring a model, reading learning curves, training on your own data."""

import itertools
import math

from course_utils import artifacts
from course_utils.data.corpus import corpus_kind
from course_utils.exercises.exercise import NOT_TRIED, exercise
from course_utils.profiles import get_profile


def _with_bugs(rows, pad, end):
    longest = max(len(row) for row in rows)
    inputs = [row + [pad] * (longest - len(row)) for row in rows]
    labels = [[-100 if token in (pad, end) else token for token in [*row[1:], pad]] for row in inputs]
    return inputs, labels


def _not_shifted(rows, pad, end):
    inputs, _ = _with_bugs(rows, pad, end)
    return inputs, [[-100 if token in (pad, end) else token for token in row] for row in inputs]


def _nothing_hidden(rows, pad, end):
    inputs, _ = _with_bugs(rows, pad, end)
    return inputs, inputs


def _still_shifted(rows, pad, end):
    inputs, _ = _with_bugs(rows, pad, end)
    return inputs, [[-100 if token == pad else token for token in [*row[1:], pad]] for row in inputs]


@exercise(
    "04.labels",
    "Here the end of text is -100 in the labels, so the model is never told to stop. Hide the padding only.",
    "Here the model has to predict padding. A label of -100 is left out of the loss.",
    "The model moves the labels by one itself. Here they are moved twice: position t answers for token t + 2.",
    "Without padding and before any hiding, the labels are equal to the inputs.",
    examples=[([[5, 6, 7, 0], [8, 0]], 1, 0), ([[4, 0, 9], [0], [3, 3]], 1, 0)],
    random_inputs=lambda rng: (
        [rng.choices((0, 3, 4, 5), k=rng.randint(1, 4)) for _ in range(rng.randint(1, 3))],
        1,
        0,
    ),
    mistakes={0: _not_shifted, 1: _nothing_hidden, 2: _still_shifted},
    bug=_with_bugs,
)
def make_batch(rows, pad, end):
    longest = max(len(row) for row in rows)
    inputs = [row + [pad] * (longest - len(row)) for row in rows]
    labels = [[-100 if token == pad else token for token in row] for row in inputs]
    return inputs, labels


@exercise(
    "04.bits_per_byte",
    "Per token is not per byte: the loss of the whole text is loss per token times tokens.",
    "The loss is in nats, to the base e. Check yourself: ln 256 nats for one-byte tokens are 8 bits.",
    "Tokens and bytes are swapped: a token has several bytes, so bits per byte are fewer than bits per token.",
    examples=[(2.0, 100, 350), (9.01, 1000, 3500), (0.0, 10, 30)],
    random_inputs=lambda rng: (rng.randint(1, 40) / 4, rng.randint(1, 20), rng.randint(20, 60)),
    mistakes={
        1: lambda loss, tokens, num_bytes: loss * tokens / num_bytes,
        2: lambda loss, tokens, num_bytes: loss / math.log(2) * num_bytes / tokens,
    },
)
def bits_per_byte(loss, tokens, num_bytes):
    import math

    bits = loss * tokens / math.log(2)  # of the whole text
    return bits / num_bytes


CURVES = ("as it stands", "fitted", "ours")


def _match(answer: object, measured: dict[str, str]) -> str:
    """Return the fault of {"A": name, …}, the names of three trainings, as the learner read them from curves."""
    if not isinstance(answer, dict) or set(answer) != set(measured):
        return f"Give a dictionary with the keys {', '.join(sorted(measured))}."
    if all(name is None for name in answer.values()):
        return NOT_TRIED
    if unknown := [str(name) for name in answer.values() if name not in CURVES]:
        return f"There is no training {', '.join(unknown)}; the names are {', '.join(CURVES)}."
    if len(set(answer.values())) < len(measured):
        return "Each of the three names belongs to one curve."
    if answer == measured:
        return ""
    wrong = {name for letter, name in answer.items() if measured[letter] != name}
    if wrong == {"as it stands", "fitted"}:
        return "Two are exchanged. Whose rate stays near zero until the end? Its weights hardly move."
    if wrong == {"fitted", "ours"}:
        return "Two are exchanged. Both reach their peak. Count the updates that each makes from the same tokens."
    return "At least two are exchanged. Begin with the rate that stays near zero: its weights hardly move."


@exercise(
    "04.match",
    "Compare the end of the curves: the flattest one belongs to the training whose weights moved least.",
    "From the same tokens, batches of 16 rows give 16 times as many updates as batches of 256.",
    examine=_match,
)
def my_match():
    return {"A": "fitted", "B": "as it stands", "C": "ours"}


def _own_corpus(value: object) -> str:
    """Return what keeps data from being trained on: it opens, has code in two splits, and no file is in both."""
    name, texts = str(getattr(value, "path", value)), []
    try:
        location = artifacts.code_corpus(get_profile(code_corpus=name))
        for split in ("train", "validation"):
            rows = itertools.islice(location.load(split, streaming=True), 20_000)  # a large one takes too long
            texts.append({row["content"] for row in rows if (row["content"] or "").strip()})
    except Exception as error:
        return f"{name} cannot be opened. {type(error).__name__}: {error}"
    train, validation = texts
    if not validation:
        return "The split 'validation' has no text."
    if (characters := sum(map(len, train))) < 100_000:
        return f"'train' has {characters:,} characters. With fewer than 100,000 a model learns them by heart."
    both = len(train & validation)
    if both and corpus_kind(name) != "folder":  # of repositories; their copies are removed before training
        return f"{both} files are in both splits; leave them out of one, or the validation loss is too good."
    return ""


@exercise(
    "04.own_corpus",
    "The easiest is a folder that holds your repositories: the course makes a data set of their .py files.",
    "A data set has data/train-00000-of-00001.parquet, validation-… beside it, the code in the column `content`.",
    "Split by project, not by file: files of one project resemble each other.",
    examine=_own_corpus,
)
def my_corpus():
    import IPython

    return IPython.__path__[0]  # a folder like the one that holds your repositories
