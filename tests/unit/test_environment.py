"""The machine report: decisions with reasons, costs before they arise."""

from dataclasses import replace

import pytest
import torch

from course_utils import environment
from course_utils.profiles import PROFILES, get_profile


def test_precision_on_a_processor_is_never_fp16_and_has_a_reason():
    precision = environment.choose_precision(torch.device("cpu"))
    assert precision.name in ("bf16", "fp32")
    assert "processor" in precision.reason
    assert precision.trainer_flags["fp16"] is False


def test_bf16_is_chosen_exactly_where_the_processor_computes_it():
    flags = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    expected = environment._cpu_computes_bf16()
    assert (environment.choose_precision(torch.device("cpu")).name == "bf16") == expected
    if "avx512_bf16" in flags:
        assert expected == (flags["avx512_bf16"] or flags.get("amx_tile", False))


def test_describe_is_complete():
    machine = environment.describe()
    assert machine.cores >= 1
    assert 0 < machine.free_memory_gb <= machine.memory_gb
    assert machine.disk_free_gb > 0
    assert set(machine.versions) >= {"torch", "transformers", "datasets", "accelerate"}
    assert not machine.colab


def test_cost_is_measured_and_grows_with_the_training():
    machine = environment.describe()
    profile = get_profile("tiny")
    short = environment.profile_cost(profile, machine, steps=1)
    long = environment.profile_cost(replace(profile, train_steps=100 * profile.train_steps), machine, steps=1)
    assert 0 < short.minutes < 5
    assert long.minutes > 10 * short.minutes
    assert "measured" in short.note


def test_a_training_that_cannot_fit_is_not_tried_and_refused_with_the_remedy():
    machine = replace(environment.describe(), device="cpu", free_memory_gb=0.5, disk_free_gb=0.01)
    cost = environment.profile_cost(PROFILES["full"], machine)
    assert "too little free memory" in cost.note
    with pytest.raises(MemoryError, match=r"needs about .* GB of memory.*smaller profile"):
        environment.check_costs(cost, machine)
    with pytest.raises(OSError, match=r"GB of disk.*COURSE_HOME"):
        environment.check_costs(cost, replace(machine, free_memory_gb=1000.0))


def test_parameter_estimate_is_close_to_the_model():
    from course_utils.models.causal import build_causal_lm, count_parameters

    for name in ("tiny", "laptop"):
        profile = get_profile(name)
        assert environment._parameters(profile) == pytest.approx(count_parameters(build_causal_lm(profile)), rel=0.02)
