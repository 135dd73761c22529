"""Profiles: names and numbers, refused early when they cannot work."""

import json
from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from course_utils.profiles import PROFILES, Profile, get_profile


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch):
    for name in ("COURSE_PROFILE", *(f"COURSE_{f.name.upper()}" for f in fields(Profile))):
        monkeypatch.delenv(name, raising=False)


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


def test_unknown_profile_names_the_allowed_and_the_nearest():
    with pytest.raises(ValueError, match=r"unknown profile 'labtop'.*tiny, laptop, full.*mean laptop"):
        get_profile("labtop")


def test_single_values_from_variables_and_arguments(monkeypatch):
    monkeypatch.setenv("COURSE_TRAIN_STEPS", "7")
    monkeypatch.setenv("COURSE_PUSH_TO_HUB", "yes")
    monkeypatch.setenv("COURSE_CODE_CORPUS", "~/src")
    profile = get_profile("tiny", learning_rate=1e-4)
    assert (profile.train_steps, profile.push_to_hub, profile.code_corpus) == (7, True, "~/src")
    assert profile.learning_rate == 1e-4


@pytest.mark.parametrize(
    ("variable", "text", "message"),
    [
        ("COURSE_TRAIN_STEP", "7", "mean COURSE_TRAIN_STEPS"),
        ("COURSE_BATCH_SIZE", "many", "is no int"),
        ("COURSE_BATCH_SIZE", "0", "must be at least 1"),
        ("COURSE_PUSH_TO_HUB", "maybe", "neither yes nor no"),
        ("COURSE_SAVE_STEPS", "7", "multiple of eval_steps"),
        ("COURSE_VOCAB_SIZE", "100", "at least 260"),
        ("COURSE_MODEL_HEADS", "7", "multiple of model_heads"),
        ("COURSE_LEARNING_RATE", "0", "greater than 0"),
        ("COURSE_WEIGHT_DECAY", "inf", "a finite number"),
        ("COURSE_CONTEXT_LENGTH", "1", "at least 2"),
    ],
)
def test_bad_values_say_what_is_allowed(monkeypatch, variable, text, message):
    monkeypatch.setenv(variable, text)
    with pytest.raises(ValueError, match=message):
        get_profile("tiny")


@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [
        ("push_to_hub", "no", "True or False"),
        ("push_to_hub", 1, "True or False"),
        ("batch_size", 2.5, "a whole number"),
        ("batch_size", None, "a whole number"),
        ("batch_size", True, "a whole number"),
        ("vocab_size", "300", "a whole number"),
        ("learning_rate", float("inf"), "a finite number"),
        ("weight_decay", float("nan"), "a finite number"),
        ("library_share", "0.5", "a finite number"),
        ("finetune_dropout", 1.5, "between 0 and 1"),
        ("code_corpus", None, "text"),
    ],
)
def test_a_value_of_another_type_is_refused(field, value, allowed):
    with pytest.raises(ValueError, match=rf"{field} = .* must be {allowed}.*COURSE_{field.upper()}"):
        get_profile("tiny", **{field: value})


def test_numbers_of_numpy_and_whole_numbers_fit():
    profile = get_profile("tiny", batch_size=np.int64(8), learning_rate=np.float32(0.5), weight_decay=0)
    assert profile == get_profile("tiny", batch_size=8, learning_rate=0.5, weight_decay=0.0)
    assert json.dumps(profile.pretraining) == json.dumps(
        get_profile("tiny", batch_size=8, learning_rate=0.5, weight_decay=0).pretraining
    )


def test_unknown_field_as_argument():
    with pytest.raises(ValueError, match=r"no field 'contextlength'.*mean context_length"):
        get_profile("tiny", contextlength=3)


@given(st.integers(max_value=0))
def test_sizes_below_one_are_refused(value):
    for name in ("context_length", "batch_size", "eval_steps"):
        with pytest.raises(ValueError, match=f"{name} = "):
            get_profile("tiny", **{name: value})
