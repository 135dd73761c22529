"""Sentence pairs (and single sentences) with a label: where they are, and whether they can be trained on.

The course's own sets have the columns and splits of GLUE MRPC and SST-2, so a Hub id in their place changes no code.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from datasets import ClassLabel, Dataset, DatasetDict, Value

from course_utils.data.corpus import open_location

PAIRS, SENTENCES = "course-pairs", "course-sentences"
_FOLDERS = {PAIRS: "paraphrase_pairs", SENTENCES: "opinion_sentences"}
SPLITS = ("train", "validation", "test")
HIDDEN = -1  # label of test rows whose answers are not published
_WORD = re.compile(r"[a-z0-9]+(?:['-][a-z0-9]+)*")


def load_pairs(location: str) -> DatasetDict:
    """Load and check a labelled set: one of the course's own, a folder, or a Hub id like `nyu-mll/glue:mrpc`.

    The splits are train, validation and, if there is one, test; labels are whole numbers with names. Raises
    `ValueError` for missing splits or columns, labels other than 0 and 1 (a test split may hide its labels as -1), and
    sentences that are empty or none; `ConnectionError` for a Hub id that cannot be opened.
    """
    own = Path(__file__).parent / _FOLDERS[location] if location in _FOLDERS else None
    loaded = open_location(str(own or location), instead=f"{PAIRS} or {SENTENCES}")
    missing = {"train", "validation"} - set(loaded)
    if missing:
        raise ValueError(
            f"{location} has no split {', '.join(sorted(missing))}; it has {', '.join(loaded)}. Keep training "
            "rows apart for validation: dataset.train_test_split."
        )
    pairs = DatasetDict({split: loaded[split] for split in SPLITS if split in loaded})
    columns = text_columns(pairs["train"].column_names, location)
    for split, dataset in pairs.items():
        _check_rows(location, split, dataset, columns)
    return DatasetDict({split: _with_named_labels(dataset) for split, dataset in pairs.items()})


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


def _check_rows(location: str, split: str, dataset: Dataset, columns: Sequence[str]) -> None:
    where = f"the split {split!r} of {location}"
    missing = [name for name in (*columns, "label") if name not in dataset.column_names]
    if missing or len(dataset) == 0:
        raise ValueError(f"{where} has no {missing[0]}." if missing else f"{where} is empty.")
    labels = set(dataset["label"])
    allowed = {0, 1, HIDDEN} if split == "test" else {0, 1}
    if not labels <= allowed:
        strange = sorted(labels - allowed, key=str)[:5]
        raise ValueError(
            f"{where} has the labels {strange}; only the numbers 0 and 1 are allowed (in a test split {HIDDEN} for a "
            "hidden one). Change yours with dataset.map."
        )
    for column in columns:
        for i, text in enumerate(dataset[column]):
            problem = _problem(text, column)
            if problem:
                raise ValueError(f"row {i} of {where} has {problem}.")


def _problem(text: object, column: str) -> str:
    if not isinstance(text, str | None):
        return f"no text as {column}, but {text!r}; change the column's type with dataset.cast_column"
    if not (text or "").strip():
        return f"an empty {column}; remove such rows with dataset.filter"
    if "\t" in text or "\n" in text.strip():
        return f"a tab or line break in {column}: often a quotation mark joined rows of a TSV file; use JSONL"
    return ""


def _with_named_labels(dataset: Dataset) -> Dataset:
    """Make labels whole numbers with names, as GLUE has them, where a file gave them as plain or decimal numbers."""
    if isinstance(dataset.features["label"], ClassLabel):
        return dataset
    return dataset.cast_column("label", Value("int64")).cast_column("label", ClassLabel(names=["0", "1"]))
