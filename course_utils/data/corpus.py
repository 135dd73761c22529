"""The code corpus: where it is, how it is read, and the three ways to make one.

Data is a *location*: a local folder or file, or a Hub id. Corpora, sentence pairs and problems are read in one way.
"""

import contextlib
import gzip
import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from itertools import chain
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
from datasets import Dataset, DatasetDict, Features, IterableDataset, Value, concatenate_datasets, load_dataset
from datasets.exceptions import DatasetGenerationError
from datasets.info import DatasetInfosDict
from tqdm.auto import tqdm

from course_utils.data import documents
from course_utils.data.documents import COLUMNS, Document
from course_utils.data.sources import Source, iter_python_members

PINNED = "pinned"  # the default corpus
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.{}-]+")
HUB_SPLITS = {"train": "train", "validation": "valid"}  # what {split} stands for in an id
ENDINGS = (".arrow", ".parquet", ".jsonl", ".json", ".csv", ".tsv")  # also with .gz; the first that is there is read
SPLIT_WORDS = {"train": "train", "validation": "validation", "valid": "validation", "dev": "validation", "test": "test"}

# Data-science packages; what is installed of them serves when there is neither network nor cache.
INSTALLED = {
    "train": ("matplotlib", "numpy", "pandas", "polars", "pyarrow", "scikit-learn", "scipy", "statsmodels", "xarray"),
    "validation": ("datasets", "networkx", "seaborn", "skrub"),
}
NOT_YOURS = {"site-packages", "node_modules", "__pycache__", "build", "dist", "venv", "env"}


# What a corpus is made of: each project (a document without path and content), and the paths and bytes of its files.
Projects = Mapping[Document, Iterable[tuple[str, bytes]]]


@dataclass(frozen=True)
class Location:
    """A corpus: a local folder, a Hub id, or a Hub id with "{split}" in it."""

    path: str

    def load(self, split: str, streaming: bool = False) -> Dataset | IterableDataset:
        """Return the "train" or "validation" split, as an `IterableDataset` when streaming.

        Raises `ValueError` for a split that does not exist, `ConnectionError` for a Hub id that cannot be opened.
        """
        place = Path(self.path).expanduser()
        if place.exists():
            files = data_files(place)
            if split not in files:
                raise ValueError(f"{place} has no split {split!r}, only {list(files)}; name a file or folder after it.")
            return _read(files[split]).to_iterable_dataset() if streaming else _read(files[split])
        path = self.path.replace(
            "{split}", HUB_SPLITS.get(split, "")
        )  # one data set per split, with its rows in "train"
        name = split if path == self.path else "train"
        return _from_hub(path, f"set COURSE_CODE_CORPUS={PINNED}", split=name, streaming=streaming)


def open_location(location: str, instead: str) -> DatasetDict:
    """Return the splits of a data set: a local folder or file, or a Hub id (`name:configuration`).

    A folder is in the Hub's layout, has a folder for each split, or was written by `save_to_disk`. Raises `ValueError`
    for what cannot be read, `ConnectionError` if the Hub does not open it; `instead` names data that need no network.
    """
    place = Path(location).expanduser()
    if not place.exists():
        return _from_hub(location, f"use {instead}")
    loaded = DatasetDict({split: _read(files) for split, files in data_files(place).items()})
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
    """Return the data files of a folder, or a single file, by split.

    The split is the last word in the file's name, or else in its folders' names, that means one; without any, "train".
    """
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


def _read(files: Sequence[Path]) -> Dataset:
    return concatenate_datasets([_read_file(path) for path in files])


def _read_file(path: Path) -> Dataset:
    """Return the rows of a file. `load_dataset` would take the path for a pattern, and guess the types of text."""
    if _ending(path) == ".arrow":
        return Dataset.from_file(str(path))
    try:
        features = Features.from_arrow_schema(pq.read_schema(path)) if _ending(path) == ".parquet" else None
        state = path.stat()  # part of the key under which `datasets` keeps the rows
        arguments = {"path": str(path.resolve()), "state": (state.st_size, state.st_mtime_ns)}
        return Dataset.from_generator(_rows, features=features, gen_kwargs=arguments)
    except (DatasetGenerationError, ValueError) as error:
        reason = str(error.__cause__ or error).partition("\n")[0]
        raise ValueError(f"{path} cannot be read as a data set ({reason}).") from error


def _rows(path: str, state: tuple[int, int]) -> Iterator[dict]:
    """Yield the rows of a file. Text stays text: `NA` is not None, and in a CSV file only labels are numbers."""
    path = Path(path)
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
    """Return what a value of COURSE_CODE_CORPUS names: "pinned", "folder" (of repositories), "dataset" or "hub".

    A folder with Python files is code, whatever else it holds. Raises `ValueError` for a path that does not exist.
    """
    if text in ("", PINNED):
        return PINNED
    place = Path(text).expanduser()
    if place.is_dir():
        code = any(True for _ in python_files(place))
        return "dataset" if not code and data_files(place) else "folder"
    if HUB_ID.fullmatch(text) and not place.exists():
        return "hub"
    raise ValueError(
        f"the code corpus {text!r} {'is a file, not a folder' if place.exists() else 'does not exist'}. Allowed: "
        f"{PINNED!r}, a folder of your repositories, a folder with the splits of a data set (Parquet, JSON lines, "
        "CSV), or a Hub id like owner/name or owner/name-{split}."
    )


def check_columns(corpus: Dataset | IterableDataset | Location) -> None:
    """Raise `ValueError` unless a data set (of a `Location`, its training split) has a corpus's columns, all text."""
    if isinstance(corpus, Location):
        corpus = corpus.load("train", streaming=True)
    row, types, text = next(iter(corpus), {}), corpus.features or {}, (Value("string"), Value("large_string"))
    wrong = [n for n in COLUMNS if not isinstance(row.get(n, 0), str | None) or types.get(n, text[0]) not in text]
    if wrong:
        names = ", ".join(f"`{name}`" for name in sorted(wrong, key=lambda name: name != "content"))
        raise ValueError(
            f"the data set has no {names} that holds text, only {', '.join(row) or 'no rows'}. Change yours "
            "with dataset.rename_column or cast_column, or add some: dataset.map(lambda row: {'repo_name': 'mine', …})"
        )


def build_from_sources(
    destination: Path, sources: Sequence[Source], archives: Sequence[Path], max_bytes: int | None = None
) -> None:
    """Write the corpus of pinned sources, or a fair sample of it; `archives` are their files, in the same order."""
    projects = {
        Document(source.name, source.version, source.license, source.split): iter_python_members(archive)
        for source, archive in zip(sources, archives, strict=True)
    }
    origin = "Python files from the source distributions of the projects below, pinned by version and SHA-256."
    _build(destination, projects, origin, max_bytes)


def build_from_environment(destination: Path, max_bytes: int | None = None) -> None:
    """Write the corpus made of the packages installed here: it needs no network, but has other bytes elsewhere."""
    projects = {}
    for split, names in INSTALLED.items():
        for name in names:
            with contextlib.suppress(PackageNotFoundError):
                package = distribution(name)
                project = Document(name, package.version, package.metadata.get("License-Expression", "unknown"), split)
                projects[project] = _installed_files(package)
    origin = (
        "Python files of packages installed on the machine that made this corpus. Another machine has other versions: "
        "results are comparable, not equal. Installed packages have few example scripts."
    )
    _build(destination, projects, origin, max_bytes)


def _installed_files(package: Distribution) -> Iterator[tuple[str, bytes]]:
    for file in package.files or []:
        if file.suffix == ".py" and ".." not in file.parts and (path := Path(file.locate())).is_file():
            yield file.as_posix(), path.read_bytes()


def build_from_folder(destination: Path, folder: Path, max_bytes: int | None = None) -> None:
    """Write the corpus made of your own repositories, each direct sub-folder of `folder` being a project.

    The project nearest in size to a tenth of the text becomes the validation split; a single project is split by file.
    Raises `ValueError` when `folder` holds too little Python.
    """
    found: dict[str, list[tuple[str, Path]]] = {}
    for name, path, file in python_files(folder):
        found.setdefault(name, []).append((path, file))
    projects = {
        Document(name, "", "unknown", "train"): ((path, file.read_bytes()) for path, file in files)
        for name, files in found.items()
    }
    if data_files(Path(folder)):
        print(f"{folder} has Python files, so it is read as code; its data files are left out.")
    origin = "Python files from folders of the person who made this corpus; not meant to be shared."
    _build(destination, projects, origin, max_bytes, choose=True)


def python_files(folder: Path) -> Iterator[tuple[str, str, Path]]:
    """Yield (project, path inside it, file) for the Python files in a folder of repositories, or in a single one.

    These are all that is read, so the key of what is made of them needs no others. Links to files are passed over.
    """
    folder = Path(folder).expanduser().resolve()
    single = any((folder / mark).exists() for mark in (".git", "pyproject.toml", "setup.py", "setup.cfg"))
    roots = [] if single else sorted(path for path in folder.iterdir() if path.is_dir() and not _ignored(path.name))
    for root in [folder, *roots]:
        for place, folders, names in os.walk(root):
            folders[:] = sorted(name for name in folders if (single or root != folder) and not _ignored(name))
            for file in (Path(place, name) for name in sorted(names)):
                if file.suffix == ".py" and not file.is_symlink():
                    yield root.name, file.relative_to(root).as_posix(), file


def _ignored(name: str) -> bool:
    return name.startswith(".") or name in NOT_YOURS or name.endswith(".egg-info")


def _build(destination: Path, projects: Projects, origin: str, max_bytes: int | None, choose: bool = False) -> None:
    """Read the files of all projects, choose the splits where asked, cut, and write."""
    dropped: Counter = Counter()
    bar = tqdm(projects.items(), desc="Reading projects", unit="project")
    read = (documents.read_documents(project, files, dropped) for project, files in bar)
    frame = documents.as_frame(chain.from_iterable(read))
    if choose:
        origin += _hold_out(frame)
    if max_bytes:
        frame = documents.slice_documents(frame, max_bytes)
        origin += f" A fair sample of at most {max_bytes / 1e6:.1f} MB of text."
    documents.write_corpus(destination, frame, origin, dropped)


def _hold_out(frame: pd.DataFrame) -> str:
    """Give a project near a tenth of the text, or a tenth of a single project's files, to validation; return a note."""
    size = frame.groupby("repo_name")["size"].sum().clip(lower=1)
    if len(size) > 1:
        tenth = size.sum() / 10
        unit, held_out, note = frame["repo_name"], [(size / tenth).combine(tenth / size, max).idxmin()], ""
    else:
        unit = frame["path"].str.replace(".doctest.py", ".py", regex=False)  # a module and its examples stay together
        files = sorted(set(unit[frame["size"] > 0]), key=lambda path: documents.stable_order("", path))
        held_out = files[: max(1, len(files) // 10)]
        note = " There is a single project, so both splits hold files of it: the validation loss is too good."
        print(note.strip())
    frame.loc[unit.isin(held_out), "split"] = "validation"
    return note
