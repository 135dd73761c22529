"""The training script: `accelerate launch -m course_utils.train --profile tiny --output runs/first --resume auto`.

Also for `torchrun -m` and `notebook_launcher(run_training, …)`. The loop is `course_utils.training.loop`; here stand
the command line, the output folder and what is printed. The last line printed is the result as JSON.
"""

import argparse
import contextlib
import io
import json
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, get_args

from accelerate.utils import broadcast_object_list

from course_utils import artifacts, cache
from course_utils.profiles import PROFILES, Profile, get_profile, with_variables
from course_utils.training import checkpoints, loop, tracking
from course_utils.training.config import PRESETS, TrainConfig, flat


def run_training(
    config: TrainConfig,
    output: Path | str,
    resume: str = "no",
    on_checkpoint: Callable[[Path, int], None] | None = None,
    show_progress: bool = True,
) -> loop.Summary:
    """Train with these settings into the folder `output`, on as many processes as were launched.

    `resume` is "no", "auto" (the newest intact checkpoint in `output`, if any) or the path of a checkpoint. Leaves
    `final/` (model and tokenizer), `checkpoints/`, the logs and the tracker's files. Raises `ValueError` if `output`
    holds another run's checkpoints and is not to be resumed, or a `final/` without checkpoints, and `OSError` if it
    cannot be written.
    """
    output = Path(output).expanduser()
    _check_writable(output)
    accelerator, precision = loop.make_accelerator(config, output)
    tokenizer = artifacts.code_tokenizer(config.profile)
    data = (artifacts.streamed_data if config.stream else artifacts.packed_data)(config.profile)
    run = loop.prepare(config, tokenizer, data, accelerator, precision)
    checkpoint = _choose_checkpoint(output / "checkpoints", resume, accelerator)
    try:
        log = tracking.setup_logging(config.profile.name, accelerator, output / "logs", flat(config.as_dict()))
        log.logger.info("precision %s: %s", precision.name, precision.reason)
        summary = loop.train(run, output, checkpoint, on_checkpoint, show_progress)
        loop.save_final(run, tokenizer, output)
    finally:
        tracking.finish_logging()
    if accelerator.is_main_process:
        print(json.dumps(_result(summary, run, output)), flush=True)
    return summary


def train_once(config: TrainConfig) -> tuple[Path, loop.Summary]:
    """Train in the course's cache, or take what an earlier call with the same settings, data and code has trained.

    An interrupted training goes on where it was. Returns the folder of the run and its summary. For one process only;
    raises `ValueError` on several.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError("train_once runs on one process; call run_training with a folder of your own on several.")
    folder = artifacts.loop_folder(config.profile, config.as_dict())
    with cache.locked(folder, "training run"), contextlib.redirect_stdout(io.StringIO()):
        return folder, run_training(config, folder, resume="auto")


def _result(summary: loop.Summary, run: loop.Run, output: Path) -> dict[str, Any]:
    return {
        "steps": summary.steps,
        **summary.evaluation._asdict(),
        "tokens_per_second": round(summary.tokens_per_second, 1),
        "tokens": summary.tokens,
        "processes": run.accelerator.num_processes,
        "device": str(run.accelerator.device),
        "precision": run.precision.name,
        "output": str(output),
    }


def _check_writable(output: Path) -> None:
    try:
        output.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=output):
            pass
    except OSError as error:
        raise type(error)(
            error.errno, f"nothing can be written to {output} ({error.strerror}); choose another folder with --output"
        ) from error


def _choose_checkpoint(folder: Path, resume: str, accelerator: Any) -> Path | None:
    """Let the main process look, and tell the others, so that all go on from the same checkpoint."""
    found: list[Any] = [None]
    if accelerator.is_main_process:
        try:
            found = [_find_checkpoint(folder, resume)]
        except Exception as error:  # the others must hear of it, or they would wait for ever
            found = [error]
    broadcast_object_list(found)
    if isinstance(found[0], Exception):
        raise found[0]
    return found[0]


def _find_checkpoint(folder: Path, resume: str) -> Path | None:
    final = folder.parent / "final"
    if final.exists() and not any(folder.glob("step-*")):  # not of a run that is to go on
        raise ValueError(f"{final} is there already, without checkpoints; choose another --output, or move it away.")
    if resume not in ("no", "auto"):
        path = Path(resume).expanduser()
        damage = cache.damage(path)
        if damage:
            raise ValueError(
                f"--resume {resume}: {damage}. Name a folder like {folder / 'step-00000100'}, or say auto."
            )
        here = path.resolve().parent == folder.resolve()
        others = [other for other in checkpoints.newest_first(folder) if other.name > path.resolve().name or not here]
        if others:
            raise ValueError(
                f"{folder} holds other checkpoints than those before {path.name}, such as {others[0].name}. "
                "Choose another --output to go on from an older one."
            )
        return path
    last = checkpoints.find_last(folder, lambda message: print(message, file=sys.stderr))  # train_once shows that, too
    if resume == "no" and last is not None:
        raise ValueError(
            f"{folder} already holds checkpoints, the newest is {last.name}. "
            "Go on with --resume auto, or choose another --output."
        )
    if resume == "auto":
        print(f"going on from {last}" if last else f"nothing to resume in {folder}; starting from the beginning")
    return last


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; every setting of `TrainConfig` is an option, with its unit and meaning as help."""
    parser = argparse.ArgumentParser(
        "course_utils.train",
        description="Train a code-completion model with Accelerate.",
        epilog=_profile_help(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--profile", choices=list(PROFILES), help="model, data and settings; default: COURSE_PROFILE")
    preset_help = "the tutorials' two large models and their settings, which are then the defaults"
    which.add_argument("--preset", choices=list(PRESETS), help=preset_help)
    parser.add_argument("--output", required=True, help="folder for checkpoints, logs and the final model")
    parser.add_argument("--max-steps", type=int, help="optimizer steps of the whole training")
    parser.add_argument("--seed", type=int, help="seed of everything that is random")
    parser.add_argument("--resume", default="no", help="no, auto (newest intact checkpoint), or a checkpoint's folder")
    for f in fields(TrainConfig):
        if f.name != "profile":
            _add_option(parser, f)
    return parser.parse_args(arguments)


def _profile_help() -> str:
    names = [f for f in fields(Profile) if f.name in PROFILES["laptop"].pretraining and f.name != "name"]
    lines = [f"  COURSE_{f.name.upper():18} {f.metadata['text']} ({f.metadata['unit']})" for f in names]
    return "\n".join(
        [
            "Values of the profile or preset are changed with variables, for example COURSE_LEARNING_RATE=1e-3:",
            *lines,
            "What each profile and preset has stands in course_utils/profiles.py and course_utils/training/config.py.",
        ]
    )


def _add_option(parser: argparse.ArgumentParser, setting: Any) -> None:
    flag = "--" + setting.name.replace("_", "-")
    text = f"{setting.metadata['text']} ({setting.metadata['unit']}; default: {setting.default})".replace("%", "%%")
    options: dict[str, Any] = {"default": argparse.SUPPRESS, "help": text}
    if isinstance(setting.default, bool):
        options["action"] = argparse.BooleanOptionalAction
    elif isinstance(setting.default, tuple):
        options["nargs"] = "*"
    else:
        options |= {"type": type(setting.default), "choices": get_args(setting.type) or None}
    parser.add_argument(flag, **options)


def make_config(options: argparse.Namespace) -> TrainConfig:
    """Turn the command line into settings; raises `ValueError` for values that are not allowed."""
    if options.preset:
        preset = PRESETS[options.preset]
        config = replace(preset, profile=with_variables(preset.profile))
    else:
        config = TrainConfig(get_profile(options.profile))
    given = {f.name: getattr(options, f.name) for f in fields(TrainConfig) if f.name in vars(options)}
    given = {name: value for name, value in given.items() if name != "profile"}
    if "keywords" in given:
        given["keywords"] = tuple(given["keywords"])
    profile = {"train_steps": options.max_steps, "seed": options.seed}
    profile = {name: value for name, value in profile.items() if value is not None}
    return replace(config, profile=replace(config.profile, **profile), **given)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the script; a user's error is one message, not a traceback."""
    try:
        options = parse_arguments(arguments)
        run_training(make_config(options), options.output, options.resume)
    except (ValueError, ImportError, OSError, loop.TrainingDiverged) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; --resume auto goes on from the newest checkpoint", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
