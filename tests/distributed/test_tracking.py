"""Logs and trackers: one file per process, metrics where they were asked for, clear errors (C6)."""

import json
import multiprocessing
import sqlite3
import sys

import pytest
from runs import small_config, train_in_child

from course_utils import train
from course_utils.training import loop

METRICS = {"loss", "learning_rate", "gradient_norm", "tokens_seen", "tokens_per_second", "memory_gb"}


def test_metrics_stand_in_the_log_file_and_in_tensorboard(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    summary = train.run_training(small_config(tracker="tensorboard", log_steps=20), tmp_path)
    text = (tmp_path / "logs" / "process-0.log").read_text()
    parts = {"process 0 of 1", "setting profile.learning_rate = 0.003"} | METRICS
    assert {part for part in parts if part not in text} == set()
    events = EventAccumulator(str(tmp_path / "logs" / "tiny"))
    events.Reload()
    assert set(events.Tags()["scalars"]) >= METRICS | {"eval_loss", "eval_perplexity", "eval_bits_per_byte"}
    logged = {entry["step"]: entry["loss"] for entry in summary.history if "loss" in entry}
    assert {event.step: event.value for event in events.Scalars("loss")} == pytest.approx(logged, rel=1e-6)
    assert list(logged) == [20, 40, 60]


def test_wandb_works_offline(tmp_path, monkeypatch):
    for name, value in {"WANDB_MODE": "offline", "WANDB_DIR": str(tmp_path), "WANDB_SILENT": "true"}.items():
        monkeypatch.setenv(name, value)
    # A process of its own: wandb reads the variables once, and has written everything when the process has ended.
    arguments = small_config(tracker="wandb", log_steps=20), tmp_path / "run"
    child = multiprocessing.get_context("spawn").Process(target=train_in_child, args=arguments)
    child.start()
    child.join()
    assert child.exitcode == 0
    (file,) = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    assert all(name.encode() in file.read_bytes() for name in METRICS)


def test_wandb_without_a_login_is_one_line_before_anything_is_made(tmp_path, monkeypatch, capsys):
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "nowhere"))
    monkeypatch.setattr(loop, "Accelerator", None)
    assert train.main(["--profile", "tiny", "--output", str(tmp_path / "run"), "--tracker", "wandb"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    for part in ("error: No API key", "`wandb login`", "set WANDB_MODE=offline, or choose another tracker."):
        assert part in line


def test_trackio_works_on_this_machine(tmp_path, monkeypatch):
    import trackio
    from trackio import sqlite_storage, utils

    for module in (trackio, sqlite_storage, utils):
        if hasattr(module, "TRACKIO_DIR"):
            monkeypatch.setattr(module, "TRACKIO_DIR", tmp_path / "trackio")
    train.run_training(small_config(tracker="trackio", log_steps=20), tmp_path / "run")
    databases = list((tmp_path / "trackio").rglob("*.db"))
    rows = [row for path in databases for row in sqlite3.connect(path).execute("select step, metrics from metrics")]
    assert {20, 40, 60} <= {step for step, _ in rows}
    assert any(set(json.loads(metrics)) >= METRICS for _, metrics in rows)


def test_a_missing_tracker_is_not_silently_left_out(monkeypatch):
    monkeypatch.setitem(sys.modules, "trackio", None)  # what an import then says: it is not there
    with pytest.raises(ImportError, match="trackio"):
        loop.make_accelerator(small_config(tracker="trackio"), "anywhere")
