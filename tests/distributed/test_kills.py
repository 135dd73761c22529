"""A training that is killed at any moment, and resumed, ends with the weights of an undisturbed one."""

import contextlib
import multiprocessing
import random
import time

import pytest
from runs import small_config, train_in_child
from safetensors.torch import load_file

from course_utils.training import checkpoints

KILLS = 20
PRELOADED = ["torch", "course_utils.train", "transformers.models.gpt2.modeling_gpt2", "runs"]


def start(config, folder):
    """Start a training in a fresh process that has the libraries loaded already."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    child = context.Process(target=train_in_child, args=(config, folder))
    child.start()
    return child


def half_written(folder):
    """Return the numbers of the folders of half-written checkpoints; a new folder of the same name has another."""
    found = set()
    for path in folder.glob("checkpoints/step-*.tmp"):
        with contextlib.suppress(FileNotFoundError):  # renamed in between
            found.add(path.stat().st_ino)
    return found


def kill_while_writing(config, folder, delay):
    """Start, kill as soon as a new checkpoint is being written; return whether the kill left it half-written."""
    before = half_written(folder)
    child = start(config, folder)
    while child.is_alive():
        if half_written(folder) - before:
            time.sleep(delay)
            break
        time.sleep(0.0005)
    child.kill()
    child.join()
    return bool(half_written(folder) - before)


def kill_at(config, folder, seconds):
    """Start, and kill after some time, wherever the training is; return whether it was still running."""
    child = start(config, folder)
    child.join(seconds)
    alive = child.is_alive()
    child.kill()
    child.join()
    return alive


@pytest.mark.parametrize("stream", [False, True], ids=["map-style", "streaming"])
def test_killed_at_twenty_moments_and_resumed_gives_the_very_same_weights(stream, tmp_path):
    rng = random.Random(7)
    config = small_config(
        {"train_steps": 600, "save_steps": 5, "eval_steps": 5, "eval_sequences": 8},
        stream=stream,
        dropout=0.1,
        precision="auto",
        shuffle_buffer=50,
        buffer_sequences=64,
    )
    undisturbed = start(config, tmp_path / "whole")
    begun = time.perf_counter()
    undisturbed.join()
    seconds = time.perf_counter() - begun
    assert undisturbed.exitcode == 0

    folder, running, torn = tmp_path / "killed", 0, 0
    for number in range(KILLS):
        if number % 2:
            torn += kill_while_writing(config, folder, rng.uniform(0, 0.004))
        else:
            running += kill_at(config, folder, rng.uniform(0, seconds / 6))
    assert checkpoints.find_last(folder / "checkpoints") is not None
    assert running >= KILLS / 4
    assert torn >= KILLS / 10
    last = start(config, folder)
    last.join()
    assert last.exitcode == 0
    print(f"{KILLS} kills: {running} at a random moment of the training, {torn} left a half-written checkpoint")

    whole, resumed = (load_file(tmp_path / name / "final" / "model.safetensors") for name in ("whole", "killed"))
    assert whole.keys() == resumed.keys()
    assert all(bool((whole[name] == resumed[name]).all()) for name in whole)
    assert (folder / "logs" / "process-0.log").read_text().count("going on from") > KILLS / 4
    assert not list(tmp_path.glob("killed/checkpoints/*.tmp"))
