"""Training throughput of the course's loop against the Trainer: same model, same data, same number format.

Both train the model of `laptop` on real code. They take turns, each in a process of its own, and the faster half of the
steps counts, since other work on the machine only ever makes steps slower.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

TARGETS = {"training loop against the Trainer": 1}
STEPS, WARM = 36, 6
REPETITIONS = 3


def run() -> list[dict]:
    pairs = [(measure("trainer"), measure("loop")) for _ in range(REPETITIONS)]
    theirs, ours = (statistics.median(pair[side] for pair in pairs) for side in (0, 1))
    name = "training loop against the Trainer"
    return [{"name": name, "ours": ours, "theirs": theirs, "ratio": ours / theirs, "unit": "tokens/s"}]


def measure(way: str) -> float:
    command = [sys.executable, "-m", "benchmarks.bench_loop", way]
    finished = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ)
    return json.loads(finished.stdout.splitlines()[-1])


def profile():
    from dataclasses import replace

    from course_utils.profiles import PROFILES

    model = PROFILES["laptop"]  # on the data of tiny, which are there sooner
    names = ("model_layers", "model_width", "model_heads", "context_length", "batch_size", "learning_rate")
    shape = {name: getattr(model, name) for name in names}
    return replace(PROFILES["tiny"], train_steps=STEPS, eval_steps=1000, save_steps=1000, warmup_steps=10, **shape)


def speed(times: list[float], tokens_per_step: int) -> float:
    steps = sorted(after - before for before, after in zip(times[WARM:], times[WARM + 1 :], strict=False))
    return tokens_per_step / statistics.mean(steps[: len(steps) // 2])


def with_loop(folder: str) -> float:
    from course_utils import artifacts
    from course_utils.training import loop
    from course_utils.training.config import TrainConfig

    config = TrainConfig(profile(), tracker="none")
    accelerator, _ = loop.make_accelerator(config, folder)
    tokenizer = artifacts.code_tokenizer(config.profile)
    run = loop.prepare(config, tokenizer, artifacts.packed_data(config.profile), accelerator)
    times = []
    for _, _ in zip(range(STEPS), loop.optimizer_steps(run), strict=False):
        times.append(time.perf_counter())
    return speed(times, config.profile.tokens_per_step)


def with_trainer(folder: str) -> float:
    from transformers import TrainerCallback

    from course_utils import artifacts
    from course_utils.training import pretraining

    times = []

    class Clock(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            times.append(time.perf_counter())

    chosen = profile()
    data = artifacts.packed_data(chosen)
    trainer = pretraining.make_trainer(chosen, artifacts.code_tokenizer(chosen), data, folder)
    trainer.args.eval_on_start, trainer.args.save_strategy, trainer.args.disable_tqdm = False, "no", True
    trainer.add_callback(Clock())
    trainer.train()
    return speed(times, chosen.tokens_per_step)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        result = {"loop": with_loop, "trainer": with_trainer}[sys.argv[1]](scratch)
    print(json.dumps(result))
