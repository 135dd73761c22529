"""Write documents as a local data set in the Hub's own layout: Parquet files by split, and a data card.

The same documents give the same bytes, in whatever order they come: rows are sorted, row groups have a fixed size, and
nothing depends on the clock, the machine or Python's hash seed. (Another pyarrow may compress differently; the digest
in the data card covers the rows and stays the same.)
"""

import hashlib
import itertools
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from course_utils.data.doctests import doctest_document
from course_utils.data.sources import disk_full_explained

COLUMNS = ("repo_name", "path", "copies", "size", "content", "license")
SPLITS = ("train", "validation")
ROW_GROUP = 4_000_000  # characters of text: small enough to stream, large enough to compress
VALIDATION_SHARE = 10  # one byte in ten of a slice
LEAST_USER_SHARE = 0.25  # of a slice, as far as there are that many: a small slice must not lose its example scripts
TESTS_KEPT = 4  # one test file in four: half of all code would be tests, but the cleaning lesson needs some to drop
BIGGEST_FILE = 5_000_000  # bytes

VENDORED = re.compile(r"(^|/)_?(vendor(ed)?|externals?|extern|third_party|subprojects)/")
MACHINERY = re.compile(r"(^|/)(\.[^/]*|build_tools|ci|setup\.py|versioneer\.py|__config__\.py)(/|$)")
TEST = re.compile(r"(^|/)(tests?/|test_[^/]*\.py$|[^/]*_test\.py$|conftest\.py$)")
USER_STYLE = re.compile(r"(^|/)(examples?|galler(y|ies)|tutorials?)/|\.doctest\.py$")


@dataclass(frozen=True)
class Document:
    """One file of a project, as text; Windows line ends (CRLF) have become LF."""

    repo_name: str
    path: str
    content: str
    license: str  # SPDX expression or "unknown"
    split: str

    @property
    def order(self) -> str:
        """A stable pseudo-random key: cutting in this order takes a fair sample of every project."""
        return hashlib.sha256(f"{self.repo_name}\n{self.path}".encode()).hexdigest()


@dataclass(frozen=True)
class Project:
    """What the data card says about one project."""

    name: str
    version: str
    license: str
    split: str


@dataclass
class BuildReport:
    """What a build wrote and what it left out."""

    documents: dict[str, int] = field(default_factory=dict)  # by split
    bytes: dict[str, int] = field(default_factory=dict)  # of UTF-8 text, by split
    user_style_bytes: dict[str, int] = field(default_factory=dict)  # of these, in user-style documents
    dropped: dict[str, int] = field(default_factory=dict)  # files, by reason
    projects: tuple[str, ...] = ()


def is_user_style(path: str) -> bool:
    """Tell by its path whether a document shows the use of libraries: example, gallery, tutorial, doctest examples."""
    return bool(USER_STYLE.search(path)) and not TEST.search(path)


def left_out(project: str, path: str) -> str | None:
    """Return the reason why a file of a project stays out of every corpus, or None."""
    if VENDORED.search(path):
        return "copied in from another project"
    if MACHINERY.search(path):
        return "set-up machinery"
    kept = int(hashlib.sha256(f"{project}\n{path}".encode()).hexdigest(), 16) % TESTS_KEPT == 0
    return "tests (one file in four is kept)" if TEST.search(path) and not kept else None


def read_documents(project: Project, members: Iterable[tuple[str, bytes]], dropped: Counter) -> Iterator[Document]:
    """Yield the documents of a project: its files, and the doctest examples of each library module.

    `members` are (path, bytes). What is left out is counted in `dropped` by reason.
    """
    for name, data in members:
        path = name.encode(errors="replace").decode()  # file names need not be text on every system
        reason = left_out(project.name, path)
        reason = reason or ("larger than 5 MB" if len(data) > BIGGEST_FILE else None)
        try:
            content = data.decode("utf-8-sig").replace("\r\n", "\n")
        except UnicodeDecodeError:
            reason = reason or "not UTF-8"
        if reason:
            dropped[reason] += 1
            continue
        yield Document(project.name, path, content, project.license, project.split)
        if not is_user_style(path) and not TEST.search(path) and (examples := doctest_document(content)):
            yield Document(project.name, f"{path[:-3]}.doctest.py", examples, project.license, project.split)


def slice_documents(documents: Sequence[Document], max_bytes: int) -> list[Document]:
    """Return a fair sample of about `max_bytes` of text: 90 % training and 10 % validation, never more.

    Documents are taken in the order of a hash of their names. User-style documents keep their share of the text, and
    get at least a quarter of the slice as far as there are that many. A document over a twentieth of its share is
    left out, so that no single file fills the slice. What is not larger than `max_bytes` stays whole.
    """
    if sum(len(document.content.encode()) for document in documents) <= max_bytes:
        return list(documents)
    chosen = []
    for split in SPLITS:
        cap = max_bytes // VALIDATION_SHARE if split == "validation" else max_bytes - max_bytes // VALIDATION_SHARE
        mine = sorted((d for d in documents if d.split == split), key=lambda d: (d.order, d.content))
        sized = [(d, size) for d in mine if (size := len(d.content.encode())) <= cap // 20]
        user = [pair for pair in sized if is_user_style(pair[0].path)]
        library = [pair for pair in sized if not is_user_style(pair[0].path)]
        share = sum(size for _, size in user) / max(sum(size for _, size in sized), 1)
        taken = _prefix(user, int(cap * max(LEAST_USER_SHARE, share)))
        taken += _prefix(library, cap - sum(size for _, size in taken))
        chosen += [document for document, _ in taken]
    return chosen


def _prefix(sized: list[tuple[Document, int]], cap: int) -> list[tuple[Document, int]]:
    """Return the first documents that together have at most `cap` bytes."""
    totals = itertools.accumulate(size for _, size in sized)
    return [pair for pair, total in zip(sized, totals, strict=True) if total <= cap]


def write_corpus(
    destination: Path, documents: Iterable[Document], projects: Sequence[Project], origin: str, dropped: Counter
) -> BuildReport:
    """Write `documents` under `destination` as `data/*.parquet` with a data card, and return what was written.

    `origin` is the paragraph of the data card that says where the documents come from. Raises `ValueError` when a split
    would be empty, `OSError` on a full disk.
    """
    rows = sorted(documents, key=lambda document: (document.repo_name, document.path, document.content))
    report = BuildReport(dropped=dict(sorted(dropped.items())), projects=tuple(sorted({d.repo_name for d in rows})))
    for split in SPLITS:
        mine = [document for document in rows if document.split == split]
        report.documents[split] = len(mine)
        report.bytes[split] = sum(len(d.content.encode()) for d in mine)
        report.user_style_bytes[split] = sum(len(d.content.encode()) for d in mine if is_user_style(d.path))
        if not report.bytes[split]:
            raise ValueError(
                f"the corpus has no text for the {split} split ({len(rows)} documents in all; left out: "
                f"{report.dropped or 'nothing'}). Choose a folder or projects with more Python files."
            )
    data = Path(destination) / "data"
    data.mkdir(parents=True, exist_ok=True)
    copies = Counter(document.content for document in rows)
    with disk_full_explained(data, sum(report.bytes.values()) // 2):  # code compresses at least that well
        for split in SPLITS:
            mine = [document for document in rows if document.split == split]
            _write_parquet(data / f"{split}-00000-of-00001.parquet", mine, copies)
        card = _data_card(report, rows, projects, origin)
        (Path(destination) / "README.md").write_text(card, encoding="utf-8", newline="\n")
    return report


def _columns(documents: Sequence[Document], copies: Counter) -> dict[str, list[str]]:
    """All columns are strings, as in the CodeParrot data sets: notebooks show the first 200 characters of each."""
    return {
        "repo_name": [d.repo_name for d in documents],
        "path": [d.path for d in documents],
        "copies": [str(copies[d.content]) for d in documents],
        "size": [str(len(d.content.encode())) for d in documents],
        "content": [d.content for d in documents],
        "license": [d.license for d in documents],
    }


def _write_parquet(path: Path, documents: Sequence[Document], copies: Counter) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([(name, pa.string()) for name in COLUMNS])
    groups: list[list[Document]] = [[]]
    size = 0
    for document in documents:
        if size > ROW_GROUP:
            groups.append([])
            size = 0
        groups[-1].append(document)
        size += len(document.content)
    with pq.ParquetWriter(path, schema, compression="zstd", use_dictionary=["repo_name", "license"]) as writer:
        for group in groups:
            writer.write_table(pa.table(_columns(group, copies), schema=schema), row_group_size=len(group))


def _data_card(report: BuildReport, rows: Sequence[Document], projects: Sequence[Project], origin: str) -> str:
    digest = hashlib.sha256()
    documents, size = Counter(), Counter()
    for row in rows:
        documents[row.repo_name] += 1
        size[row.repo_name] += len(row.content.encode())
        for value in (row.split, row.repo_name, row.path, row.license, row.content):
            digest.update(f"{len(value)}:{value}".encode())
    table = "\n".join(
        f"| {p.name} | {p.version} | {p.license} | {p.split} | {documents[p.name]} | {size[p.name] / 1e6:.2f} |"
        for p in sorted(projects, key=lambda project: (project.name, project.split))
    )
    splits = "\n".join(
        f"- {split}: {report.documents[split]} documents, {report.bytes[split] / 1e6:.2f} MB of text, of which "
        f"{report.user_style_bytes[split] / 1e6:.2f} MB in examples, galleries and doctests"
        for split in SPLITS
    )
    dropped = "\n".join(f"- {reason}: {count}" for reason, count in report.dropped.items()) or "- nothing"
    return CARD.format(origin=origin, table=table, splits=splits, dropped=dropped, digest=digest.hexdigest())


# No `configs` in the front matter: where a local folder has them, `datasets` keys its cache without path and time of
# the files, so that a rebuilt corpus, or another in a folder of the same name, would load as the old one.
CARD = """\
---
pretty_name: Python code for training a completion model
license: other
language:
- code
task_categories:
- text-generation
---

# Python code for training a completion model

{origin}

Columns, all strings, as in the CodeParrot data sets: `repo_name`, `path`, `copies` (rows of this corpus with the same
content), `size` (bytes in UTF-8), `content`, `license` (SPDX, as the project declares it).

## Splits

{splits}

## Projects

| project | version | licence | split | documents | MB |
|---|---|---|---|---|---|
{table}

## How it was made

Every `.py` file of a project is a document; Windows line ends (CRLF) have become LF. The doctest examples in the
docstrings of a library module are a further document, named like the module with the ending `.doctest.py`.
Duplicates, empty files, generated files and part of the tests are kept on purpose: removing them is a lesson of the
course. Files left out:

{dropped}

SHA-256 over the rows: `{digest}`
"""
