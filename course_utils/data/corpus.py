"""The code corpus: where it is, and the three ways to make one."""

import hashlib
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import distributions
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from datasets import Dataset, Features, IterableDataset, Value, concatenate_datasets
from tqdm.auto import tqdm

from course_utils.cache import expanded
from course_utils.data import documents, splitting
from course_utils.data.documents import COLUMNS, Document
from course_utils.data.reading import HUB_ID, data_files, open_hub, read_file
from course_utils.data.sources import Source, iter_members
from course_utils.profiles import locations

PINNED = "pinned"  # the default corpus
# Data-science packages; what is installed of them serves when there is neither network nor cache.
INSTALLED = {
    "train": ("matplotlib", "numpy", "pandas", "polars", "pyarrow", "scikit-learn", "scipy", "statsmodels", "xarray"),
    "validation": ("datasets", "networkx", "seaborn", "skrub"),
}
NOT_YOURS = re.compile(r"\..*|site-packages|node_modules|__pycache__|build|dist|venv|env|.*\.egg-info", re.DOTALL)


class Location(NamedTuple):
    """A corpus: a local folder or file, a Hub id (one with "{split}" in it, several with commas); its text column."""

    path: str
    text: str = "content"

    def load(self, split: str, streaming: bool = False) -> Dataset | IterableDataset:
        """Return the "train" or "validation" split with all columns, as an `IterableDataset` when streaming."""
        parts = [_with_columns(_load(path, split, streaming), self.text, path) for path in locations(self.path)]
        return parts[0] if len(parts) == 1 else concatenate_datasets([p.select_columns([*COLUMNS]) for p in parts])

    def is_whole(self) -> bool:
        """Return whether this is one local data set with both splits and all columns, which needs no copy."""
        rows = _load(self.path, "train", streaming=False)
        return len(data_files(Path(self.path))) > 1 and _with_columns(rows, self.text, self.path) is rows


def _load(path: str, split: str, streaming: bool) -> Dataset | IterableDataset:
    place = expanded(path)
    if place.exists():
        files = data_files(place)
        found = files.get(split, files.get("test") if split == "validation" else None)  # as `train_test_split` names it
        rows = concatenate_datasets(list(map(read_file, found))) if found else []
        if not len(rows):
            raise ValueError(f"{place} has no rows of a split {split!r}, but {list(files)}; name a file after it.")
        return rows.to_iterable_dataset() if streaming else rows
    name = path.replace("{split}", split.replace("validation", "valid"))
    split = split if name == path else "train"  # a data set per split has all rows there
    return open_hub(name, f"set COURSE_CODE_CORPUS={PINNED}", split=split, streaming=streaming)


def _with_columns(rows: Dataset | IterableDataset, text: str, where: str) -> Dataset | IterableDataset:
    """Return the rows with the columns of a corpus, all of them text; raise `ValueError` if `text` is none of them."""
    types = rows.features or Dataset.from_list(list(rows.take(1))).features  # some streams know no columns yet
    texts = {name for name, kind in types.items() if getattr(kind, "dtype", "") in ("string", "large_string")}
    if text not in texts:
        found = ", ".join(f"{name!r:.40}" for name in types if name != text) or "no other"
        raise ValueError(f"{where} has no text in a column {text!r}. Set COURSE_TEXT_COLUMN to the right one: {found}.")
    strings = Features(dict.fromkeys(COLUMNS, Value("string")))
    if text == "content" and strings.items() <= types.items():
        return rows
    return rows.map(_complete, fn_kwargs={"text": text}, remove_columns=list(types), features=strings)


def _complete(row: Mapping, text: str) -> dict[str, str]:
    found = {name: value for name, value in row.items() if value is not None} | {"content": row[text] or ""}
    missing = {"repo_name": "unknown", "path": "", "copies": "1", "size": len(found["content"].encode())}
    return {name: str(found.get(name, missing.get(name, "unknown"))) for name in COLUMNS}


def corpus_kind(text: str) -> str:
    """Return what COURSE_CODE_CORPUS names: "pinned", "folder" (with any Python file), "dataset", "hub" or "list"."""
    if len(parts := locations(text)) > 1:
        kinds = set(map(corpus_kind, parts))
        if kinds == {"hub"} or kinds <= {"folder", "dataset"}:
            return "hub" if "hub" in kinds else "list"
        raise ValueError(f"the code corpus {text!r} mixes {', '.join(sorted(kinds))}: list Hub ids, or local paths.")
    place = expanded(text)
    if text in ("", PINNED):
        return PINNED
    if place.is_dir() and any(python_files(place)):
        return "folder"
    if place.exists() and data_files(place):
        return "dataset"
    if HUB_ID.fullmatch(text.partition(":")[0]) and not place.exists():
        return "hub"
    raise ValueError(
        f"the code corpus {text!r} {'holds no .py or data file' if place.exists() else 'does not exist'}. Allowed: "
        f"{PINNED!r}, a folder of your repositories, a data set (Parquet, JSON lines, CSV), a Hub id like owner/name "
        "or owner/name-{split}, or several with commas, all local or all on the Hub."
    )


def build_from_sources(destination: Path, sources: Sequence[Source], archives: list[Path], max_bytes: int = 0) -> None:
    """Write the corpus of pinned sources, or a fair sample of it; `archives` are their files, in the same order."""
    pairs = zip(sources, archives, strict=True)
    projects = {Document(s.name, s.version, s.license, s.split): iter_members(path, s.only_pages) for s, path in pairs}
    origin = "Python code from the source distributions of the projects below, pinned by version and SHA-256."
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


def build_from_own(destination: Path, places: Sequence[str], text: str = "content", max_bytes: int = 0) -> None:
    """Write the corpus of your own repositories and data sets, with the validation split they have, or a new one."""
    found, rows = defaultdict(list), []
    for place in map(Path, places):
        if corpus_kind(str(place)) == "folder":
            print(f"{place} has Python files, so these are read, and nothing else in it.")
            for name, path, file in python_files(place):
                found[Document(name, "", "unknown", "train")].append((path, file))
            continue
        for split in documents.SPLITS[: len(data_files(place))]:
            data = Location(str(place), text).load(split, streaming=True)
            rows += (Document(r["repo_name"], "", r["license"], split, r["path"], r["content"]) for r in data)
    projects = {project: ((path, file.read_bytes()) for path, file in files) for project, files in found.items()}
    origin = "Code from folders of the person who made this corpus; not meant to be shared."
    _build(destination, projects, origin, max_bytes, rows)


def python_files(folder: Path) -> Iterator[tuple[str, str, Path]]:
    """Yield (project, path inside it, file) for the Python files in a folder of repositories, or in a single one.

    A repository may be a link to its folder, but not to one around it; links inside it are passed over.
    """
    folder = folder.resolve()
    single = any((folder / mark).exists() for mark in (".git", "pyproject.toml", "setup.py", "setup.cfg"))
    roots = sorted(path for path in folder.iterdir() if path.is_dir() and not NOT_YOURS.fullmatch(path.name))
    roots = [path for path in roots if not folder.is_relative_to(path.resolve())]
    for root in [folder] if single else [folder, *roots]:
        for place, folders, names in os.walk(root):
            inside = folders if single or root != folder else ()  # the sub-folders are projects of their own
            folders[:] = sorted(name for name in inside if not NOT_YOURS.fullmatch(name))
            for file in (Path(place, name) for name in sorted(names)):
                if file.suffix == ".py" and not file.is_symlink():
                    yield root.name, file.relative_to(root).as_posix(), file


def own_state(places: Sequence[str]) -> str:
    """Return a digest of what is read of own folders and data sets; size and time stand for a file's content."""
    files = []
    for place in map(Path, places):
        code = place.is_dir() and list(python_files(place))
        files += code or ((split, "", file) for split, found in data_files(place).items() for file in found)
    state = [(*names, str(file), file.stat().st_size, file.stat().st_mtime_ns) for *names, file in files]
    return hashlib.sha256(repr(state).encode()).hexdigest()  # `repr` also writes names that are not valid text


def _build(destination: Path, projects: Mapping, origin: str, max_bytes: int, own: list | None = None) -> None:
    """Write the corpus of documents without path and content with their (path, bytes), and of `own` documents."""
    dropped, note = Counter(), ""
    bar = tqdm(projects.items(), desc="Reading projects", unit="project")
    read = (documents.read_documents(project, files, dropped) for project, files in bar)
    frame = documents.as_frame(chain(own or [], chain.from_iterable(read)))
    if own is not None and set(frame["split"]) == {"train"}:  # nobody has chosen yet
        held_out, note = splitting.hold_out(frame)
        frame.loc[held_out, "split"] = "validation"
    if max_bytes:
        frame = documents.slice_documents(frame, max_bytes)
        origin += f" A fair sample of at most {max_bytes / 1e6:.1f} MB of text."
    documents.write_corpus(destination, frame, f"{origin} {note}".rstrip(), dropped)
    print(note, end="\n" if note else "")
