"""What this machine is, and what the course will cost on it; it decides nothing that a profile decides.

Every decision returns its reason, so that a notebook can print both.
"""

import os
import platform
import sys
import time
from dataclasses import dataclass

import psutil
import torch
from accelerate.utils import parse_flag_from_env

from course_utils import cache
from course_utils.profiles import PROFILES, Profile

GB = 1e9
# Seconds of training per second of the bare steps measured below: evaluation, checkpoints, logging.
_OVERHEAD = 1.15


@dataclass(frozen=True)
class Precision:
    """A number format for training, and why this machine uses it."""

    name: str
    reason: str

    @property
    def dtype(self) -> torch.dtype:
        """The torch type in which matrix products are computed."""
        return {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}[self.name]

    @property
    def mixed_precision(self) -> str:
        """What `Accelerator` calls it."""
        return "no" if self.name == "fp32" else self.name

    @property
    def trainer_flags(self) -> dict[str, bool]:
        """The switches that `TrainingArguments` wants for it."""
        return {"bf16": self.name == "bf16", "fp16": self.name == "fp16"}


@dataclass(frozen=True)
class Machine:
    """This machine as the course sees it; memory and disk in GB (10^9 bytes)."""

    device: str
    device_name: str
    precision: str
    precision_reason: str
    cores: int
    memory_gb: float
    free_memory_gb: float
    disk_free_gb: float
    python: str
    platform: str
    colab: bool
    versions: dict[str, str]


@dataclass(frozen=True)
class Cost:
    """What the training of one profile needs here: minutes, GB of memory and disk, and a note on how it was found."""

    profile: str
    minutes: float
    memory_gb: float
    disk_gb: float
    note: str


def readable_duration(minutes: float) -> str:
    """Write a duration in the unit that people would use; a dash for one that is not known."""
    if minutes != minutes:
        return "-"
    if minutes < 1:
        return "under 1 min"
    units = (("min", 1, 120), ("hours", 60, 48 * 60), ("days", 24 * 60, float("inf")))
    unit, size = next((unit, size) for unit, size, limit in units if minutes < limit)
    return f"{minutes / size:.0f} {unit}"


def choose_device() -> torch.device:
    """Return the fastest device that torch finds: CUDA, then MPS (Apple), then the processor.

    The processor, too, where Accelerate was told to use it (`accelerate launch --cpu`, ACCELERATE_USE_CPU).
    """
    if parse_flag_from_env("ACCELERATE_USE_CPU"):
        return torch.device("cpu")
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def choose_precision(device: torch.device | None = None) -> Precision:
    """Choose the number format for training on `device`, with the reason.

    fp16 on a processor is silently ignored by the Trainer, so it is never chosen there.
    """
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
    """Look at this machine: device, precision, cores, memory, disk, versions."""
    device = choose_device()
    precision = choose_precision(device)
    memory = psutil.virtual_memory()
    libraries = ("torch", "transformers", "datasets", "accelerate", "tokenizers", "huggingface_hub")
    return Machine(
        device=device.type,
        device_name=torch.cuda.get_device_name() if device.type == "cuda" else platform.processor() or "processor",
        precision=precision.name,
        precision_reason=precision.reason,
        cores=available_cores(),
        memory_gb=memory.total / GB,
        free_memory_gb=memory.available / GB,
        disk_free_gb=cache.free_bytes() / GB,
        python=platform.python_version(),
        platform=platform.platform(terse=True),
        colab="google.colab" in sys.modules or "COLAB_RELEASE_TAG" in os.environ,
        versions=cache.library_versions(*libraries),
    )


def available_cores() -> int:
    """Cores that this process may use, which can be fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def profile_costs(machine: Machine | None = None) -> list[Cost]:
    """Measure a few training steps of every profile here, and extrapolate to the whole training."""
    machine = machine or describe()
    return [profile_cost(profile, machine) for profile in PROFILES.values()]


def profile_cost(profile: Profile, machine: Machine, steps: int = 2) -> Cost:
    """Estimate what the training of one profile costs on `machine`, from `steps` measured steps.

    Memory counts weights, gradients, two AdamW moments and the logits of one batch (three copies in fp32).
    """
    parameters = _parameters(profile)
    logits = 3 * 4 * profile.batch_size * profile.context_length * profile.vocab_size
    memory = 1.0 + (16 * parameters + logits) / GB
    disk = 2 * 12 * parameters / GB + (0.4 if profile.name == "laptop" else 0.1)
    total_steps, note = profile.train_steps, f"{steps} steps measured"
    if total_steps == -1:  # one pass over the tutorials' 16.7 million sequences of 128 tokens
        total_steps = 16_702_061 // (profile.batch_size * profile.accumulation_steps)
        note = "one pass over the tutorials' data; " + note
        disk += 12.0
    if memory > (machine.free_memory_gb if machine.device != "cuda" else _gpu_gb()):
        return Cost(profile.name, float("nan"), memory, disk, "not measured: too little free memory here")
    seconds = _seconds_per_step(profile, steps) * total_steps * _OVERHEAD
    return Cost(profile.name, seconds / 60, memory, disk, note)


def _gpu_gb() -> float:
    return torch.cuda.mem_get_info()[0] / GB


def _parameters(profile: Profile) -> int:
    width = profile.model_width
    return width * (profile.vocab_size + profile.context_length) + 12 * profile.model_layers * width**2


def _seconds_per_step(profile: Profile, steps: int) -> float:
    """Time forward, backward and update on a few sequences, and scale to all sequences of an optimizer step."""
    from course_utils.models.causal import build_causal_lm  # slow import, wanted only here

    device = choose_device()
    precision = choose_precision(device)
    model = build_causal_lm(profile).to(device)
    optimizer = torch.optim.AdamW(model.parameters())
    # On a processor a large model would take minutes per batch, and its speed hardly depends on the batch.
    sequences = min(profile.batch_size, 2) if device.type == "cpu" and profile.model_width > 512 else profile.batch_size
    ids = torch.randint(profile.vocab_size, (sequences, profile.context_length), device=device)
    times = []
    for _ in range(steps + 1):
        start = time.perf_counter()
        with torch.autocast(device.type, precision.dtype, enabled=precision.name != "fp32"):
            loss = model(ids, labels=ids).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        loss.item()  # waits for the device
        times.append(time.perf_counter() - start)
    return min(times[1:]) * profile.accumulation_steps * profile.batch_size / sequences


def check_costs(cost: Cost, machine: Machine) -> None:
    """Raise `MemoryError` or `OSError` with the remedy if `machine` cannot carry a training that costs `cost`."""
    free = _gpu_gb() if machine.device == "cuda" else machine.free_memory_gb
    if cost.memory_gb > free:
        raise MemoryError(
            f"the profile {cost.profile!r} needs about {cost.memory_gb:.1f} GB of memory, {free:.1f} GB are free. "
            "Close other programs, choose a smaller profile (COURSE_PROFILE), or set COURSE_BATCH_SIZE lower."
        )
    if cost.disk_gb > machine.disk_free_gb:
        raise OSError(
            f"the profile {cost.profile!r} needs about {cost.disk_gb:.1f} GB of disk, {machine.disk_free_gb:.1f} GB "
            "are free. Free some space, or set COURSE_HOME to a folder on another disk."
        )
