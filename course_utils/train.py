"""The training script: `accelerate launch -m course_utils.train --profile tiny --output runs/first --resume auto`.

Also for `torchrun -m` and `notebook_launcher(run_training, …)`. The last line printed is the result as JSON.
"""

import argparse
import contextlib
import io
import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from accelerate.utils import broadcast_object_list
from filelock import FileLock, Timeout

from course_utils import artifacts, cache, hub
from course_utils.profiles import PROFILES, Profile, get_profile, with_variables
from course_utils.training import checkpoints, loop, tracking
from course_utils.training.config import PRESETS, TrainConfig, modern


def run_training(config: TrainConfig, output: Path | str, resume: str = "no") -> loop.Summary:
    """Train into the folder `output`: `final/` (model and tokenizer), `checkpoints/`, logs and the tracker's files.

    `resume` is "no", "auto" (the newest intact checkpoint in `output`, if any) or the path of a checkpoint.
    """
    output = Path(output).expanduser()
    output.mkdir(parents=True, exist_ok=True)
    accelerator, precision = loop.make_accelerator(config, output)
    lock, pusher, repo_id = FileLock(output / ".lock"), None, config.push_to
    try:
        start: list[Any] = [None]
        if accelerator.is_main_process:
            lock.acquire(timeout=0)
            repo_id = repo_id and hub.open_branch(repo_id, output, resume == "auto")
            start = [_find_checkpoint(output / "checkpoints", resume)]
        broadcast_object_list(start)
        tokenizer = artifacts.code_tokenizer(config.profile)
        data = (artifacts.streamed_data if config.stream else artifacts.packed_data)(config.profile)
        run = loop.prepare(config, tokenizer, data, accelerator)
        tracking.setup_logging(config.profile.name, accelerator, output / "logs", config.as_dict())
        tracking.logger.info("precision %s: %s", precision.name, precision.reason)
        if repo_id and accelerator.is_main_process:
            licenses = Counter(artifacts.clean_corpus(config.profile).load("train")["license"])
            model = accelerator.unwrap_model(run.model)
            pusher = hub.Pusher(repo_id, output, model.config, tokenizer, licenses)
            run.on_save = pusher.submit
            if start[0]:  # it may have been killed before the push
                pusher.submit(start[0])
        summary = loop.train(run, output, start[0])
        loop.save_final(run, tokenizer, output)
    except Timeout:
        raise ValueError(f"another run writes to {output}; choose another --output, or wait for its end.") from None
    finally:
        if pusher and (left := pusher.finish()):
            tracking.logger.warning(left)
            print(left, file=sys.stderr)
        tracking.finish_logging()
        lock.release()
    if accelerator.is_main_process:
        result = {"steps": summary.steps, **summary.evaluation._asdict(), "tokens": summary.tokens}
        result |= {"tokens_per_second": round(summary.tokens_per_second, 1), "processes": accelerator.num_processes}
        result |= {"device": str(accelerator.device), "precision": precision.name, "output": str(output)}
        print(json.dumps(result), flush=True)
    return summary


def train_once(config: TrainConfig) -> tuple[Path, loop.Summary]:
    """Train in the course's cache, on one process, or take what an earlier call left; return folder and summary."""
    folder = artifacts.run_folder(config.profile, settings=config.as_dict())
    with cache.locked(folder, "training run"), contextlib.redirect_stdout(io.StringIO()):
        return folder, run_training(config, folder, resume="auto")


def _find_checkpoint(folder: Path, resume: str) -> Path | None:
    if (folder.parent / "final").exists() and not checkpoints.newest_first(folder):
        raise ValueError(f"{folder.parent / 'final'} has no checkpoints beside it; choose another --output.")
    last = checkpoints.find_last(folder, lambda message: print(message, file=sys.stderr))  # train_once shows that, too
    if resume == "auto":
        print(f"going on from {last}" if last else f"nothing to resume in {folder}; starting from the beginning")
        return last
    chosen = None if resume == "no" else Path(resume).expanduser().resolve()
    if last is not None and last.resolve() != chosen:
        remedy = "Continue with --resume auto, or choose another --output."
        raise ValueError(f"{folder} already holds checkpoints, the newest is {last.name}. {remedy}")
    if chosen is not None and (damage := checkpoints.damage(chosen)):
        raise ValueError(f"--resume {resume}: {damage}. Name a folder like {folder / 'step-00000100'}, or use auto.")
    return chosen


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; every setting of `TrainConfig` is an option, with its unit and meaning as help."""
    values = [f for f in fields(Profile) if f.name in PROFILES["laptop"].pretraining and f.name != "name"]
    lines = [f"  COURSE_{f.name.upper():18} {f.metadata['text']} ({f.metadata['unit']})" for f in values]
    parser = argparse.ArgumentParser(
        "course_utils.train",
        description="Train a code-completion model with Accelerate.",
        epilog="\n".join(["Variables change values of the profile or preset, such as COURSE_BATCH_SIZE=8:", *lines]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--profile", choices=PROFILES, default=None, help="its settings; default: COURSE_PROFILE")
    which.add_argument("--preset", choices=(*PRESETS, "modern"), help="a tutorial's large model, or today's recipe")
    parser.add_argument("--depth", type=int, help="blocks of the preset modern, from which its other sizes follow")
    parser.add_argument("--output", required=True, help="folder for checkpoints, logs and the final model")
    parser.add_argument("--max-steps", type=int, help="optimizer steps of the whole training")
    parser.add_argument("--seed", type=int, help="seed of everything that is random")
    parser.add_argument("--resume", default="no", help="no, auto (newest intact checkpoint), or a checkpoint's folder")
    for f in fields(TrainConfig)[1:]:  # the first is the profile
        shapes = {bool: {"action": argparse.BooleanOptionalAction}, tuple: {"nargs": "*"}}
        shape = shapes.get(type(f.default), {"type": type(f.default), "choices": f.metadata.get("choices")})
        text = f"{f.metadata['text']} ({f.metadata['unit']}; default: {f.default})"
        parser.add_argument("--" + f.name.replace("_", "-"), help=text, **shape)
    return parser.parse_args(arguments)


def make_config(options: argparse.Namespace) -> TrainConfig:
    """Turn the command line into settings; raises `ValueError` for values that are not allowed."""
    given = vars(options)
    own = {field: given[name] for field, name in (("train_steps", "max_steps"), ("seed", "seed")) if name in given}
    if "depth" in given and given.get("preset") != "modern":
        raise ValueError("--depth sizes today's recipe; add --preset modern, or set COURSE_MODEL_LAYERS instead.")
    presets = PRESETS | {"modern": modern(given.get("depth", 6))}
    config = presets[options.preset] if "preset" in given else TrainConfig()
    profile = with_variables(config.profile, **own) if "preset" in given else get_profile(options.profile, **own)
    others = {f.name: given[f.name] for f in fields(TrainConfig)[1:] if f.name in given}
    return replace(config, profile=profile, **others)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the script; a user's error is one message, not a traceback."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # a path that the terminal cannot show stops no training
    try:
        options = parse_arguments(arguments)
        with cache.naming_the_disk(Path(options.output, "final")):
            run_training(make_config(options), options.output, options.resume)
    except (ValueError, ImportError, OSError, loop.TrainingDiverged) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; --resume auto continues from the newest checkpoint", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
