"""The corpus: the same bytes from the same sources, nothing in both splits, and own data read as what it is."""

import gzip
import io
import json
import tarfile
from pathlib import Path

import datasets
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from course_utils.data import corpus as module
from course_utils.data import documents
from course_utils.data.corpus import Location, corpus_kind
from course_utils.data.documents import COLUMNS, Document
from course_utils.data.reading import open_location
from course_utils.data.sources import Source

EXAMPLE = b"import pandas as pd\n\npd.DataFrame({'x': [1]}).plot()\n"
DOCTESTS = b"def f():\n    '''F.\n\n" + b"".join(b"    >>> df.x%d\n    1\n" % n for n in range(6)) + b"    '''\n"
PAGE = b"The values are here::\n\n" + b"".join(b"    df.x%d\n" % n for n in range(6)) + b"    df.sum()\n"
FILES = {
    "pandas/pandas/frame.py": DOCTESTS,
    "pandas/examples/plot.py": EXAMPLE,
    "pandas/doc/examples/copy_of_plot.py": EXAMPLE,
    "pandas/pandas/windows.py": EXAMPLE.replace(b"\n", b"\r\n"),
    "pandas/pandas/bom.py": b"\xef\xbb\xbfx = 1\n",
    "pandas/pandas/latin.py": "s = 'café'\n".encode("latin-1"),
    "pandas/pandas/huge.py": b"#" * 5_000_001,
    "pandas/pandas/empty.py": b"",
    "pandas/pandas/_vendor/other.py": b"x = 1\n",
    "pandas/setup.py": b"x = 1\n",
    "pandas/doc/start.rst": PAGE.replace(b"\n", b"\r\n"),
    "pandas/doc/_build/start.rst.txt": PAGE,
    "pandas/pandas/tests/start.rst": PAGE,
    "pandas/README.md": b"# pandas\n",
    **{f"pandas/pandas/tests/test_{n}.py": b"n = %d\n" % n + DOCTESTS for n in range(40)},
    "numpy/numpy/core.py": b"n = 'x'\n" * 100,
    "numpy/numpy/empty.py": b"",
}


def put(folder: Path, files: dict[str, bytes | str]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data.encode() if isinstance(data, str) else data)
    return folder


@pytest.fixture(scope="module")
def pinned(tmp_path_factory) -> tuple[list[Source], list[Path]]:
    folder, sources = put(tmp_path_factory.mktemp("archives"), FILES), []
    for name, split in (("pandas", "train"), ("numpy", "validation")):
        with tarfile.open(folder / f"{name}.tar.gz", "w:gz", compresslevel=1) as tar:
            tar.add(folder / name, name)
        sources.append(Source(name, "1", f"{name}.tar.gz", "", 0, "BSD-3-Clause", split, tiny=True))
    return sources, [folder / source.filename for source in sources]


@pytest.fixture(scope="module")
def built(pinned, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    module.build_from_sources(folder, *pinned)
    return folder


def rows(folder: Path, split: str = "*") -> list[dict]:
    return [row for file in sorted(folder.glob(f"data/{split}-*.parquet")) for row in pq.read_table(file).to_pylist()]


def test_files_are_normalised_kept_or_counted(built):
    schema = pq.read_schema(built / "data/train-00000-of-00001.parquet")
    assert schema.names == list(COLUMNS)
    assert {str(kind) for kind in schema.types} == {"string"}
    found = {row["path"]: row for row in rows(built)}
    assert all(row["size"] == str(len(row["content"].encode())) for row in found.values())
    assert [row["path"] for row in rows(built, "train")] == sorted(row["path"] for row in rows(built, "train"))
    assert {row["repo_name"] for row in rows(built, "validation")} == {"numpy"}
    assert [found[f"{p}.py"]["copies"] for p in ("examples/plot", "pandas/windows", "numpy/empty")] == ["3", "3", "2"]
    assert found["pandas/bom.py"]["content"] == "x = 1\n"
    assert found["pandas/frame.doctest.py"]["content"] == "".join(f"df.x{n}\n" for n in range(6))
    tests = [path for path in found if "/tests/" in path]
    assert 16 < len(tests) < 32  # three in five
    assert found["doc/start.rst.py"]["content"].startswith("# The values are here:\ndf.x0\ndf.x1\n")
    assert not {"doc/_build/start.rst.txt.py", "pandas/tests/start.rst.py"} & set(found)
    assert not any(path.endswith(".doctest.py") for path in tests)
    card = (built / "README.md").read_text(encoding="utf-8")
    for reason in ("documentation with little code", "larger than 5 MB", "not UTF-8", "set-up machinery"):
        assert f"- {reason}: 1\n" in card
    assert "- copied in from another project, or built from other files: 2\n" in card
    assert f"- tests (three files in five are kept): {41 - len(tests)}\n" in card
    assert f"| pandas | 1 | BSD-3-Clause | train | 4 | 4 | {len(tests)} | 0.0" in card


def test_two_builds_are_byte_identical_in_any_order_and_on_any_machine(built, pinned, tmp_path):
    module.build_from_sources(tmp_path, *(found[::-1] for found in pinned))
    for path in ("README.md", "data/train-00000-of-00001.parquet", "data/validation-00000-of-00001.parquet"):
        assert (tmp_path / path).read_bytes() == (built / path).read_bytes()
    assert "SHA-256 over the rows: `7358f04047e9ddee" in (tmp_path / "README.md").read_text(encoding="utf-8")


@given(
    st.dictionaries(st.tuples(st.sampled_from("abc"), st.integers(0, 40), st.booleans()), st.integers(0, 300)),
    st.integers(0, 20_000),
    st.randoms(use_true_random=False),
)
def test_a_slice_does_not_depend_on_the_order_and_never_exceeds_its_cap(files, cap, random):
    made = [
        Document(repo, "1", "MIT", "validation" if repo == "c" else "train", f"{'examples/' * user}{n}.py", "é" * size)
        for (repo, n, user), size in files.items()
    ]
    every = documents.as_frame(made)
    chosen = documents.slice_documents(every, cap)
    assert chosen.equals(documents.slice_documents(documents.as_frame(random.sample(made, len(made))), cap))
    for split, limit in (("train", cap - cap // 10), ("validation", cap // 10)):
        whole = every["size"].sum() <= cap  # nothing to cut
        assert chosen.equals(every) if whole else chosen["size"][chosen["split"] == split].sum() <= limit


@pytest.mark.parametrize(("every", "share"), [(2, 0.5), (8, 0.25)])
def test_a_slice_fills_its_cap_and_keeps_its_user_style_share(every, share):
    made = [
        Document("p", "1", "MIT", split, f"{'examples/' * (n % every == 0)}{n}.py", "x" * (1 + n * 7919 % 9000))
        for n in range(600)
        for split in documents.SPLITS
    ]
    chosen = documents.slice_documents(documents.as_frame(made), 1_000_000)
    for split, cap in (("train", 900_000), ("validation", 100_000)):
        mine = chosen[chosen["split"] == split]
        assert 0.94 * cap < mine["size"].sum() <= cap
        assert mine["size"].max() <= cap / 20
        assert mine["size"][mine["kind"] == "user"].sum() / mine["size"].sum() == pytest.approx(share, rel=0.3)


def test_the_path_tells_what_a_file_is():
    user = "examples/plot.py doc/galleries/a.py pkg/tutorials/a.py pandas/frame.doctest.py doc/a.rst.py a.ipynb.py"
    library = "pkg/examples.py pkg/counterexamples/a.py pkg/latest.py pkg/external_data.py pkg/circle.py pkg/rst.py"
    tests = "examples/tests/test_0.py pkg/tests/data.py pkg/test_a.py conftest.py"
    for kind, paths in (("user", user), ("library", library), ("tests", tests)):
        assert {path: documents.kind_of(path) for path in paths.split()} == dict.fromkeys(paths.split(), kind)
    left_out = "pkg/_vendor/six.py sklearn/externals/a.py setup.py .github/a.py doc/auto_examples/a.py tests/a.md"
    paths = f"{user} {library} {left_out}".split()
    assert [path for path in paths if documents.left_out("pkg", path)] == left_out.split()


def script(name: str, library: str = "pandas") -> str:
    return f"import {library}\n" + "".join(f"{name}_{line} = {name}{line}({line})\n" for line in range(9))


def repositories(**files: dict[str, int]) -> dict[str, str]:
    """Return the files of repositories, given as library: number of files (`none` names none of the four)."""
    return {
        f"{name}/{library}{n}.py": script(f"{name}_{library}{n}", library)
        for name, counts in files.items()
        for library, count in counts.items()
        for n in range(count)
    }


def test_each_sub_folder_is_a_project_and_foreign_folders_are_left_out(tmp_path, capsys):
    source = put(tmp_path / "src", repositories(big={"pandas": 9}) | {"loose.py": "loose = 1\n"})
    put(tmp_path / "elsewhere", {"a.py": script("linked"), "pyproject.toml": '[project]\nlicense = "(or later)"\n'})
    links = {"link": "elsewhere", "big/inner": "elsewhere", "loop": "src", "above": "."}  # a project by a link of yours
    for name, target in links.items():
        (source / name).symlink_to(tmp_path / target, target_is_directory=True)
    (source / "big/link.py").symlink_to(tmp_path / "elsewhere/a.py")
    alien = ("big/.git", "big/.venv/lib", "venv/site-packages", "big/node_modules/m", "build/lib", "big/a.egg-info")
    put(source, {f"{place}/alien.py": "alien = 1\n" for place in alien} | {"big/train.jsonl": "", "train.csv": ""})
    module.build_from_own(tmp_path / "out", [str(source)])
    said = capsys.readouterr().out
    assert f"{source} has Python files, so these are read, and nothing else in it." in said
    assert "Held out for validation: 1 projects, such as link." in said
    assert {(row["repo_name"], row["path"]) for row in rows(tmp_path / "out", "validation")} == {("link", "a.py")}
    train = {(row["repo_name"], row["path"]) for row in rows(tmp_path / "out", "train")}
    assert train == {("big", f"pandas{n}.py") for n in range(9)} | {("src", "loose.py")}


def test_a_single_project_is_split_by_file_and_a_note_says_so(tmp_path, capsys):
    files = {f"m{n}.py": DOCTESTS + script(f"n{n}").encode() for n in range(20)}
    mine = put(tmp_path / "mine", files | {"setup.cfg": "", "a/b.py": script("b")})
    module.build_from_own(tmp_path / "out", [str(mine)])
    train, validation = ({row["path"] for row in rows(tmp_path / "out", split)} for split in documents.SPLITS)
    held_out = {path for path in validation if not path.endswith(".doctest.py")}
    assert len(held_out) == 2
    assert {path for path in train if not path.endswith(".doctest.py")} == {*files, "a/b.py"} - held_out
    assert {path.replace(".doctest.py", ".py") for path in validation} == held_out  # with their own examples
    for said in (capsys.readouterr().out, (tmp_path / "out" / "README.md").read_text(encoding="utf-8")):
        assert "a single project" in said


@pytest.mark.parametrize(
    ("files", "copied", "held_out"),
    [
        (repositories(shop={"flask": 4}, sales={"pandas": 18}, churn={"sklearn": 20}), {}, {"sales": 18}),
        (repositories(a={"flask": 9}, b={"flask": 20}), {}, {"a": 9}),  # none names the four: all text counts
        (repositories(a={"flask": 9}, b={"flask": 20, "pandas": 1}), {}, {"a": 9}),  # one file is not enough
        (repositories(a={"flask": 9}, b={"pandas": 20}), {}, {"b": 2}),  # one project has all that trains the model
        (repositories(a={"pandas": 1}, b={"pandas": 99}), {}, {"a": 1}),
        (repositories(**{f"r{n}": {"pandas": 1} for n in range(30)}), {}, {"r0": 1, "r10": 1, "r3": 1}),
        (repositories(a={"pandas": 20}, b={"seaborn": 1}), {"b": "a"}, {"a": 2}),  # copies and one file more
        (repositories(a={"pandas": 20}, b={"pandas": 18}), {"old/tests": "b"}, {"b": 18}),  # rules drop the copies
        (repositories(a={"pandas": 20}) | {f"b/{n}.py": f"import pandas\n# {n}\n" * 9 for n in range(9)}, {}, {"a": 2}),
    ],
)
def test_what_can_train_the_model_is_held_out_in_part(tmp_path, files, copied, held_out):
    source = put(tmp_path / "src", files)
    for target, name in copied.items():
        put(source / target, {path.name: path.read_bytes() + b"x = 1\n" for path in (source / name).iterdir()})
    module.build_from_own(tmp_path / "out", [str(source)])
    found = [row["repo_name"] for row in rows(tmp_path / "out", "validation")]
    assert {name: found.count(name) for name in found} == held_out


def test_a_folder_without_python_text_is_refused(tmp_path):
    for name, files in {"latin": {"p/a.py": b"\xff\xfe"}, "empty": {"p/a.py": "", "q/a.py": ""}}.items():
        with pytest.raises(ValueError, match=r"the corpus has no text for the train split.*Choose a folder"):
            module.build_from_own(tmp_path / "out", [str(put(tmp_path / name, files))])


ROWS = [
    {"content": "NA", "label": 1, "path": None, "size": "007"},
    {"content": "1\t2", "label": 0, "path": "2020-01-01 00:00:00", "size": "10"},
]
READ = [row | {"path": row["path"] or ""} for row in ROWS]  # None in a text column of a corpus is empty text
LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
CSV = b"content,label,path,size\nNA,1,,007\n1\t2,0,2020-01-01 00:00:00,10\n"
TSV = b'content\tlabel\tpath\tsize\nNA\t1\t\t007\n"1\t2"\t0\t2020-01-01 00:00:00\t10\n'
datasets.Dataset.from_list(ROWS).to_parquet(written := io.BytesIO())
PARQUET = written.getvalue()


@pytest.mark.parametrize(
    ("train", "validation", "data"),
    [
        ("data/train-0.parquet", "data/validation-0.parquet", PARQUET),
        ("train/a.csv", "valid/a.csv", CSV),
        ("train/a.csv", "eval/a.csv", b"\xef\xbb\xbf" + CSV.replace(b",", b";")),
        ("my_train.tsv", "my_dev.tsv", TSV),
        ("training.tsv", "val.tsv", TSV.decode().encode("utf-16")),
        ("train/a.jsonl.gz", "VALIDATION.JSONL.GZ", gzip.compress(LINES)),
        ("train/a.json", "validation/a.json", json.dumps(ROWS, indent=1).encode()),
    ],
)
def test_every_kind_of_file_is_read_and_text_stays_text(tmp_path, train, validation, data):
    folder = put(tmp_path / "a::b [ml] *", {train: data, validation: data, "topics.txt": "x", ".git/train.csv": "x"})
    loaded = open_location(str(folder), "")
    assert {split: list(found) for split, found in loaded.items()} == {"train": READ, "validation": READ}
    assert list(open_location(str(folder / train), "")["train"]) == READ
    with pytest.raises(ValueError, match=r"has no rows of a split 'test', but \['train', 'validation'\]"):
        Location(str(folder)).load("test")


def test_splits_in_several_kinds_of_files_are_refused_and_others_passed_over(tmp_path):
    folder = put(tmp_path, {"train.csv": CSV, "topics.jsonl": LINES})
    assert set(open_location(str(folder), "")) == {"train"}
    for name in ("train.jsonl", "dev/a.jsonl"):
        for read in (open_location, lambda place, _: corpus_kind(place)):
            with pytest.raises(ValueError, match=r"has splits as .jsonl and as .csv files; keep one kind"):
                read(str(put(tmp_path, {name: LINES})), "")
        (folder / name).unlink()


def test_what_save_to_disk_wrote_is_read_with_its_types(tmp_path):
    saved = datasets.Dataset.from_list(READ).cast_column("label", datasets.ClassLabel(names=["no", "yes"]))
    datasets.DatasetDict(train=saved, test=saved).save_to_disk(tmp_path)
    loaded = open_location(str(tmp_path), "")
    assert {split: list(found) for split, found in loaded.items()} == {"train": READ, "test": READ}
    assert loaded["test"].features == saved.features


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    damaged = {"a.jsonl": LINES[:-9], "b.jsonl": b"", "c.jsonl": b"3\n", "d.csv": b"a,b\n1\n1,2,3\n"}
    damaged |= {
        "e.csv": b"a\n\xff\xfe\n",
        "h.csv": b"a\n",
        "f.jsonl.gz": gzip.compress(LINES)[:-20],
        "g.parquet": PARQUET[:-20],
    }
    put(tmp_path, damaged)
    for name in damaged:
        reason = {"e.csv": "it is not UTF-8; save it as UTF-8", "h.csv": "it has no rows"}.get(name, ".+")
        with pytest.raises(ValueError, match=rf"{name} cannot be read as a data set \({reason}\)"):
            open_location(str(tmp_path / name), "")


def test_changed_and_removed_files_are_not_served_from_the_cache(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for text in ("one", "two"):
        file = put(Path("mine"), {"train.jsonl": json.dumps({"content": text}) + "\n"}) / "train.jsonl"
        assert open_location("mine", "")["train"]["content"][:] == [text]
    file.unlink()
    Path("mine").rmdir()
    with pytest.raises(ValueError, match=r"mine is neither a local folder or file nor a Hub id.* use the course's"):
        open_location("mine", "the course's")


def test_a_folder_with_python_files_is_code_and_names_are_pinned_or_a_hub_id_or_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    kinds = {"train.csv.gz": "dataset", "train/a.jsonl": "dataset", "main.py": "folder", "shop/main.py": "folder"}
    for number, (name, kind) in enumerate(kinds.items()):
        put(Path(str(number)), {name: "", ".venv/a.py": ""})
        assert corpus_kind(str(number)) == kind
        put(Path(str(number)), {"old.parquet": ""})
        assert corpus_kind(str(number)) == kind
    names = {
        "": "pinned",
        "owner/name-{split}": "hub",
        "a/b:c": "hub",
        "a/b, c/d": "hub",
        "0,2": "list",
        "1/train/a.jsonl": "dataset",
    }
    assert {name: corpus_kind(name) for name in names} == names
    put(tmp_path, {"empty/a.ipynb": "", "2,0/train.csv": ""})
    assert corpus_kind("2,0") == "dataset"
    for text in ("~/absent-folder", "/absent", "./absent", "../absent/x", "absent", "a/b/c", "a b/c", "0,absent"):
        with pytest.raises(
            ValueError, match=r"absent|a/b/c|a b/c.* does not exist. Allowed: 'pinned', a folder of your"
        ):
            corpus_kind(text)
    for text in ("empty", "2/main.py"):
        with pytest.raises(ValueError, match=rf"{text}' holds no .py or data file. Allowed: 'pinned'"):
            corpus_kind(text)
    with pytest.raises(ValueError, match=r"mixes folder, hub"):
        corpus_kind("2,a/b")


WHOLE = {"repo_name": "r", "path": "p.py", "copies": "1", "size": "9", "content": "x", "license": "MIT"}


@pytest.mark.parametrize(
    ("row", "text", "read"),
    [
        (WHOLE | {"more": 1}, "content", WHOLE | {"more": 1}),
        (
            {"code": "é"},
            "code",
            WHOLE | {"repo_name": "unknown", "path": "", "size": "2", "content": "é", "license": "unknown"},
        ),
        (
            WHOLE | {"size": 7, "copies": 2, "path": None, "body": "y"},
            "body",
            WHOLE | {"size": "7", "copies": "2", "path": "", "content": "y"},
        ),
    ],
)
def test_a_corpus_has_all_columns_as_text_and_its_text_may_have_another_name(tmp_path, row, text, read):
    for split in ("train", "test"):  # which is held out where there is no validation split
        datasets.Dataset.from_list([row]).to_parquet(tmp_path / f"{split}.parquet")
    for streaming in (False, True):
        loaded = Location(str(tmp_path), text).load("validation", streaming)
        assert (list(loaded), isinstance(loaded, datasets.IterableDataset)) == ([read], streaming)
        assert {str(loaded.features[name]) for name in COLUMNS} == {"Value('string')"}
    assert Location(str(tmp_path), text).is_whole() is ("more" in row)
    for column in ("absent", "more"):  # which is a number
        with pytest.raises(
            ValueError, match=rf"no text in a column '{column}'. Set COURSE_TEXT_COLUMN to the .*'{text}'"
        ):
            Location(str(tmp_path), column).load("train")


def test_own_data_in_any_form_becomes_a_corpus_with_both_splits(tmp_path):
    texts = {split: [{"code": script(f"{split}{n}"), "path": "a.py"} for n in range(20)] for split in ("train", "test")}
    csv = "".join(f'"{row["code"]}"\n' for row in texts["train"])
    put(tmp_path, {"one.csv": f"code\n{csv}", "two/more/a.csv": f"code\n{csv}", **repositories(mine={"pandas": 9})})
    datasets.Dataset.from_list(texts["train"]).save_to_disk(tmp_path / "saved")
    datasets.Dataset.from_list(texts["train"]).train_test_split(0.25, seed=1).save_to_disk(tmp_path / "split")
    cases = {"one.csv": (18, 2), "two": (18, 2), "saved": (18, 2), "split": (15, 5), "mine": (8, 1)}
    cases |= {"split,one.csv": (35, 5), "mine,saved": (20, 9)}
    for places, counts in cases.items():
        out = tmp_path / f"out {places}"
        module.build_from_own(out, [str(tmp_path / place) for place in places.split(",")], "code")
        assert (len(rows(out, "train")), len(rows(out, "validation"))) == counts, places
