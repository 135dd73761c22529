"""Keep the documents that mention, or import, a library: on one string, and on a stream of any length.

Documents are never turned into Python strings: Arrow tables are matched as they come, and the rows to keep are written
to disk at once, so that memory does not grow with the input.
"""

import ast
import re
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, islice
from pathlib import Path
from typing import Literal

import datasets
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from datasets.features.features import cast_to_python_objects
from datasets.fingerprint import get_temporary_cache_files_directory
from tqdm.auto import tqdm

KEYWORDS = ("pandas", "sklearn", "matplotlib", "seaborn")

# What is held in memory at once: rows of a stream (about 4 MB of source code), bytes of text of a Parquet file.
_BATCH_ROWS = 256
_BATCH_BYTES = 16_000_000

# A line that starts an import and names the module: first, or later in `import numpy as np, pandas`.
_IMPORT = r"(?m)^[ \t\f\ufeff]*(?:from[ \t]+|import[ \t]+(?:[\w.]+(?:[ \t]+as[ \t]+\w+)?[ \t]*,[ \t]*)*)(?:{modules})\b"
# Documentation shows import statements too; they mostly stand in triple-quoted strings.
_LONG_STRING = r"""(?s)\"{3}(?:[^\\]|\\.)*?\"{3}|'{3}(?:[^\\]|\\.)*?'{3}"""


def any_keyword_in_string(string: str, keywords: Iterable[str]) -> bool:
    """Say whether any of the keywords stands anywhere in the string, inside other words and comments too.

    Raises ValueError when `keywords` is one string. Source: the filter of the tutorial, row A1.
    """
    return any(keyword in string for keyword in _as_words(keywords))


def imports_any(string: str, modules: Iterable[str]) -> bool:
    """Say whether the Python source imports one of the top-level modules, by a regular expression.

    It reads files that no longer parse, and much faster than `imported_modules` does. It misses an import that follows
    another statement on its line, one continued after a backslash, lines that end with CR alone, and what stands
    between two triple quotes that are themselves inside comments or strings. It is deceived by an import written inside
    a string, unless that is triple-quoted. Empty words count for nothing.
    Raises ValueError when `modules` is empty or one string.
    """
    found = re.compile(_import_pattern(modules)).search
    return found(string) is not None and found(re.sub(_LONG_STRING, "", string)) is not None


def imported_modules(string: str) -> set[str]:
    """Give the top-level modules the Python source imports, by its syntax tree; relative imports do not count.

    Raises SyntaxError (or ValueError, for null bytes) when the source is not valid for this Python version.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)  # "invalid escape sequence" in files that are not ours
        tree = ast.parse(string)
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.append(node.module)
    return {name.partition(".")[0] for name in names}


def filter_streaming_dataset(
    dataset: datasets.Dataset | datasets.IterableDataset,
    filters: Sequence[str],
    *,
    match: Literal["keyword", "import"] = "keyword",
    column: str = "content",
    show_progress: bool = True,
) -> datasets.Dataset:
    """Keep the rows whose `column` contains (or imports) one of `filters`, in order, and print the share kept.

    Memory does not depend on the length of the input. The result is memory-mapped from a temporary folder that lasts
    until Python ends; `save_to_disk` keeps it longer. Rows without content are dropped; an empty stream gives an empty
    data set. Raises ValueError for an unknown `match`, no filters, anything but a data set or stream with that column
    of strings, or a stream that does not say its features and whose rows differ in columns or types.
    Source: the tutorial's function of this name, which holds every row it keeps as Python objects.
    """
    if not isinstance(dataset, datasets.Dataset | datasets.IterableDataset):
        raise ValueError(
            f"got {type(dataset).__name__}; give one data set or stream: one split of a DatasetDict, or "
            "datasets.Dataset.from_list(rows)"
        )
    matches = _matcher(filters, match)
    schema = None if dataset.features is None else dataset.features.arrow_schema
    if schema is not None:
        _check_column(schema, column)
    files = _parquet_files(dataset)
    tables = _read_parquet(files, matches, column) if files else _read_stream(dataset, matches, column)
    folder = Path(tempfile.mkdtemp(dir=get_temporary_cache_files_directory(), prefix="filtered-"))
    try:
        with tqdm(desc="Filtering", unit=" documents", disable=not show_progress) as bar:
            kept, read = _write(tables, schema, folder / "kept.arrow", bar)
    except BaseException as error:  # Ctrl-C too
        shutil.rmtree(folder, ignore_errors=True)
        if schema is None and isinstance(error, pa.ArrowInvalid | pa.ArrowTypeError | pa.ArrowNotImplementedError):
            raise ValueError(
                f"the rows of this stream differ in columns or types ({error}); say which there are: "
                "stream.cast(datasets.Features({…}))"
            ) from error
        raise
    share = f"{len(kept) / read:.2%} of the data kept" if read else "Nothing to keep"
    print(f"{share}: {len(kept):,} of {read:,} documents read.")
    return kept


def _as_words(words: Iterable[str]) -> tuple[str, ...]:
    if isinstance(words, str):
        raise ValueError(f"got the string {words!r}, whose letters would be searched one by one; give [{words!r}]")
    return tuple(words)


def _import_pattern(modules: Iterable[str]) -> str:
    names = "|".join(map(re.escape, filter(None, _as_words(modules))))
    if not names:
        raise ValueError("got no module to look for; name at least one, for example ['pandas']")
    return _IMPORT.format(modules=names)


def _matcher(filters: Iterable[str], match: str) -> Callable[[pl.Series], pl.Series]:
    """Give the function that marks the texts of a series to keep; a missing text is not kept."""
    words = [word for word in _as_words(filters) if word]
    if not words:
        raise ValueError("got no filter, and would keep nothing; give at least one non-empty string")
    # One alternation of literals is a single vectorised pass, several times faster than `contains_any`.
    anywhere = "|".join(map(pl.escape_regex, words))
    if match == "keyword":
        return lambda texts: texts.str.contains(anywhere).fill_null(False)
    if match != "import":
        raise ValueError(f"match is {match!r}; use 'keyword' (the word anywhere) or 'import' (an import statement)")
    statement = _import_pattern(words)

    def imports(texts: pl.Series) -> pl.Series:
        found = texts.str.contains(anywhere).fill_null(False)
        # The slower tests see only what passed the one before.
        found = found.scatter(found.arg_true(), texts.filter(found).str.contains(statement))
        code = texts.filter(found).str.replace_all(_LONG_STRING, "")
        return found.scatter(found.arg_true(), code.str.contains(statement))

    return imports


def _check_column(schema: pa.Schema, column: str) -> None:
    if column not in schema.names:
        raise ValueError(f"the data set has no column {column!r}, only {schema.names}; name the text with column=")
    kind = schema.field(column).type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        raise ValueError(f"column {column!r} holds {kind}, not strings; cast it, or name another with column=")


def _parquet_files(dataset: datasets.Dataset | datasets.IterableDataset) -> list[str]:
    """Give the local Parquet files that the stream reads whole and in order, or none if that is not what it does.

    `datasets` has no public way to ask. Whatever is not recognised is read as a stream: same rows, at half the speed.
    """
    source = getattr(dataset, "_ex_iterable", None)
    config = getattr(getattr(getattr(source, "generate_tables_fn", None), "__self__", None), "config", None)
    if type(config).__name__ != "ParquetConfig" or config.filters is not None or dataset._distributed:
        return []
    if dataset.epoch or dataset._starting_state_dict:  # another order, or another start
        return []
    if any(source.kwargs.get("row_groups_list", [])):
        return []
    # Paths, or in older versions lists of paths.
    files = [file for item in source.kwargs["files"] for file in ([item] if isinstance(item, str) else item)]
    text = all(pa.types.is_string(kind) for kind in dataset.features.arrow_schema.types)
    return files if text and all(Path(file).is_file() for file in files) else []


def _read_parquet(
    files: Iterable[str], matches: Callable[[pl.Series], pl.Series], column: str
) -> Iterator[tuple[int, pa.Table]]:
    """Yield the number of rows read and the table of rows to keep, for every few row groups; decodes on all cores."""
    with ThreadPoolExecutor(1) as reader:  # decodes the next rows while these are matched and written
        waiting: Future | None = None
        for piece in chain(_pieces(files), [None]):
            following = reader.submit(_decode, *piece) if piece else None
            if waiting:
                frame = waiting.result()
                kept = frame.filter(matches(frame[column]))
                yield len(frame), kept.to_arrow(compat_level=pl.CompatLevel.oldest())
            waiting = following


def _pieces(files: Iterable[str]) -> Iterator[tuple[str, int, int]]:
    """Cut the files into runs of row groups of about `_BATCH_BYTES`: file, first row, number of rows."""
    for file in files:
        start = rows = size = 0
        groups = pq.read_metadata(file)
        for index in range(groups.num_row_groups):
            rows += groups.row_group(index).num_rows
            size += groups.row_group(index).total_byte_size
            if size >= _BATCH_BYTES or index + 1 == groups.num_row_groups:
                yield file, start, rows
                start, rows, size = start + rows, 0, 0


def _decode(file: str, start: int, rows: int) -> pl.DataFrame:
    try:
        return pl.scan_parquet(file, glob=False).slice(start, rows).collect()
    except pl.exceptions.PolarsError as error:
        raise ValueError(f"cannot read {file}: {error}; write or download the file again") from error


def _read_stream(
    dataset: datasets.Dataset | datasets.IterableDataset, matches: Callable[[pl.Series], pl.Series], column: str
) -> Iterator[tuple[int, pa.Table]]:
    """Yield the number of rows read and the table of rows to keep, for every batch of the data set."""
    for table in _tables(dataset):
        place = table.schema.get_field_index(column)
        if place >= 0 and pa.types.is_null(table.schema.types[place]):  # no row of these has content
            table = table.set_column(place, column, table[column].cast(pa.string()))
        _check_column(table.schema, column)  # some streams know their columns only now
        yield len(table), table.filter(matches(pl.Series(table[column])).to_arrow())


def _tables(dataset: datasets.Dataset | datasets.IterableDataset) -> Iterator[pa.Table]:
    """Yield the rows as Arrow tables, from where a stream stands.

    Changing the format makes a stream forget its epoch, and what load_state_dict did. And a stream of Python rows is
    read by row, because `datasets` would give each row the types of its own values, and fail where one is None.
    """
    resumed = getattr(dataset, "_starting_state_dict", None)
    by_row = resumed or (isinstance(dataset, datasets.IterableDataset) and not dataset._ex_iterable.iter_arrow)
    reader = dataset if resumed else dataset.with_format(None if by_row else "arrow")
    if hasattr(dataset, "epoch"):
        reader.set_epoch(dataset.epoch)
    if not by_row:
        yield from reader.iter(batch_size=_BATCH_ROWS)
        return
    rows, features = iter(reader), dataset.features
    while batch := list(islice(rows, _BATCH_ROWS)):
        columns = {name: [row.get(name) for row in batch] for name in features or dict.fromkeys(chain(*batch))}
        if features:
            yield pa.table(features.encode_batch(columns), schema=features.arrow_schema)
        else:
            yield pa.table(cast_to_python_objects(columns, only_1d_for_numpy=True))


def _write(
    tables: Iterable[tuple[int, pa.Table]], schema: pa.Schema | None, target: Path, bar: tqdm
) -> tuple[datasets.Dataset, int]:
    """Write the tables to the Arrow file `target` as they come; return it opened, and the number of rows read."""
    writer = pa.ipc.new_stream(str(target), schema) if schema is not None else None
    inferred, read = schema is None, 0
    try:
        for rows, table in tables:
            if writer is None:
                schema = table.schema
                writer = pa.ipc.new_stream(str(target), schema)
            if inferred and set(table.column_names) != set(schema.names):
                raise pa.ArrowInvalid(f"{table.column_names} after {schema.names}")
            if len(table):
                writer.write_table(table.select(schema.names).cast(schema))
            read += rows
            bar.update(rows)
    finally:
        if writer is not None:
            writer.close()
    return datasets.Dataset.from_file(str(target)) if writer is not None else datasets.Dataset.from_dict({}), read
