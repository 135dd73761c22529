"""The chain of artifacts on a learner's own code: real files, every link, and what happens when one breaks."""

import contextlib
import json
import shutil
from collections import Counter
from dataclasses import replace
from functools import partial
from importlib import metadata
from pathlib import Path

import matplotlib
import pandas
import pytest
import sklearn
import torch
from safetensors.torch import load_file, save_file
from transformers import Trainer

from course_utils import artifacts, cache
from course_utils.data import corpus, deduplication, documents, sources
from course_utils.models.causal import build_causal_lm
from course_utils.profiles import get_profile
from course_utils.training import pretraining
from course_utils.training.loop import TrainingDiverged


@pytest.fixture(scope="module")
def own_code(tmp_path_factory):
    """Three small repositories of real code, one of them with a link that leads nowhere, as an editor leaves."""
    folder = tmp_path_factory.mktemp("src")
    for module, part in ((sklearn, "linear_model"), (matplotlib, "axes"), (pandas, "plotting")):
        source, target = Path(module.__file__).parent / part, folder / module.__name__ / part
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("tests", "*.so", "*.pyx*"))
    with contextlib.suppress(OSError):  # Windows without the right to make links has none to stumble over
        (folder / "pandas" / ".#draft.py").symlink_to("user@host.1234")
    return folder


@pytest.fixture
def profile(own_code, monkeypatch):
    """Return a short training; tests share what comes before it, and change the seed for a model of their own."""
    monkeypatch.setenv("COURSE_HOME", f"{own_code}-home")
    return get_profile("tiny", code_corpus=str(own_code), train_steps=4, eval_steps=2, save_steps=2, warmup_steps=1)


def test_the_whole_chain_on_own_code(profile, capsys):
    folder = artifacts.pretrained_model(profile)
    model, tokenizer = artifacts.load_model(folder), artifacts.code_tokenizer(profile)
    assert model.config.vocab_size == len(tokenizer) == profile.vocab_size
    data = artifacts.packed_data(profile)
    assert data.train[0]["input_ids"].shape == (profile.context_length,)
    log = json.loads((folder / pretraining.HISTORY).read_text())
    assert [entry["step"] for entry in log if "eval_loss" in entry] == [0, 2, 4]
    assert not artifacts.run_folder(profile).exists()  # checkpoints go once the model stands
    assert artifacts.reference_band(profile, data) is None  # other data than that of the reference
    assert "No reference curve" in capsys.readouterr().out
    train, held_out = (artifacts.clean_corpus(profile).load(split) for split in ("train", "validation"))
    assert set(train["repo_name"][:]).isdisjoint(held_out["repo_name"][:])
    assert deduplication.near_duplicates(train["content"][:] + held_out["content"][:], threshold=0.85) == []


def test_an_artifact_depends_on_code_libraries_and_its_own_inputs_only(profile, monkeypatch):
    folders, version = {}, metadata.version
    for change in ("nothing", "later", "vocabulary", "code", "library"):
        changed = replace(profile, **{"later": {"train_steps": 8}, "vocabulary": {"vocab_size": 300}}.get(change, {}))
        with monkeypatch.context() as patch:
            if change == "code":
                patch.setattr(cache, "code_fingerprint", lambda: "changed")
            if change == "library":
                patch.setattr(metadata, "version", lambda name: "0" if name == "tokenizers" else version(name))
            folders[change] = (artifacts.clean_corpus(changed).path, str(artifacts._tokenizer_folder(changed)))
    assert folders["nothing"] == folders["later"]
    assert folders["vocabulary"][0] == folders["nothing"][0]
    for part in (0, 1):
        assert len({folders[change][part] for change in ("nothing", "code", "library")}) == 3
    assert folders["vocabulary"][1] != folders["nothing"][1]


def test_changed_own_code_gives_a_new_corpus_also_in_a_folder_of_links(own_code, monkeypatch, tmp_path):
    monkeypatch.setenv("COURSE_HOME", str(tmp_path / "home"))
    shutil.copytree(own_code, tmp_path / "copy", symlinks=True)
    (tmp_path / "links").mkdir()
    for repository in (tmp_path / "copy").iterdir():
        (tmp_path / "links" / repository.name).symlink_to(repository, target_is_directory=True)
    mine, pandas_code = get_profile("tiny", code_corpus=str(tmp_path / "links")), tmp_path / "copy" / "pandas"
    found = [artifacts.code_corpus(mine)]
    for name in ("prices.csv", "venv/alien.py"):  # not read, so not part of the key
        (pandas_code / name).parent.mkdir(exist_ok=True)
        (pandas_code / name).write_text("x = 1\n", encoding="utf-8")
        assert artifacts.code_corpus(mine) == found[0]
    for name in ("more.py", "plotting/__init__.py"):
        (pandas_code / name).write_text("import pandas as pd\n", encoding="utf-8")
        found.append(artifacts.code_corpus(mine))
    assert len({location.path for location in found}) == 3


@pytest.mark.parametrize("steps", [4, 2])
def test_the_notebooks_own_run_becomes_the_model_if_it_is_finished(profile, steps, monkeypatch):
    profile = replace(profile, seed=10 + steps)
    whole, own = replace(profile, train_steps=4), replace(profile, train_steps=steps)
    make = partial(pretraining.make_trainer, own, artifacts.code_tokenizer(own), artifacts.packed_data(own))
    with artifacts.own_run(whole) as run:
        model, _ = pretraining.train(make, run)
    called, train = [], Trainer.train
    monkeypatch.setattr(Trainer, "train", lambda self, **options: called.append(self) or train(self, **options))
    made = artifacts.load_model(artifacts.pretrained_model(whole))
    same = all(torch.equal(a.cpu(), b.cpu()) for a, b in zip(model.parameters(), made.parameters(), strict=True))
    assert (same, bool(called)) == (steps == 4, steps != 4)
    assert pretraining.last_checkpoint(run)[1] == steps  # kept, so that the notebook can be run again
    assert artifacts.pretrained_model(whole) == artifacts.find_pretrained(whole)
    monkeypatch.setattr(cache, "locked", lambda *names: pytest.fail("writes"))
    if steps == 4:  # as in a teacher's folder, which is closed for writing
        with artifacts.own_run(whole) as again:
            assert again == run


def test_a_training_repeated_because_of_code_is_announced(profile, monkeypatch, capsys):
    def begin(profile):
        with artifacts.own_run(profile):
            print("training starts")

    profile = replace(profile, seed=2)
    old = artifacts.pretrained_model(profile)
    begin(profile)
    assert "code has changed" not in capsys.readouterr().out
    monkeypatch.setattr(cache, "code_fingerprint", lambda: "changed")
    assert artifacts.find_pretrained(profile) == old
    begin(profile)
    said = capsys.readouterr().out
    assert said.index("code has changed") < said.index(str(old)) < said.index("training starts")
    begin(replace(profile, seed=3))  # another profile's model is no older version
    assert "code has changed" not in capsys.readouterr().out


def test_a_model_that_diverged_is_not_kept(profile):
    diverging = replace(profile, learning_rate=1e9)
    with pytest.raises(TrainingDiverged, match="No model is saved"):
        artifacts.pretrained_model(diverging)
    assert artifacts.find_pretrained(diverging) is None


@pytest.mark.parametrize(
    ("missing", "named"),
    [("transformer.h.1.mlp.c_fc.weight", "h.1.mlp.c_fc.weight"), ("transformer.wte.weight", "lm_head.weight")],
)
def test_a_model_with_missing_tensors_is_refused(tmp_path, missing, named):
    build_causal_lm(get_profile("tiny")).save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    del weights[missing]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=rf"lacks \d of the model's tensors, such as (transformer\.)?{named}"):
        artifacts.load_model(tmp_path)


def test_without_network_and_archives_installed_packages_are_used_and_a_message_printed(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("COURSE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")  # nobody listens there
    monkeypatch.setattr(sources, "ATTEMPTS", 1, raising=False)
    monkeypatch.setattr(corpus, "INSTALLED", {"train": ["pandas", "not-installed"], "validation": ["datasets"]})
    train = artifacts.code_corpus(get_profile("tiny")).load("train")
    assert "installed on this machine serve" in capsys.readouterr().out
    assert set(train["repo_name"][:]) == {"pandas"}


def data_set(folder: Path, **splits: list[str]) -> str:
    """Write CSV files of documents of nine different lines each, given by their first line; return the folder."""
    folder.mkdir()
    for split, starts in splits.items():
        names = [f"{split}{number}" for number in range(len(starts))]
        lines = ["".join(f"{name}_{n} = {name}{n}({n})\n" for n in range(9)) for name in names]
        texts = [f"{start}\n{text}" for start, text in zip(starts, lines, strict=True)]
        pandas.DataFrame({"content": texts}).to_csv(folder / f"{split}.csv", index=False)
    return str(folder)


@pytest.mark.parametrize(
    ("train", "validation", "kept"),
    [
        (["import pandas", "import pandas", ""], ["import pandas", ""], (2, 1)),
        (["import pandas", ""], ["", ""], None),
        (["", ""], [""], None),
        (["import pandas"], ["# auto-generated for pandas", ""], None),  # the rules drop the one that is named
    ],
)
def test_own_data_goes_on_unfiltered_where_else_nothing_is_left(monkeypatch, tmp_path, capsys, train, validation, kept):
    monkeypatch.setenv("COURSE_HOME", str(tmp_path / "home"))
    profile = get_profile("tiny", code_corpus=data_set(tmp_path / "data", train=train, validation=validation))
    filtered = artifacts.filtered_corpus(profile)
    found = tuple(len(filtered.load(split)) for split in ("train", "validation"))
    assert found == (kept or (len(train), len(validation)))
    unfiltered = "What names pandas, sklearn, matplotlib, seaborn is too little to train on, so all documents stay."
    assert (unfiltered in capsys.readouterr().out) is (kept is None)
    assert all(len(artifacts.clean_corpus(profile).load(split)) for split in ("train", "validation"))


def test_a_split_that_cleaning_empties_is_named_with_the_reasons(monkeypatch, tmp_path):
    monkeypatch.setenv("COURSE_HOME", str(tmp_path / "home"))
    bad = ["# auto-generated", "# auto-generated", "y = '" + 1000 * "y" + "'"]
    for empty, splits in {"train": {"train": bad, "test": [""]}, "validation": {"train": [""], "test": bad}}.items():
        profile = get_profile("tiny", code_corpus=data_set(tmp_path / empty, **splits))
        with pytest.raises(
            ValueError, match=rf"no {empty} document is left \(dropped: 2 generated, 1 long line\); set"
        ):
            artifacts.clean_corpus(profile)
    shutil.copy(tmp_path / "train/test.csv", tmp_path / "train/train.csv")
    with pytest.raises(ValueError, match=r"no train document is left \(dropped: 1 copies\)"):
        artifacts.clean_corpus(get_profile("tiny", code_corpus=str(tmp_path / "train")))


def test_a_data_set_is_read_where_it_is_or_copied_with_what_is_missing_and_a_change_is_seen(monkeypatch, tmp_path):
    monkeypatch.setenv("COURSE_HOME", str(tmp_path / "home"))
    rows = pandas.DataFrame([dict.fromkeys([*documents.COLUMNS, "body"], f"import pandas\n{n}") for n in range(20)])
    (tmp_path / "data").mkdir()
    for split in ("train", "validation"):
        rows.to_csv(tmp_path / "data" / f"{split}.csv", index=False)
    mine = get_profile("tiny", code_corpus=str(tmp_path / "data"))
    assert artifacts.code_corpus(mine).path == mine.code_corpus
    found = [artifacts.filtered_corpus(mine), artifacts.code_corpus(replace(mine, text_column="body"))]
    rows[:9].to_csv(tmp_path / "data" / "train.csv", index=False)
    found += [artifacts.filtered_corpus(mine), artifacts.code_corpus(replace(mine, text_column="body"))]
    (tmp_path / "data" / "train.csv").unlink()  # one split is left, in a file that may be given itself
    (tmp_path / "data" / "validation.csv").rename(tmp_path / "data" / "all.csv")
    found += [
        artifacts.code_corpus(replace(mine, code_corpus=str(tmp_path / place))) for place in ("data", "data/all.csv")
    ]
    assert len({location.path for location in found}) == 6
    assert [len(location.load("train")) for location in found] == [20, 20, 9, 9, 19, 19]
    unfiltered = replace(mine, filtered_corpus=mine.code_corpus)  # own code, too, may be given as filtered
    assert artifacts.filtered_corpus(unfiltered).path == found[-2].path


@pytest.mark.parametrize("column", ["row", "content_row"])
def test_the_clean_corpus_keeps_columns_of_any_name_and_leaks_nothing(monkeypatch, tmp_path, column):
    def document(n: int, number: int, path: str = "a.py") -> str:
        lines = "".join(f"    a{n}_{i} = {i}\n" for i in range(12))
        row = dict.fromkeys(documents.COLUMNS, "x") | {"path": path, column: number}
        return json.dumps(row | {"content": f"import pandas as pd\ndef f(x):\n{lines}"})

    monkeypatch.setenv("COURSE_HOME", str(tmp_path / "home"))
    (tmp_path / "data").mkdir()
    splits = {"train": [document(n, n) for n in range(10)], "validation": [document(n, n) for n in range(10, 20)]}
    splits["train"].insert(3, document(15, 99, "doc/a.rst.py"))  # a copy of a validation document
    splits["train"].append(document(20, 20, "tests/test_a.py"))
    splits["validation"].append(document(21, 21, "tests/test_a.py"))  # tests are never held out
    for split, lines in splits.items():
        (tmp_path / "data" / f"{split}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    for share in (1, 0):
        clean = artifacts.clean_corpus(get_profile("tiny", filtered_corpus=str(tmp_path / "data"), tests_share=share))
        assert clean.load("train").column_names == [*documents.COLUMNS, column]
        assert clean.load("train")[column][:] == [*range(10), *[20] * share]
        assert clean.load("validation")[column][:] == list(range(10, 20))


# What the data cards of the pinned corpora say: the same rows on every machine.
@pytest.mark.parametrize(("name", "digest"), [("tiny", "e2370adc"), ("laptop", "98e207b6")])
def test_the_pinned_corpora_have_the_same_rows_on_every_machine_and_leak_nothing(name, digest):
    profile = get_profile(name)
    card = (Path(artifacts.code_corpus(profile).path) / "README.md").read_text(encoding="utf-8")
    assert f"SHA-256 over the rows: `{digest}" in card
    train, held_out = (artifacts.clean_corpus(profile).load(split) for split in ("train", "validation"))
    assert set(train["repo_name"]).isdisjoint(held_out["repo_name"])
    assert Counter(map(documents.kind_of, held_out["path"]))["tests"] == 0
    assert deduplication.near_duplicates(train["content"][:] + held_out["content"][:], threshold=0.85) == []


@pytest.mark.parametrize("name", ["tiny", "laptop"])
def test_committed_reference_curves_are_whole(name):
    saved = json.loads((artifacts.REFERENCES / f"{name}.json").read_text(encoding="utf-8"))
    profile = get_profile(name)
    assert saved["tokens"][-1] == profile.train_steps * profile.tokens_per_step
    assert all(low < high for _, low, high in zip(saved["tokens"], saved["low"], saved["high"], strict=True))
    if name == "laptop":  # what this profile promises
        assert saved["high"][-1] < 1.9
        assert min(saved["idioms"]) >= 0.5
