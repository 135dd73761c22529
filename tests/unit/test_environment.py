"""The machine report: decisions with reasons, costs before they arise."""

import pytest
import torch

from course_utils import environment
from course_utils.profiles import PROFILES, get_profile


@pytest.mark.parametrize(
    ("device", "computes_bf16", "name"),
    [
        ("cuda", True, "bf16"),
        ("cuda", False, "fp16"),
        ("mps", 0, "fp32"),
        ("cpu", True, "bf16"),
        ("cpu", False, "fp32"),
    ],
)
def test_every_device_gets_a_precision_it_has(monkeypatch, device, computes_bf16, name):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: computes_bf16)
    monkeypatch.setattr(environment, "_cpu_computes_bf16", lambda: computes_bf16)
    precision = environment.choose_precision(torch.device(device))
    assert precision.name == name
    assert precision.trainer_flags == {"bf16": name == "bf16", "fp16": name == "fp16"}


@pytest.mark.parametrize(
    ("found", "variable", "chosen"),
    [("cuda", "", "cuda"), ("mps", "", "mps"), ("cpu", "", "cpu"), ("cuda", "true", "cpu")],
)
def test_the_fastest_device_is_chosen_unless_accelerate_wants_the_processor(monkeypatch, found, variable, chosen):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: found == "cuda")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: found in ("cuda", "mps"))
    monkeypatch.setenv("ACCELERATE_USE_CPU", variable or "false")
    assert environment.choose_device() == torch.device(chosen)


def test_cost_is_measured_and_grows_with_the_training():
    machine, steps = environment.describe(), get_profile("tiny").train_steps
    profiles = [get_profile("tiny", train_steps=number) for number in (steps, 100 * steps)]
    short, long = (environment.profile_cost(profile, machine, steps=1).minutes for profile in profiles)
    assert short > 0
    assert long > 10 * short


def test_a_training_that_cannot_fit_is_not_tried_and_refused_with_the_remedy():
    machine = environment.describe()
    machine.device, machine.free_memory_gb, machine.disk_free_gb = "cpu", 0.5, 0.01
    cost = environment.profile_cost(PROFILES["full"], machine)
    assert "too little free memory" in cost.note
    with pytest.raises(MemoryError, match=r"needs about .* GB of memory.*smaller profile"):
        environment.check_costs(cost, machine)
    machine.free_memory_gb = 1000.0
    with pytest.raises(OSError, match=r"GB of disk.*COURSE_HOME"):
        environment.check_costs(cost, machine)


@pytest.mark.parametrize(("minutes", "depth"), [(15, 3), (1.4, 5), (1e6, None), (float("nan"), None)])
def test_plans_grow_with_the_machine_and_leave_out_what_is_unknown_or_too_slow(minutes, depth):
    plans = environment.training_plans(environment.Cost("laptop", minutes, 1.0, 1.0, ""))
    assert [plan.depth for plan in plans.pop("here", ())] == ([depth] * 2 if depth else [])
    assert list(plans) == [f"{count} x {name}" for count in (1, 8) for name in ("T4", "A100", "H100")]
    for name, plan in plans.items():
        slow, fast = (6 * size.parameters * size.tokens / 300 for size in plan)  # operations per second
        peak = int(name[0]) * environment.PEAKS[name.split()[-1]]
        assert slow <= fast <= 0.4 * peak
        assert slow > 0.05 * peak  # blocks come whole, so a plan may fall short of 20 %


@pytest.mark.parametrize(
    ("minutes", "text"),
    [(0.2, "under 1 min"), (8.4, "8 min"), (150, "2 hours"), (60 * 24 * 259, "259 days"), (float("nan"), "-")],
)
def test_durations_have_the_unit_that_people_use(minutes, text):
    assert environment.readable_duration(minutes) == text
