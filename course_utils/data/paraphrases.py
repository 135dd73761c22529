"""Sentence pairs (and single sentences) with a label: where they are, and whether they can be trained on.

The course's own sets have the columns and splits of GLUE MRPC and SST-2, so a Hub id in their place changes no code.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from datasets import DatasetDict, load_dataset

PAIRS, SENTENCES = "course-pairs", "course-sentences"
_FOLDERS = {PAIRS: "paraphrase_pairs", SENTENCES: "opinion_sentences"}
SPLITS = ("train", "validation", "test")
HIDDEN = -1  # label of test rows whose answers are not published
_WORD = re.compile(r"[a-z0-9]+(?:['-][a-z0-9]+)*")


def load_pairs(location: str) -> DatasetDict:
    """Load and check a labelled set: one of the course's own, a folder, or a Hub id like `nyu-mll/glue:mrpc`.

    The splits are train, validation and, if there is one, test. Raises `ValueError` for missing splits or columns,
    labels other than 0 and 1 (a test split may hide its labels as -1), and empty sentences; `ConnectionError` for a Hub
    id that cannot be opened.
    """
    path, _, config = location.partition(":") if not Path(location).expanduser().exists() else (location, "", "")
    folder = Path(__file__).parent / _FOLDERS[path] if path in _FOLDERS else Path(path).expanduser()
    try:
        loaded = load_dataset(str(folder) if folder.is_dir() else path, config or None)
    except (OSError, ConnectionError) as error:
        raise ConnectionError(
            f"{location} is no folder here, and the Hub does not open it ({type(error).__name__}). Check spelling and "
            f"network, or use {PAIRS} or {SENTENCES}, which need none."
        ) from error
    missing = {"train", "validation"} - set(loaded)
    if missing:
        raise ValueError(f"{location} has no split {', '.join(sorted(missing))}; it has {', '.join(loaded)}.")
    pairs = DatasetDict({split: loaded[split] for split in SPLITS if split in loaded})
    columns = text_columns(pairs["train"].column_names, location)
    for split, dataset in pairs.items():
        _check_rows(location, split, dataset, columns)
    return pairs


def text_columns(names: Sequence[str], location: str = "the data set") -> tuple[str, ...]:
    """Return the text columns of a labelled set: (sentence1, sentence2) or (sentence,).

    Raises `ValueError` if they or the label are missing.
    """
    for columns in (("sentence1", "sentence2"), ("sentence",)):
        if set(columns) <= set(names) and "label" in names:
            return columns
    raise ValueError(
        f"{location} has the columns {', '.join(names)}; it needs label, and sentence1 and sentence2 (or sentence). "
        "Rename yours with dataset.rename_column."
    )


def word_overlap(first: str, second: str) -> float:
    """Share of the distinct words of two sentences that they have in common (Jaccard), between 0 and 1."""
    one, two = set(words(first)), set(words(second))
    return len(one & two) / max(1, len(one | two))


def words(text: str) -> list[str]:
    """Return the words of a text in lower case, without punctuation."""
    return _WORD.findall(text.lower())


def _check_rows(location: str, split: str, dataset, columns: Sequence[str]) -> None:
    if len(dataset) == 0:
        raise ValueError(f"the split {split!r} of {location} is empty.")
    labels = set(dataset["label"])
    allowed = {0, 1, HIDDEN} if split == "test" else {0, 1}
    if not labels <= allowed:
        strange = sorted(labels - allowed, key=str)[:5]
        raise ValueError(f"the split {split!r} of {location} has the labels {strange}; only 0 and 1 are allowed.")
    for column in columns:
        empty = [i for i, text in enumerate(dataset[column]) if not (text or "").strip()]
        if empty:
            raise ValueError(
                f"row {empty[0]} of the split {split!r} of {location} has an empty {column} ({len(empty)} in all); "
                "remove such rows with dataset.filter."
            )
