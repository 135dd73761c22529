"""Exercises of notebook 04: pretraining a model, measuring it, completing code."""

import itertools
import random
from typing import Any

from course_utils.exercises import Exercise

# What a data set needs at least, and how far into a large one the check looks.
_LEAST_CHARACTERS = 100_000
_MOST_ROWS = 20_000

_PIECES = (
    " x = 1",
    "    return x",
    "\n",
    "\ndef area(a, b):",
    "\nclass Box:",
    "\n# next",
    "\n@cache",
    "\nprint(x)",
    "\nif x:",
    "\n    if x:",
    "\ndf.head()",
    " # note",
    "  ",
)


def _completion(rng: random.Random) -> tuple[str]:
    return ("".join(rng.choices(_PIECES, k=rng.randint(0, 6))),)


def _loss_arguments(rng: random.Random) -> tuple[float, int, int]:
    tokens = rng.randint(1, 100_000)
    return round(rng.uniform(0.1, 11), 2), tokens, tokens * rng.randint(1, 5) + rng.randint(0, 100)


def own_corpus(value: Any) -> list[str]:
    """Say what keeps your data from being trained on: it opens, has code in two splits, and no file is in both."""
    from course_utils import artifacts
    from course_utils.data.corpus import corpus_kind
    from course_utils.profiles import get_profile

    name = str(getattr(value, "path", value))
    try:
        location = artifacts.code_corpus(get_profile(code_corpus=name))
        texts = {split: _texts(location, split) for split in ("train", "validation")}
    except Exception as error:
        return [f"{name} cannot be opened. {type(error).__name__}: {error}"]
    findings = [f"The split {split!r} has no text." for split, found in texts.items() if not found]
    characters = sum(map(len, texts["train"]))
    if characters < _LEAST_CHARACTERS:
        findings.append(
            f"The split 'train' has {characters:,} characters; take at least {_LEAST_CHARACTERS:,}, "
            "or the model only learns it by heart."
        )
    both = len(texts["train"] & texts["validation"])
    if both and corpus_kind(name) != "folder":  # of repositories; their copies are removed before training
        findings.append(f"{both} files are in both splits; leave them out of one, or the validation loss is too good.")
    return findings


def _texts(location: Any, split: str) -> set[str]:
    rows = itertools.islice(location.load(split, streaming=True), _MOST_ROWS)
    return {row["content"] for row in rows if (row["content"] or "").strip()}


EXERCISES = (
    Exercise(
        id="04.bits_per_byte",
        title="A loss that does not depend on the tokenizer",
        reference="course_utils.training.heldout:bits_per_byte",
        examples=((2.0, 100, 350), (9.01, 1000, 3500)),
        edge_cases=((1.0, 1, 1), (0.0, 10, 30), (0.5, 7, 7)),
        random_arguments=_loss_arguments,
        hints=(
            "The loss of the whole text is loss per token times tokens. Spread it over the bytes.",
            "The loss is in nats, to the base e. One bit is ln 2 = 0.693 nats.",
            "`loss * tokens / num_bytes / math.log(2)`",
        ),
    ),
    Exercise(
        id="04.first_block",
        title="Where does a completion end?",
        reference="course_utils.models.generation:first_block",
        examples=(("    return a * b\n\ndef perimeter(a, b):\n",), (" pd\n# load the data\n",)),
        edge_cases=(
            ("",),
            (" x = 1  \n",),
            (" x\n    if x:\n        y",),
            (" x  # note\ny = 2",),
            ("\nprint(x)",),
            (" a\nclass B:\n  pass\ndef c():",),
            (" a\n@b\ndef c():",),
            (" a\nif b:\n c",),
        ),
        random_arguments=_completion,
        hints=(
            "A new block begins at the start of a line with class, def, #, @, print or if. Keep what stands before.",
            "Indented lines belong to the block: `\\n    if` does not end it, `\\nif` does.",
            '`re.split("\\nclass|\\ndef|\\n#|\\n@|\\nprint|\\nif", string)` cuts at every one of them.',
            "Take the first part, and remove the spaces and empty lines at its end with `rstrip()`.",
        ),
    ),
    Exercise(
        id="04.own_corpus",
        title="Try it with your own data set",
        examine=own_corpus,
        hints=(
            "The easiest is a folder that holds your repositories: the course makes a data set of their .py files.",
            "A data set is a folder with data/train-00000-of-00001.parquet and a file validation-… beside it; "
            "`Dataset.to_parquet(path)` writes one of them. The code stands in the column `content`.",
            "Split by project, not by file: files of one project resemble each other.",
        ),
    ),
)
