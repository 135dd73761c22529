"""What a document is, how Python files become documents, and how a corpus of them is written.

A corpus is a local data set in the Hub's layout: Parquet files by split, and a data card. The same documents give the
same bytes, in any order and on any machine; another pyarrow may compress differently, but the rows' digest stays.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from course_utils.data.doctests import doctest_document
from course_utils.data.documentation import ENDINGS, documentation_script

COLUMNS = ("repo_name", "path", "copies", "size", "content", "license")
SPLITS = ("train", "validation")
LEAST_USER_SHARE = 0.25  # of a slice, as far as there are that many: a small slice must not lose its example scripts
TESTS_KEPT = 3  # of five test files: with all, half of the code were tests; the cleaning lesson needs some to drop
BIGGEST_FILE = 5_000_000  # bytes

COPIED = re.compile(  # from another project, or by Sphinx from other files
    r"(^|/)(_?(vendor(ed)?|externals?|extern|third_party|subprojects)|_build|auto_(examples?|gallery|tutorials)|generated)/"
)
MACHINERY = re.compile(r"(^|/)(\.[^/]*|build_tools|ci|setup\.py|versioneer\.py|__config__\.py)(/|$)")
TEST = re.compile(r"(^|/)(tests?/|test_[^/]*\.py$|[^/]*_test\.py$|conftest\.py$)")
USER_STYLE = re.compile(r"(^|/)(examples?|galler(y|ies)|tutorials?)/|\.(doctest|ipynb|rst|txt|md|myst)\.py$")
KINDS = ("user", "library", "tests")


class Document(NamedTuple):
    """One file of a project, as text; Windows line ends (CRLF) have become LF."""

    repo_name: str  # of the project, as are version and license
    version: str
    license: str  # the SPDX expression that the project declares, or "unknown"
    split: str
    path: str = ""
    content: str = ""


def stable_order(project: str, path: str) -> str:
    """Return a pseudo-random key that is the same everywhere: cutting in this order takes a fair sample."""
    return hashlib.sha256(f"{project}\n{path}".encode()).hexdigest()


def kind_of(path: str) -> str:
    """Return "tests", or "user" for an example, a tutorial, doctests and documentation, or else "library"."""
    return "tests" if TEST.search(path) else "user" if USER_STYLE.search(path) else "library"


def left_out(project: str, path: str) -> str | None:
    """Return the reason why a file of a project stays out of every corpus, or None."""
    if COPIED.search(path):
        return "copied in from another project, or built from other files"
    if MACHINERY.search(path):
        return "set-up machinery"
    unlucky = int(stable_order(project, path), 16) % 5 >= TESTS_KEPT
    if TEST.search(path) and (unlucky or path.endswith(ENDINGS)):
        return "tests (three files in five are kept)"
    return None


def read_documents(project: Document, files: Iterable[tuple[str, bytes]], dropped: Counter) -> Iterator[Document]:
    """Yield the documents of files given as (path, bytes): modules, their doctests, code of pages; count the rest."""
    for name, data in files:
        path = name.encode(errors="replace").decode()  # file names need not be text on every system
        reason = left_out(project.repo_name, path) or ("larger than 5 MB" if len(data) > BIGGEST_FILE else None)
        try:
            content = data.decode("utf-8-sig").replace("\r\n", "\n")
        except UnicodeDecodeError:
            reason = reason or "not UTF-8"
        if not reason and path.endswith(ENDINGS):
            content, path = documentation_script(path, content), f"{path}.py"
            reason = None if content else "documentation with little code"
        if reason:
            dropped[reason] += 1
            continue
        yield project._replace(path=path, content=content)
        if kind_of(path) == "library" and (examples := doctest_document(content)):
            yield project._replace(path=f"{path[:-3]}.doctest.py", content=examples)


def as_frame(documents: Iterable[Document]) -> pd.DataFrame:
    """Return documents as rows in a stable order, with their `size` in bytes and their kind."""
    frame = pd.DataFrame(documents, columns=Document._fields, dtype=object)
    frame = frame.sort_values(["repo_name", "path", "content"], ignore_index=True)
    frame["size"] = [len(text.encode()) for text in frame["content"]]
    frame["kind"] = [kind_of(path) for path in frame["path"]]
    return frame


def slice_documents(frame: pd.DataFrame, max_bytes: int) -> pd.DataFrame:
    """Return a fair sample of at most `max_bytes` of text, 90 % training and 10 % validation; all if there is less.

    Documents are taken in the order of a hash of their names. User-style documents keep their share of the text, and
    get at least a quarter. A document over a twentieth of its split is left out: no single file fills the slice.
    """
    if frame["size"].sum() <= max_bytes:
        return frame
    order = list(map(stable_order, frame["repo_name"], frame["path"]))
    frame = frame.assign(order=order).sort_values(["order", "content"])
    held_out = max_bytes // 10
    taken = []
    for split, cap in (("train", max_bytes - held_out), ("validation", held_out)):
        mine = frame[(frame["split"] == split) & (frame["size"] <= cap // 20)]
        user, library = mine[mine["kind"] == "user"], mine[mine["kind"] != "user"]
        share = user["size"].sum() / max(mine["size"].sum(), 1)
        user = user[user["size"].cumsum() <= int(cap * max(LEAST_USER_SHARE, share))]
        taken += [user, library[library["size"].cumsum() <= cap - user["size"].sum()]]
    return pd.concat(taken).sort_index()


def write_corpus(destination: Path, frame: pd.DataFrame, origin: str, dropped: Counter) -> None:
    """Write `data/*.parquet` and a data card with the paragraph `origin`; raise `ValueError` for an empty split."""
    if empty := [split for split in SPLITS if not frame["size"][frame["split"] == split].sum()]:
        raise ValueError(
            f"the corpus has no text for the {empty[0]} split ({len(frame)} documents, left out: {dict(dropped)}). "
            "Choose a folder or projects with more Python files."
        )
    frame = frame.assign(copies=frame.groupby("content")["content"].transform("size"))
    (folder := destination / "data").mkdir(parents=True, exist_ok=True)
    schema = pa.schema([(name, pa.string()) for name in COLUMNS])  # strings only, as in the CodeParrot data sets
    for split in SPLITS:  # in groups of rows that are small enough to stream
        rows = frame.loc[frame["split"] == split, list(COLUMNS)].astype({"copies": str, "size": str})
        table = pa.Table.from_pandas(rows, schema, preserve_index=False).replace_schema_metadata()
        pq.write_table(table, folder / f"{split}-00000-of-00001.parquet", compression="zstd", row_group_size=200)
    (destination / "README.md").write_text(_data_card(frame, origin, dropped), encoding="utf-8", newline="\n")


def _data_card(frame: pd.DataFrame, origin: str, dropped: Counter) -> str:
    digest = hashlib.sha256()
    for value in frame[["split", "repo_name", "path", "license", "content"]].to_numpy().ravel():
        digest.update(f"{len(value)}:{value}".encode())
    projects = frame.groupby(["repo_name", "version", "license", "split"])
    table = "\n".join(
        f"| {' | '.join(names)} | {' | '.join(str((rows['kind'] == kind).sum()) for kind in KINDS)} "
        f"| {rows['size'].sum() / 1e6:.2f} |"
        for names, rows in projects
    )
    counts = "\n".join(f"- {reason}: {count}" for reason, count in sorted(dropped.items())) or "- nothing"
    return CARD.format(origin=origin, table=table, dropped=counts, digest=digest.hexdigest())


# No `configs` in the front matter: where a local folder has them, `datasets` keys its cache without path and time of
# the files, so that a rebuilt corpus, or another in a folder of the same name, would load as the old one.
CARD = """\
---
license: other
task_categories: [text-generation]
---
# Python code for training a completion model

{origin}

Columns, all strings, as in the CodeParrot data sets: `repo_name`, `path`, `copies` (rows of this corpus with the same
content), `size` (bytes in UTF-8), `content`, `license` (SPDX, as the project declares it, or unknown).

| project | version | licence | split | user-style | library | tests | MB |
|---|---|---|---|---|---|---|---|
{table}

Every `.py` file is a document, with LF for Windows line ends (CRLF). User-style documents show how a library is used:
examples, tutorials, the doctests of a module (`.doctest.py`), the code in a page of documentation (`.rst.py` and the
like); in these two, each block stands below the sentence before it. Duplicates, empty files, generated files and part
of the tests are kept on purpose: removing them is a lesson of the course. Files left out:

{dropped}

SHA-256 over the rows: `{digest}`
"""
