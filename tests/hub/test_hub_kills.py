"""A training that is killed while it pushes: the branch stays whole, and the run ends as if nothing had happened."""

import os
import random
import shutil
import time

import pytest
from faults import WRITE, Fault, slow
from huggingface_hub import snapshot_download
from runs import push_in_child, small_config, start, weights

from course_utils import train
from course_utils.training import checkpoints

KILLS = int(os.environ.get("TEST_KILLS", "5"))  # nightly more
REPO = "ada/code"


def kill_while_pushing(hub, config, folder, word, times, seconds):
    """Start, wait until a push has asked for something so many times, and kill then; return whether it still ran."""
    wanted, child = hub.counted(word) + times, start(push_in_child, config, folder, WRITE)
    until = time.monotonic() + 60
    while child.is_alive() and hub.counted(word) < wanted and time.monotonic() < until:
        time.sleep(0.001)
    child.join(seconds)
    alive = child.is_alive()
    child.kill()
    child.join()
    return alive


@pytest.mark.usefixtures("fresh_accelerate")
def test_killed_while_pushing_the_branch_is_whole_and_nothing_is_there_twice(hub, tmp_path):
    rng = random.Random(11)
    steps = {"train_steps": 40 * KILLS, "save_steps": 10, "eval_steps": 10, "eval_sequences": 8}
    train.run_training(small_config(steps, dropout=0.1), tmp_path / "whole")

    config, folder = small_config(steps, dropout=0.1, push_to=REPO), tmp_path / "machine0" / "first"
    hub.faults.append(Fault("ada/code", slow(0.01), 10**6))  # so that a push takes a while
    hits, elsewhere = 0, 0
    for number in range(4 * KILLS):
        if hits >= KILLS and elsewhere:
            break
        word = rng.choice(["/commit/", "PUT /lfs/", "/info/lfs/", "/preupload/"])
        hits += kill_while_pushing(hub, config, folder, word, rng.randint(1, 3), rng.uniform(0, 0.05))
        titles = hub.titles(REPO, "first")
        assert len(titles) == len(set(titles)), titles
        if len(titles) > 1:  # as a stranger sees it
            got = snapshot_download(REPO, revision="first", cache_dir=tmp_path / "cache")
            assert checkpoints.damage(tmp_path / "cache" / got / "checkpoint") is None
        if rng.random() < 0.5 and len(titles) > 1:  # go on at another machine, from the branch alone
            shutil.rmtree(folder)
            folder, elsewhere = tmp_path / f"machine{number}" / "first", elsewhere + 1
    assert hits >= KILLS
    assert elsewhere >= 1
    hub.faults.clear()
    last = start(push_in_child, config, folder, WRITE)
    last.join()
    assert last.exitcode == 0
    assert weights(folder) == weights(tmp_path / "whole")
    titles = hub.titles(REPO, "first")
    assert titles[0].startswith(f"step {steps['train_steps']}:")
    assert len(titles) == len(set(titles))
