"""The corpus: the same bytes from the same sources, nothing in both splits, and own data read as what it is."""

import contextlib
import gzip
import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import datasets
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from course_utils.data import corpus as module
from course_utils.data import documents
from course_utils.data.corpus import Location, check_columns, corpus_kind, open_location
from course_utils.data.documents import COLUMNS, Document
from course_utils.data.sources import Source

EXAMPLE = b"import pandas as pd\n\npd.DataFrame({'x': [1]}).plot()\n"
DOCTESTS = b"def f():\n    '''F.\n\n" + b"".join(b"    >>> df.x%d\n    1\n" % n for n in range(6)) + b"    '''\n"
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
    **{f"pandas/pandas/tests/test_{n}.py": b"n = %d\n" % n + DOCTESTS for n in range(40)},
    "numpy/numpy/core.py": b"n = 'x'\n" * 100,
    "numpy/numpy/empty.py": b"",
}


@pytest.fixture(scope="module")
def pinned(tmp_path_factory) -> tuple[list[Source], list[Path]]:
    folder, sources = tmp_path_factory.mktemp("archives"), []
    for name, split in (("pandas", "train"), ("numpy", "validation")):
        with tarfile.open(folder / f"{name}.tar.gz", "w:gz", compresslevel=1) as tar:
            for path in (path for path in FILES if path.startswith(f"{name}/")):
                info = tarfile.TarInfo(path)
                info.size = len(FILES[path])
                tar.addfile(info, io.BytesIO(FILES[path]))
        sources.append(Source(name, "1", f"{name}.tar.gz", "", 0, "BSD-3-Clause", split, tiny=True))
    return sources, [folder / source.filename for source in sources]


@pytest.fixture(scope="module")
def built(pinned, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    module.build_from_sources(folder, *pinned)
    return folder


def rows(folder: Path, split: str = "*") -> list[dict]:
    return [row for file in sorted(folder.glob(f"data/{split}-*.parquet")) for row in pq.read_table(file).to_pylist()]


def put(folder: Path, files: dict[str, bytes | str]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data.encode() if isinstance(data, str) else data)
    return folder


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
    assert found["pandas/frame.doctest.py"]["content"].splitlines() == [f"df.x{n}" for n in range(6)]
    tests = [path for path in found if "/tests/" in path]
    assert 0 < len(tests) < 20  # a quarter, and without doctests
    assert not any(path.endswith(".doctest.py") for path in tests)
    card = (built / "README.md").read_text(encoding="utf-8")
    for reason in ("copied in from another project: 1", "larger than 5 MB: 1", "not UTF-8: 1", "set-up machinery: 1"):
        assert f"- {reason}\n" in card
    assert f"- tests (one file in four is kept): {40 - len(tests)}\n" in card
    assert f"| pandas | 1 | BSD-3-Clause | train | {len(rows(built, 'train'))} | " in card


def test_two_builds_are_byte_identical_in_any_order_and_with_any_hash_seed(built, pinned, tmp_path):
    sources, archives = pinned
    code = (
        "import sys; from pathlib import Path; from course_utils.data.sources import Source\n"
        "from course_utils.data.corpus import build_from_sources\n"
        f"build_from_sources(Path(sys.argv[1]), {sources[::-1]!r}, [Path(p) for p in sys.argv[2:]])\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path), *map(str, archives[::-1])]
    subprocess.run(command, check=True, env=os.environ | {"PYTHONHASHSEED": "12345"})
    for path in ("README.md", "data/train-00000-of-00001.parquet", "data/validation-00000-of-00001.parquet"):
        assert (tmp_path / path).read_bytes() == (built / path).read_bytes()


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
        assert mine["size"][mine["user"]].sum() / mine["size"].sum() == pytest.approx(share, rel=0.3)


def test_the_path_tells_what_a_file_is():
    user_style = "examples/plot.py", "doc/galleries/a.py", "pkg/tutorials/a.py", "pandas/core/frame.doctest.py"
    library = "pkg/examples.py", "pkg/counterexamples/a.py", "pkg/latest.py", "pkg/external_data.py", "pkg/circle.py"
    left_out = "examples/tests/test_0.py", "pkg/_vendor/six.py", "sklearn/externals/a.py", "setup.py", ".github/a.py"
    paths = [*user_style, *library, *left_out]
    assert [path for path in paths if documents.is_user_style(path)] == list(user_style)
    assert [path for path in paths if documents.left_out("pkg", path)] == list(left_out)


def test_installed_packages_make_a_corpus_without_network(tmp_path, monkeypatch):
    packages = {"train": ("tqdm", "filelock", "surely-not-installed"), "validation": ("packaging",)}
    monkeypatch.setattr(module, "INSTALLED", packages)
    module.build_from_environment(tmp_path)
    assert {row["repo_name"] for row in rows(tmp_path, "train")} == {"filelock", "tqdm"}
    assert {row["repo_name"] for row in rows(tmp_path, "validation")} == {"packaging"}
    content = next(row["content"] for row in rows(tmp_path) if row["path"] == "filelock/_api.py")
    assert content == Path(sys.modules["filelock._api"].__file__).read_text(encoding="utf-8")


def test_each_sub_folder_is_a_project_and_foreign_folders_are_left_out(tmp_path, capsys):
    code = {f"m{n}.py": "x = 1\n" * 30 for n in range(9)}
    source = put(tmp_path / "src", {f"big/{name}": text for name, text in code.items()} | {"loose.py": "loose = 1\n"})
    put(tmp_path / "elsewhere", {"a.py": "linked = 1\n" * 18, "pyproject.toml": '[project]\nlicense = "(or later)"\n'})
    (source / "link").symlink_to(tmp_path / "elsewhere", target_is_directory=True)  # a project, by a link of yours
    (source / "big/inner").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (source / "big/link.py").symlink_to(tmp_path / "elsewhere/a.py")
    for place in (".git", ".venv/lib", "venv/site-packages", "node_modules/m", "build/lib", "a.egg-info"):
        put(source, {f"big/{place}/alien.py": "alien = 1\n", f"{place}/alien.py": "", "big/prices.jsonl": "{}"})
    module.build_from_folder(tmp_path / "out", source)
    assert f"{source} has Python files, so it is read as code" in capsys.readouterr().out
    assert {(row["repo_name"], row["path"]) for row in rows(tmp_path / "out", "validation")} == {("link", "a.py")}
    train = {(row["repo_name"], row["path"]) for row in rows(tmp_path / "out", "train")}
    assert train == {("big", name) for name in code} | {("src", "loose.py")}
    assert {row["license"] for row in rows(tmp_path / "out")} == {"unknown"}


def test_a_single_project_is_split_by_file_and_a_note_says_so(tmp_path, capsys):
    files = {f"m{n}.py": DOCTESTS + b"# %d\n" % n for n in range(20)}
    module.build_from_folder(tmp_path / "out", put(tmp_path / "mine", files | {"setup.cfg": "", "a/b.py": "x = 1\n"}))
    train, validation = (
        {row["path"].replace(".doctest.py", ".py") for row in rows(tmp_path / "out", s)} for s in documents.SPLITS
    )
    assert train | validation == {*files, "a/b.py"}
    assert len(validation) == 2
    assert not train & validation
    for said in (capsys.readouterr().out, (tmp_path / "out" / "README.md").read_text(encoding="utf-8")):
        assert "a single project" in said


@pytest.mark.parametrize("files", [{}, {"p/a.py": b"\xff\xfe"}, {"p/a.py": "", "q/a.py": ""}])
def test_a_folder_without_python_text_is_refused(tmp_path, files):
    with pytest.raises(ValueError, match=r"the corpus has no text for the train split.*Choose a folder"):
        module.build_from_folder(tmp_path / "out", put(tmp_path / "src", files))
    assert not (tmp_path / "out").exists()


ROWS = [
    {"content": "NA", "label": 1, "path": None, "size": "007"},
    {"content": "1\t2", "label": 0, "path": "2020-01-01 00:00:00", "size": "10"},
]
READ = [row | {"path": row["path"] or ""} for row in ROWS]  # None in a text column of a corpus is empty text
LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
CSV = b"content,label,path,size\nNA,1,,007\n1\t2,0,2020-01-01 00:00:00,10\n"
TSV = b'content\tlabel\tpath\tsize\nNA\t1\t\t007\n"1\t2"\t0\t2020-01-01 00:00:00\t10\n'
datasets.Dataset.from_list(ROWS).to_parquet(PARQUET := io.BytesIO())


@pytest.mark.parametrize(
    ("train", "validation", "data"),
    [
        ("data/train-0.parquet", "data/validation-0.parquet", PARQUET.getvalue()),
        ("train/a.csv", "valid/a.csv", CSV),
        ("my_train.tsv", "my_dev.tsv", TSV),
        ("train/a.jsonl.gz", "validation/a.jsonl.gz", gzip.compress(LINES)),
    ],
)
def test_every_kind_of_file_is_read_and_text_stays_text(tmp_path, train, validation, data):
    folder = put(tmp_path / "a::b [ml] *", {train: data, validation: data, "topics.txt": "x", ".git/train.csv": "x"})
    loaded = open_location(str(folder), "")
    assert {split: list(found) for split, found in loaded.items()} == {"train": READ, "validation": READ}
    for streaming, kind in ((False, datasets.Dataset), (True, datasets.IterableDataset)):
        found = Location(str(folder)).load("validation", streaming=streaming)
        assert isinstance(found, kind)
        assert list(found) == READ
    assert list(open_location(str(folder / train), "")["train"]) == READ
    with pytest.raises(ValueError, match=r"has no split 'test', only \['train', 'validation'\]"):
        Location(str(folder)).load("test")


def test_what_save_to_disk_wrote_is_read_with_its_types(tmp_path):
    saved = datasets.Dataset.from_list(READ).cast_column("label", datasets.ClassLabel(names=["no", "yes"]))
    datasets.DatasetDict(train=saved, test=saved).save_to_disk(tmp_path)
    loaded = open_location(str(tmp_path), "")
    assert {split: list(found) for split, found in loaded.items()} == {"train": READ, "test": READ}
    assert loaded["test"].features == saved.features


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("train.jsonl", LINES[:-9]),
        ("train.jsonl", b""),
        ("train.jsonl", b"3\n"),
        ("train.csv", b"a,b\n1\n1,2,3\n"),
        ("train.csv", b"a\n\xff\xfe\n"),
        ("train.jsonl.gz", gzip.compress(LINES)[:-20]),
        ("train.parquet", PARQUET.getvalue()[:-20]),
    ],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path, name, data):
    with pytest.raises(ValueError, match=rf"{name} cannot be read as a data set \(.+\)"):
        open_location(str(put(tmp_path, {name: data})), "")


def test_changed_and_removed_files_are_not_served_from_the_cache(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for text in ("one", "two"):
        file = put(Path("mine"), {"train.jsonl": json.dumps({"content": text}) + "\n"}) / "train.jsonl"
        assert open_location("mine", "")["train"]["content"][:] == [text]
    file.unlink()
    Path("mine").rmdir()
    with pytest.raises(ValueError, match=r"mine is neither a local folder or file nor a Hub id.* use the course's"):
        open_location("mine", "the course's")


def test_a_hub_id_that_cannot_be_opened_says_what_to_do():
    for split, name in (("train", "train"), ("validation", "valid")):
        with pytest.raises(ConnectionError, match=rf"owner/name-{name} is not a local .* COURSE_CODE_CORPUS=pinned"):
            Location("owner/name-{split}").load(split)
    with pytest.raises(ConnectionError, match=r"a/b:c is not a local folder or file, and the Hub .* use the course's"):
        open_location("a/b:c", "the course's")


@pytest.mark.parametrize(
    ("files", "kind"),
    [
        ({"train.csv.gz": b""}, "dataset"),
        ({"shop/main.py": "", "shop/data/prices.jsonl": ""}, "folder"),
        ({"main.py": "", "old.parquet": b""}, "folder"),
        ({".venv/a.py": "", "train/a.jsonl": ""}, "dataset"),
        ({}, "folder"),
    ],
)
def test_a_folder_with_python_files_is_code(tmp_path, files, kind):
    assert corpus_kind(str(put(tmp_path, files))) == kind


def test_a_name_is_pinned_or_a_hub_id_or_refused(tmp_path):
    assert [corpus_kind(text) for text in ("pinned", "", "owner/name-{split}", "a/b")] == [
        *["pinned"] * 2,
        *["hub"] * 2,
    ]
    file = str(put(tmp_path, {"train.jsonl": ""}) / "train.jsonl")
    for text in ("~/absent-folder", "/absent/folder", "./absent", "../absent/x", "absent", "a/b/c", "a b/c", file):
        with pytest.raises(ValueError, match=r"is a file or does not exist. Allowed: 'pinned', a folder of your repos"):
            corpus_kind(text)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"text": "x"}, "no `repo_name`, `path`, `copies`, `size`, `content`, `license` that holds text, only text"),
        (dict.fromkeys(COLUMNS, "x") | {"path": 3, "size": 1}, "no `path`, `size` that holds text"),
        (dict.fromkeys(COLUMNS, "x"), None),
    ],
)
def test_own_data_is_checked_at_the_door(row, message):
    data = datasets.Dataset.from_list([row])
    stream = datasets.IterableDataset.from_generator(lambda: iter([row]))  # knows no columns before its first row
    for corpus in (data, data.to_iterable_dataset(), stream):
        with pytest.raises(ValueError, match=message) if message else contextlib.nullcontext():
            check_columns(corpus)
