import importlib.util
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets.distributed import split_dataset_by_node

from course_utils.data import filtering
from course_utils.data.filtering import (
    KEYWORDS,
    any_keyword_in_string,
    filter_streaming_dataset,
    imported_modules,
    imports_any,
)

COLUMNS = ["repo_name", "path", "copies", "size", "content", "license"]


def package_rows(*packages: str) -> list[tuple[str, ...]]:
    rows = []
    for package in packages:
        root = Path(importlib.util.find_spec(package).origin).parent
        for file in sorted(root.rglob("*.py")):
            text = file.read_text(encoding="utf-8", errors="replace")
            rows.append((package, file.relative_to(root.parent).as_posix(), "1", str(len(text)), text, "BSD-3-Clause"))
    return rows


def write_corpus(folder: Path, rows: list, *, files: int = 1, group: int = 100) -> Path:
    (folder / "data").mkdir(parents=True)
    each = -(-len(rows) // files) or 1
    for number in range(files):
        part = rows[number * each : (number + 1) * each]
        table = pa.table({name: pa.array([row[i] for row in part], pa.string()) for i, name in enumerate(COLUMNS)})
        pq.write_table(table, folder / "data" / f"train-{number:05d}-of-{files:05d}.parquet", row_group_size=group)
    return folder


@pytest.fixture(scope="module")
def rows():
    return package_rows("sklearn", "matplotlib", "pandas", "joblib", "networkx")


@pytest.fixture(scope="module")
def corpus(rows, tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("corpus") / "code", rows, files=3)


@pytest.fixture(scope="module")
def small(rows, tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("small") / "code", rows[::8], files=3, group=20)


def stream(folder: Path, **options) -> datasets.IterableDataset:
    return datasets.load_dataset(str(folder), split="train", streaming=True, **options)


def at_epoch(dataset: datasets.IterableDataset, epoch: int) -> datasets.IterableDataset:
    dataset.set_epoch(epoch)
    return dataset


def resumed(dataset: datasets.IterableDataset, seen: int) -> datasets.IterableDataset:
    list(itertools.islice(dataset, seen))
    dataset.load_state_dict(dataset.state_dict())
    return dataset


def tutorials_loop(dataset, keywords) -> list[dict]:
    return [row for row in dataset if any(word in row["content"] for word in keywords)]


def test_the_tutorials_two_examples():
    assert not any_keyword_in_string("import numpy as np", list(KEYWORDS))
    assert any_keyword_in_string("import pandas as pd", list(KEYWORDS))


def test_keyword_is_found_where_nothing_is_imported():
    assert any_keyword_in_string("# expandas", ["pandas"])
    assert not imports_any("# expandas", ["pandas"])


@pytest.mark.parametrize(
    "line",
    [
        "import pandas",
        "import pandas as pd",
        "import pandas.io.common",
        "import numpy as np, pandas",
        "import os, sys , pandas.io as io",
        "from pandas import DataFrame",
        "from pandas.api.types import (is_list_like,\n    is_scalar)",
        "    from pandas import *",
        "try:\r\n\timport pandas\r\nexcept ImportError:\r\n\tpandas = None",
        '"""Needs pandas."""\nimport pandas',
        "\ufeffimport pandas",
        "x = 1\n\x0cimport pandas",
    ],
)
def test_import_statements_are_found(line):
    assert imports_any(line, KEYWORDS)
    source = datasets.Dataset.from_dict({"content": [line]})
    assert len(filter_streaming_dataset(source, KEYWORDS, match="import", show_progress=False)) == 1


# These the docstring admits.
@pytest.mark.parametrize("line", ["x = 1; import pandas", "import \\\n  pandas", "x = 1\rimport pandas"])
def test_import_statements_known_to_be_missed(line):
    assert not imports_any(line, KEYWORDS)
    assert "pandas" in imported_modules(line)


def test_an_empty_word_is_no_module():
    assert not imports_any("import os", ["pandas", ""])
    with pytest.raises(ValueError, match="no module"):
        imports_any("import os", [""])


@pytest.mark.parametrize(
    "line",
    [
        "",
        "# import pandas",
        "import numpy  # not , pandas",
        "import pandas_datareader",
        "import expandas",
        "import numpy as pandas",
        "from numpy import pandas",
        "from . import pandas",
        "from .pandas import frame",
        "import geo.pandas",
        'def f():\n    """Example:\n\n    import pandas\n    """',
        "'''\nimport pandas\n'''",
        "print('import pandas')",
    ],
)
def test_what_is_no_import_is_not_found(line):
    assert not imports_any(line, KEYWORDS)


def test_import_test_agrees_with_the_syntax_tree_on_real_files(rows):
    rows = [row for row in rows if len(row[4]) < 12_000]  # a syntax tree takes a while
    trees = [imported_modules(row[4]) for row in rows]
    assert len(trees) > 1500
    for modules in (KEYWORDS, ("numpy", "scipy"), ("os", "re", "typing")):
        hits = sum(any_keyword_in_string(row[4], modules) for row in rows)
        wrong = sum(
            imports_any(row[4], modules) != bool(tree & set(modules)) for row, tree in zip(rows, trees, strict=True)
        )
        # Of the files that mention a module at all, the harder question.
        assert wrong <= 0.002 * hits, f"{wrong} of {hits}"
        assert hits > 500


def test_imported_modules_are_top_level_and_absolute():
    source = "import os.path, numpy as np\nfrom scipy.stats import norm\nfrom . import near\nfrom .x import far\n"
    assert imported_modules(source) == {"os", "numpy", "scipy"}
    with pytest.raises(SyntaxError):
        imported_modules("print 'Python 2'")


@pytest.mark.parametrize("function", [any_keyword_in_string, imports_any])
def test_one_string_instead_of_a_list_is_refused(function):
    with pytest.raises(ValueError, match="letters"):
        function("nothing of the kind", "pandas")


def test_same_rows_order_and_columns_as_the_tutorials_loop(corpus, capsys):
    expected = tutorials_loop(stream(corpus), KEYWORDS)
    kept = filter_streaming_dataset(stream(corpus), list(KEYWORDS), show_progress=False)
    assert kept.column_names == COLUMNS
    assert set(map(str, kept.features.values())) == {"Value('string')"}
    assert kept.to_list() == expected
    assert len(expected) > 800
    share = len(expected) / sum(1 for _ in stream(corpus))
    assert capsys.readouterr().out.startswith(f"{share:.2%} of the data kept: {len(expected):,} of ")


@pytest.mark.parametrize("match", ["keyword", "import"])
def test_both_ways_of_reading_keep_the_same_rows(corpus, match, monkeypatch):
    assert len(filtering._parquet_files(stream(corpus))) == 3
    quick = filter_streaming_dataset(stream(corpus), KEYWORDS, match=match, show_progress=False)
    mapped = datasets.load_dataset(str(corpus), split="train", cache_dir=str(corpus / "cache"))
    assert not filtering._parquet_files(mapped)
    slow = filter_streaming_dataset(mapped, KEYWORDS, match=match, show_progress=False)
    assert quick.to_list() == slow.to_list()
    test = imports_any if match == "import" else any_keyword_in_string
    assert quick["path"][:] == [row["path"] for row in mapped if test(row["content"], KEYWORDS)]


@pytest.mark.parametrize(
    "change",
    [
        lambda dataset: dataset.take(70),
        lambda dataset: dataset.skip(200),
        lambda dataset: dataset.shard(num_shards=3, index=1),
        lambda dataset: dataset.map(lambda row: {"content": row["content"].upper()}),
        lambda dataset: dataset.filter(lambda row: row["repo_name"] == "pandas"),
        lambda dataset: split_dataset_by_node(dataset, rank=1, world_size=3),
        lambda dataset: dataset.select_columns(["content"]),
        lambda dataset: at_epoch(dataset, 3),
        lambda dataset: at_epoch(dataset.shuffle(seed=1, buffer_size=20), 3),
        lambda dataset: at_epoch(dataset.map(lambda row: {"n": 1}), 3),
        lambda dataset: resumed(dataset, 100),
        lambda dataset: resumed(dataset.shuffle(seed=1, buffer_size=1), 100),
        lambda dataset: resumed(dataset.filter(lambda row: row["repo_name"] == "pandas"), 20),
    ],
)
def test_a_changed_stream_is_filtered_as_changed(small, change):
    words = [*KEYWORDS, "PANDAS"]
    kept = filter_streaming_dataset(change(stream(small)), words, show_progress=False)
    assert kept.to_list() == tutorials_loop(change(stream(small)), words)
    assert len(kept) > 0


@pytest.mark.parametrize("options", [{"filters": [("repo_name", "==", "pandas")]}, {"columns": ["path", "content"]}])
def test_what_the_loader_left_out_stays_out(small, options):
    kept = filter_streaming_dataset(stream(small, **options), KEYWORDS, show_progress=False)
    assert kept.to_list() == tutorials_loop(stream(small, **options), KEYWORDS)


def test_other_column_types_are_kept():
    features = datasets.Features(
        {
            "content": datasets.Value("string"),
            "stars": datasets.Value("int32"),
            "tags": datasets.List(datasets.Value("string")),
        }
    )
    data = {"content": ["import pandas", "x"] * 300, "stars": list(range(600)), "tags": [["a", "b"], []] * 300}
    source = datasets.Dataset.from_dict(data, features=features)
    for dataset in (source, source.to_iterable_dataset()):
        kept = filter_streaming_dataset(dataset, ["pandas"], show_progress=False)
        assert kept.features == features
        assert kept["stars"][:] == list(range(0, 600, 2))


def test_a_stream_that_does_not_know_its_columns():
    def generate(rows):
        yield from ({"content": f"import pandas as p{number}", "n": number} for number in range(rows))

    unknown = datasets.IterableDataset.from_generator(generate, gen_kwargs={"rows": 300})
    assert filter_streaming_dataset(unknown, ["p29"], show_progress=False)["n"][:] == [29, *range(290, 300)]
    nothing = datasets.IterableDataset.from_generator(generate, gen_kwargs={"rows": 0})
    assert len(filter_streaming_dataset(nothing, ["p29"], show_progress=False)) == 0


@pytest.mark.parametrize("without", [range(300), range(0, 600, 2), range(600)])
def test_rows_without_content_are_dropped_from_a_stream_that_does_not_know_its_columns(without):
    rows = [{"content": None if n in without else "import pandas", "n": n} for n in range(600)]
    unknown = datasets.IterableDataset.from_generator(lambda: iter(rows))
    kept = filter_streaming_dataset(unknown, ["pandas"], show_progress=False)
    assert kept["n"][:] == [n for n in range(600) if n not in without]


@pytest.mark.parametrize(
    ("early", "late", "kind"),
    [
        ({"n": None}, {"n": "MIT"}, "string"),
        ({"n": 1}, {"n": 1.5}, "float64"),
        ({"n": 1}, {"n": "x"}, "string"),
        ({}, {"n": "x"}, "string"),
        ({"n": "x"}, {}, "string"),
    ],
)
@pytest.mark.parametrize("change", [256, 300])
def test_rows_that_differ_in_kind_are_refused_until_the_stream_says_its_features(early, late, kind, change):
    def generate():
        yield from ({"content": "import pandas"} | (early if n < change else late) for n in range(600))

    unknown = datasets.IterableDataset.from_generator(generate)
    with pytest.raises(ValueError, match=r"differ in columns or types .*stream\.cast"):
        filter_streaming_dataset(unknown, ["pandas"], show_progress=False)
    features = datasets.Features({"content": datasets.Value("string"), "n": datasets.Value(kind)})
    kept = filter_streaming_dataset(unknown.cast(features), ["pandas"], show_progress=False)
    assert kept.features == features
    expected = [early.get("n"), late.get("n")]
    assert [kept[0]["n"], kept[599]["n"]] == [
        value if value is None or kind != "string" else str(value) for value in expected
    ]


def test_what_is_no_data_set_is_refused_with_what_to_do():
    source = datasets.Dataset.from_dict({"content": ["import pandas"]})
    for wrong in (datasets.DatasetDict(train=source), source.to_list()):
        with pytest.raises(ValueError, match="one split of a DatasetDict"):
            filter_streaming_dataset(wrong, ["pandas"], show_progress=False)


def test_an_empty_stream_is_no_error(tmp_path, capsys):
    empty = write_corpus(tmp_path / "empty", [])
    kept = filter_streaming_dataset(stream(empty), KEYWORDS, show_progress=False)
    assert (len(kept), kept.column_names) == (0, COLUMNS)
    assert "0 of 0 documents read" in capsys.readouterr().out


def test_nothing_found_keeps_the_columns(corpus, capsys):
    kept = filter_streaming_dataset(stream(corpus), ["no such word anywhere"], show_progress=False)
    assert (len(kept), kept.column_names) == (0, COLUMNS)
    assert capsys.readouterr().out.startswith("0.00% of the data kept: 0 of")


@pytest.mark.parametrize("match", ["keyword", "import"])
def test_missing_empty_and_huge_documents(tmp_path, match):
    huge = "x = 1\n" * 9_000_000 + "import pandas\n"  # 54 MB
    texts = [None, "", "import pandas", huge, None]
    rows = [("r", str(number), "1", "1", text, "MIT") for number, text in enumerate(texts)]
    folder = write_corpus(tmp_path / "odd", rows)
    from_files = filter_streaming_dataset(stream(folder), ["pandas"], match=match, show_progress=False)
    assert from_files["path"][:] == ["2", "3"]
    mapped = datasets.load_dataset(str(folder), split="train", cache_dir=str(tmp_path / "cache"))
    from_rows = filter_streaming_dataset(mapped, ["pandas"], match=match, show_progress=False)
    assert from_rows["path"][:] == ["2", "3"]
    assert from_rows[1]["content"] == huge


def test_a_file_that_is_not_utf8_is_named(tmp_path):
    file = write_corpus(tmp_path / "bad", []) / "data" / "train-00000-of-00001.parquet"
    bad = pa.array([b"import pandas \xff\xfe"])
    pq.write_table(pa.table({"content": pa.Array.from_buffers(pa.string(), 1, bad.buffers())}), file)
    with pytest.raises(ValueError, match=r"train-00000-of-00001\.parquet.*UTF-8"):
        filter_streaming_dataset(stream(tmp_path / "bad"), ["pandas"], show_progress=False)


def test_keywords_are_text_not_patterns():
    source = datasets.Dataset.from_dict({"content": ["a.b", "axb", "c++", "cc", "$(x)|", "two words"]})
    kept = filter_streaming_dataset(source, ["a.b", "c++", "$(", "o w"], show_progress=False)
    assert kept["content"][:] == ["a.b", "c++", "$(x)|", "two words"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"filters": []}, "no filter"),
        ({"filters": [""]}, "no filter"),
        ({"filters": "pandas"}, "letters"),
        ({"filters": ["pandas"], "match": "regex"}, "'import'"),
        ({"filters": ["pandas"], "column": "text"}, "no column 'text'.*content"),
        ({"filters": ["pandas"], "column": "size"}, "int64"),
    ],
)
def test_wrong_arguments_say_what_to_do(options, message):
    source = datasets.Dataset.from_dict({"content": ["import pandas"], "size": [13]})
    for dataset in (source, source.to_iterable_dataset()):
        with pytest.raises(ValueError, match=message):
            filter_streaming_dataset(dataset, show_progress=False, **options)


def test_a_failing_stream_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setattr(filtering, "get_temporary_cache_files_directory", lambda: str(tmp_path))

    def generate():
        yield from ({"content": "import pandas"} for _ in range(1000))
        raise ConnectionError("the line broke")

    with pytest.raises(ConnectionError, match="the line broke"):
        filter_streaming_dataset(datasets.IterableDataset.from_generator(generate), ["pandas"], show_progress=False)
    assert list(tmp_path.iterdir()) == []


PEAK = """
import json, sys
import datasets, psutil
from course_utils.data import filtering
datasets.disable_progress_bars()
stream = datasets.load_dataset(sys.argv[1], split="train", streaming=True)
if sys.argv[2] == "stream":
    stream = stream.take(10**9)
kept = filtering.filter_streaming_dataset(stream, filtering.KEYWORDS, show_progress=False)
if sys.platform == "win32":
    peak = psutil.Process().memory_info().peak_wset
else:
    import resource
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps([len(kept), peak]))
"""


@pytest.mark.parametrize("way", ["files", "stream"])
def test_memory_does_not_grow_with_the_input(rows, tmp_path, way):
    hits = [row for row in rows if any_keyword_in_string(row[4], KEYWORDS)]
    peaks, kept = [], []
    for times in (2, 8):
        many = [(row[0], f"{copy}/{row[1]}", *row[2:]) for copy in range(times) for row in hits]
        folder = write_corpus(tmp_path / str(times), many, files=times)
        command = [sys.executable, "-c", PEAK, str(folder), way]
        without_torch = {**os.environ, "USE_TORCH": "0"}  # `datasets` would load it, which takes seconds and 200 MB
        run = subprocess.run(command, env=without_torch, capture_output=True, text=True, check=True)
        count, peak = json.loads(run.stdout.splitlines()[-1])
        kept.append(count)
        peaks.append(peak)
    assert kept == [2 * len(hits), 8 * len(hits)]
    # Everything is kept, so that the result, too, is four times as large: it must not be in memory either.
    assert peaks[1] < 1.15 * peaks[0]
