"""The corpus: the same bytes from the same sources, nothing in both splits, and clear words about bad input."""

import gzip
import importlib.metadata
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections import Counter
from pathlib import Path

import datasets
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from course_utils.data.corpus import (
    COLUMNS,
    Location,
    build_from_environment,
    build_from_folder,
    build_from_sources,
    check_columns,
    corpus_kind,
    is_user_style,
)
from course_utils.data.documents import Document, Project, left_out, slice_documents, write_corpus
from course_utils.data.licenses import spdx_expression
from course_utils.data.sources import Source, file_sha256

REAL = {  # installed distribution -> the folder of it that stands in the archive, and the split
    "networkx": ("networkx/algorithms/centrality/", "train"),
    "pandas": ("pandas/core/reshape/", "train"),
    "matplotlib": ("matplotlib/projections/", "validation"),
}
EXAMPLE = b"import pandas as pd\nimport matplotlib.pyplot as plt\n\npd.DataFrame({'x': [1]}).plot()\nplt.show()\n"
PLANTED = {  # what the real packages lack, by project
    "pandas": {
        "examples/plot.py": EXAMPLE,
        "doc/examples/copy_of_plot.py": EXAMPLE,
        "pandas/windows.py": EXAMPLE.replace(b"\n", b"\r\n"),
        "pandas/bom.py": b"\xef\xbb\xbfx = 1\n",
        "pandas/latin.py": "s = 'café'\n".encode("latin-1"),
        "pandas/empty.py": b"",
        "pandas/huge.py": b"#" * 50_000_000,
        "pandas/_vendor/other.py": b"x = 1\n",
        "setup.py": b"x = 1\n",
    },
    "matplotlib": {"galleries/line.py": EXAMPLE.replace(b"pd", b"mpl"), "galleries/empty.py": b""},
}


def write_archive(path: Path, members: dict[str, bytes]) -> None:
    with gzip.GzipFile(path, "wb", compresslevel=1, mtime=0) as file, tarfile.open(fileobj=file, mode="w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(f"{path.name[:-7]}/{name}")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


@pytest.fixture(scope="module")
def pinned(tmp_path_factory) -> tuple[list[Source], list[Path]]:
    """Small source distributions made of installed files."""
    folder, sources = tmp_path_factory.mktemp("archives"), []
    for name, (prefix, split) in REAL.items():
        package = importlib.metadata.distribution(name)
        files = [file for file in package.files if file.as_posix().startswith(prefix) and file.suffix == ".py"]
        members = {file.as_posix(): file.read_binary() for file in files} | PLANTED.get(name, {})
        path = folder / f"{name}-{package.version}.tar.gz"
        write_archive(path, members)
        size = path.stat().st_size
        sources.append(
            Source(name, package.version, path.name, file_sha256(path), size, "BSD-3-Clause", split, tiny=True)
        )
    return sources, [folder / source.filename for source in sources]


@pytest.fixture(scope="module")
def built(pinned, tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    return folder, build_from_sources(folder, *pinned, progress=False)


def rows(folder: Path) -> dict[str, list[dict]]:
    tables = {split: folder / "data" / f"{split}-00000-of-00001.parquet" for split in ("train", "validation")}
    return {split: pq.read_table(path).to_pylist() for split, path in tables.items()}


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_every_column_is_text_and_size_is_bytes(built):
    for split, path in ((s, built[0] / "data" / f"{s}-00000-of-00001.parquet") for s in ("train", "validation")):
        schema = pq.read_schema(path)
        assert tuple(schema.names) == COLUMNS == ("repo_name", "path", "copies", "size", "content", "license")
        assert {str(column) for column in schema.types} == {"string"}
        found = rows(built[0])[split]
        assert all(row["size"] == str(len(row["content"].encode())) for row in found)
        assert all(spdx_expression(row["license"]) for row in found)
        assert [(r["repo_name"], r["path"]) for r in found] == sorted((r["repo_name"], r["path"]) for r in found)
        assert built[1].documents[split] == len(found)
        assert built[1].bytes[split] == sum(int(row["size"]) for row in found)


def test_no_project_is_in_both_splits(built):
    projects = {split: {row["repo_name"] for row in found} for split, found in rows(built[0]).items()}
    assert projects == {"train": {"networkx", "pandas"}, "validation": {"matplotlib"}}


def test_copies_count_the_rows_of_the_whole_corpus_with_the_same_content(built):
    found = [row for split in rows(built[0]).values() for row in split]
    times = Counter(row["content"] for row in found)
    assert all(row["copies"] == str(times[row["content"]]) for row in found)
    copies = {row["path"]: row["copies"] for row in found}
    # Two examples, and the file that had Windows line ends.
    assert [copies[p] for p in ("examples/plot.py", "doc/examples/copy_of_plot.py", "pandas/windows.py")] == ["3"] * 3
    assert copies["galleries/empty.py"] == copies["pandas/empty.py"] != "1"


def test_odd_files_are_normalised_kept_or_counted(built):
    found = {row["path"]: row["content"] for split in rows(built[0]).values() for row in split}
    assert found["pandas/windows.py"] == EXAMPLE.decode()
    assert found["pandas/bom.py"] == "x = 1\n"
    assert found["pandas/empty.py"] == ""
    dropped = dict(built[1].dropped)
    assert dropped.pop("tests (one file in four is kept)") == count_tests() - kept_tests(found)
    assert dropped == {
        "copied in from another project": 1,
        "larger than 5 MB": 1,
        "not UTF-8": 1,
        "set-up machinery": 1,
    }


def count_tests() -> int:
    files = (f.as_posix() for name in REAL for f in importlib.metadata.files(name) if f.suffix == ".py")
    return sum("/tests/" in file and file.startswith(tuple(prefix for prefix, _ in REAL.values())) for file in files)


def kept_tests(paths) -> int:
    return sum("/tests/" in path for path in paths)


def test_part_of_the_tests_stays_for_the_cleaning_lesson(built):
    found = [row["path"] for split in rows(built[0]).values() for row in split]
    assert 0 < kept_tests(found) < count_tests() / 2


def test_doctest_examples_are_documents_of_their_own(built):
    found = {row["path"]: row["content"] for row in rows(built[0])["train"]}
    scripts = [path for path in found if path.endswith(".doctest.py")]
    assert "networkx/algorithms/centrality/katz.doctest.py" in scripts
    assert all(path.replace(".doctest.py", ".py") in found and "/tests/" not in path for path in scripts)
    assert "import pandas as pd\n" in found["pandas/core/reshape/merge.doctest.py"]
    assert not any(">>>" in found[path] for path in scripts)


def test_two_builds_are_byte_identical_in_any_order_and_with_any_hash_seed(built, pinned, tmp_path):
    sources, archives = pinned
    again = tmp_path / "again"
    code = (
        "import sys; from pathlib import Path\n"
        "from course_utils.data.corpus import build_from_sources\n"
        "from course_utils.data.sources import Source\n"
        f"sources = {sources[::-1]!r}\n"
        "build_from_sources(Path(sys.argv[1]), sources, [Path(p) for p in sys.argv[2:]], progress=False)\n"
    )
    command = [sys.executable, "-c", code, str(again), *map(str, archives[1:] + archives[:1])]
    subprocess.run(command, check=True, env=os.environ | {"PYTHONHASHSEED": "12345"})
    assert contents(again) == contents(built[0])
    assert set(contents(again)) == {
        "README.md",
        "data/train-00000-of-00001.parquet",
        "data/validation-00000-of-00001.parquet",
    }


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.mark.parametrize("streaming", [False, True])
def test_load_dataset_opens_it_streaming_or_not(built, cache, streaming):
    for split, expected in rows(built[0]).items():
        data = Location(str(built[0])).load(split, streaming=streaming)
        assert isinstance(data, datasets.IterableDataset if streaming else datasets.Dataset)
        assert list(data) == expected
        check_columns(data)
    check_columns(Location(str(built[0])))


def test_a_rebuilt_corpus_and_one_of_the_same_name_load_as_what_they_are(tmp_path, cache):
    def load(folder: Path, text: str) -> list[str]:
        documents = [Document("p", "a.py", text, "MIT", split) for split in ("train", "validation")]
        write_corpus(folder, documents, [Project("p", "1", "MIT", "train")], "Made up.", Counter())
        return [row["content"] for row in Location(str(folder)).load("train")]

    assert load(tmp_path / "a" / "corpus", "one") == ["one"]
    assert load(tmp_path / "b" / "corpus", "two") == ["two"]
    assert load(tmp_path / "a" / "corpus", "three") == ["three"]


def test_the_data_card_names_size_origin_versions_and_licences(built, pinned):
    card = (built[0] / "README.md").read_text(encoding="utf-8")
    assert card.startswith("---\n")
    for source in pinned[0]:
        assert f"| {source.name} | {source.version} | {source.license} | {source.split} |" in card
    assert f"{built[1].documents['train']} documents, {built[1].bytes['train'] / 1e6:.2f} MB" in card
    assert "- not UTF-8: 1" in card


def test_row_groups_are_small_enough_to_stream(tmp_path):
    text = "x = 1\n" * 100_000
    documents = [Document("p", f"{i}.py", text, "MIT", split) for i in range(20) for split in ("train", "validation")]
    write_corpus(tmp_path, documents, [Project("p", "1", "MIT", "train")], "Made up.", Counter())
    groups = pq.ParquetFile(tmp_path / "data" / "train-00000-of-00001.parquet").metadata
    assert [groups.row_group(i).num_rows for i in range(groups.num_row_groups)] == [7, 7, 6]


@pytest.mark.parametrize(("every", "share"), [(2, 0.5), (8, 0.25)])
def test_a_slice_fills_its_cap_and_keeps_its_user_style_share(every, share):
    files = [f for f in importlib.metadata.files("networkx") if f.suffix == ".py" and "test" not in str(f)]
    documents = [
        Document("networkx", f"{'examples/' * (number % every == 0)}{file}", file.read_text("utf-8"), "MIT", split)
        for number, file in enumerate(sorted(files))
        for split in ("train", "validation")
    ]
    chosen = slice_documents(documents, 1_000_000)
    for split, cap in (("train", 900_000), ("validation", 100_000)):
        size = {d: len(d.content.encode()) for d in chosen if d.split == split}
        assert 0.94 * cap < sum(size.values()) <= cap
        assert max(size.values()) <= cap / 20
        user = sum(n for d, n in size.items() if is_user_style(d.path))
        assert user / sum(size.values()) == pytest.approx(share, rel=0.3)


def test_a_build_can_be_cut_to_a_slice(pinned, tmp_path):
    report = build_from_sources(tmp_path, *pinned, max_bytes=400_000, progress=False)
    assert 0 < report.bytes["train"] <= 360_000
    assert 0 < report.bytes["validation"] <= 40_000
    assert "A fair sample of at most 0.4 MB" in (tmp_path / "README.md").read_text(encoding="utf-8")


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 40), st.integers(0, 300), st.booleans()), max_size=60),
    st.integers(0, 20_000),
    st.randoms(use_true_random=False),
)
def test_a_slice_does_not_depend_on_the_order_and_never_exceeds_its_cap(files, cap, random):
    names = {(repo, f"{'examples/' if user else ''}{number}.py"): size for repo, number, size, user in files}
    documents = [
        Document(repo, path, "é" * size, "MIT", "validation" if repo == "c" else "train")
        for (repo, path), size in names.items()
    ]
    chosen = slice_documents(documents, cap)
    shuffled = random.sample(documents, len(documents))
    assert set(slice_documents(shuffled, cap)) == set(chosen) <= set(documents)
    if sum(2 * len(d.content) for d in documents) <= cap:
        assert chosen == documents  # nothing to cut
        return
    for split, limit in (("train", cap - cap // 10), ("validation", cap // 10)):
        assert sum(2 * len(d.content) for d in chosen if d.split == split) <= limit


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("examples/plot.py", True),
        ("galleries/lines/a.py", True),
        ("doc/examples/a.py", True),
        ("pkg/tutorials/a.py", True),
        ("pandas/core/frame.doctest.py", True),
        ("pandas/core/frame.py", False),
        ("examples/tests/test_a.py", False),
        ("pkg/examples.py", False),
        ("pkg/counterexamples/a.py", False),
    ],
)
def test_user_style_is_told_by_the_path(path, expected):
    assert is_user_style(path) is expected


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("pkg/core.py", None),
        ("pkg/_version.py", None),
        ("pkg/circle.py", None),
        ("pkg/_vendor/six.py", "copied in from another project"),
        ("sklearn/externals/a.py", "copied in from another project"),
        ("pkg/external_data.py", None),
        ("setup.py", "set-up machinery"),
        (".github/check.py", "set-up machinery"),
        ("pkg/__config__.py", "set-up machinery"),
        ("pkg/latest.py", None),
        ("pkg/testing/tools.py", None),
    ],
)
def test_what_stays_out_of_every_corpus(path, reason):
    assert left_out("pkg", path) == reason


def test_a_missing_archive_is_named(pinned, tmp_path):
    sources, archives = pinned
    with pytest.raises(ValueError, match=f"no archive given for {sources[0].filename}"):
        build_from_sources(tmp_path, sources, archives[1:])


def test_a_corpus_without_a_split_is_refused_and_nothing_is_written(pinned, tmp_path):
    with pytest.raises(ValueError, match=r"no text for the validation split.*Choose"):
        build_from_sources(tmp_path / "out", pinned[0][:2], pinned[1][:2], progress=False)
    assert not (tmp_path / "out").exists()


# Installed packages


def test_installed_packages_make_a_corpus_without_network(tmp_path):
    packages = {"train": ("tqdm", "filelock", "surely-not-installed"), "validation": ("packaging",)}
    report = build_from_environment(tmp_path, progress=False, packages=packages)
    assert report.projects == ("filelock", "packaging", "tqdm")
    train = {row["repo_name"] + "/" + row["path"]: row for row in rows(tmp_path)["train"]}
    installed = Path(importlib.metadata.distribution("tqdm").locate_file("tqdm/std.py"))
    assert train["tqdm/tqdm/std.py"]["content"] == installed.read_text(encoding="utf-8").replace("\r\n", "\n")
    assert train["tqdm/tqdm/std.py"]["license"] == "MPL-2.0 AND MIT"
    assert "installed on the machine" in (tmp_path / "README.md").read_text(encoding="utf-8")


def test_the_packages_of_this_course_cover_both_splits():
    installed = {name.lower() for package in importlib.metadata.distributions() if (name := package.name)}
    from course_utils.data.corpus import INSTALLED

    for split in ("train", "validation"):
        assert installed & set(INSTALLED[split])


# Your own repositories


def put(folder: Path, files: dict[str, bytes | str]) -> Path:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.encode() if isinstance(data, str) else data)
    return folder


def real_files(name: str, count: int) -> dict[str, bytes]:
    files = sorted(file for file in importlib.metadata.files(name) if file.suffix == ".py")
    return {file.as_posix(): file.read_binary() for file in files[:count]}


def test_each_sub_folder_is_a_project_and_foreign_folders_are_left_out(tmp_path):
    source = tmp_path / "src"
    put(source / "big", real_files("tqdm", 30) | {"LICENSE": "The MIT License\n\nCopyright"})
    put(source / "small", real_files("filelock", 4) | {"pyproject.toml": '[project]\nlicense = "Apache-2.0"\n'})
    put(source / "plain", {"a.py": "x = 1\n"})
    for place in (".git", ".venv/lib", "venv/site-packages", "node_modules/m", "build/lib", "a.egg-info"):
        put(source / "big" / place, {"alien.py": "alien = 1\n"})
    put(source, {"loose.py": "loose = 1\n", "notes.txt": "no code"})
    report = build_from_folder(tmp_path / "out", source, progress=False)
    assert report.projects == ("(top folder)", "big", "plain", "small")
    found = rows(tmp_path / "out")
    assert {row["repo_name"] for row in found["validation"]} == {"small"}
    licences = {row["repo_name"]: row["license"] for split in found.values() for row in split}
    assert licences == {"big": "MIT", "small": "Apache-2.0", "plain": "unknown", "(top folder)": "unknown"}
    assert not any("alien" in row["content"] for split in found.values() for row in split)


def test_a_single_project_is_split_by_file_and_that_is_said(tmp_path, capsys):
    source = put(tmp_path / "mine", real_files("networkx", 60) | {"setup.cfg": ""})
    report = build_from_folder(tmp_path / "out", source, progress=False)
    assert report.projects == ("mine",)
    paths = {
        split: {row["path"].replace(".doctest.py", ".py") for row in r} for split, r in rows(tmp_path / "out").items()
    }
    assert paths["validation"]
    assert not paths["train"] & paths["validation"]
    for said in (capsys.readouterr().out, (tmp_path / "out" / "README.md").read_text(encoding="utf-8")):
        assert "a single project" in said


def test_links_are_not_followed(tmp_path):
    source = put(tmp_path / "mine", real_files("filelock", 10) | {"setup.cfg": ""})
    put(tmp_path, {"secret/secret.py": "elsewhere_9 = 1\n"})
    (source / "link.py").symlink_to(tmp_path / "secret" / "secret.py")
    (source / "folder").symlink_to(tmp_path / "secret", target_is_directory=True)
    build_from_folder(tmp_path / "out", source, progress=False)
    assert not any("elsewhere_9" in row["content"] for split in rows(tmp_path / "out").values() for row in split)


@pytest.mark.parametrize(
    "files", [{}, {"p/notes.txt": "no code"}, {"p/a.py": ""}, {"p/a.py": b"\xff\xfe"}, {"p/a.py": "", "q/a.py": ""}]
)
def test_a_folder_without_python_text_is_refused(tmp_path, files):
    (tmp_path / "src").mkdir()
    with pytest.raises(ValueError, match=r"the corpus has no text for the train split.*Choose a folder"):
        build_from_folder(tmp_path / "out", put(tmp_path / "src", files), progress=False)
    assert not (tmp_path / "out").exists()


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(ValueError, match="does not exist; name a folder that holds your repositories"):
        build_from_folder(tmp_path / "out", tmp_path / "absent")


# What COURSE_CODE_CORPUS may name


def test_the_kind_of_a_corpus(tmp_path, built):
    lines = put(tmp_path / "lines", {"train.jsonl": json.dumps({"content": "x = 1"})})
    flat = tmp_path / "flat"
    flat.mkdir()
    shutil.copy(built[0] / "data" / "train-00000-of-00001.parquet", flat)
    for folder, kind in ((built[0], "dataset"), (lines, "dataset"), (flat, "dataset"), (tmp_path, "folder")):
        assert corpus_kind(str(folder)) == kind
    for text in ("transformersbook/codeparrot-{split}", "huggingface-course/codeparrot-ds-train", "a/b"):
        assert corpus_kind(text) == "hub"
    assert corpus_kind("pinned") == corpus_kind("") == "pinned"


@pytest.mark.parametrize(
    "text", ["~/absent-folder", "/absent/folder", "./absent", "../absent/x", "absent", "a/b/c", "a b/c"]
)
def test_a_path_that_does_not_exist_is_refused(text):
    with pytest.raises(ValueError, match=r"does not exist. Allowed: 'pinned', a folder of your repositories"):
        corpus_kind(text)


def test_a_file_is_refused(tmp_path):
    put(tmp_path, {"train.jsonl": "{}"})
    with pytest.raises(ValueError, match="is a file, not a folder"):
        corpus_kind(str(tmp_path / "train.jsonl"))


def test_a_data_set_without_the_content_column_is_refused():
    for data in (
        datasets.Dataset.from_dict({"text": ["x"]}),
        datasets.Dataset.from_dict({"text": ["x"]}).to_iterable_dataset(),
    ):
        with pytest.raises(ValueError, match=r"the columns text, but no `content`.*rename_column"):
            check_columns(data)
    stream = datasets.IterableDataset.from_generator(lambda: iter([{"code": "x"}]))
    with pytest.raises(ValueError, match="the columns code, but no `content`"):
        check_columns(stream)
    check_columns(datasets.IterableDataset.from_generator(lambda: iter([dict.fromkeys(COLUMNS, "x")])))


def test_a_split_that_does_not_exist_is_refused(tmp_path, cache):
    put(tmp_path / "lines", {"train.jsonl": json.dumps({"content": "x = 1"}) + "\n"})
    location = Location(str(tmp_path / "lines"))
    assert list(location.load("train", streaming=True)) == [{"content": "x = 1"}]
    with pytest.raises(ValueError, match=r"has no split 'validation'.*needs the splits train and validation"):
        location.load("validation")
    with pytest.raises(ValueError, match="split 'test' is unknown; allowed: train, validation"):
        location.load("test")


def test_a_hub_id_that_cannot_be_opened_says_what_to_do():
    code = (
        "from course_utils.data.corpus import Location\n"
        "for split in ('train', 'validation'):\n"
        "    try: Location('owner/name-{split}').load(split)\n"
        "    except ConnectionError as error: print(error)\n"
    )
    offline = os.environ | {"HF_HUB_OFFLINE": "1"}
    said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=offline).stdout
    assert "owner/name-train is no folder here" in said
    assert "owner/name-valid is no folder here" in said
    assert said.count("COURSE_CODE_CORPUS=pinned") == 2
