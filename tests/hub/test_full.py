"""The profile `full`, with the tutorials' own ids, against a Hub on this machine that has them small."""

import os
import subprocess
import sys

import nbformat
import pytest
from faults import WRITE
from seeds import SMALL, seed
from transformers import AutoConfig

from course_utils import artifacts
from course_utils.data import paraphrases
from course_utils.evaluation.problems import load_problems
from course_utils.profiles import get_profile
from course_utils.training import finetuning


@pytest.fixture
def full(hub, tmp_path, monkeypatch, repository):
    """Return the variables of a small `full`; its artifacts are kept apart from those of other tests."""
    seed(hub, tmp_path)
    variables = {f"COURSE_{name}": str(value) for name, value in SMALL.items()}
    variables |= {"COURSE_PROFILE": "full", "COURSE_HOME": str(tmp_path / "course")}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return variables


def test_the_tutorials_data_sets_and_models_open_under_their_own_ids(full, hub):
    profile = get_profile()
    raw = artifacts.code_corpus(profile)
    assert raw.path == "transformersbook/codeparrot-{split}"
    first = next(iter(raw.load("train", streaming=True)))
    assert {"repo_name", "path", "copies", "size", "content", "license"} <= first.keys()
    assert len(artifacts.filtered_corpus(profile).load("validation")) > 10
    data = artifacts.packed_data(profile)  # clean corpus and tokenizer included
    assert len(data.train) > 100
    pairs = paraphrases.load_pairs(profile.pairs)
    assert len(pairs["train"]) > 300
    assert paraphrases.load_pairs(profile.sentences)["train"].column_names[0] == "sentence"
    assert len(load_problems("openai/openai_humaneval")) == 5
    assert AutoConfig.from_pretrained("gpt2").n_layer == 12
    model, tokenizer = finetuning.load_classifier(profile.encoder)
    assert model.config.model_type == "bert"
    assert tokenizer("two sentences", "in one")["token_type_ids"][-1] == 1
    folder = artifacts.pretrained_model(profile)
    assert (folder / "model.safetensors").is_file()


def run_notebook(number: str, variables: dict[str, str], output, *options: str) -> nbformat.NotebookNode:
    """Execute a notebook as a user does, with the profile `full` against the local Hub; return the executed copy."""
    command = [sys.executable, "-m", "course_utils", "run", number, "--output", str(output), "--timeout", "120"]
    environment = os.environ | variables | {"HF_DATASETS_CACHE": str(output / "datasets")}
    done = subprocess.run([*command, *options], env=environment, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = (output / "notebooks").glob(f"{number}_*.ipynb")
    return nbformat.read(path, as_version=4)


ASKED = {"01": "codeparrot-train", "03": "codeparrot-ds-train", "04": "codeparrot-ds-train", "06": "nyu-mll/glue"}
NIGHTLY = pytest.mark.skipif("TEST_KILLS" not in os.environ, reason="nightly: their data open in the test above")


@pytest.mark.parametrize("number", ["01", "06", *(pytest.param(number, marks=NIGHTLY) for number in ("03", "04"))])
def test_notebooks_run_with_the_ids_of_the_hub(number, full, hub, tmp_path):
    run_notebook(number, full, tmp_path / "out")
    assert hub.counted(f"{ASKED[number]}/resolve") >= 1
    assert_no_token(tmp_path)


@pytest.mark.skipif("TEST_KILLS" not in os.environ, reason="nightly: on every push it runs against a Hub of its own")
def test_notebook_11_runs_against_the_hub_that_its_reader_chooses(full, hub, tmp_path, repository):
    text = (repository / "notebooks" / "11_sharing.ipynb").read_text(encoding="utf-8")
    local = r"place = \"local\""
    assert text.count(local) == 1
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "11_sharing.ipynb").write_text(text.replace(local, r"place = \"real\""), encoding="utf-8")
    run_notebook("11", full, tmp_path / "out", "--notebooks", str(tmp_path / "own"))
    assert hub.titles("ada/course-runs")[0].startswith("Merge the run ")
    assert hub.read("ada/course-by-hand", "model.safetensors")
    assert hub.storage.repository("models", "ada/course-by-hand")["private"]  # unless the reader says otherwise
    assert_no_token(tmp_path)


def assert_no_token(folder) -> None:
    written = [path for name in ("out", "course") for path in (folder / name).rglob("*") if path.is_file()]
    assert len(written) > 3
    assert [path for path in written if WRITE.encode() in path.read_bytes()] == []
