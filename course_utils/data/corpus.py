"""The code corpus: where it is, and the three ways to make one.

A corpus is a *location* that `datasets.load_dataset` opens: a local folder in the Hub's layout, or a Hub id. Local ones
are made from pinned source distributions, from the packages installed here, or from a folder of your own repositories.
"""

import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from course_utils.data.documents import COLUMNS as COLUMNS
from course_utils.data.documents import (
    SPLITS,
    BuildReport,
    Document,
    Project,
    read_documents,
    slice_documents,
    write_corpus,
)
from course_utils.data.documents import is_user_style as is_user_style
from course_utils.data.licenses import UNKNOWN, spdx_from_metadata, spdx_from_text
from course_utils.data.sources import Source, iter_python_members

PINNED = "pinned"  # the default corpus
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.{}-]+")
HUB_SPLITS = {"train": "train", "validation": "valid"}  # what {split} stands for in an id

# Data-science packages first; what is installed of them serves when there is neither network nor cache.
INSTALLED = {
    "train": ("matplotlib", "numpy", "pandas", "polars", "pyarrow", "scikit-learn", "scipy", "statsmodels", "xarray"),
    "validation": ("datasets", "networkx", "seaborn", "skrub"),
}
NOT_YOURS = {"site-packages", "node_modules", "__pycache__", "build", "dist", "venv", "env"}


_FILES = {".jsonl": "json", ".json": "json", ".csv": "csv", ".tsv": "csv", ".parquet": "parquet"}


@dataclass(frozen=True)
class Location:
    """A corpus that `load_dataset` opens: a local folder, a Hub id, or a Hub id with "{split}" in it."""

    path: str

    def load(self, split: str, streaming: bool = False):
        """Return the "train" or "validation" split as a `Dataset`, or as an `IterableDataset` when streaming.

        Raises `ValueError` for a split that does not exist, `ConnectionError` for a Hub id that cannot be opened.
        """
        from datasets import load_dataset

        if split not in SPLITS:
            raise ValueError(f"split {split!r} is unknown; allowed: {', '.join(SPLITS)}")
        path, name = self.path, split
        if "{split}" in path:  # one data set per split, each with all its rows in "train"
            path, name = path.replace("{split}", HUB_SPLITS[split]), "train"
        try:
            return load_dataset(path, split=name, streaming=streaming)
        except ValueError as error:
            raise ValueError(
                f"{path} has no split {name!r} that can be read ({error}). A corpus needs the splits "
                f"{' and '.join(SPLITS)}; a pair of data sets is written like owner/name-{{split}}."
            ) from error
        except OSError as error:
            if Path(path).is_dir():
                raise
            raise ConnectionError(
                f"{path} is no folder here, and the Hub does not open it ({type(error).__name__}). Check the "
                f"spelling and the network, or set COURSE_CODE_CORPUS={PINNED} for the built-in corpus."
            ) from error


def corpus_kind(text: str) -> str:
    """Tell what a value of `COURSE_CODE_CORPUS` names: "pinned", "folder", "dataset" or "hub".

    A folder with Parquet or JSON-lines files (also under `data/`) is a data set; any other folder holds repositories.
    Raises `ValueError` for a path that does not exist.
    """
    if text in ("", PINNED):
        return PINNED
    path = Path(text).expanduser()
    if path.is_dir():
        patterns = ("*.parquet", "*.jsonl", "data/*.parquet", "data/*.jsonl")
        return "dataset" if any(any(path.glob(pattern)) for pattern in patterns) else "folder"
    if HUB_ID.fullmatch(text) and not path.exists():
        return "hub"
    what = "is a file, not a folder" if path.exists() else "does not exist"
    raise ValueError(
        f"the code corpus {text!r} {what}. Allowed: {PINNED!r}, a folder of your repositories, a folder with a data "
        "set (Parquet or JSON lines), or a Hub id like owner/name or owner/name-{split}."
    )


def check_columns(corpus) -> None:
    """Raise `ValueError` unless a data set (or the training split of a `Location`) has the columns of a corpus."""
    if isinstance(corpus, Location):
        corpus = corpus.load("train", streaming=True)
    names = corpus.column_names
    if names is None:  # a stream that does not know its columns before the first row
        names = list(next(iter(corpus), {}))
    if "content" not in names:
        raise ValueError(
            f"the data set has the columns {', '.join(names) or 'none'}, but no `content` with the text of each "
            'document; rename yours: dataset.rename_column("text", "content")'
        )
    if missing := [name for name in COLUMNS if name not in names]:
        raise ValueError(
            f"the data set lacks the columns {', '.join(missing)}, which say where each document comes from; add them "
            "as text: dataset.map(lambda row: {'repo_name': 'mine', 'path': …, 'license': 'unknown', …})"
        )


def build_from_sources(
    destination: Path,
    sources: Sequence[Source],
    archives: Sequence[Path],
    max_bytes: int | None = None,
    progress: bool = True,
) -> BuildReport:
    """Write the corpus made of pinned source distributions; `archives` are their files, in any order.

    `max_bytes` cuts it to a fair sample of that much text. Raises `ValueError` for a missing archive.
    """
    by_name = {Path(archive).name: Path(archive) for archive in archives}
    if absent := [source.filename for source in sources if source.filename not in by_name]:
        raise ValueError(f"no archive given for {', '.join(absent)}; fetch_sources returns them all")

    def members(project: Project, dropped: Counter) -> Iterator[tuple[str, bytes]]:
        source = next(source for source in sources if source.name == project.name)
        return iter_python_members(by_name[source.filename], dropped)

    projects = [Project(source.name, source.version, source.license, source.split) for source in sources]
    origin = "Python files from the source distributions of the projects below, pinned by version and SHA-256."
    return _build(destination, projects, members, origin, max_bytes, progress)


def build_from_environment(
    destination: Path,
    max_bytes: int | None = None,
    progress: bool = True,
    packages: Mapping[str, Sequence[str]] = INSTALLED,
) -> BuildReport:
    """Write the corpus made of the packages installed here: it needs no network, but has other bytes elsewhere.

    `packages` are names of distributions by split; those not installed are passed over. Raises `ValueError` when a
    split is left without any.
    """
    from importlib.metadata import PackageNotFoundError, distribution

    found = {}
    for split, names in packages.items():
        for name in names:
            try:
                package = distribution(name)
            except PackageNotFoundError:
                continue
            found[Project(name, package.version, spdx_from_metadata(package.metadata), split)] = package

    def members(project: Project, dropped: Counter) -> Iterator[tuple[str, bytes]]:
        for file in found[project].files or []:
            if file.suffix == ".py" and ".." not in file.parts and (path := Path(file.locate())).is_file():
                yield file.as_posix(), path.read_bytes()

    origin = (
        "Python files of packages installed on the machine that made this corpus. Another machine has other versions: "
        "results are comparable, not equal. Installed packages have few example scripts."
    )
    return _build(destination, list(found), members, origin, max_bytes, progress)


def build_from_folder(
    destination: Path, folder: Path, max_bytes: int | None = None, progress: bool = True
) -> BuildReport:
    """Write the corpus made of your own repositories: each direct sub-folder of `folder` is a project.

    The project nearest in size to a tenth of the text becomes the validation split; a single project is split by file.
    Raises `ValueError` when `folder` does not exist or holds too little Python.
    """
    folder = Path(folder).expanduser().resolve()
    if not folder.is_dir():
        raise ValueError(f"the folder {folder} does not exist; name a folder that holds your repositories")
    if any((folder / mark).exists() for mark in (".git", "pyproject.toml", "setup.py", "setup.cfg")):
        roots = {folder.name: folder}
    else:
        roots = {path.name: path for path in folder.iterdir() if path.is_dir() and not _is_ignored(path.name)}
        roots["(top folder)"] = folder
    projects = [Project(name, "", _folder_license(root), "train") for name, root in roots.items()]

    def members(project: Project, dropped: Counter) -> Iterator[tuple[str, bytes]]:
        return _python_files(roots[project.name], dropped, deep=project.name != "(top folder)")

    origin = "Python files from folders of the person who made this corpus; not meant to be shared."
    return _build(destination, projects, members, origin, max_bytes, progress, choose=True)


def _build(destination, projects, members, origin, max_bytes, progress, choose=False) -> BuildReport:
    """Read all projects in the order of their names, choose the splits where asked, cut, and write."""
    from tqdm.auto import tqdm

    dropped: Counter = Counter()
    documents: list[Document] = []
    ordered = sorted(projects, key=lambda project: project.name)
    for project in tqdm(ordered, desc="Reading projects", unit="project", disable=not progress):
        documents += read_documents(project, members(project, dropped), dropped)
    if choose:
        documents, origin = _choose_splits(documents, origin)
        split_of = {document.repo_name: document.split for document in documents}
        projects = [replace(p, split=split_of[p.name]) for p in projects if p.name in split_of]
    if max_bytes is not None:
        documents = slice_documents(documents, max_bytes)
        origin += f" A fair sample of at most {max_bytes / 1e6:.1f} MB of text."
    return write_corpus(destination, documents, projects, origin, dropped)


def _choose_splits(documents: list[Document], origin: str) -> tuple[list[Document], str]:
    """Give whole projects to validation; with one project only, one file in ten."""
    size: Counter = Counter()
    for document in documents:
        size[document.repo_name] += len(document.content)
    if len(size) > 1:
        tenth = max(sum(size.values()) / 10, 1)
        held_out = min(size, key=lambda name: (max(size[name] / tenth, tenth / max(size[name], 1)), name))
        return [replace(d, split="validation") if d.repo_name == held_out else d for d in documents], origin
    note = "There is a single project, so both splits hold files of it: the validation loss looks better than it is."
    print(note)
    # A module and its doctest examples stay together.
    key = {d: replace(d, path=d.path.replace(".doctest.py", ".py")).order for d in documents if d.content}
    held_out = set(sorted(set(key.values()))[: max(1, len(key) // 10)])
    documents = [replace(d, split="validation") if key.get(d) in held_out else d for d in documents]
    return documents, f"{origin} {note}"


def _is_ignored(name: str) -> bool:
    return name.startswith(".") or name in NOT_YOURS or name.endswith(".egg-info")


def _python_files(root: Path, dropped: Counter, deep: bool) -> Iterator[tuple[str, bytes]]:
    for place, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if deep and not _is_ignored(name))
        for path in (Path(place) / name for name in sorted(files) if name.endswith(".py")):
            if path.is_symlink():
                continue
            try:
                yield path.relative_to(root).as_posix(), path.read_bytes()
            except OSError:
                dropped["not readable"] += 1


def _folder_license(root: Path) -> str:
    """Return the licence of a repository from its pyproject.toml, else from its licence file, else "unknown"."""
    import tomllib

    try:
        project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8")).get("project", {})
        declared = project.get("license", "")
        declared = declared if isinstance(declared, str) else declared.get("text", "")
    except (OSError, ValueError, AttributeError):
        declared = ""
    if (name := spdx_from_text(declared)) != UNKNOWN:
        return name
    for path in sorted((*root.glob("LICEN[SC]E*"), *root.glob("COPYING*"))):
        if path.is_file():
            return spdx_from_text(path.read_text(encoding="utf-8", errors="replace"))
    return UNKNOWN


def open_location(location: str, instead: str):
    """Return the splits of a data set: a folder or file that `load_dataset` reads, or a Hub id (`name:configuration`).

    A folder may also be one that `save_to_disk` wrote. Raises `ValueError` for what is here and cannot be read, and
    `ConnectionError` for a Hub id that cannot be opened; that names `instead`, data sets which need no network.
    """
    from datasets import load_dataset

    place = Path(location).expanduser()
    if place.exists():
        return _open_here(place)
    path, _, config = location.partition(":")
    folder = Path(path).expanduser()
    try:
        return load_dataset(str(folder) if folder.is_dir() else path, config or None)
    except (OSError, ConnectionError) as error:
        raise ConnectionError(
            f"{location} is no folder or file here, and the Hub does not open it ({type(error).__name__}). Check "
            f"spelling and network, or use {instead}, which need no network."
        ) from error


def _open_here(place: Path):
    from datasets import DatasetDict, load_dataset, load_from_disk

    try:
        if (place / "dataset_dict.json").is_file():
            return load_from_disk(str(place))
        if (place / "state.json").is_file():
            return DatasetDict({"train": load_from_disk(str(place))})
        if place.is_dir():
            return load_dataset(str(place))
        kind = next((_FILES[ending] for ending in place.suffixes if ending in _FILES), "json")  # also .jsonl.gz
        return load_dataset(kind, data_files=str(place), **({"sep": "\t"} if ".tsv" in place.suffixes else {}))
    except Exception as error:  # a damaged file makes the readers raise almost anything
        reason = str(error.__cause__ or error).strip().partition("\n")[0] or type(error).__name__
        raise ValueError(
            f"{place} cannot be read as a data set ({reason}). It must hold files such as train.jsonl, train.csv or "
            "train.parquet, with the same columns in every row."
        ) from error
