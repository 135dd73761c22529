"""The model that the course ships: how it is made, what a damaged one says, and the check that repeats its training."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from runs import SMALL
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer

from course_utils import artifacts
from course_utils.evaluation.tasks import load_tasks
from tools import reference_model


@pytest.fixture(scope="module")
def config():
    made = reference_model.recipe("tiny", depth=1, steps=8)
    few = {"eval_sequences": 8, "batch_size": 4}
    return replace(made, profile=replace(made.profile, **few), compile=False)


@pytest.fixture(scope="module")
def made(config, tmp_path_factory):
    """Return the folder of a model made in a second, by the steps that make the real one."""
    work, folder = tmp_path_factory.mktemp("work"), tmp_path_factory.mktemp("made") / "reference"
    how = {"profile": "tiny", "depth": 1, "steps": 8, "command": "python -m tools.reference_model", "machine": "a test"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reference_model, "DOCUMENTS", 3)
        curve = reference_model.train(config, work)
        assert reference_model.train(config, work) == curve  # again, after a stop
        reference_model.write(work, folder, config, curve, load_tasks()[:2], **how)
    return folder


def test_the_model_is_stored_in_half_the_bytes_and_loads_like_any_other(made, monkeypatch):
    monkeypatch.setattr(artifacts, "REFERENCE_MODEL", made)
    location = artifacts.reference_model()
    with safe_open(location / "model.safetensors", "pt") as weights:
        assert {weights.get_tensor(name).dtype for name in weights.keys()} == {torch.bfloat16}  # noqa: SIM118
        assert "lm_head.weight" not in weights.keys()  # noqa: SIM118
    model, tokenizer = AutoModelForCausalLM.from_pretrained(location), AutoTokenizer.from_pretrained(location)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert len(tokenizer) == model.config.vocab_size
    card, curve = (location / "README.md").read_text(encoding="utf-8"), json.loads((made / "curve.json").read_text())
    assert [point["step"] for point in curve["points"]] == [2, 4, 6, 8]
    for part in ("| pandas | BSD-3-Clause |", "| tasks, right arguments | 1.2 |", "of 2 |", curve["command"]):
        assert part in card
    told = card.partition("no part of the training: ")[2].partition(".\n")[0]
    assert set(told.split(", ")) == set(artifacts.clean_corpus(SMALL).load("validation")["repo_name"])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("model.safetensors", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "run git lfs pull"),
        ("model.safetensors", b"half", r"model.safetensors has changed\); .*git checkout.*install"),
        ("tokenizer.json", None, r"tokenizer.json is missing\); .*git checkout"),
        ("run.json", b"{", "run.json cannot be read"),
        (".", None, "has no reference model .*python -m tools.reference_model"),
    ],
)
def test_a_damaged_or_missing_model_is_one_sentence(made, tmp_path, monkeypatch, name, content, message):
    monkeypatch.setattr(artifacts, "REFERENCE_MODEL", shutil.copytree(made, tmp_path / "reference"))
    path = artifacts.REFERENCE_MODEL / name
    shutil.rmtree(path) if path.is_dir() else path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as stop:
        artifacts.reference_model()
    assert "\n" not in str(stop.value)


def test_the_nightly_check_repeats_the_first_steps_and_refuses_another_curve(made, config):
    points = json.loads((made / "curve.json").read_text())["points"]
    assert "user" in reference_model.check(config, points, 4)
    with pytest.raises(ValueError, match="step 4 is more than 5% off"):
        reference_model.check(config, [point | {"library": 1.1 * point["library"]} for point in points], 4)
