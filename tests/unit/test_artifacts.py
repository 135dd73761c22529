"""The chain of artifacts on a learner's own code: real files, every link, and what happens when one breaks."""

import json
import shutil
from pathlib import Path

import matplotlib
import pandas
import pytest
import sklearn
import torch
from datasets import Dataset

from course_utils import artifacts, cache
from course_utils.data import deduplication, sources
from course_utils.profiles import get_profile


@pytest.fixture(scope="module")
def own_code(tmp_path_factory):
    """Three small repositories of real code."""
    folder = tmp_path_factory.mktemp("src")
    for module, part in ((sklearn, "linear_model"), (matplotlib, "axes"), (pandas, "plotting")):
        target = folder / module.__name__
        shutil.copytree(
            Path(module.__file__).parent / part, target / part, ignore=shutil.ignore_patterns("tests", "*.so", "*.pyx*")
        )
    return folder


@pytest.fixture
def profile(own_code, monkeypatch, tmp_path):
    monkeypatch.setenv("COURSE_HOME", str(tmp_path / "home"))
    return get_profile("tiny", code_corpus=str(own_code), train_steps=4, eval_steps=2, save_steps=2, warmup_steps=1)


def test_the_whole_chain_on_own_code(profile):
    folder = artifacts.pretrained_model(profile)
    model = artifacts.load_model(folder)
    data = artifacts.packed_data(profile)
    tokenizer = artifacts.code_tokenizer(profile)
    assert model.config.vocab_size == len(tokenizer) == profile.vocab_size
    assert data.train[0]["input_ids"].shape == (profile.context_length,)
    assert data.train[0]["input_ids"].dtype == torch.int64
    history = artifacts.training_history(profile)
    assert [entry["step"] for entry in history if "eval_loss" in entry] == [0, 2, 4]
    assert not artifacts.run_folder(profile).exists()  # checkpoints go once the model stands
    assert artifacts.pretrained_model(profile) == folder


def test_no_near_duplicate_across_the_splits(profile, own_code):
    clean = artifacts.clean_corpus(profile)
    train, held_out = clean.load("train"), clean.load("validation")
    assert set(train["repo_name"][:]).isdisjoint(held_out["repo_name"][:])
    texts = train["content"][:] + held_out["content"][:]
    assert deduplication.near_duplicates(texts, threshold=0.85) == []


def test_changed_own_code_gives_a_new_corpus(profile, own_code, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(own_code, copy)
    mine = get_profile("tiny", code_corpus=str(copy))
    first = artifacts.code_corpus(mine)
    assert artifacts.code_corpus(mine) == first
    (copy / "pandas" / "more.py").write_text("import pandas as pd\n", encoding="utf-8")
    assert artifacts.code_corpus(mine) != first


def test_interrupted_training_goes_on_and_a_finished_one_is_not_repeated(profile, capsys):
    artifacts.pretrain(profile, stop_at=2)
    assert "interrupted after 2 of 4 steps" in capsys.readouterr().out
    assert (artifacts.run_folder(profile) / "checkpoint-2").is_dir()
    artifacts.pretrained_model(profile)
    artifacts.pretrain(profile, stop_at=2)
    assert "already trained" in capsys.readouterr().out


def test_a_cache_full_of_damage_is_rebuilt_and_said(profile, capsys):
    artifacts.packed_data(profile)
    for path in cache.home().rglob("*"):
        if path.is_file() and path.name != cache.SEAL and path.suffix != ".lock":
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    cache._verified.clear()
    data = artifacts.packed_data(profile)
    assert len(data.train) > 0
    said = capsys.readouterr().out
    for name in ("code_corpus", "filtered_corpus", "clean_corpus", "code_tokenizer", "packed_data"):
        assert f"The saved {name} is damaged" in said


def test_without_network_and_archives_the_environment_serves_and_that_is_said(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("COURSE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")  # nobody listens there
    monkeypatch.setattr(sources, "ATTEMPTS", 1)
    corpus = artifacts.code_corpus(get_profile("tiny"))
    assert "installed on this machine serve" in capsys.readouterr().out
    train = corpus.load("train")
    assert len(train) > 20
    assert {"pandas", "scikit-learn", "matplotlib"} & set(train["repo_name"][:])


@pytest.mark.parametrize(
    ("value", "message"),
    [("/no/such/folder", "does not exist"), ("{file}", "is a file"), ("{empty}", "no text"), ("{other}", "content")],
)
def test_a_corpus_that_cannot_be_used_is_refused_with_the_remedy(monkeypatch, tmp_path, value, message):
    monkeypatch.setenv("COURSE_HOME", str(tmp_path / "home"))
    (tmp_path / "file").write_text("x", encoding="utf-8")
    (tmp_path / "empty").mkdir()
    other = tmp_path / "other" / "data"
    other.mkdir(parents=True)
    for split in ("train", "validation"):
        Dataset.from_dict({"text": ["import pandas"]}).to_parquet(str(other / f"{split}-00000-of-00001.parquet"))
    value = value.format(file=tmp_path / "file", empty=tmp_path / "empty", other=tmp_path / "other")
    with pytest.raises(ValueError, match=message):
        artifacts.code_corpus(get_profile("tiny", code_corpus=value))
    assert not list((tmp_path / "home").rglob("*.parquet"))


def test_a_corpus_without_data_science_is_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("COURSE_HOME", str(tmp_path / "home"))
    for name in ("one", "two"):
        (tmp_path / "src" / name).mkdir(parents=True)
        (tmp_path / "src" / name / "a.py").write_text("x = 1\n" * 50, encoding="utf-8")
    with pytest.raises(ValueError, match="no document of the train split is left"):
        artifacts.clean_corpus(get_profile("tiny", code_corpus=str(tmp_path / "src")))


def test_full_uses_the_data_of_the_hub():
    full = get_profile("full")
    assert artifacts.code_corpus(full).path == "transformersbook/codeparrot-{split}"
    assert artifacts.filtered_corpus(full).path == "huggingface-course/codeparrot-ds-{split}"


def test_reference_curves_only_where_they_can_be_compared(profile, capsys):
    data = artifacts.packed_data(profile)
    assert artifacts.reference_runs(profile, data).band is None
    assert "No reference curve" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["tiny", "laptop"])
def test_committed_reference_curves_are_whole(name):
    saved = json.loads((artifacts.REFERENCES / f"{name}.json").read_text(encoding="utf-8"))
    profile = get_profile(name)
    assert saved["tokens"][-1] == profile.train_steps * profile.tokens_per_step
    assert len(saved["tokens"]) == len(saved["low"]) == len(saved["high"])
    assert all(low < high for low, high in zip(saved["low"], saved["high"], strict=True))
    assert saved["high"][-1] < saved["tutorial"]["bits_per_byte"][-1]
