"""A training that is killed at any moment, and resumed, ends with the weights of an undisturbed one."""

import contextlib
import os
import random
import time

import pytest
from runs import small_config, start, train_in_child, weights

from course_utils.training.checkpoints import LAST_FILE

KILLS = int(os.environ.get("TEST_KILLS", "5"))  # nightly more


def half_written(folder):
    """Return the numbers of the folders of half-written checkpoints; a new folder of the same name has another."""
    found = set()
    for path in folder.glob("checkpoints/step-*"):
        with contextlib.suppress(FileNotFoundError):  # removed in between
            if not (path / LAST_FILE).exists():
                found.add(path.stat().st_ino)
    return found


def kill(config, folder, seconds, while_writing):
    """Start, and kill some time after the start or after a checkpoint is begun; return whether that hit the mark."""
    before, child = half_written(folder), start(train_in_child, config, folder)
    while while_writing and child.is_alive() and not half_written(folder) - before:
        time.sleep(0.0005)
    child.join(seconds)
    alive = child.is_alive()
    child.kill()
    child.join()
    return bool(half_written(folder) - before) if while_writing else alive


@pytest.mark.parametrize("stream", [False, True], ids=["map-style", "streaming"])
def test_killed_at_any_moment_and_resumed_gives_the_very_same_weights(stream, tmp_path):
    rng = random.Random(7)
    config = small_config(
        {"train_steps": 40 * KILLS, "save_steps": 5, "eval_steps": 5, "eval_sequences": 8},
        stream=stream, dropout=0.1, precision="auto", shuffle_buffer=50, buffer_sequences=64,
    )  # fmt: skip
    begun = time.perf_counter()
    undisturbed = start(train_in_child, config, tmp_path / "whole")
    undisturbed.join()
    seconds = time.perf_counter() - begun
    assert undisturbed.exitcode == 0

    folder, hits = tmp_path / "killed", {"running": 0, "torn": 0}
    for number in range(4 * KILLS):
        if number >= KILLS and all(hits.values()):
            break
        if number % 2:
            hits["running"] += kill(config, folder, rng.uniform(0, seconds / 6), while_writing=False)
        else:
            hits["torn"] += kill(config, folder, rng.uniform(0, 0.004), while_writing=True)
    assert all(hits.values()), hits
    last = start(train_in_child, config, folder)
    last.join()
    assert last.exitcode == 0
    assert weights(tmp_path / "whole") == weights(folder)
    assert "going on from" in (folder / "logs" / "process-0.log").read_text()
    assert not half_written(folder)
