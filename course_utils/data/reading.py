"""One reader for code corpora, sentence pairs and problems: a data set on the disk, or on the Hub."""

import gzip
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
from datasets import Dataset, DatasetDict, Features, Value, concatenate_datasets, load_dataset
from datasets.arrow_writer import SchemaInferenceError
from datasets.exceptions import DatasetGenerationError
from datasets.info import DatasetInfosDict

from course_utils import cache
from course_utils.data.documents import COLUMNS

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.{}-]+")
ENDINGS = (".arrow", ".parquet", ".jsonl", ".json", ".csv", ".tsv")  # also with .gz; the first that is there is read
SPLIT_WORDS = {"train": "train", "training": "train", "test": "test", "testing": "test"}
SPLIT_WORDS |= dict.fromkeys(("validation", "valid", "val", "dev", "eval", "evaluation"), "validation")
_REASONS = {SchemaInferenceError: "it has no rows", UnicodeDecodeError: "it is not UTF-8; save it as UTF-8"}


def open_location(location: str, instead: str) -> DatasetDict:
    """Return the splits of a folder (also one that `save_to_disk` wrote), a file, or a Hub id (`name:configuration`).

    Raises `ValueError` for what cannot be read, or `ConnectionError`; `instead` names data that need no network.
    """
    place = cache.expanded(location)
    if not place.exists():
        return open_hub(location, f"use {instead}")
    found = data_files(place)
    loaded = DatasetDict({split: concatenate_datasets(list(map(read_file, found[split]))) for split in found})
    if not loaded:
        raise ValueError(f"{place} cannot be read as a data set: no file in it is like train.jsonl, .csv or .parquet.")
    for info in DatasetInfosDict.from_directory(str(place)).values():  # the data card may name the labels
        if info.features and all(set(info.features) == set(rows.column_names) for rows in loaded.values()):
            loaded = loaded.cast(info.features)
    return loaded


def open_hub(location: str, remedy: str, **options: Any) -> Any:
    """Return what `load_dataset` gives for a Hub id; raise `ValueError`, or `ConnectionError` with a remedy."""
    path, _, config = location.partition(":")
    if not HUB_ID.fullmatch(path):  # before `datasets` finds rows of that name in its cache
        raise ValueError(f"{location} is neither a local folder or file nor a Hub id like owner/name. Or {remedy}.")
    try:
        return load_dataset(path, config or None, **options)
    except (OSError, ValueError) as error:  # ValueError: of a split or configuration
        reason = str(error).partition("\n")[0]
        raise ConnectionError(
            f"{location} is not a local folder or file, and the Hub does not open it ({reason}). Check spelling and "
            f"network, or {remedy}, which needs no network."
        ) from error


def data_files(place: Path) -> dict[str, list[Path]]:
    """Return the data files of a folder, or a file, by split: the last word in a path that means one, else "train".

    Only one kind of file is read; raise `ValueError` if several kinds have files named after a split.
    """
    found: dict[str, dict[str, list[Path]]] = {}
    for path in [place] if place.is_file() else sorted(place.rglob("*")):
        name = path.name if path == place else path.relative_to(place).as_posix()
        if (ending := _ending(path)) in ENDINGS and not re.search(r"(^|/)(\.|cache-)", name):
            words = re.split(r"[^a-z]+", name.lower())
            split = next((SPLIT_WORDS[word] for word in reversed(words) if word in SPLIT_WORDS), "")
            found.setdefault(ending, {}).setdefault(split, []).append(path)
    named = [ending for ending in ENDINGS if {*found.get(ending, {})} - {""}]
    if len(named) > 1 and ".arrow" not in named:  # `save_to_disk` writes JSON files beside its own
        raise ValueError(f"{place} has splits as {' and as '.join(named)} files; keep one kind, or choose its folder.")
    files = next((found[ending] for ending in ENDINGS if ending in found), {})
    if list(files) == [""]:
        return {"train": files[""]}
    return {split: files[split] for split in dict.fromkeys(SPLIT_WORDS.values()) if split in files}


def _ending(path: Path) -> str:
    return Path(path.name.lower().removesuffix(".gz")).suffix


def read_file(path: Path) -> Dataset:
    """Return the rows of a file. `load_dataset` would take the path for a pattern, and guess the types of text."""
    if _ending(path) == ".arrow":
        return Dataset.from_file(str(path))
    try:
        features = Features.from_arrow_schema(pq.read_schema(path)) if _ending(path) == ".parquet" else {}
        large = (Value("large_string"), Value("null"))  # text of pandas and polars, which is no other text; nothing
        features = Features({n: Value("string") if kind in large else kind for n, kind in features.items()}) or None
        kept, state = cache.library_folder("datasets"), path.stat()  # the state is a part of the key of what is kept
        arguments = {"path": path.resolve(), "state": (state.st_size, state.st_mtime_ns)}
        with cache.naming_the_disk(cache.home() / "datasets"):
            return Dataset.from_generator(_rows, features=features, gen_kwargs=arguments, cache_dir=kept)
    except (DatasetGenerationError, ValueError) as error:
        first = str(error.__cause__ or error).partition("\n")[0]
        reason = _REASONS.get(type(error.__cause__), first)
        raise ValueError(f"{path} cannot be read as a data set ({reason}).") from error


def _rows(path: Path, state: tuple[int, int]) -> Iterator[dict]:
    """Yield the rows of a file. Text stays text: `NA` is not None, and in a CSV file only labels are numbers."""
    with gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb") as file:
        if _ending(path) == ".parquet":
            rows = (row for batch in pq.ParquetFile(file).iter_batches(1000) for row in batch.to_pylist())
        elif _ending(path) in (".csv", ".tsv"):
            code = "utf-16" if file.peek(1)[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8"
            header = file.peek(1).decode(code, "ignore").partition("\n")[0]
            separator = "\t" if _ending(path) == ".tsv" else max(",;", key=header.count)  # as spreadsheets write CSV
            frames = pd.read_csv(file, sep=separator, encoding=code, dtype=str, keep_default_na=False, chunksize=1000)
            frames = (f.assign(label=pd.to_numeric(f["label"])) if "label" in f else f for f in frames)
            rows = (row for frame in frames for row in frame.to_dict("records"))
        elif file.peek(1)[:1] == b"[":
            rows = json.load(file)
        else:
            rows = (json.loads(line) for line in file if line.strip())
        for row in rows:
            yield {name: "" if value is None and name in COLUMNS else value for name, value in row.items()}
