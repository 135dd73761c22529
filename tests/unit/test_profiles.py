"""Profiles: names and numbers, refused early when they cannot work."""

import json
import os
import re
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from course_utils import artifacts, finetune, train
from course_utils.profiles import PROFILES, Profile, get_profile, make_variables_absolute


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch, tmp_path):
    for name in [name for name in os.environ if name.startswith("COURSE_")]:
        monkeypatch.delenv(name)
    for variable in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(variable, str(tmp_path / "home"))


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


@pytest.mark.parametrize(
    ("values", "filtered", "share"),
    [
        ({}, "", 0.05),
        ({"code_corpus": "pinned"}, "", 0.05),
        ({"code_corpus": "mine/code"}, "", 1.0),  # your own code is not a library's
        ({"filtered_corpus": "mine/code"}, "mine/code", 1.0),
        ({"code_corpus": "mine/code", "library_share": 0.5}, "", 0.5),
        ({"name": "full", "code_corpus": "mine/code"}, "", 1.0),  # the Hub's filtered code belongs to the Hub's code
    ],
)
def test_what_belongs_to_the_courses_own_code_is_not_applied_to_yours(values, filtered, share):
    profile = get_profile(**{"name": "laptop"} | values)
    assert (profile.filtered_corpus, profile.library_share) == (filtered, share)


def test_single_values_from_variables_and_arguments(monkeypatch):
    for name, text in {"TRAIN_STEPS": "7", "PUSH_TO_HUB": "yes", "LEARNING_RATE": "1e-3"}.items():
        monkeypatch.setenv(f"COURSE_{name}", text)
    profile = get_profile("tiny", learning_rate=1e-4)
    assert profile == get_profile("tiny", train_steps=7, push_to_hub=True, learning_rate=1e-4)


def test_empty_variables_and_those_of_somebody_else_are_not_set(monkeypatch):
    for name in [*(f.name.upper() for f in fields(Profile)), "HOME"]:
        monkeypatch.setenv(f"COURSE_{name}", "")
    for name in ("ID", "NAME", "CODE", "KEY", "URL", "TITLE", "DIR", "USER", "SECTION", "RUN_ID"):
        monkeypatch.setenv(f"COURSE_{name}", "nlp101")
    make_variables_absolute()
    assert os.environ["COURSE_HOME"] == ""
    assert get_profile("full") == PROFILES["full"]


@pytest.mark.parametrize(
    ("variable", "text", "message"),
    [
        ("COURSE_PROFILE", "labtop", "unknown profile 'labtop'; there are tiny, laptop, full"),
        ("COURSE_TRAIN_STEP", "7", "mean COURSE_TRAIN_STEPS"),
        ("COURSE_PROFIL", "tiny", "mean COURSE_PROFILE"),
        ("COURSE_BATCH_SIZE", "2.5", "'2.5' is not allowed; it must be a whole number"),
        ("COURSE_BATCH_SIZE", "0", "must be at least 1"),
        ("COURSE_PUSH_TO_HUB", "maybe", "must be True or False"),
        ("COURSE_SAVE_STEPS", "7", "multiple of eval_steps"),
        ("COURSE_TRAIN_STEPS", "0", "at least 1, or -1"),
        ("COURSE_MODEL_HEADS", "7", "multiple of model_heads"),
        ("COURSE_LEARNING_RATE", "0", "greater than 0"),
        ("COURSE_WEIGHT_DECAY", "nan", "must be a finite number"),
        ("COURSE_FINETUNE_DROPOUT", "1.5", "at least 0 and at most 1. Change COURSE_FINETUNE_DROPOUT, or unset it"),
    ],
)
def test_bad_values_say_what_is_allowed(monkeypatch, variable, text, message):
    monkeypatch.setenv(variable, text)
    with pytest.raises(ValueError, match=message):
        get_profile(None if variable == "COURSE_PROFILE" else "tiny")


@pytest.mark.parametrize("values", [{"push_to_hub": 1}, {"batch_size": True}, {"code_corpus": None}])
def test_arguments_of_another_type_are_refused(values):
    with pytest.raises(ValueError, match="is not allowed; it must be "):
        get_profile("tiny", **values)


def test_numbers_of_numpy_and_whole_numbers_fit():
    profile = get_profile("tiny", batch_size=np.int64(8), learning_rate=np.float32(0.5), weight_decay=0)
    assert profile == get_profile("tiny", batch_size=8, learning_rate=0.5, weight_decay=0.0)
    assert json.loads(json.dumps(profile.pretraining))["batch_size"] == 8


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("~/src", "{here}/home/src"),  # need not exist
        ("./e", "{here}/e"),
        ("pairs [ml]", "{here}/pairs [ml]"),  # a folder that is there
        ("owner/name-{split}", "owner/name-{split}"),
        ("~/a, ./b,pairs [ml],owner/name", "{here}/home/a,{here}/b,{here}/pairs [ml],owner/name"),
        ("c,d", "{here}/c,d"),  # a folder that is there, and no list
        ("course", "course"),  # a word of the course, although there is a folder of this name
    ],
)
def test_every_location_is_made_absolute_once(monkeypatch, tmp_path, location, expected):
    for name in ("pairs [ml]", "course", "c,d"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    names = ("code_corpus", "filtered_corpus", "pairs", "sentences", "encoder")
    for name in names:
        monkeypatch.setenv(f"COURSE_{name.upper()}", location)
    monkeypatch.setenv("COURSE_HOME", "new")
    for _ in range(2):
        profile = get_profile("tiny")
        assert {getattr(profile, name) for name in names} == {expected.replace("{here}", str(tmp_path))}
        make_variables_absolute()
        monkeypatch.chdir(tmp_path / "course")  # as a kernel would
    assert Path(os.environ["COURSE_HOME"]) == tmp_path / "new"


def test_paths_given_to_the_scripts_may_begin_with_a_tilde(monkeypatch, tmp_path, capsys):
    def stop(*locations):
        raise ValueError(f"{locations}")

    monkeypatch.setattr(artifacts, "encoder_folder", stop)
    assert finetune.main(["--encoder=~/e", "--pairs=~/p", "--output=~/finetuned"]) == 1
    assert str((str(tmp_path / "home" / "e"), str(tmp_path / "home" / "p"))) in capsys.readouterr().err
    assert (tmp_path / "home" / "finetuned").is_dir()
    monkeypatch.setattr(train.loop, "make_accelerator", stop)
    assert train.main(["--profile=tiny", "--output=~/trained"]) == 1
    assert (tmp_path / "home" / "trained").is_dir()
    monkeypatch.setattr(train.checkpoints, "damage", stop)
    with pytest.raises(ValueError, match=re.escape(repr(tmp_path / "home" / "step-1"))):
        train._find_checkpoint(tmp_path / "checkpoints", "~/step-1")
