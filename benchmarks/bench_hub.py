"""Throughput of the loop with pushes in the background against without: same model, same data, same checkpoints.

The Hub is one on this machine, in a process of its own, so the client's work counts and the network does not. Both ways
take turns; what counts is the time from the first step to the last, checkpoints included, pushes after the end not.
"""

import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

NAME = "training with pushes against without"
TARGETS = {NAME: 0.95}
STEPS, SAVES, REPETITIONS = 90, 30, 3


def run() -> list[dict]:
    with tempfile.TemporaryDirectory() as scratch:
        command = [sys.executable, "-m", "local_hub", "--folder", f"{scratch}/hub", "--port", "0"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as hub:
            try:
                lines = [hub.stdout.readline() for _ in range(7)]
                variables = dict(re.findall(r"export (\w+)=(\S+)", "".join(lines))) | {"HF_HUB_OFFLINE": "0"}
                runs = [(way, f"{scratch}/{way}{n}") for n in range(REPETITIONS) for way in ("off", "on")]
                speeds = [measure(way, folder, variables) for way, folder in runs]
            finally:
                hub.terminate()
    ratios = [on / off for off, on in zip(speeds[::2], speeds[1::2], strict=True)]
    found = {"name": NAME, "ours": statistics.median(speeds[1::2]), "theirs": statistics.median(speeds[::2])}
    spread = {"ratio": statistics.median(ratios), "spread": (min(ratios), max(ratios))}
    return [found | spread | {"unit": "tokens/s"}]


def measure(way: str, folder: str, variables: dict[str, str]) -> float:
    command = [sys.executable, "-m", "benchmarks.bench_hub", way, folder]
    finished = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ | variables)
    return json.loads(finished.stdout.splitlines()[-1])


def train(way: str, folder: str) -> float:
    """Train, and return the tokens in a second."""
    from huggingface_hub import HfApi

    from course_utils.profiles import PROFILES
    from course_utils.train import run_training
    from course_utils.training import loop
    from course_utils.training.config import TrainConfig

    model = PROFILES["laptop"]  # on the data of tiny, which are there sooner
    names = ("model_layers", "model_width", "model_heads", "context_length", "batch_size", "learning_rate")
    shape = {name: getattr(model, name) for name in names}
    profile = replace(PROFILES["tiny"], train_steps=STEPS, eval_steps=SAVES, save_steps=SAVES, **shape)
    config = TrainConfig(profile, tracker="none", push_to="learner/bench" if way == "on" else "")
    begun, inner = [], loop.train

    def timed(*arguments):
        start = time.perf_counter()
        result = inner(*arguments)
        begun.append(time.perf_counter() - start)
        return result

    loop.train = timed
    run_training(config, Path(folder), resume="no")
    if way == "on":
        last = HfApi().list_repo_commits("learner/bench", revision=Path(folder).name)[0]
        assert last.title.startswith(f"step {STEPS}:")
    return STEPS * profile.tokens_per_step / begun[0]


if __name__ == "__main__":
    print(json.dumps(train(*sys.argv[1:])))
