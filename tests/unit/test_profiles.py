"""Profiles: names and numbers, refused early when they cannot work."""

import json
import os
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from course_utils.profiles import PROFILES, Profile, did_you_mean, get_profile, make_variables_absolute


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch):
    for name in [name for name in os.environ if name.startswith("COURSE_")]:
        monkeypatch.delenv(name)


def test_every_field_has_a_unit_and_a_sentence():
    for field in fields(Profile):
        assert field.metadata["unit"]
        assert field.metadata["text"].endswith(".")


def test_laptop_is_the_default_and_the_variable_selects(monkeypatch):
    assert get_profile().name == "laptop"
    monkeypatch.setenv("COURSE_PROFILE", "tiny")
    assert get_profile() == PROFILES["tiny"]
    assert get_profile("full") == PROFILES["full"]


def test_full_is_the_tutorials_setting():
    full = PROFILES["full"]
    assert full.batch_size * full.accumulation_steps == 256
    assert (full.learning_rate, full.warmup_steps, full.weight_decay, full.eval_steps) == (5e-4, 1000, 0.1, 5000)
    assert (full.context_length, full.model_layers, full.model_width, full.model_heads) == (128, 12, 768, 12)
    assert get_profile("full", code_corpus="mine/code").filtered_corpus == ""  # the Hub's belongs to the Hub's code


def test_single_values_from_variables_and_arguments(monkeypatch):
    for name, text in {"TRAIN_STEPS": "7", "PUSH_TO_HUB": "yes", "LEARNING_RATE": "1e-3", "WEIGHT_DECAY": ""}.items():
        monkeypatch.setenv(f"COURSE_{name}", text)
    profile = get_profile("tiny", learning_rate=1e-4)
    assert profile == get_profile("tiny", train_steps=7, push_to_hub=True, learning_rate=1e-4, weight_decay=0.1)


@pytest.mark.parametrize("variable", [f"COURSE_{f.name.upper()}" for f in fields(Profile)] + ["COURSE_HOME"])
def test_an_empty_variable_is_not_set(monkeypatch, variable):
    monkeypatch.setenv(variable, "")
    make_variables_absolute()
    assert os.environ[variable] == ""
    assert get_profile("full") == PROFILES["full"]


@pytest.mark.parametrize("name", ["ID", "NAME", "CODE", "KEY", "URL", "TITLE", "DIR", "USER", "SECTION", "RUN_ID"])
def test_variables_of_somebody_else_are_left_alone(monkeypatch, name):
    monkeypatch.setenv(f"COURSE_{name}", "nlp101")
    assert get_profile("tiny") == PROFILES["tiny"]


@pytest.mark.parametrize(
    ("variable", "text", "message"),
    [
        ("COURSE_TRAIN_STEP", "7", "mean COURSE_TRAIN_STEPS"),
        ("COURSE_PROFIL", "tiny", "mean COURSE_PROFILE"),
        ("COURSE_BATCH_SIZE", "many", "'many' is not allowed; it must be a whole number"),
        ("COURSE_BATCH_SIZE", "2.5", "must be a whole number"),
        ("COURSE_BATCH_SIZE", "0", "must be at least 1"),
        ("COURSE_PUSH_TO_HUB", "maybe", "must be True or False"),
        ("COURSE_SAVE_STEPS", "7", "multiple of eval_steps"),
        ("COURSE_TRAIN_STEPS", "0", "at least 1, or -1"),
        ("COURSE_VOCAB_SIZE", "100", "at least 260"),
        ("COURSE_MODEL_HEADS", "7", "multiple of model_heads"),
        ("COURSE_LEARNING_RATE", "0", "greater than 0"),
        ("COURSE_WEIGHT_DECAY", "inf", "must be a finite number"),
        ("COURSE_FINETUNE_DROPOUT", "1.5", "at least 0 and at most 1. Change COURSE_FINETUNE_DROPOUT, or unset it"),
    ],
)
def test_bad_values_say_what_is_allowed(monkeypatch, variable, text, message):
    monkeypatch.setenv(variable, text)
    with pytest.raises(ValueError, match=message):
        get_profile("tiny")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"push_to_hub": 1}, "must be True or False"),
        ({"batch_size": True}, "must be a whole number"),
        ({"batch_size": None}, "must be a whole number"),
        ({"weight_decay": float("nan")}, "must be a finite number"),
        ({"code_corpus": None}, "must be of type str"),
        ({"contextlength": 3}, "no field 'contextlength'. Did you mean context_length?"),
        ({"name": "labtop"}, "unknown profile 'labtop'; there are tiny, laptop, full. Did you mean laptop?"),
    ],
)
def test_bad_arguments_say_what_is_allowed(values, message):
    with pytest.raises(ValueError, match=message):
        get_profile(**({"name": "tiny"} | values))


def test_numbers_of_numpy_and_whole_numbers_fit():
    profile = get_profile("tiny", batch_size=np.int64(8), learning_rate=np.float32(0.5), weight_decay=0)
    assert profile == get_profile("tiny", batch_size=8, learning_rate=0.5, weight_decay=0.0)
    assert json.loads(json.dumps(profile.pretraining))["batch_size"] == 8


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("~/src", "{home}/src"),  # need not exist
        ("./e", "{here}/e"),
        ("pairs [ml]", "{here}/pairs [ml]"),  # a folder that is there
        ("owner/name-{split}", "owner/name-{split}"),
        ("course", "course"),  # a word of the course, although there is a folder of this name
    ],
)
@pytest.mark.parametrize("field", ["code_corpus", "filtered_corpus", "pairs", "sentences", "encoder"])
def test_every_location_is_made_absolute_once(monkeypatch, tmp_path, field, location, expected):
    for variable in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(variable, str(tmp_path / "home"))
    for name in ("pairs [ml]", "course"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(f"COURSE_{field.upper()}", location)
    monkeypatch.setenv("COURSE_HOME", "new")
    expected = expected.replace("{home}", str(tmp_path / "home")).replace("{here}", str(tmp_path))
    for _ in range(2):
        assert getattr(get_profile("tiny"), field) == expected
        make_variables_absolute()
        monkeypatch.chdir(tmp_path / "course")  # as a kernel would
    assert Path(os.environ["COURSE_HOME"]) == tmp_path / "new"


def test_the_nearest_word_is_suggested():
    assert did_you_mean("labtop", PROFILES) == " Did you mean laptop?"
    assert did_you_mean("zzz", PROFILES) == ""
