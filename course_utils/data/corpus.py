"""The code corpus: where it is, how it is read (as are sentence pairs and problems), and the three ways to make one."""

import gzip
import hashlib
import json
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import distributions
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import pyarrow.parquet as pq
from datasets import Dataset, DatasetDict, Features, IterableDataset, Value, concatenate_datasets, load_dataset
from datasets.exceptions import DatasetGenerationError
from datasets.info import DatasetInfosDict
from tqdm.auto import tqdm

from course_utils import cache
from course_utils.data import documents
from course_utils.data.documents import COLUMNS, Document
from course_utils.data.sources import Source, iter_python_members

PINNED = "pinned"  # the default corpus
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.{}-]+")
ENDINGS = (".arrow", ".parquet", ".jsonl", ".json", ".csv", ".tsv")  # also with .gz; the first that is there is read
SPLIT_WORDS = {"train": "train", "validation": "validation", "valid": "validation", "dev": "validation", "test": "test"}
# Data-science packages; what is installed of them serves when there is neither network nor cache.
INSTALLED = {
    "train": ("matplotlib", "numpy", "pandas", "polars", "pyarrow", "scikit-learn", "scipy", "statsmodels", "xarray"),
    "validation": ("datasets", "networkx", "seaborn", "skrub"),
}
NOT_YOURS = re.compile(r"\..*|site-packages|node_modules|__pycache__|build|dist|venv|env|.*\.egg-info", re.DOTALL)


class Location(NamedTuple):
    """A corpus: a local folder, a Hub id, or a Hub id with "{split}" in it."""

    path: str

    def load(self, split: str, streaming: bool = False) -> Dataset | IterableDataset:
        """Return the "train" or "validation" split, as an `IterableDataset` when streaming."""
        place = Path(self.path).expanduser()
        if place.exists():
            files = data_files(place)
            if split not in files:
                raise ValueError(f"{place} has no split {split!r}, only {list(files)}; name a file or folder after it.")
            rows = concatenate_datasets(list(map(_read, files[split])))
            return rows.to_iterable_dataset() if streaming else rows
        path = self.path.replace("{split}", split.replace("validation", "valid"))
        split = split if path == self.path else "train"  # a data set per split has all rows there
        return _from_hub(path, f"set COURSE_CODE_CORPUS={PINNED}", split=split, streaming=streaming)


def open_location(location: str, instead: str) -> DatasetDict:
    """Return the splits of a folder (also one that `save_to_disk` wrote), a file, or a Hub id (`name:configuration`).

    Raises `ValueError` for what cannot be read, or `ConnectionError`; `instead` names data that need no network.
    """
    place = Path(location).expanduser()
    if not place.exists():
        return _from_hub(location, f"use {instead}")
    found = data_files(place)
    loaded = DatasetDict({split: concatenate_datasets(list(map(_read, found[split]))) for split in found})
    if not loaded:
        raise ValueError(f"{place} cannot be read as a data set: no file in it is like train.jsonl, .csv or .parquet.")
    for info in DatasetInfosDict.from_directory(str(place)).values():  # the data card may name the labels
        if info.features and all(set(info.features) == set(rows.column_names) for rows in loaded.values()):
            loaded = loaded.cast(info.features)
    return loaded


def _from_hub(location: str, remedy: str, **options):
    path, _, config = location.partition(":")
    if not HUB_ID.fullmatch(path):  # before `datasets` finds rows of that name in its cache
        raise ValueError(f"{location} is neither a local folder or file nor a Hub id like owner/name. Or {remedy}.")
    try:
        return load_dataset(path, config or None, **options)
    except OSError as error:
        raise ConnectionError(
            f"{location} is not a local folder or file, and the Hub does not open it ({type(error).__name__}). Check "
            f"spelling and network, or {remedy}, which needs no network."
        ) from error


def data_files(place: Path) -> dict[str, list[Path]]:
    """Return the data files of a folder, or a file, by split: the last word in a path that means one, else "train"."""
    found: dict[str, dict[str, list[Path]]] = {}
    for path in [place] if place.is_file() else sorted(place.rglob("*")):
        name = path.name if path == place else path.relative_to(place).as_posix()
        if (ending := _ending(path)) in ENDINGS and not re.search(r"(^|/)(\.|cache-)", name):
            words = re.split(r"[^a-z]+", name.lower())
            split = next((SPLIT_WORDS[word] for word in reversed(words) if word in SPLIT_WORDS), "")
            found.setdefault(ending, {}).setdefault(split, []).append(path)
    files = next((found[ending] for ending in ENDINGS if ending in found), {})
    if list(files) == [""]:
        return {"train": files[""]}
    return {split: files[split] for split in dict.fromkeys(SPLIT_WORDS.values()) if split in files}


def _ending(path: Path) -> str:
    return Path(path.name.removesuffix(".gz")).suffix


def _read(path: Path) -> Dataset:
    """Return the rows of a file. `load_dataset` would take the path for a pattern, and guess the types of text."""
    if _ending(path) == ".arrow":
        return Dataset.from_file(str(path))
    try:
        features = Features.from_arrow_schema(pq.read_schema(path)) if _ending(path) == ".parquet" else None
        kept, state = cache.library_folder("datasets"), path.stat()  # the state is a part of the key of what is kept
        arguments = {"path": path.resolve(), "state": (state.st_size, state.st_mtime_ns)}
        with cache.naming_the_disk(cache.home()):
            return Dataset.from_generator(_rows, features=features, gen_kwargs=arguments, cache_dir=kept)
    except (DatasetGenerationError, ValueError) as error:
        reason = str(error.__cause__ or error).partition("\n")[0]
        raise ValueError(f"{path} cannot be read as a data set ({reason}).") from error


def _rows(path: Path, state: tuple[int, int]) -> Iterator[dict]:
    """Yield the rows of a file. Text stays text: `NA` is not None, and in a CSV file only labels are numbers."""
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        if _ending(path) == ".parquet":
            rows = (row for batch in pq.ParquetFile(file).iter_batches(1000) for row in batch.to_pylist())
        elif _ending(path) in (".csv", ".tsv"):
            separator = "\t" if _ending(path) == ".tsv" else ","
            frames = pd.read_csv(file, sep=separator, dtype=str, keep_default_na=False, chunksize=1000)
            frames = (f.assign(label=pd.to_numeric(f["label"])) if "label" in f else f for f in frames)
            rows = (row for frame in frames for row in frame.to_dict("records"))
        else:
            rows = (json.loads(line) for line in file if line.strip())
        for row in rows:
            yield {name: "" if value is None and name in COLUMNS else value for name, value in row.items()}


def corpus_kind(text: str) -> str:
    """Return what COURSE_CODE_CORPUS names: "pinned", "folder" (with any Python file), "dataset" or "hub"."""
    if text in ("", PINNED):
        return PINNED
    place = Path(text).expanduser()
    if place.is_dir():
        return "dataset" if not any(python_files(place)) and data_files(place) else "folder"
    if HUB_ID.fullmatch(text) and not place.exists():
        return "hub"
    raise ValueError(
        f"the code corpus {text!r} is a file or does not exist. Allowed: {PINNED!r}, a folder of your repositories or "
        "of a data set's splits (Parquet, JSON lines, CSV), or a Hub id like owner/name or owner/name-{split}."
    )


def check_columns(corpus: Dataset | IterableDataset) -> None:
    """Raise `ValueError` unless a data set has the columns of a corpus, all text."""
    row, types, text = next(iter(corpus), {}), corpus.features or {}, (Value("string"), Value("large_string"))
    wrong = [n for n in COLUMNS if not isinstance(row.get(n, 0), str | None) or types.get(n, text[0]) not in text]
    if wrong:
        raise ValueError(
            f"the data set has no `{'`, `'.join(wrong)}` that holds text, only {', '.join(row) or 'no rows'}. Use "
            "dataset.rename_column or cast_column, or add some: dataset.map(lambda row: {'repo_name': 'mine', …})"
        )


def build_from_sources(destination: Path, sources: Sequence[Source], archives: list[Path], max_bytes: int = 0) -> None:
    """Write the corpus of pinned sources, or a fair sample of it; `archives` are their files, in the same order."""
    pairs = zip(sources, archives, strict=True)
    projects = {Document(s.name, s.version, s.license, s.split): iter_python_members(path) for s, path in pairs}
    origin = "Python files from the source distributions of the projects below, pinned by version and SHA-256."
    _build(destination, projects, origin, max_bytes)


def build_from_environment(destination: Path, max_bytes: int = 0) -> None:
    """Write the corpus made of the packages installed here: it needs no network, but has other bytes elsewhere."""
    projects = {}
    for split, name in ((split, name) for split, names in INSTALLED.items() for name in names):
        for package in [*distributions(name=name)][:1]:  # none where it is not installed
            project = Document(name, package.version, package.metadata.get("License-Expression", "unknown"), split)
            files = (file for file in package.files or () if file.suffix == ".py" and ".." not in file.parts)
            projects[project] = ((file.as_posix(), file.read_binary()) for file in files if file.locate().is_file())
    origin = "Python files of packages installed on one machine; another has other versions, so its results differ."
    _build(destination, projects, origin, max_bytes)


def build_from_folder(destination: Path, folder: Path, max_bytes: int = 0) -> None:
    """Write the corpus made of your own repositories, with a part held out for validation (see `_hold_out`)."""
    found: dict[Document, list[tuple[str, Path]]] = defaultdict(list)
    for name, path, file in python_files(folder):
        found[Document(name, "", "unknown", "train")].append((path, file))
    projects = {project: ((path, file.read_bytes()) for path, file in files) for project, files in found.items()}
    if data_files(folder):
        print(f"{folder} has Python files, so it is read as code; its data files are left out.")
    origin = "Python files from folders of the person who made this corpus; not meant to be shared."
    _build(destination, projects, origin, max_bytes, choose=True)


def python_files(folder: Path) -> Iterator[tuple[str, str, Path]]:
    """Yield (project, path inside it, file) for the Python files in a folder of repositories, or in a single one.

    A repository may be a link to its folder; links inside it are passed over.
    """
    folder = folder.expanduser().resolve()
    single = any((folder / mark).exists() for mark in (".git", "pyproject.toml", "setup.py", "setup.cfg"))
    roots = sorted(path for path in folder.iterdir() if path.is_dir() and not NOT_YOURS.fullmatch(path.name))
    for root in [folder] if single else [folder, *roots]:
        for place, folders, names in os.walk(root):
            inside = folders if single or root != folder else ()  # the sub-folders are projects of their own
            folders[:] = sorted(name for name in inside if not NOT_YOURS.fullmatch(name))
            for file in (Path(place, name) for name in sorted(names)):
                if file.suffix == ".py" and not file.is_symlink():
                    yield root.name, file.relative_to(root).as_posix(), file


def code_state(folder: Path) -> str:
    """Return a digest of what is read of a folder of repositories; size and time stand for a file's content."""
    files = ((project, path, file.stat()) for project, path, file in python_files(folder))
    state = [(project, path, status.st_size, status.st_mtime_ns) for project, path, status in files]
    return hashlib.sha256(repr(state).encode()).hexdigest()  # `repr` also writes names that are not valid text


def _build(destination: Path, projects: Mapping, origin: str, max_bytes: int, choose: bool = False) -> None:
    """Write the corpus of `projects`: documents without path and content, and (path, bytes) of the files of each."""
    dropped: Counter = Counter()
    bar = tqdm(projects.items(), desc="Reading projects", unit="project")
    read = (documents.read_documents(project, files, dropped) for project, files in bar)
    frame = documents.as_frame(chain.from_iterable(read))
    if choose and len(frame):
        origin += _hold_out(frame)
    if max_bytes:
        frame = documents.slice_documents(frame, max_bytes)
        origin += f" A fair sample of at most {max_bytes / 1e6:.1f} MB of text."
    documents.write_corpus(destination, frame, origin, dropped)


def _hold_out(frame: pd.DataFrame) -> str:
    """Hold out the project nearest to a tenth of the text, or a tenth of a single one's files; return a note."""
    size, note = frame.groupby("repo_name")["size"].sum().clip(lower=1), ""
    if len(size) > 1:
        tenth = size.sum() / 10
        unit, held_out = frame["repo_name"], [(size / tenth).combine(tenth / size, max).idxmin()]
    else:
        unit = frame["path"].str.replace(".doctest.py", ".py", regex=False)  # a module and its examples stay together
        files = sorted(set(unit[frame["size"] > 0]), key=lambda path: documents.stable_order("", path))
        held_out = files[: max(1, len(files) // 10)]
        note = " There is a single project, so both splits hold files of it: the validation loss is too good."
        print(note.strip())
    frame.loc[unit.isin(held_out), "split"] = "validation"
    return note
