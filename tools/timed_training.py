"""Train one recipe in a process of its own: how fast, in how much memory, and how far it gets in so many seconds.

First a few steps tell how many fit into the seconds, then a fresh training of that length is timed, so that every
schedule comes to its end. Only steps count: not the start, the compiler, nor the evaluations in between.
"""

import contextlib
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import psutil
import torch
from accelerate import Accelerator
from torch.nn import functional as F
from transformers import Trainer, TrainerCallback, get_scheduler

from course_utils import artifacts
from course_utils.environment import choose_device, choose_precision
from course_utils.models.causal import build_causal_lm
from course_utils.profiles import PROFILES, Profile
from course_utils.training import heldout, loop, pretraining
from course_utils.training.config import TrainConfig
from course_utils.training.loaders import create_dataloaders
from course_utils.training.optimization import get_grouped_params
from tools.recipes import Recipe, find

ROOT = Path(__file__).parents[1]
HELD_OUT_TOKENS = 38_400  # the same text for all, in rows of each recipe's length
# Steps that tell the speed, and how many of them are left out. With 12 and 4, the rungs of R10 got 84 to 143 s of 100.
TRIAL, WARM = 40, 5


class Clock:
    """Time steps, and evaluate after those at `shares` of all; what happens between two steps does not count."""

    def __init__(self, steps: int, shares: Sequence[float] = ()) -> None:
        """Plan the evaluations; without shares there are none."""
        self.steps, self.due = steps, {max(1, round(share * steps)) for share in shares}
        self.times: list[float] = []
        self.points: list[tuple[int, float, float]] = []  # step, seconds, bits per byte
        self.compiled = False
        self.memory = {}

    def begin(self, evaluate: Callable[[], float]) -> None:
        """Start the clock, with everything prepared."""
        self.evaluate = evaluate
        if self.due:
            self._measure()
        self.memory = {"peak_mb_before": _reset_peak()}
        self.last = time.perf_counter()

    def step(self) -> None:
        """Note the end of a step."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.times.append(time.perf_counter() - self.last)
        if len(self.times) == self.steps:
            self.memory["peak_mb"] = _peak()
        if len(self.times) in self.due:
            self._measure()
        self.last = time.perf_counter()

    def _measure(self) -> None:
        self.points.append((len(self.times), sum(self.times), self.evaluate()))


def _peak() -> float:
    """Return the most memory of this process so far (on a GPU: of its tensors), in MB of 10^6 bytes."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e6
    with contextlib.suppress(OSError, StopIteration):  # Linux, where it can be reset
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) * 1024 / 1e6
    memory = psutil.Process().memory_info()
    if hasattr(memory, "peak_wset"):  # Windows
        return memory.peak_wset / 1e6
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # bytes on macOS


def _reset_peak() -> float:
    """Let the peak begin anew where the system can, and return the one until now: that of preparing and compiling."""
    before = _peak()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    return before


def load_data(profile: Profile, tokens: int) -> pretraining.PackedData:
    """Return the profile's rows, with about `tokens` held-out tokens that are the same text for every row length."""
    data = artifacts.packed_data(replace(profile, eval_sequences=10**9))  # all rows
    longest = 8 * 64  # tokens of a piece of text; context lengths of recipes divide it
    pieces = len(data.validation) * profile.context_length // longest
    count, rows = min(pieces, max(1, tokens // longest)), longest // profile.context_length
    chosen = [pieces * i // count * rows + row for i in range(count) for row in range(rows)]
    return replace(data, validation=data.validation.select(chosen))


def with_loop(config: TrainConfig, recipe: Recipe, data: pretraining.PackedData, tokenizer: Any, clock: Clock) -> None:
    """Train with the course's loop."""
    with tempfile.TemporaryDirectory() as folder:
        accelerator, _ = loop.make_accelerator(config, folder)
        run = loop.prepare(config, tokenizer, data, accelerator)
        warmup = recipe.warmup_steps(clock.steps)
        if warmup != config.warmup_steps(clock.steps):  # the loop would shorten it
            run.scheduler = get_scheduler(config.schedule, run.optimizer, warmup, clock.steps)
        bare = accelerator.unwrap_model(run.model, keep_fp32_wrapper=True)
        clock.compiled = getattr(bare, "_compiled_call_impl", None) is not None
        evaluate = heldout.evaluate
        clock.begin(lambda: evaluate(run.model, run.eval_loader, accelerator, data.tokens_per_byte).bits_per_byte)
        for _ in islice(loop.optimizer_steps(run), clock.steps):
            clock.step()


def with_trainer(
    config: TrainConfig, recipe: Recipe, data: pretraining.PackedData, tokenizer: Any, clock: Clock
) -> None:
    """Train with the library's Trainer, as notebook 04 does."""
    trainer: Trainer

    class Watch(TrainerCallback):
        def on_train_begin(self, args, state, control, **kwargs):
            loader = create_dataloaders(data.train, data.validation, config.profile.batch_size)[1]
            clock.begin(lambda: _bits(trainer.model, loader, trainer.accelerator, data))

        def on_step_end(self, args, state, control, **kwargs):
            clock.step()

    with tempfile.TemporaryDirectory() as folder:
        trainer = pretraining.make_trainer(config.profile, tokenizer, data, Path(folder), config.dropout)
        trainer.args.eval_strategy = trainer.args.save_strategy = trainer.args.logging_strategy = "no"
        trainer.args.eval_on_start, trainer.args.disable_tqdm = False, True
        trainer.add_callback(Watch())
        trainer.train()


def with_plain_loop(
    config: TrainConfig, recipe: Recipe, data: pretraining.PackedData, tokenizer: Any, clock: Clock
) -> None:
    """Train in the way of nanoGPT: rows from anywhere in the text, model and loss compiled together, fused AdamW."""
    profile, device, precision = config.profile, choose_device(), choose_precision()
    model = build_causal_lm(profile, tokenizer, config.dropout).to(device)
    text = torch.from_numpy(data.train.with_format("numpy")["input_ids"][:].astype("int32").reshape(-1))
    groups = get_grouped_params(model, profile.weight_decay)
    optimizer = torch.optim.AdamW(groups, lr=profile.learning_rate, betas=(0.9, 0.95), fused=True)
    scheduler = get_scheduler("cosine", optimizer, recipe.warmup_steps(clock.steps), clock.steps)
    accelerator = Accelerator(cpu=device.type == "cpu", mixed_precision=precision.mixed_precision)

    def loss_of(rows: torch.Tensor) -> torch.Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=precision.name == "bf16"):
            logits = model(rows[:, :-1], use_cache=False).logits
        return F.cross_entropy(logits.float().flatten(0, 1), rows[:, 1:].flatten())

    torch.manual_seed(profile.seed)
    offsets = torch.arange(profile.context_length + 1)

    def draw() -> torch.Tensor:
        starts = torch.randint(len(text) - profile.context_length, (profile.batch_size, 1))
        return text[starts + offsets].long().to(device)

    model.train()
    step_loss = _compiled(loss_of, draw(), clock) if config.compile else loss_of
    model.zero_grad()
    loader = create_dataloaders(data.train, data.validation, profile.batch_size)[1]
    clock.begin(lambda: _bits(model, loader, accelerator, data))
    for _ in range(clock.steps):
        loss = step_loss(draw())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad(set_to_none=True)
        clock.step()


def _compiled(function: Callable[..., torch.Tensor], rows: torch.Tensor, clock: Clock) -> Callable[..., torch.Tensor]:
    compiled = torch.compile(function)
    try:
        compiled(rows).backward()
    except Exception as error:  # each compiler has its own
        print(f"Not compiled: {error}")
        return function
    clock.compiled = True
    return compiled


def _bits(model: Any, loader: Any, accelerator: Accelerator, data: pretraining.PackedData) -> float:
    batches = ({name: rows.to(accelerator.device) for name, rows in batch.items()} for batch in loader)
    return heldout.evaluate(model, batches, accelerator, data.tokens_per_byte).bits_per_byte


WAYS = {"loop": with_loop, "trainer": with_trainer, "plain": with_plain_loop}


def timed_run(
    recipe: Recipe, seed: int, seconds: float = 0, steps: int = 0, shares: Sequence[float] = (),
    held_out_tokens: int = HELD_OUT_TOKENS,
) -> dict[str, Any]:  # fmt: skip
    """Train for so many seconds (measured beforehand) or steps; return speed, memory, the curve, and what was used.

    `setup_seconds` are those of the first preparation, the compiler included, and of the second, with what it kept.
    """
    tokenizer = artifacts.code_tokenizer(recipe.config.profile)
    data = load_data(recipe.config.profile, held_out_tokens)
    setups = []

    def train(length: int, moments: Sequence[float]) -> Clock:
        clock, start = Clock(length, moments), time.perf_counter()
        began = clock.begin

        def begin(evaluate: Callable[[], float]) -> None:
            setups.append(time.perf_counter() - start)
            began(evaluate)

        clock.begin = begin
        WAYS[recipe.way](recipe.with_length(length, seed), recipe, data, tokenizer, clock)
        return clock

    if seconds:
        steps = max(2, round(seconds / statistics.fmean(train(TRIAL, ()).times[WARM:])))
    clock = train(steps, shares)
    profile = recipe.config.profile
    speed = profile.tokens_per_step / statistics.median(clock.times[min(WARM, steps - 1) :])
    precision = recipe.config.precision
    return {
        "seconds": round(sum(clock.times), 2), "steps": steps, "tokens": steps * profile.tokens_per_step,
        "tokens_per_second": round(speed, 1), "setup_seconds": [round(s, 1) for s in setups],
        "compiled": clock.compiled,
        "precision": choose_precision().name if precision == "auto" else precision,
        **{name: round(value) for name, value in clock.memory.items()},
        "curve": {
            "seconds": [round(point[1], 2) for point in clock.points],
            "tokens": [point[0] * profile.tokens_per_step for point in clock.points],
            "bits_per_byte": [round(point[2], 4) for point in clock.points],
        },
    }  # fmt: skip


def measure(profile: Profile, name: str, seed: int, compiled: Path | None = None, **budget: Any) -> dict[str, Any]:
    """Run `timed_run` for a recipe in a fresh process.

    What the compiler makes goes into the folder `compiled`, or nowhere: half a file in the user's own cache, left by a
    process that was killed, would keep later ones from compiling.
    """
    job = json.dumps({"profile": profile.name, "name": name, "seed": seed, **budget})
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"TORCHINDUCTOR_CACHE_DIR": str(compiled or folder)}
        command = [sys.executable, "-m", "tools.timed_training", job]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, encoding="utf-8")
    if done.returncode:
        sys.exit(f"{name}, seed {seed}, failed:\n{done.stderr[-3000:]}")
    result = json.loads(done.stdout.splitlines()[-1])
    if "not_compiled" in result:
        print(f"{name}: {result['not_compiled']}", file=sys.stderr)
    return result


def main() -> None:
    """Do the job in the first argument, and print the result as the last line."""
    job = json.loads(sys.argv[1])
    recipe = find(PROFILES[job.pop("profile")], job.pop("name"))
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        result = timed_run(recipe, **job)
    if recipe.config.compile and not result["compiled"]:
        result["not_compiled"] = said.getvalue()[-500:]  # the reason is said last
    print(json.dumps(result))


if __name__ == "__main__":
    main()
