"""Checkpoints: damaged ones are skipped, foreign ones refused, old ones removed."""

import math
import signal
from dataclasses import replace

import pytest
from runs import small_config

from course_utils import artifacts, cache
from course_utils.train import run_training
from course_utils.training import checkpoints
from course_utils.training.config import PRESETS, TrainConfig, describe


@pytest.fixture
def finished(tmp_path):
    """A run of 60 steps with checkpoints at 20, 40 and 60."""
    config = small_config({"save_steps": 20, "eval_steps": 20}, dropout=0.1, keep_checkpoints=3)
    run_training(config, tmp_path / "run", show_progress=False)
    return tmp_path / "run", config


def weights(folder):
    return (folder / "final" / "model.safetensors").read_bytes()


def damage_in_every_way(checkpoint):
    """Yield descriptions after each way to damage a checkpoint, and mend it again."""
    for file in sorted(p for p in checkpoint.iterdir()):
        content = file.read_bytes()
        for altered in (content[:-1], bytes([content[0] ^ 1]) + content[1:], b""):
            file.write_bytes(altered)
            yield file.name
        file.unlink()
        yield file.name
        file.write_bytes(content)


def test_a_torn_or_altered_checkpoint_is_skipped_with_a_message(finished):
    folder, _ = finished
    newest = folder / "checkpoints" / "step-00000060"
    assert checkpoints.find_last(folder / "checkpoints") == newest
    files = set()
    for name in damage_in_every_way(newest):
        said = []
        if name == "artifact.json" and newest.joinpath(name).is_file():
            continue  # a changed list of checksums is a list of other checksums; see the next test
        assert checkpoints.find_last(folder / "checkpoints", said.append).name == "step-00000040", name
        assert "step-00000060 is damaged" in said[0]
        files.add(name)
    assert {"model.safetensors", "optimizer.bin", "random_states_0.pkl", "run.json", "custom_checkpoint_0.pkl"} <= files


def test_a_torn_list_of_checksums_is_damage_too(finished):
    folder, _ = finished
    seal = folder / "checkpoints" / "step-00000060" / "artifact.json"
    seal.write_bytes(seal.read_bytes()[:40])
    assert checkpoints.find_last(folder / "checkpoints").name == "step-00000040"


def test_a_run_goes_on_from_the_checkpoint_before_a_damaged_one(finished, capsys):
    folder, config = finished
    before = weights(folder)
    damaged = folder / "checkpoints" / "step-00000060" / "optimizer.bin"
    damaged.write_bytes(damaged.read_bytes()[:100])
    run_training(config, folder, resume="auto", show_progress=False)
    said = capsys.readouterr()
    assert "step-00000060 is damaged (optimizer.bin has changed); it is passed over." in said.err
    assert "going on from" in said.out
    assert weights(folder) == before
    assert checkpoints.find_last(folder / "checkpoints").name == "step-00000060"


def test_only_the_last_n_are_kept(tmp_path):
    config = small_config({"save_steps": 5, "eval_steps": 5}, keep_checkpoints=2)
    seen = []
    run_training(config, tmp_path, on_checkpoint=lambda path, step: seen.append((path.name, step)), show_progress=False)
    assert [step for _, step in seen] == list(range(5, 61, 5))
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["step-00000055", "step-00000060"]


def test_a_finished_run_resumed_trains_no_further_and_keeps_its_log(finished, capsys):
    folder, config = finished
    before = weights(folder)
    summary = run_training(config, folder, resume="auto", show_progress=False)
    assert summary.steps == 60
    assert weights(folder) == before
    assert [entry["step"] for entry in summary.history if "eval_loss" in entry] == [0, 20, 40, 60]


def test_a_checkpoint_of_other_settings_is_refused_and_the_differences_named(finished):
    folder, config = finished
    other = replace(config, dropout=0.2, profile=replace(config.profile, learning_rate=1e-4, seed=5))
    with pytest.raises(ValueError, match="written by a run with other settings") as error:
        run_training(other, folder, resume="auto", show_progress=False)
    for part in ("dropout: 0.1 in the checkpoint, 0.2 now", "profile.learning_rate: 0.003", "profile.seed: 1"):
        assert part in str(error.value)
    assert "profile.model_width" not in str(error.value)
    harmless = replace(config, log_steps=7, keep_checkpoints=1)
    run_training(harmless, folder, resume="auto", show_progress=False)


def test_another_number_of_processes_is_refused(finished):
    _, config = finished
    saved = checkpoints.Identity(config, 2, "cuda", "fp16", "some data").as_dict()
    with pytest.raises(ValueError, match="written by a run with other settings") as error:
        checkpoints.check_same_run("step", saved, checkpoints.Identity(config, 1, "cpu", "fp32", "other data"))
    for part in ("processes: 2 in the", "device: 'cuda'", "precision: 'fp16' in the checkpoint, 'fp32'", "data: 'some"):
        assert part in str(error.value)


def test_an_old_run_is_not_written_over(finished):
    folder, config = finished
    with pytest.raises(ValueError, match="already holds checkpoints, the newest is step-00000060"):
        run_training(config, folder, show_progress=False)


def test_resume_with_nothing_there_starts_from_the_beginning_and_says_so(tmp_path, capsys):
    run_training(small_config({"train_steps": 5}), tmp_path / "new", resume="auto", show_progress=False)
    assert "nothing to resume in" in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"--resume .*nowhere: its list of files is missing"):
        run_training(small_config(), tmp_path / "newer", resume=str(tmp_path / "nowhere"), show_progress=False)


@pytest.mark.parametrize("keep", [1, 2])
def test_damaged_newer_checkpoints_do_not_cost_the_new_ones(tmp_path, keep):
    config = small_config({"save_steps": 10, "eval_steps": 10}, keep_checkpoints=keep)
    run_training(config, tmp_path, show_progress=False)
    folder = tmp_path / "checkpoints"
    before = weights(tmp_path)
    for path in folder.iterdir():
        (path / "optimizer.bin").write_bytes(b"")
    there = []
    run_training(
        config,
        tmp_path,
        resume="auto",
        on_checkpoint=lambda path, step: there.append((step, checkpoints.find_last(folder, lambda _: None) == path)),
        show_progress=False,
    )
    assert there == [(step, True) for step in range(10, 61, 10)]
    assert weights(tmp_path) == before


def test_an_older_checkpoint_goes_on_in_a_folder_of_its_own(finished, tmp_path):
    folder, config = finished
    older = folder / "checkpoints" / "step-00000040"
    with pytest.raises(ValueError, match=r"such as step-00000060. Choose another --output"):
        run_training(config, folder, resume=str(older), show_progress=False)
    run_training(config, tmp_path / "branch", resume=str(older), show_progress=False)
    assert weights(tmp_path / "branch") == weights(folder)
    with pytest.raises(ValueError, match="holds other checkpoints"):
        run_training(config, tmp_path / "branch", resume=str(older), show_progress=False)


@pytest.mark.parametrize("content", ["[]", "null", '{"files": {"a": {}}}', '{"files": []}', "{"])
def test_a_list_of_checksums_that_is_none_is_damage(finished, content):
    folder, _ = finished
    (folder / "checkpoints" / "step-00000060" / "artifact.json").write_text(content)
    assert checkpoints.find_last(folder / "checkpoints").name == "step-00000040"


def test_the_log_of_a_resumed_run_is_that_of_an_undisturbed_one(tmp_path):
    config = small_config({"save_steps": 5, "eval_steps": 5, "train_steps": 20}, log_steps=10, keep_checkpoints=9)
    whole = run_training(config, tmp_path / "a", show_progress=False)
    middle = tmp_path / "a" / "checkpoints" / "step-00000005"
    resumed = run_training(config, tmp_path / "b", resume=str(middle), show_progress=False)
    losses = [[entry["loss"] for entry in run.history if "loss" in entry] for run in (whole, resumed)]
    assert losses[0] == losses[1]
    assert len(losses[0]) == 2


def test_a_checkpoint_is_named_by_a_relative_or_absolute_path(finished, monkeypatch):
    folder, config = finished
    newest = folder / "checkpoints" / "step-00000060"
    (newest.parent / "step-00000070.tmp").mkdir()  # of a run that was killed; no checkpoint
    monkeypatch.chdir(folder.parent)
    for output, resume in ((folder.name, newest), (folder, newest.relative_to(folder.parent))):
        assert run_training(config, output, resume=str(resume), show_progress=False).steps == 60


@pytest.mark.parametrize("resume", ["no", "auto"])
def test_a_final_folder_without_checkpoints_is_not_written_over(tmp_path, resume):
    (tmp_path / "final").mkdir()
    (tmp_path / "final" / "thesis.tex").write_text("mine")
    with pytest.raises(ValueError, match="final is there already, without checkpoints; choose another --output"):
        run_training(small_config({"train_steps": 2}), tmp_path, resume=resume, show_progress=False)
    assert (tmp_path / "final" / "thesis.tex").read_text() == "mine"


@pytest.mark.parametrize("content", ["{}", "[]", '{"identity": {}}', "null"])
def test_a_state_that_describes_no_run_is_refused(finished, content):
    folder, config = finished
    checkpoint = folder / "checkpoints" / "step-00000060"
    (checkpoint / "run.json").write_text(content)
    identity = checkpoints.Identity(config, 1, "cpu", "fp32", "data")
    with pytest.raises(ValueError, match=r"run.json does not describe a run .*; use another checkpoint"):
        checkpoints.load(None, checkpoint, identity)


@pytest.mark.parametrize("full", [True, False])
def test_a_checkpoint_that_cannot_be_written_leaves_nothing_behind(tmp_path, monkeypatch, full):
    """Instead of a full disk there is a limit on the size of files: the write fails inside the library there, too."""
    resource = pytest.importorskip("resource", reason="limits on files are Unix's")
    message = "File too large"
    if full:
        monkeypatch.setattr(cache, "LEAST_FREE", 1 << 62)
        message = "The disk is full: free some space, then go on with --resume auto"
    config = small_config({"train_steps": 2})
    artifacts.packed_data(config.profile)
    before, usual = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(Exception, match=message) as error:
            run_training(config, tmp_path, show_progress=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, usual)
    assert (type(error.value) is OSError) == full
    assert list((tmp_path / "checkpoints").iterdir()) == []


def test_presets_are_the_tutorials_settings():
    large, small = PRESETS["codeparrot"].profile, PRESETS["codeparrot-small"].profile
    for field, expected in {
        "batch_size": (2, 12),
        "learning_rate": (2e-4, 5e-4),
        "warmup_steps": (750, 2000),
        "accumulation_steps": (16, 1),
        "train_steps": (50_000, 150_000),
        "context_length": (1024, 1024),
        "seed": (1, 1),
        "weight_decay": (0.1, 0.1),
    }.items():
        assert (getattr(large, field), getattr(small, field)) == expected
    rows = describe(PRESETS["codeparrot"])
    assert all(unit and text.endswith(".") for _, _, unit, text in rows)
    assert len({name for name, *_ in rows}) == len(rows)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"schedule": "cosin"}, "schedule = 'cosin' is not allowed; it must be one of cosine, linear"),
        ({"tracker": "visdom"}, "tracker = 'visdom' is not allowed; it must be one of tensorboard, wandb"),
        ({"precision": "int8"}, "one of auto, fp32, bf16, fp16"),
        ({"dropout": 1.0}, "dropout = 1.0"),
        ({"alpha": -1.0}, "alpha = -1.0 is not allowed; it must be 0 or more"),
        ({"alpha": math.inf}, "alpha = inf is not allowed; it must be 0 or more, and finite"),
        ({"alpha": "1"}, "alpha = '1' is not allowed; it must be a number"),
        ({"num_workers": 1.5}, "num_workers = 1.5 is not allowed; it must be a whole number"),
        ({"profile": "tiny"}, "profile = 'tiny' is not allowed; it must be a Profile, such as get_profile"),
        ({"keywords": "plt"}, "keywords = 'plt' is not allowed; it must be several words"),
        ({"keep_checkpoints": 0}, "keep_checkpoints = 0"),
        ({"max_grad_norm": 0.0}, "max_grad_norm = 0.0"),
        ({"profile": replace(small_config().profile, train_steps=-1), "stream": True}, "a stream has no known length"),
    ],
)
def test_impossible_settings_are_refused_early(settings, message):
    with pytest.raises(ValueError, match=message):
        TrainConfig(**settings)
