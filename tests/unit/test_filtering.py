"""The keyword and import tests, on strings, streams and Parquet files: the rows of the tutorial's loop, in order."""

import ast
import importlib.util
import itertools
import os
import subprocess
import sys
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets.distributed import split_dataset_by_node
from hypothesis import example, given, settings
from hypothesis import strategies as st

from course_utils.data import filtering
from course_utils.data.filtering import KEYWORDS, any_keyword_in_string, filter_streaming_dataset, imports_any

COLUMNS = ["repo_name", "path", "copies", "size", "content", "license"]


def write_corpus(folder: Path, rows: list, files: int = 1) -> Path:
    (folder / "data").mkdir(parents=True)
    for number in range(files):
        part = rows[number * len(rows) // files : (number + 1) * len(rows) // files]
        table = pa.table({name: pa.array([row[i] for row in part], pa.string()) for i, name in enumerate(COLUMNS)})
        pq.write_table(table, folder / "data" / f"train-{number:05d}-of-{files:05d}.parquet", row_group_size=20)
    return folder


@pytest.fixture(scope="module")
def rows():
    found = []
    for package in ("sklearn", "matplotlib", "joblib", "networkx"):
        root = Path(importlib.util.find_spec(package).origin).parent
        for file in sorted(root.rglob("*.py")):
            text = file.read_text(encoding="utf-8", errors="replace")
            found.append((package, file.relative_to(root.parent).as_posix(), "1", str(len(text)), text, "BSD"))
    return found


@pytest.fixture(scope="module")
def corpus(rows, tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("corpus") / "code", rows[::4], files=3)


@pytest.fixture(scope="module")
def mapped(corpus):
    return datasets.Dataset.from_list(list(stream(corpus)))


def stream(folder: Path, **options) -> datasets.IterableDataset:
    return datasets.load_dataset(str(folder), split="train", streaming=True, **options)


def tutorials_loop(dataset, keywords) -> list[dict]:
    return [row for row in dataset if any(word in row["content"] for word in keywords)]


# --- one string -----------------------------------------------------------------------------------------------------

IMPORTS = [
    "import pandas.io.common",
    "import os, sys , pandas.io as io",
    "from pandas.api.types import (is_list_like,\n    is_scalar)",
    "try:\r\n\timport pandas\r\nexcept ImportError:\r\n\tpandas = None",
    '"""Needs pandas."""\nimport pandas',
    "\ufeffimport pandas",
    "x = 1\n\x0cimport pandas",
]
OTHERS = [
    "import numpy  # not , pandas",
    'def f():\n    """Example:\n\n    import pandas\n    """',
]


def test_the_tutorials_two_examples():
    assert not any_keyword_in_string("import numpy as np", KEYWORDS)
    assert any_keyword_in_string("import pandas as pd", KEYWORDS)
    assert any_keyword_in_string("# expandas", ["pandas"])
    assert not any_keyword_in_string("# Pandas", ["pandas"])


@pytest.mark.parametrize(("line", "found"), [(line, True) for line in IMPORTS] + [(line, False) for line in OTHERS])
def test_import_statements_are_told_from_mentions(line, found):
    assert imports_any(line, KEYWORDS) is found


def imported_modules(source: str) -> set[str]:
    nodes = list(ast.walk(ast.parse(source)))
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.level == 0]
    return {name.partition(".")[0] for name in names}


NAMES = st.sampled_from([*KEYWORDS, "numpy", "os", "pandas_like", "xpandas"])
DOTTED = st.lists(NAMES, min_size=1, max_size=3).map(".".join)
ALIASED = st.builds("{}{}".format, DOTTED, st.sampled_from(["", " as a", " as pandas"]))
IMPORT = st.lists(ALIASED, min_size=1, max_size=3).map(", ".join).map("import {}".format) | st.builds(
    "from {}{} import {}".format, st.sampled_from(["", ".", ".."]), DOTTED, NAMES
)
PLACES = ["{}", "if True:\n    {}", "# {}", '"""\n{}\n"""', "x = '{}'"]
SOURCE = st.lists(st.builds(str.format, st.sampled_from(PLACES), IMPORT), max_size=5).map("\n".join)


@given(SOURCE, st.sets(NAMES, min_size=1, max_size=3))
@example("import numpy as np, pandas", {"pandas"})
def test_import_test_agrees_with_the_syntax_tree(source, modules):
    assert imports_any(source, modules) == bool(imported_modules(source) & modules)


# --- data sets and streams ------------------------------------------------------------------------------------------


def test_files_and_data_sets_keep_the_rows_of_the_tutorials_loop(corpus, mapped, capsys, monkeypatch):
    expected = tutorials_loop(mapped, KEYWORDS)
    assert len(filtering._parquet_files(stream(corpus))) == 3, (
        f"datasets {datasets.__version__} has other private names than 4.0 to 5.2: the filter reads at half the speed"
    )
    monkeypatch.setattr(datasets.IterableDataset, "__iter__", None)  # Arrow stays Arrow: no rows of Python objects
    for source in (stream(corpus), mapped, mapped.to_iterable_dataset(num_shards=3)):
        kept = filter_streaming_dataset(source, list(KEYWORDS))
        assert (kept.column_names, {*map(str, kept.features.values())}) == (COLUMNS, {"Value('string')"})
        assert kept.to_list() == expected
        share = f"{len(expected) / len(mapped):.2%} of the data kept: {len(expected):,} of {len(mapped):,} documents"
        assert capsys.readouterr().out.startswith(share)
    assert 80 < len(expected) < len(mapped)


@settings(max_examples=25)
@given(
    st.lists(st.none() | st.text(max_size=60) | SOURCE, max_size=12), st.lists(st.text(min_size=1, max_size=9) | NAMES)
)
@example(["a.b", "axb", "c++", "cc", "$(x)|", "two words"], ["a.b", "c++", "$(", "o w"])
def test_a_data_set_is_filtered_like_its_strings(contents, words):
    words = words or ["pandas"]
    contents = [text and text.encode("utf-8", "ignore").decode() for text in contents]
    features = datasets.Features({"content": datasets.Value("string"), "n": datasets.Value("int64")})
    source = datasets.Dataset.from_dict({"content": contents, "n": range(len(contents))}, features=features)
    found = [n for n, text in enumerate(contents) if text is not None and any_keyword_in_string(text, words)]
    assert filter_streaming_dataset(source, words)["n"][:] == found


def at_epoch(dataset, epoch):
    dataset.set_epoch(epoch)
    return dataset


def resumed(dataset, seen):
    list(itertools.islice(dataset, seen))
    dataset.load_state_dict(dataset.state_dict())
    return dataset


CHANGES = {
    "take": lambda dataset: dataset.take(70),
    "skip": lambda dataset: dataset.skip(100),
    "shard": lambda dataset: dataset.shard(num_shards=3, index=1),
    "map": lambda dataset: dataset.map(lambda row: {"content": row["content"].upper()}),
    "filter": lambda dataset: dataset.filter(lambda row: row["repo_name"] == "sklearn"),
    "process": lambda dataset: split_dataset_by_node(dataset, rank=1, world_size=3),
    "columns": lambda dataset: dataset.select_columns(["content"]),
    "shuffle": lambda dataset: at_epoch(dataset.shuffle(seed=1, buffer_size=20), 3),
    "resumed": lambda dataset: resumed(dataset, 80),
    "resumed filter": lambda dataset: resumed(dataset.filter(lambda row: row["repo_name"] == "sklearn"), 20),
}


@pytest.mark.parametrize("kind", ["files", "arrow"])
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_changed_stream_is_filtered_as_changed(corpus, mapped, change, kind):
    start = {"files": lambda: stream(corpus), "arrow": lambda: mapped.to_iterable_dataset(num_shards=3)}[kind]
    words = [*KEYWORDS, "PANDAS"]
    kept = filter_streaming_dataset(change(start()), words)
    assert kept.to_list() == tutorials_loop(change(start()), words) != []


@pytest.mark.parametrize("options", [{"filters": [("repo_name", "==", "sklearn")]}, {"columns": ["path", "content"]}])
def test_what_the_loader_left_out_stays_out(corpus, options):
    kept = filter_streaming_dataset(stream(corpus, **options), KEYWORDS)
    assert kept.to_list() == tutorials_loop(stream(corpus, **options), KEYWORDS)


def test_other_column_types_are_kept():
    data = {"content": ["import pandas", "x"] * 300, "stars": range(600), "tags": [["a", "b"], []] * 300}
    source = datasets.Dataset.from_dict(data)
    for dataset in (source, source.to_iterable_dataset()):
        kept = filter_streaming_dataset(dataset, ["pandas"])
        assert kept.features == source.features
        assert kept["stars"][:] == list(range(0, 600, 2))


@pytest.mark.parametrize("without", [[], range(300), range(0, 600, 2), range(600)])
def test_a_stream_that_does_not_know_its_columns(without):
    rows = [{"content": None if n in without else "import pandas", "n": n} for n in range(600)]
    kept = filter_streaming_dataset(datasets.IterableDataset.from_generator(lambda: iter(rows)), ["pandas"])
    assert [row["n"] for row in kept] == [n for n in range(600) if n not in without]


def test_missing_and_empty_documents_of_a_file_in_a_folder_with_brackets(tmp_path):
    texts = [None, "", "import pandas", "x = 1\n" * 1_000_000 + "import pandas\n", None]
    write_corpus(tmp_path / "[ml]", [("r", str(number), "1", "1", text, "MIT") for number, text in enumerate(texts)])
    found = datasets.load_dataset("parquet", data_files=f"{tmp_path}/[[]ml]/data/*", split="train", streaming=True)
    assert filtering._parquet_files(found)
    assert filter_streaming_dataset(found, ["pandas"])["path"][:] == ["2", "3"]


def test_an_empty_stream_is_no_error_and_keeps_the_columns(tmp_path, corpus, capsys):
    kept = filter_streaming_dataset(stream(write_corpus(tmp_path / "empty", [])), KEYWORDS)
    assert (len(kept), kept.column_names) == (0, COLUMNS)
    assert "Nothing to keep: 0 of 0 documents read" in capsys.readouterr().out
    kept = filter_streaming_dataset(stream(corpus), ["no such word anywhere"])
    assert (len(kept), kept.column_names) == (0, COLUMNS)
    assert capsys.readouterr().out.startswith("0.00% of the data kept: 0 of")


@pytest.mark.parametrize("filters", [[], [""], "pandas"])
def test_filters_that_would_keep_everything_are_refused(filters):
    source = datasets.Dataset.from_dict({"content": ["import pandas"]})
    for call in (lambda: filter_streaming_dataset(source, filters), lambda: imports_any("import os", filters)):
        with pytest.raises(ValueError, match="give a list with at least one name"):
            call()


PEAK = """
import re, sys
from pathlib import Path
import datasets
from course_utils.data import filtering
stream = datasets.load_dataset(sys.argv[1], split="train", streaming=True)
kept = filtering.filter_streaming_dataset(stream.take(10**9) if sys.argv[2] == "stream" else stream, ["import"])
print(len(kept), re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
"""


# Not getrusage: what that reports is at least the memory of the process that started this one.
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("way", ["files", "stream"])
def test_memory_does_not_grow_with_the_input(rows, tmp_path, way):
    hits, peaks = [row for row in rows if "import" in row[4]], []
    for times in (2, 8):
        many = [(row[0], f"{copy}/{row[1]}", *row[2:]) for copy in range(times) for row in hits]
        command = [sys.executable, "-c", PEAK, str(write_corpus(tmp_path / str(times), many, files=times)), way]
        without_torch = {**os.environ, "USE_TORCH": "0"}  # `datasets` would load it, which takes seconds and 200 MB
        run = subprocess.run(command, env=without_torch, capture_output=True, text=True, check=True)
        count, peak = map(int, run.stdout.splitlines()[-1].split())
        assert count == times * len(hits)
        peaks.append(peak)
    # Everything is kept, so that the result, too, is four times as large: it must not be in memory either.
    assert peaks[1] < 1.36 * peaks[0]  # in memory, it would be 1.45 times
