"""Keep the documents that mention, or import, a library: in one string, and in a stream of any length."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any
from uuid import uuid4

import datasets
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from datasets.fingerprint import get_temporary_cache_files_directory
from tqdm.auto import tqdm

from course_utils.cache import replacing
from course_utils.say import say

KEYWORDS = ("pandas", "sklearn", "matplotlib", "seaborn")

# What is held in memory at once: rows of a stream (about 4 MB of source code), bytes of text of a Parquet file.
_BATCH_ROWS = 256
_BATCH_BYTES = 32_000_000

# A line that starts an import and names the module: first, or later in `import numpy as np, pandas`.
_IMPORT = r"(?m)^[ \t\f\ufeff]*(?:from[ \t]+|import[ \t]+(?:[\w.]+(?:[ \t]+as[ \t]+\w+)?[ \t]*,[ \t]*)*)(?:{modules})\b"
# Documentation shows import statements too; they mostly stand in triple-quoted strings.
_LONG_STRING = r"""(?s)\"{3}(?:[^\\]|\\.)*?\"{3}|'{3}(?:[^\\]|\\.)*?'{3}"""


def any_keyword_in_string(string: str, keywords: Iterable[str]) -> bool:
    """Return True if any keyword occurs in the string, inside other words and comments too (row A1)."""
    return any(keyword in string for keyword in keywords)


def imports_any(string: str, modules: Iterable[str]) -> bool:
    """Return True if the Python source imports one of the top-level modules, by a regular expression.

    It misses an import after another statement on its line; one in a string counts unless that is triple-quoted.
    """
    found = re.compile(_IMPORT.format(modules=_any_of(modules, re.escape))).search
    return found(string) is not None and found(re.sub(_LONG_STRING, "", string)) is not None


def filter_streaming_dataset(dataset: Any, filters: Sequence[str]) -> datasets.Dataset:
    """Keep the rows whose content mentions one of `filters`, in order, and print the share kept (A2).

    `dataset` is a data set, or a stream of any length. The result is memory-mapped from a temporary file that lasts
    until Python ends; `save_to_disk` keeps it longer. Rows without content are dropped; an empty stream gives an empty
    data set.
    """
    # One alternation of literals is a single vectorised pass, several times faster than `contains_any`.
    test, files = pl.col("content").str.contains(_any_of(filters, pl.escape_regex)), _parquet_files(dataset)
    tables = _ahead(_read_parquet(files, dataset.column_names, test)) if files else _read_stream(dataset, test)
    target = Path(get_temporary_cache_files_directory(), f"filtered-{uuid4().hex}.arrow")
    schema, read = dataset.features and dataset.features.arrow_schema, 0
    with replacing(target) as partial, partial.open("wb") as file, tqdm(desc="Filtering", unit=" documents") as bar:
        writer = schema and pa.ipc.new_stream(file, schema)
        for rows, table in tables:
            if len(table):
                schema = schema or table.schema  # some streams know their columns only now
                writer = writer or pa.ipc.new_stream(file, schema)
                writer.write_table(table.cast(schema))
            read += rows
            bar.update(rows)
        if writer:
            writer.close()
    kept = datasets.Dataset.from_file(str(target)) if schema else datasets.Dataset.from_dict({})
    say(
        "{share:.2%} of the data kept: {kept:,} of {read:,} documents read."
        if read
        else "Nothing to keep: 0 of 0 documents read.",
        share=len(kept) / max(read, 1), kept=len(kept), read=read,
    )  # fmt: skip
    return kept


def _any_of(words: Iterable[str], escape: Callable[[str], str]) -> str:
    """Return a pattern for any of the words. A string would be searched letter by letter; no word fits everywhere."""
    found = [] if isinstance(words, str) else list(filter(None, words))
    if not found:
        raise ValueError(f"got {words!r}; give a list with at least one name, for example ['pandas']")
    return "|".join(map(escape, found))


def _parquet_files(dataset: Any) -> list[str]:
    """Return the local Parquet files that the stream reads whole and in order, or [] if that is not what it does.

    `datasets` has no public way to ask (private names of 4.0 to 5.2). What is not recognised is read as a stream.
    """
    source = getattr(dataset, "_ex_iterable", None)
    config = getattr(getattr(getattr(source, "generate_tables_fn", None), "__self__", None), "config", None)
    if type(config).__name__ != "ParquetConfig" or config.filters is not None:
        return []
    parts = dataset._distributed or any(source.kwargs.get("row_groups_list", []))
    if parts or dataset.epoch or dataset._starting_state_dict:  # or another order, or another start
        return []
    # Paths, or in older versions lists of paths.
    files = [file for item in source.kwargs["files"] for file in ([item] if isinstance(item, str) else item)]
    text = all(map(pa.types.is_string, dataset.features.arrow_schema.types))
    return files if text and all(Path(file).is_file() for file in files) else []


def _read_parquet(files: Iterable[str], columns: list[str], test: pl.Expr) -> Iterator[tuple[int, pa.Table]]:
    """Yield the number of rows read and the rows to keep, for every few row groups; decodes on all cores."""
    for file in files:
        groups = pq.read_metadata(file)
        start = rows = size = 0
        for index in range(groups.num_row_groups):
            rows += groups.row_group(index).num_rows
            size += groups.row_group(index).total_byte_size
            if size >= _BATCH_BYTES or index + 1 == groups.num_row_groups:
                kept = pl.scan_parquet(file, glob=False).slice(start, rows).filter(test).select(columns).collect()
                yield rows, kept.to_arrow(compat_level=pl.CompatLevel.oldest())
                start, rows, size = start + rows, 0, 0


def _ahead(items: Iterator) -> Iterator:
    """Yield the items; a thread makes the next one while this one is used."""
    with ThreadPoolExecutor(1) as reader:
        following = reader.submit(next, items, None)
        while item := following.result():
            following = reader.submit(next, items, None)
            yield item


def _read_stream(dataset: Any, test: pl.Expr) -> Iterator[tuple[int, pa.Table]]:
    """Yield the number of rows read and the rows to keep, for every batch of a data set or stream.

    Rows that are Arrow already never become Python objects. But a change of format makes a stream forget its epoch, and
    `dataset.iter` forgets where a resumed stream stands.
    """
    source = getattr(dataset, "_ex_iterable", None)
    if source is None or (source.iter_arrow and not dataset._starting_state_dict):
        formatted = dataset.with_format("arrow")
        if source:
            formatted.set_epoch(dataset.epoch)
        tables = formatted.iter(_BATCH_ROWS)
    else:
        rows, schema = iter(dataset), dataset.features and dataset.features.arrow_schema
        batches = iter(lambda: list(islice(rows, _BATCH_ROWS)), [])
        tables = (pa.Table.from_pylist(batch, schema) for batch in batches)
    for table in tables:
        texts = pl.DataFrame(table.select(["content"])).cast(pl.String)  # without a type where all are missing
        yield len(table), table.take(texts.with_row_index().filter(test)["index"].to_arrow())
