"""The chain of artifacts on a learner's own code: real files, every link, and what happens when one breaks."""

import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import matplotlib
import pandas
import pytest
import sklearn
import torch
from datasets import Dataset
from safetensors.torch import load_file, save_file

from course_utils import artifacts, cache
from course_utils.data import deduplication, documents, sources, tokenization
from course_utils.data.documents import is_user_style
from course_utils.data.encoding import Encoder
from course_utils.models.causal import build_causal_lm
from course_utils.profiles import get_profile
from course_utils.training.loop import TrainingDiverged


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
    assert "interrupted after 2 optimizer steps" in capsys.readouterr().out
    assert (artifacts.run_folder(profile) / "checkpoint-2").is_dir()
    artifacts.pretrained_model(profile)
    artifacts.pretrain(profile, stop_at=2)
    assert "already trained" in capsys.readouterr().out


def test_a_model_that_is_no_number_is_not_kept(profile):
    diverging = replace(profile, learning_rate=1e9)
    for _ in range(2):  # the second call finds nothing either
        with pytest.raises(TrainingDiverged, match="no model is saved"):
            artifacts.pretrained_model(diverging)
    assert artifacts.find_pretrained(diverging) is None
    assert not [path for path in (cache.home() / "pretrained_model").iterdir() if path.is_dir()]


@pytest.mark.parametrize(
    ("missing", "named"),
    [("transformer.h.1.mlp.c_fc.weight", "h.1.mlp.c_fc.weight"), ("transformer.wte.weight", "lm_head.weight")],
)
def test_a_model_with_missing_tensors_is_refused(tmp_path, missing, named):
    build_causal_lm(get_profile("tiny")).save_pretrained(tmp_path)
    artifacts.load_model(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    del weights[missing]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=rf"lacks \d of the model's tensors, such as (transformer\.)?{named}"):
        artifacts.load_model(tmp_path)


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
    [
        ("/no/such/folder", "does not exist"),
        ("{file}", "is a file"),
        ("{empty}", "no text"),
        ("{other}", "no `content`"),
        ("{bare}", "lacks the columns repo_name, path, copies, size, license"),
    ],
)
def test_a_corpus_that_cannot_be_used_is_refused_with_the_remedy(monkeypatch, tmp_path, value, message):
    monkeypatch.setenv("COURSE_HOME", str(tmp_path / "home"))
    (tmp_path / "file").write_text("x", encoding="utf-8")
    (tmp_path / "empty").mkdir()
    for name, column in (("other", "text"), ("bare", "content")):
        (tmp_path / name / "data").mkdir(parents=True)
        for split in ("train", "validation"):
            path = tmp_path / name / "data" / f"{split}-00000-of-00001.parquet"
            Dataset.from_dict({column: ["import pandas"]}).to_parquet(str(path))
    value = value.format(**{name: tmp_path / name for name in ("file", "empty", "other", "bare")})
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


def test_a_link_that_leads_nowhere_does_no_harm(profile, own_code, tmp_path):
    shutil.copytree(own_code, tmp_path / "copy")
    link = tmp_path / "copy" / "pandas" / ".#draft.py"  # what an editor leaves while a file is open
    try:
        link.symlink_to("user@host.1234")
    except OSError:  # Windows without the right to make links has none to stumble over
        return
    corpus = artifacts.code_corpus(get_profile("tiny", code_corpus=str(tmp_path / "copy")))
    assert len(corpus.load("train")) > 0


def write_data_set(folder, **columns):
    """Write 20 documents that every rule keeps; each column has one value, or a function of the row's number."""
    folder.mkdir(parents=True)
    for split, start in (("train", 0), ("validation", 10)):
        rows = [
            {"content": "import pandas as pd\ndef f(x):\n" + "".join(f"    a{n}_{i} = {i}\n" for i in range(12))}
            | {name: value(n) if callable(value) else value for name, value in columns.items()}
            for n in range(start, start + 10)
        ]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.mark.parametrize("column", ["row", "content_row"])
def test_a_column_of_any_name_reaches_the_clean_corpus(monkeypatch, tmp_path, column):
    monkeypatch.setenv("COURSE_HOME", str(tmp_path / "home"))
    write_data_set(tmp_path / "data", path="a.py", **{column: lambda n: 100 + n})
    clean = artifacts.clean_corpus(get_profile("tiny", filtered_corpus=str(tmp_path / "data")))
    assert clean.load("train").column_names == ["content", "path", column]
    assert clean.load("train")[column][:] == list(range(100, 110))
    assert clean.load("validation")[column][:] == list(range(110, 120))


def test_a_filtered_corpus_is_found_in_the_home_folder(monkeypatch, tmp_path):
    for variable in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(variable, str(tmp_path))
    write_data_set(tmp_path / "mine")
    found = artifacts.filtered_corpus(get_profile("tiny", filtered_corpus="~/mine"))
    assert found.load("train").num_rows == 10
    with pytest.raises(ValueError, match=r"filtered corpus '~/other' is no folder .* COURSE_FILTERED_CORPUS"):
        artifacts.filtered_corpus(get_profile("tiny", filtered_corpus="~/other"))


def test_a_filtered_corpus_without_paths_cannot_be_mixed(monkeypatch, tmp_path):
    monkeypatch.setenv("COURSE_HOME", str(tmp_path / "home"))
    write_data_set(tmp_path / "data")
    profile = get_profile("tiny", filtered_corpus=str(tmp_path / "data"))
    assert artifacts.clean_corpus(profile).load("train").num_rows == 10
    with pytest.raises(ValueError, match=r"lacks the columns repo_name, path"):
        artifacts.clean_corpus(replace(profile, library_share=0.5))


# What the data cards of the pinned corpora say: the same rows on every machine.
DIGESTS = {
    "tiny": "67db0a06",
    "laptop": "265db2e9",
}


@pytest.mark.parametrize("name", DIGESTS)
def test_the_pinned_corpora_have_the_same_rows_on_every_machine(name):
    location = artifacts.code_corpus(get_profile(name))
    card = (Path(location.path) / "README.md").read_text(encoding="utf-8")
    assert f"SHA-256 over the rows: `{DIGESTS[name]}" in card


def test_laptop_has_ten_million_tokens_and_a_million_of_user_style():
    train = artifacts.code_corpus(get_profile("laptop")).load("train")
    train = train.filter(
        lambda paths: [not documents.TEST.search(p) for p in paths], input_columns="path", batched=True
    )
    tokenizer = tokenization.train_code_tokenizer(tokenization.batch_iterator(train.shuffle(seed=0), limit=500), 8192)
    encoder, counts = Encoder(tokenizer), Counter()
    for batch in train.iter(batch_size=200):
        for path, ids in zip(batch["path"], encoder.encode_batch(batch["content"]), strict=True):
            style = "doctests" if path.endswith(".doctest.py") else "scripts" if is_user_style(path) else "library"
            counts[style] += len(ids)
    print(dict(counts))
    assert counts.total() >= 10_000_000
    assert counts["scripts"] >= 1_000_000


def test_own_code_is_used_under_full_too():
    profile = get_profile("full", code_corpus="~/src")
    assert profile.filtered_corpus == ""


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
    if name == "laptop":  # what this profile promises
        assert saved["high"][-1] < 1.9
        assert min(saved["idioms"]) >= 0.5
