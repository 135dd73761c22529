"""The script as users start it: accelerate launch, torchrun on two processes; and its errors."""

import io
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
from accelerate import FullyShardedDataParallelPlugin
from accelerate.commands.config.config_args import load_config_from_file
from filelock import FileLock
from runs import small_config, weights
from safetensors.torch import load_file

from course_utils import train
from course_utils.training import checkpoints
from course_utils.training.config import PRESETS

SHAPE = {"CONTEXT_LENGTH": 32, "MODEL_LAYERS": 1, "MODEL_WIDTH": 32, "MODEL_HEADS": 2, "EVAL_SEQUENCES": 41}
SMALL_MODEL = {f"COURSE_{name}": str(value) for name, value in SHAPE.items()}


def launch(*command, **variables):
    """Run a command as a user would; return what it printed, and its last line as the result."""
    environment = os.environ | SMALL_MODEL | {"OMP_NUM_THREADS": "1"} | variables
    finished = subprocess.run(list(map(str, command)), env=environment, capture_output=True, text=True, timeout=150)
    assert finished.returncode == 0, finished.stderr[-3000:]
    return finished.stdout, json.loads(finished.stdout.splitlines()[-1])


def curve(folder):
    history = checkpoints.read(folder / "checkpoints" / "step-00000040")["history"]
    return [entry.get("loss", entry.get("eval_loss")) for entry in history]


MODERN = ["--architecture", "qwen3", "--optimizer", "muon", "--schedule", "warmup_stable_decay"]


# Muon calculates in bf16: sums in another order soon differ by its last digit.
@pytest.mark.parametrize(("recipe", "tolerance"), [([], 1e-4), (MODERN, 3e-3)], ids=["tutorial", "modern"])
def test_one_process_and_two_give_the_same_curve_and_weights(tmp_path, recipe, tolerance):
    """fp32 sums in another order differ by 1e-7, after 40 steps by 1e-4; wrong averages or data by more than 1e-2."""
    common = ["-m", "course_utils.train", "--profile", "tiny", "--max-steps", "40", "--precision", "fp32"]
    common += ["--log-steps", "1", "--keywords", "plt", "pd", *recipe, "--resume", "auto", "--output"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    accelerate = [Path(sys.executable).parent / "accelerate", "launch", "--cpu"]
    variables = {"COURSE_BATCH_SIZE": "4", "ACCELERATE_USE_CPU": "true", "COURSE_ACCUMULATION_STEPS": "2"}
    variables |= {"COURSE_EVAL_STEPS": "20", "COURSE_SAVE_STEPS": "20"}
    _, two = launch(*torchrun, *common, tmp_path / "two", **variables)
    said, one = launch(*accelerate, *common, tmp_path / "one", COURSE_BATCH_SIZE="16")
    assert "nothing to resume" in said
    assert {"steps", "loss", "perplexity", "bits_per_byte", "tokens_per_second"} <= one.keys()
    assert (one["processes"], two["processes"]) == (1, 2)  # a launcher can silently start one
    assert one["tokens"] == two["tokens"]
    ours, theirs = curve(tmp_path / "two"), curve(tmp_path / "one")
    assert len(ours) == len(theirs) > 40
    assert ours == pytest.approx(theirs, rel=tolerance)
    first, second = (load_file(tmp_path / name / "final" / "model.safetensors") for name in ("one", "two"))
    for name, weight in first.items():
        torch.testing.assert_close(second[name], weight, rtol=0, atol=10 * tolerance)
    assert {p.name for p in (tmp_path / "two" / "logs").glob("*.log")} == {"process-0.log", "process-1.log"}
    events = [len(list((tmp_path / name / "logs").rglob("events*"))) for name in ("one", "two")]
    assert events[0] == events[1] > 0  # only the main process writes metrics

    before = weights(tmp_path / "two")
    shutil.rmtree(tmp_path / "two" / "checkpoints" / "step-00000040")
    said, resumed = launch(*torchrun, *common, tmp_path / "two", **variables)
    assert resumed["steps"] == 40
    assert "going on from" in said
    assert weights(tmp_path / "two") == before


def test_without_a_compiler_the_training_goes_on_and_says_why(tmp_path):
    common = [sys.executable, "-m", "course_utils.train", "--profile", "tiny", "--max-steps", "2", "--output"]
    missing = {"CXX": str(tmp_path / "no-compiler"), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    said, _ = launch(*common, tmp_path / "compiled", "--compile", **missing)
    reason = said.partition("Not compiled, so the training is slower: ")[2].splitlines()[0]
    assert missing["CXX"] in reason
    said, _ = launch(*common, tmp_path / "plain", **missing)
    assert "ompiled" not in said
    assert weights(tmp_path / "compiled") == weights(tmp_path / "plain")


@pytest.mark.parametrize("name", ["MULTI_GPU ddp", "FSDP fsdp"])
def test_accelerate_loads_the_launch_files(name):
    kind, stem = name.split()
    loaded = load_config_from_file(str(Path(train.__file__).parent / "training" / "launch" / f"{stem}.yaml"))
    assert (loaded.distributed_type, loaded.num_processes) == (kind, 8)
    known = FullyShardedDataParallelPlugin.__dataclass_fields__.keys() | {"version"}
    assert {option.removeprefix("fsdp_") for option in loaded.fsdp_config} <= known | {"offload_params"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--depth", "4"], "--depth sizes today's recipe; add --preset modern"),
        (["--keywords", "testtest"], "error: none of 'testtest', ' testtest' is a single token"),
        (["--max-steps", "0"], "train_steps must be at least 1"),
        pytest.param(
            ["--precision", "fp16"], "error: fp16 needs a CUDA GPU, this is",  # the Trainer ignores it silently
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU"),
        ),
        (["--output", "file/run"], "Not a directory"),
    ],
)  # fmt: skip
def test_a_users_error_is_one_message(arguments, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    assert train.main(["--profile", "tiny", "--output", "run", *arguments]) == 1
    assert message in capsys.readouterr().err
    assert not list(tmp_path.rglob("step-*"))


def test_a_second_run_into_one_output_says_so(tmp_path):
    with FileLock(tmp_path / ".lock"), pytest.raises(ValueError, match="another run writes to"):
        train.run_training(small_config(), tmp_path, resume="auto")
    train.run_training(small_config({"train_steps": 1}), tmp_path, resume="auto")
    FileLock(tmp_path / ".lock").acquire(timeout=0).lock.release()


def test_a_terminal_that_cannot_show_a_path_stops_no_training(tmp_path, monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="cp1252")
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(train, "get_profile", lambda *_, **changes: small_config(changes).profile)
    options = ["--resume", "auto", "--max-steps", "1", "--tracker", "none", "--precision", "fp32"]
    assert train.main(["--output", str(tmp_path / "Модель"), *options]) == 0
    stream.flush()
    assert b"nothing to resume in" in stream.buffer.getvalue()


def test_settings_come_from_the_command_line_and_variables(monkeypatch):
    monkeypatch.setenv("COURSE_BATCH_SIZE", "3")
    options = train.parse_arguments(
        ["--preset", "codeparrot-small", "--output", "x", "--max-steps", "7", "--seed", "9", "--alpha", "2.5",
         "--keywords", "plt", "pd", "--gradient-checkpointing", "--no-stream", "--schedule", "linear"]
    )  # fmt: skip
    preset = PRESETS["codeparrot-small"]
    given = {"alpha": 2.5, "keywords": ("plt", "pd"), "gradient_checkpointing": True, "schedule": "linear"}
    profile = replace(preset.profile, train_steps=7, seed=9, batch_size=3)
    assert train.make_config(options) == replace(preset, profile=profile, stream=False, **given)
    monkeypatch.setenv("COURSE_BATCH_SIZES", "3")
    with pytest.raises(ValueError, match="Did you mean COURSE_BATCH_SIZE"):
        train.make_config(options)


def test_an_interrupted_script_says_how_to_continue(capsys, monkeypatch):
    monkeypatch.setattr(train, "run_training", Mock(side_effect=KeyboardInterrupt))
    assert train.main(["--profile", "tiny", "--output", "x"]) == 130
    assert capsys.readouterr().err == "interrupted; --resume auto continues from the newest checkpoint\n"
