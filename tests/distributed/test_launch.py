"""The script as users start it: accelerate launch, torchrun on two processes, notebook_launcher; and its errors."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from runs import small_config
from safetensors.torch import load_file

from course_utils import train
from course_utils.training import loop
from course_utils.training.config import PRESETS, flat

SCRIPTS = Path(sys.executable).parent
SMALL_MODEL = {
    "COURSE_CONTEXT_LENGTH": "32",
    "COURSE_MODEL_LAYERS": "1",
    "COURSE_MODEL_WIDTH": "32",
    "COURSE_MODEL_HEADS": "2",
    "COURSE_EVAL_SEQUENCES": "41",
}


def launch(*command, variables=None):
    """Run a command as a user would, and return it finished."""
    environment = os.environ | SMALL_MODEL | {"OMP_NUM_THREADS": "1"} | (variables or {})
    return subprocess.run(list(map(str, command)), env=environment, capture_output=True, text=True, timeout=150)


def result_of(finished):
    assert finished.returncode == 0, finished.stderr[-3000:]
    return json.loads(finished.stdout.splitlines()[-1])


def curve(folder):
    """Return the log of a run: its losses by step, from the newest checkpoint."""
    newest = max((folder / "checkpoints").iterdir())
    history = json.loads((newest / "run.json").read_text())["history"]
    return [entry.get("loss", entry.get("eval_loss")) for entry in history]


def test_one_process_and_two_give_the_same_curve_and_weights(tmp_path):
    """Tolerance: fp32 sums in another order differ by 1e-7; 40 steps of AdamW, which divides by the size of each
    gradient, make 1e-4 of it. A wrong average, schedule or share of the data makes differences above 1e-2.
    """
    common = ["-m", "course_utils.train", "--profile", "tiny", "--max-steps", "40", "--precision", "fp32"]
    common += ["--log-steps", "1", "--keywords", "plt", "pd", "--output"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    variables = {"COURSE_BATCH_SIZE": "4", "ACCELERATE_USE_CPU": "true", "COURSE_ACCUMULATION_STEPS": "2"}
    variables |= {"COURSE_EVAL_STEPS": "20", "COURSE_SAVE_STEPS": "20"}
    two = launch(*torchrun, *common, tmp_path / "two", variables=variables)
    assert result_of(two)["processes"] == 2  # a launcher can silently start one
    one = launch(
        sys.executable, *common, tmp_path / "one",
        variables={"COURSE_BATCH_SIZE": "16", "ACCELERATE_USE_CPU": "true"},
    )  # fmt: skip
    assert result_of(one)["processes"] == 1
    assert result_of(one)["tokens"] == result_of(two)["tokens"]
    ours, theirs = curve(tmp_path / "two"), curve(tmp_path / "one")
    assert len(ours) == len(theirs) > 40
    assert ours == pytest.approx(theirs, rel=1e-4)
    first, second = (load_file(tmp_path / name / "final" / "model.safetensors") for name in ("one", "two"))
    for name, weight in first.items():
        torch.testing.assert_close(second[name], weight, rtol=0, atol=1e-3)
    logs = sorted(p.name for p in (tmp_path / "two" / "logs").glob("*.log"))
    assert logs == ["process-0.log", "process-1.log"]
    events = [len(list((tmp_path / name / "logs").rglob("events*"))) for name in ("one", "two")]
    assert events[0] == events[1] > 0  # only the main process writes metrics

    weights = (tmp_path / "two" / "final" / "model.safetensors").read_bytes()
    shutil.rmtree(tmp_path / "two" / "checkpoints" / "step-00000040")
    resumed = launch(*torchrun, *common, tmp_path / "two", "--resume", "auto", variables=variables)
    assert result_of(resumed)["steps"] == 40
    assert "going on from" in resumed.stdout
    assert (tmp_path / "two" / "final" / "model.safetensors").read_bytes() == weights


def test_accelerate_launch_as_the_readme_says_and_resume_auto(tmp_path):
    command = [SCRIPTS / "accelerate", "launch", "--cpu", "-m", "course_utils.train", "--profile", "tiny"]
    command += ["--output", tmp_path / "run", "--max-steps", "20", "--seed", "3", "--resume", "auto"]
    first = launch(*command, variables={"COURSE_EVAL_STEPS": "5", "COURSE_SAVE_STEPS": "5"})
    result = result_of(first)
    assert {"steps", "loss", "perplexity", "bits_per_byte", "tokens_per_second"} <= result.keys()
    assert result["steps"] == 20
    assert (tmp_path / "run" / "final" / "model.safetensors").is_file()
    assert "nothing to resume" in first.stdout
    again = launch(*command, variables={"COURSE_EVAL_STEPS": "5", "COURSE_SAVE_STEPS": "5"})
    assert "going on from" in again.stdout
    assert result_of(again)["loss"] == result["loss"]


def test_notebook_launcher_runs_the_same_function(tmp_path, capsys):
    from accelerate import notebook_launcher

    notebook_launcher(train.run_training, (small_config({"train_steps": 5}), tmp_path), num_processes=1)
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["steps"] == 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--keywords", "testtest"], "error: none of 'testtest', ' testtest' is a single token"),
        (["--max-steps", "0"], "train_steps = 0 is not allowed"),
        (["--resume", "nowhere"], "error: --resume nowhere: its list of files is missing"),
        (["--precision", "fp16"], "error: fp16 needs a CUDA GPU"),
        (["--stream", "--max-steps", "-1"], "a stream has no known length"),
    ],
)
def test_a_users_error_is_one_message(arguments, message, tmp_path, capsys, monkeypatch):
    if torch.cuda.is_available() and "fp16" in arguments:
        arguments, message = ["--dropout", "2"], "dropout = 2"
    for name, value in SMALL_MODEL.items():
        monkeypatch.setenv(name, value)
    assert train.main(["--profile", "tiny", "--output", str(tmp_path), *arguments]) == 1
    assert message in capsys.readouterr().err
    assert not list(tmp_path.glob("*/step-*"))


def test_an_output_that_cannot_be_written_is_refused_before_anything_is_done(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert train.main(["--profile", "tiny", "--output", str(tmp_path / "file" / "run")]) == 1
    assert "nothing can be written to" in capsys.readouterr().err


def test_settings_come_from_the_command_line():
    options = train.parse_arguments(
        ["--preset", "codeparrot-small", "--output", "x", "--max-steps", "7", "--seed", "9", "--alpha", "2.5",
         "--keywords", "plt", "pd", "--gradient-checkpointing", "--no-stream", "--schedule", "linear"]
    )  # fmt: skip
    config = train.make_config(options)
    assert (config.profile.train_steps, config.profile.seed, config.profile.batch_size) == (7, 9, 12)
    assert (config.alpha, config.keywords, config.schedule) == (2.5, ("plt", "pd"), "linear")
    assert (config.gradient_checkpointing, config.stream) == (True, False)
    assert config.dropout == PRESETS["codeparrot-small"].dropout
    with pytest.raises(SystemExit):
        train.parse_arguments(["--output", "x", "--tracker", "visdom"])


def test_variables_change_the_values_of_a_preset(monkeypatch):
    monkeypatch.setenv("COURSE_BATCH_SIZE", "3")
    options = train.parse_arguments(["--preset", "codeparrot-small", "--output", "x"])
    profile = train.make_config(options).profile
    assert (profile.batch_size, profile.learning_rate, profile.name) == (3, 5e-4, "codeparrot-small")
    monkeypatch.setenv("COURSE_BATCH_SIZES", "3")
    with pytest.raises(ValueError, match="Did you mean COURSE_BATCH_SIZE"):
        train.make_config(options)


def test_the_help_names_every_setting(capsys):
    with pytest.raises(SystemExit):
        train.parse_arguments(["--help"])
    text = capsys.readouterr().out
    for name, value in flat(PRESETS["codeparrot"].as_dict()).items():
        wanted = f"COURSE_{name[8:].upper()} " if name.startswith("profile.") else f"--{name.replace('_', '-')}"
        assert wanted in text or value == "codeparrot"


def test_an_interrupted_script_says_how_to_go_on(tmp_path, capsys, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "run_training", interrupt)
    code = None
    with contextlib.suppress(KeyboardInterrupt):  # one that came through would end all tests
        code = train.main(["--profile", "tiny", "--output", str(tmp_path)])
    assert code == 130
    assert capsys.readouterr().err == "interrupted; --resume auto goes on from the newest checkpoint\n"


def test_fp16_on_a_processor_is_refused_rather_than_ignored(tmp_path):
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="fp16 needs a CUDA GPU, this is"):
            loop.make_accelerator(small_config(precision="fp16"), tmp_path)
    accelerator, precision = loop.make_accelerator(small_config(precision="auto"), tmp_path)
    assert accelerator.mixed_precision == precision.mixed_precision
    assert precision.reason
