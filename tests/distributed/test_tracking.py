"""Logs and trackers: one file per process, metrics where they were asked for, clear errors (C6)."""

import json
import multiprocessing
import sqlite3

import pytest
from runs import small_config, train_in_child

from course_utils.train import run_training
from course_utils.training import loop, tracking

METRICS = {"loss", "learning_rate", "gradient_norm", "tokens_seen", "tokens_per_second", "memory_gb"}


@pytest.fixture(autouse=True)
def close_logs():
    yield
    tracking.finish_logging()


def test_metrics_stand_in_the_log_file_and_in_tensorboard(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    summary = run_training(small_config(tracker="tensorboard", log_steps=20), tmp_path, show_progress=False)
    text = (tmp_path / "logs" / "process-0.log").read_text()
    assert "process 0 of 1" in text
    assert "setting profile.learning_rate = 0.003" in text
    assert all(name in text for name in METRICS)
    events = EventAccumulator(str(tmp_path / "logs" / "tiny"))
    events.Reload()
    assert set(events.Tags()["scalars"]) >= METRICS | {"eval_loss", "eval_perplexity", "eval_bits_per_byte"}
    drawn = {event.step: event.value for event in events.Scalars("loss")}
    logged = {entry["step"]: entry["loss"] for entry in summary.history if "loss" in entry}
    assert drawn == pytest.approx(logged, rel=1e-6)
    assert sorted(logged) == [20, 40, 60]


def test_wandb_works_offline(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.setenv("WANDB_SILENT", "true")
    config = small_config(tracker="wandb", log_steps=20)
    # A process of its own: wandb reads the variables once, and has written everything when the process has ended.
    child = multiprocessing.get_context("spawn").Process(target=train_in_child, args=(config, tmp_path / "run"))
    child.start()
    child.join()
    assert child.exitcode == 0
    (file,) = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    content = file.read_bytes()
    assert [name for name in METRICS if name.encode() not in content] == []


def test_trackio_works_on_this_machine(tmp_path, monkeypatch):
    import trackio
    from trackio import sqlite_storage, utils

    for module in (trackio, sqlite_storage, utils):
        if hasattr(module, "TRACKIO_DIR"):
            monkeypatch.setattr(module, "TRACKIO_DIR", tmp_path / "trackio")
    run_training(small_config(tracker="trackio", log_steps=20), tmp_path / "run", show_progress=False)
    databases = list((tmp_path / "trackio").rglob("*.db"))
    assert databases
    rows = [row for path in databases for row in sqlite3.connect(path).execute("select step, metrics from metrics")]
    assert {20, 40, 60} <= {step for step, _ in rows}
    assert any(set(json.loads(metrics)) >= METRICS for _, metrics in rows)


def test_an_unknown_tracker_and_a_missing_package_are_named(monkeypatch):
    with pytest.raises(ValueError, match="unknown tracker 'visdom'; there are tensorboard, wandb, trackio, none"):
        tracking.check_tracker("visdom")
    monkeypatch.setitem(tracking.TRACKERS, "wandb", "wandb_that_is_not_installed")
    with pytest.raises(ImportError, match=r"needs the package wandb_that_is_not_installed, .* pip install"):
        loop.make_accelerator(small_config(tracker="wandb"), "anywhere")


def test_metrics_without_a_log_are_refused():
    tracking.finish_logging()
    with pytest.raises(ValueError, match="call setup_logging"):
        tracking.log_metrics(1, {"loss": 1.0})
