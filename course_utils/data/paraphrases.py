"""Sentence pairs (and single sentences) with a label: where they are, and whether they can be trained on.

The course's own sets have the columns and splits of GLUE MRPC and SST-2, so a Hub id in their place changes no code.
"""

from collections.abc import Sequence
from pathlib import Path

from datasets import ClassLabel, Dataset, DatasetDict, Value

from course_utils.data.reading import open_location

PAIRS, SENTENCES = "course-pairs", "course-sentences"
_FOLDERS = {PAIRS: "paraphrase_pairs", SENTENCES: "opinion_sentences"}
HIDDEN = -1  # label of test rows whose answers are not published


def load_pairs(location: str) -> DatasetDict:
    """Load and check a labelled set: one of the course's own, a folder, or a Hub id like `nyu-mll/glue:mrpc`.

    Raises `ValueError` for missing splits (train, validation) or columns, labels other than 0 and 1 (a test split may
    hide its labels as -1), and missing or empty sentences.
    """
    own = Path(__file__).parent / _FOLDERS[location] if location in _FOLDERS else None
    loaded = open_location(str(own or location), instead=f"{PAIRS} or {SENTENCES}")
    if missing := {"train", "validation"} - set(loaded):
        raise ValueError(
            f"{location} has no split {', '.join(sorted(missing))}; it has {', '.join(loaded)}. Divide the rows: "
            "dataset.train_test_split."
        )
    pairs = {split: loaded[split] for split in ("train", "validation", "test") if split in loaded}
    for split, dataset in pairs.items():
        _check_rows(f"the split {split!r} of {location}", dataset, {0, 1, HIDDEN} if split == "test" else {0, 1})
        if not isinstance(dataset.features["label"], ClassLabel):  # GLUE's labels have names
            numbers = dataset.cast_column("label", Value("int64"))
            pairs[split] = numbers.cast_column("label", ClassLabel(names=["0", "1"]))
    return DatasetDict(pairs)


def text_columns(names: Sequence[str], where: str = "the data set") -> tuple[str, ...]:
    """Return the text columns of a labelled set: (sentence1, sentence2) or (sentence,); `ValueError` without them."""
    for columns in (("sentence1", "sentence2"), ("sentence",)):
        if {*columns, "label"} <= set(names):
            return columns
    raise ValueError(
        f"{where} has the columns {', '.join(names)}; it needs label, and sentence1 and sentence2 (or sentence). "
        "Rename yours with dataset.rename_column."
    )


def _check_rows(where: str, dataset: Dataset, allowed: set[int]) -> None:
    labels = set(dataset["label"]) if "label" in dataset.column_names else set()
    if not labels <= allowed:
        got = sorted(labels, key=str)[:5]
        raise ValueError(f"{where} has the labels {got}; allowed are {sorted(allowed)}. Change yours: dataset.map.")
    for column in text_columns(dataset.column_names, where):
        for number, text in enumerate(dataset[column]):
            if not isinstance(text, str) or not text.strip():
                raise ValueError(
                    f"row {number} of {where} has {text!r} as {column}, not a text; remove such rows with "
                    "dataset.filter, or change the column's type with dataset.cast_column."
                )
