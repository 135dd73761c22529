"""What this machine is, and what the course will cost on it; every decision returns its reason, to be printed."""

import functools
import importlib.metadata
import itertools
import math
import os
import platform
import sys
import time
from collections import namedtuple
from types import SimpleNamespace as Machine
from typing import NamedTuple

import torch
from accelerate.utils import parse_flag_from_env

from course_utils import cache, limits
from course_utils.models import causal
from course_utils.profiles import PROFILES, Profile
from course_utils.training.config import modern

GB = 1e9
_OVERHEAD = 1.15  # seconds of training per second of the bare steps below: evaluation, checkpoints, logging
_LARGE = 50_000_000  # parameters
_TUTORIAL_SEQUENCES = 16_702_061  # of 128 tokens, in one pass over the tutorials' data


class Precision(NamedTuple):
    """A number format for training, and why this machine uses it."""

    name: str
    reason: str

    @property
    def mixed_precision(self) -> str:
        """What `Accelerator` calls it."""
        return "no" if self.name == "fp32" else self.name

    @property
    def trainer_flags(self) -> dict[str, bool]:
        """The switches that `TrainingArguments` wants for it."""
        return {"bf16": self.name == "bf16", "fp16": self.name == "fp16"}


class Cost(NamedTuple):
    """What the training of one profile needs here: minutes, GB of memory and disk, how that was found, and the work."""

    profile: str
    minutes: float
    memory_gb: float
    disk_gb: float
    note: str
    parameters: int = 0
    tokens: int = 0


def readable_duration(minutes: float) -> str:
    """Return a duration in the unit that people would use; a dash for one that is not known."""
    if minutes < 1:
        return "under 1 min"
    if math.isnan(minutes):
        return "-"
    size, unit = (1, "min") if minutes < 120 else (60, "hours") if minutes < 48 * 60 else (24 * 60, "days")
    return f"{minutes / size:.0f} {unit}"


def choose_device() -> torch.device:
    """Return the fastest device that torch finds: CUDA, then MPS (Apple), then the processor."""
    if (most := max(1, int(limits.cores()[0]))) < torch.get_num_threads():  # beyond a quota they hinder each other
        torch.set_num_threads(most)
    if parse_flag_from_env("ACCELERATE_USE_CPU"):  # what `accelerate launch --cpu` sets
        return torch.device("cpu")
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def choose_precision(device: torch.device | None = None) -> Precision:
    """Choose the number format for training; never fp16 on a processor, where the Trainer silently ignores it."""
    device = device or choose_device()
    if device.type == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return Precision("bf16", "this GPU computes bf16 in hardware")
        return Precision("fp16", "this GPU has no bf16 in hardware, but fp16 with loss scaling")
    if device.type == "mps":
        return Precision("fp32", "mixed precision on Apple's GPU has not been tried by this course")
    if _cpu_computes_bf16():
        return Precision("bf16", "this processor has bf16 instructions (AVX-512 BF16 or AMX)")
    return Precision("fp32", "torch reports no bf16 instructions here, and fp16 is not faster on a processor")


def _cpu_computes_bf16() -> bool:
    # torch has no public question for this; without the private one we stay with fp32, which is always right.
    tests = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return any(test() for test in tests if test is not None)


def describe() -> Machine:
    """Return what this machine is: device, precision, cores, memory and disk in GB (10^9 bytes), versions."""
    device, precision = choose_device(), choose_precision()
    (memory, free_memory, machine_memory), (cores, seen_cores) = limits.memory(), limits.cores()
    libraries = ("torch", "transformers", "datasets", "accelerate", "tokenizers", "huggingface_hub")
    return Machine(
        device=device.type,
        device_name=torch.cuda.get_device_name() if device.type == "cuda" else platform.processor() or "processor",
        precision=precision.name,
        precision_reason=precision.reason,
        cores=cores,
        memory_gb=memory / GB,
        free_memory_gb=free_memory / GB,
        bounds="this container or job" if memory < machine_memory or cores < seen_cores else "this machine",
        disk_free_gb=cache.free_bytes(cache.home()) / GB,
        python=platform.python_version(),
        platform=platform.platform(terse=True),
        colab="google.colab" in sys.modules or "COLAB_RELEASE_TAG" in os.environ,
        versions={name: importlib.metadata.version(name) for name in libraries},
    )


def profile_cost(profile: Profile, machine: Machine, steps: int = 2) -> Cost:
    """Estimate what the training of one profile costs on `machine`, from `steps` measured steps.

    A processor would need minutes and gigabytes for a few steps of a large model. There its time is that of `laptop`,
    times how much more work it is: the work of a training grows with parameters times tokens.
    """
    parameters, total_steps = _parameters(profile), profile.train_steps
    logits = 3 * 4 * profile.batch_size * profile.context_length * profile.vocab_size  # three copies in fp32
    memory = 1.0 + (16 * parameters + logits) / GB  # 16: weights, gradients, two AdamW moments
    disk = 2 * 12 * parameters / GB + (0.4 if profile.name == "laptop" else 0.1)
    note = ""
    if total_steps == -1:
        total_steps = _TUTORIAL_SEQUENCES // (profile.batch_size * profile.accumulation_steps)
        note = "one pass over the HF course's data; "
        disk += 12.0
    tokens = total_steps * profile.tokens_per_step
    if memory > _free_memory_gb(machine):
        minutes, found = float("nan"), "not measured: too little free memory here"
    elif machine.device == "cpu" and parameters > _LARGE:
        known = profile_cost(PROFILES["laptop"], machine, steps)
        minutes = known.minutes * parameters * tokens / (known.parameters * known.tokens)
        found = "scaled from laptop"
    else:
        minutes, found = _seconds_per_step(profile, steps) * total_steps * _OVERHEAD / 60, f"{steps} steps measured"
    return Cost(profile.name, minutes, memory, disk, note + found, parameters, tokens)


def _free_memory_gb(machine: Machine) -> float:
    return torch.cuda.mem_get_info()[0] / GB if machine.device == "cuda" else machine.free_memory_gb


# What makers promise for products of 16-bit numbers, in operations per second, and the share that trainings reach.
PEAKS, _SHARES = {"T4": 65e12, "A100": 312e12, "H100": 989e12}, (0.2, 0.4)
Plan = namedtuple("Plan", "depth parameters tokens")  # a size of the modern recipe, and how much it reads


def training_plans(laptop: Cost, minutes: float = 5) -> dict[str, tuple[Plan, ...]]:
    """Estimate the largest sizes that `minutes` allow here, on one GPU, and on eight: for each, slow and fast.

    A training takes 6 operations per parameter and token. `laptop` is that profile's measured cost here. A machine that
    was not measured, or is too slow for a single block, has no plan.
    """
    known = PROFILES["laptop"]
    operations = 6 * _parameters(known) * known.train_steps * known.tokens_per_step
    speeds = {"here": [operations * _OVERHEAD / (60 * laptop.minutes)] * 2}
    for count, (name, peak) in itertools.product((1, 8), PEAKS.items()):
        speeds[f"{count} x {name}"] = [count * peak * share for share in _SHARES]
    plans = {name: tuple(_largest(60 * minutes * speed) for speed in pair) for name, pair in speeds.items()}
    return {name: pair for name, pair in plans.items() if all(pair)}


def _largest(operations: float) -> Plan | None:
    fitting = itertools.takewhile(lambda p: 6 * p.parameters * p.tokens <= operations, map(_plan, itertools.count(1)))
    return max(fitting, default=None)


@functools.cache
def _plan(depth: int) -> Plan:
    profile = modern(depth).profile
    return Plan(depth, _parameters(profile, "qwen3"), profile.train_steps * profile.tokens_per_step)


def _parameters(profile: Profile, architecture: str = "gpt2") -> int:
    with torch.device("meta"):
        return causal.count_parameters(causal.build_causal_lm(profile, architecture=architecture))


@functools.cache
def _seconds_per_step(profile: Profile, steps: int) -> float:
    """Time forward, backward and update on one batch, and scale to all batches of an optimizer step."""
    device = choose_device()
    number_format = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(choose_precision().name)
    model = causal.build_causal_lm(profile).to(device)
    optimizer = torch.optim.AdamW(model.parameters())
    ids = torch.randint(profile.vocab_size, (profile.batch_size, profile.context_length), device=device)
    times = []
    for _ in range(steps + 1):
        start = time.perf_counter()
        with torch.autocast(device.type, number_format, enabled=number_format is not None):
            loss = torch.nn.functional.cross_entropy(model(ids).logits.flatten(0, 1), ids.flatten())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        loss.item()  # waits for the device
        times.append(time.perf_counter() - start)
    return min(times[1:]) * profile.accumulation_steps


def check_costs(cost: Cost, machine: Machine) -> None:
    """Raise `MemoryError` or `OSError` with the remedy if `machine` cannot carry a training that costs `cost`."""
    text = "the profile {!r} needs about {:.1f} GB of {}, {:.1f} GB are free. Free some, {}"
    remedy = "choose a smaller profile (COURSE_PROFILE), or set COURSE_BATCH_SIZE lower."
    if cost.memory_gb > (free := _free_memory_gb(machine)):
        raise MemoryError(text.format(cost.profile, cost.memory_gb, f"memory in {machine.bounds}", free, remedy))
    if cost.disk_gb > (free := machine.disk_free_gb):
        raise OSError(text.format(cost.profile, cost.disk_gb, "disk", free, "or set COURSE_HOME to another disk."))
