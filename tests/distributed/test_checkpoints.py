"""Checkpoints: damaged ones are skipped, foreign ones refused, old ones removed. Settings: impossible ones refused."""

import itertools
import shutil
import signal
from dataclasses import replace

import pytest
from runs import small_config, weights

from course_utils import artifacts
from course_utils.profiles import PROFILES
from course_utils.train import run_training
from course_utils.training import checkpoints
from course_utils.training.config import PRESETS, TrainConfig, modern

CONFIG = small_config({"save_steps": 20, "eval_steps": 20}, dropout=0.1, keep_checkpoints=3)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained") / "run"
    run_training(CONFIG, folder)
    return folder


@pytest.fixture
def finished(trained, tmp_path, monkeypatch):
    """A run of 60 steps with checkpoints at 20, 40 and 60, in `run` of the present folder."""
    monkeypatch.chdir(tmp_path)
    return shutil.copytree(trained, tmp_path / "run")


def test_a_torn_or_altered_checkpoint_is_passed_over_and_named(finished):
    folder = finished / "checkpoints"
    newest = folder / "step-00000060"
    assert checkpoints.find_last(folder) == newest
    files = sorted(newest.iterdir())
    for file in files:
        content = file.read_bytes()
        for damaged in (content[:-2], content[:40], bytes([content[0] ^ 1]) + content[1:], b"", None):
            file.unlink() if damaged is None else file.write_bytes(damaged)
            said = []
            assert checkpoints.find_last(folder, said.append).name == "step-00000040", (file.name, damaged)
            assert f"step-00000060 is damaged ({file.name}" in said[0]
            file.write_bytes(content)
    assert len(files) >= 5  # weights, optimizer, schedule, random numbers, and the list of them
    for content in ("[]", "null", '{"files": {"a": {}}}', '{"files": []}', "{}"):
        (newest / "run.json").write_text(content)
        assert checkpoints.find_last(folder).name == "step-00000040"


@pytest.mark.parametrize("keep", [1, 2])
def test_the_last_n_are_kept_and_damaged_newer_ones_do_not_count(tmp_path, capsys, monkeypatch, keep):
    config = small_config({"save_steps": 10, "eval_steps": 10}, keep_checkpoints=keep)
    folder, seen, save = tmp_path / "checkpoints", [], checkpoints.save

    def look(accelerator, checkpoint, keep, **state):
        save(accelerator, checkpoint, keep, **state)
        seen.append((state["position"]["step"], checkpoints.find_last(folder, lambda _: None) == checkpoint))

    monkeypatch.setattr(checkpoints, "save", look)
    run_training(config, tmp_path)
    before = weights(tmp_path)
    assert sorted(p.name for p in folder.iterdir()) == [f"step-000000{n}" for n in (50, 60)[-keep:]]
    for path in folder.iterdir():
        (path / "optimizer.bin").write_bytes(b"")
    run_training(config, tmp_path, resume="auto")
    assert "step-00000060 is damaged (optimizer.bin has changed); it is passed over." in capsys.readouterr().err
    assert seen == [(step, True) for step in range(10, 61, 10)] * 2
    assert weights(tmp_path) == before


def test_other_settings_are_refused_and_named_and_harmless_ones_are_not(finished):
    other = replace(CONFIG, dropout=0.2, profile=replace(CONFIG.profile, learning_rate=1e-4, seed=5))
    with pytest.raises(ValueError, match="written by a run with other settings") as error:
        run_training(other, finished, resume="auto")
    for part in ("dropout: 0.1 in the checkpoint, 0.2 now", "profile.learning_rate: 0.003", "profile.seed: 1"):
        assert part in str(error.value)
    assert "profile.model_width" not in str(error.value)
    newest = finished / "checkpoints" / "step-00000060"
    settings = checkpoints.read(newest)["settings"]
    for name in ("processes", "device", "precision", "data"):
        with pytest.raises(ValueError, match=f"settings. {name}: {settings[name]!r} in the checkpoint, 'other' now"):
            checkpoints.load(None, newest, settings | {name: "other"})
    before = weights(finished)
    summary = run_training(replace(CONFIG, log_steps=7, keep_checkpoints=1), finished, resume="auto")
    assert (summary.steps, weights(finished)) == (60, before)  # it was finished, and is trained no further
    assert [entry["step"] for entry in summary.history if "eval_loss" in entry] == [0, 20, 40, 60]


def test_an_old_run_is_not_written_over(finished):
    before = weights(finished)
    for resume in ("no", "run/checkpoints/step-00000040", "nowhere"):
        with pytest.raises(ValueError, match="already holds checkpoints, the newest is step-00000060"):
            run_training(CONFIG, finished, resume=resume)
    shutil.rmtree(finished / "checkpoints")
    for resume in ("no", "auto"):
        with pytest.raises(ValueError, match="final has no checkpoints beside it; choose another --output"):
            run_training(CONFIG, finished, resume=resume)
    assert weights(finished) == before


def test_a_checkpoint_can_be_named_and_an_older_one_continues_elsewhere(finished, tmp_path, capsys):
    assert run_training(CONFIG, "run", resume=str(finished / "checkpoints/step-00000060")).steps == 60
    assert run_training(CONFIG, finished, resume="run/checkpoints/step-00000060").steps == 60
    run_training(CONFIG, "branch", resume="run/checkpoints/step-00000040")
    assert weights(tmp_path / "branch") == weights(finished)
    with pytest.raises(ValueError, match=r"--resume nowhere: run.json is missing. Name a folder like"):
        run_training(CONFIG, "new", resume="nowhere")
    run_training(small_config({"train_steps": 2}), "new", resume="auto")
    assert "nothing to resume in" in capsys.readouterr().out


def test_a_checkpoint_that_cannot_be_written_leaves_nothing_behind(tmp_path):
    """Instead of a full disk there is a limit on the size of files: the write fails inside the library there, too."""
    resource = pytest.importorskip("resource", reason="limits on files are Unix's")
    config = small_config({"train_steps": 2})
    artifacts.packed_data(config.profile)
    before, usual = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(Exception, match="File too large"):
            run_training(config, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, usual)
    assert list((tmp_path / "checkpoints").iterdir()) == []


def test_presets_are_the_tutorials_settings():
    names = "batch_size learning_rate warmup_steps accumulation_steps train_steps context_length seed weight_decay"
    values = {preset: [getattr(PRESETS[preset].profile, name) for name in names.split()] for preset in PRESETS}
    assert values["codeparrot"] == [2, 2e-4, 750, 16, 50_000, 1024, 1, 0.1]
    assert values["codeparrot-small"] == [12, 5e-4, 2000, 1, 150_000, 1024, 1, 0.1]


def test_one_number_sizes_the_modern_recipe():
    measured = modern().profile
    names = "model_layers model_width model_heads context_length batch_size warmup_steps learning_rate weight_decay"
    assert [getattr(measured, name) for name in names.split()] == [6, 256, 4, 256, 16, 68, 3e-3, 0.1]
    assert measured.train_steps == pytest.approx(3148, rel=0.1)  # of the run that was measured
    sizes = [modern(depth, PROFILES["tiny"]) for depth in (1, 2, 6, 12)]
    for small, large in itertools.pairwise(sizes):
        assert small.profile.model_width < large.profile.model_width
        assert small.profile.tokens_per_step <= large.profile.tokens_per_step
        assert small.matrix_rate > large.matrix_rate
        assert large.profile.small_sources
    with pytest.raises(ValueError, match="depth = 0 is not allowed"):
        modern(0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"optimizer": "sgd"}, "optimizer = 'sgd' is not allowed; it must be one of adamw, muon"),
        ({"architecture": "qwen3", "reorder_and_upcast_attn": True}, "reorder_and_upcast_attn is an option of gpt2"),
        ({"schedule": "cosin"}, "schedule = 'cosin' is not allowed; it must be one of cosine, linear"),
        ({"dropout": 1.0}, "dropout = 1.0"),
        ({"profile": "tiny"}, "profile = 'tiny' is not allowed; it must be of type Profile"),
        ({"keywords": "plt"}, "keywords = 'plt' is not allowed; it must be of type tuple"),
        ({"profile": replace(small_config().profile, train_steps=-1), "stream": True}, "a stream has no known length"),
    ],
)
def test_impossible_settings_are_refused_early(settings, message):
    with pytest.raises(ValueError, match=message):
        TrainConfig(**settings)
    assert TrainConfig(keywords=["plt"]).keywords == ("plt",)
