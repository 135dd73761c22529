"""The profile `full`, with the tutorials' own ids, against a Hub on this machine that has them small."""

import os
import re
import subprocess
import sys
from collections import Counter

import nbformat
import pytest
from faults import WRITE, Fault, cut_file, error
from fsspec.spec import AbstractBufferedFile
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


def test_a_stream_survives_cut_connections_and_goes_on_where_it_was(full, hub, no_pauses, monkeypatch):
    monkeypatch.setattr(AbstractBufferedFile, "DEFAULT_BLOCK_SIZE", 1 << 15)  # else a file is one block
    corpus, path = artifacts.code_corpus(get_profile()), "GET /datasets/transformersbook/codeparrot-train/resolve"

    def read():
        hub.requests.clear()
        rows = [row["content"] for row in corpus.load("train", streaming=True)]
        return rows, Counter(request for request in hub.requests if request.startswith(path))

    undisturbed, wanted = read()
    assert len(wanted) > 10
    hub.faults += [Fault(path, cut_file(1000), after=4), Fault(path, error(500), after=8)]
    rows, asked = read()
    assert rows == undisturbed
    again = asked - wanted
    assert again.total() == 2  # the two blocks that failed, and nothing before them
    assert all(int(re.search(r"bytes=(\d+)", request)[1]) > 0 for request in again)


def test_a_stream_whose_place_was_kept_goes_on_there(full, hub):
    rows = artifacts.code_corpus(get_profile()).load("train", streaming=True)
    whole, iterator = [row["path"] for row in rows], iter(rows)
    begun = [next(iterator)["path"] for _ in range(50)]
    state = rows.state_dict()
    again = artifacts.code_corpus(get_profile()).load("train", streaming=True)
    again.load_state_dict(state)
    assert begun + [row["path"] for row in again] == whole


def run_notebook(number: str, variables: dict[str, str], output, *options: str) -> nbformat.NotebookNode:
    """Execute a notebook as a user does, with the profile `full` against the local Hub; return the executed copy."""
    command = [sys.executable, "-m", "course_utils", "run", number, "--output", str(output), "--timeout", "120"]
    environment = os.environ | variables | {"HF_DATASETS_CACHE": str(output / "datasets")}
    done = subprocess.run([*command, *options], env=environment, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = (output / "notebooks").glob(f"{number}_*.ipynb")
    return nbformat.read(path, as_version=4)


ASKED = {"01": "codeparrot-train", "03": "codeparrot-ds-train", "04": "codeparrot-ds-train", "06": "nyu-mll/glue"}


@pytest.mark.parametrize("number", ASKED)
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
