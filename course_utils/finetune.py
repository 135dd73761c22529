"""The fine-tuning script: `python -m course_utils.finetune --pairs course-pairs --encoder course --epochs 4`.

Also for `accelerate launch -m`, `torchrun -m` and `notebook_launcher(run_finetuning, …)`. The last line printed is the
result as JSON: accuracy and F1 on validation and test.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from accelerate import PartialState
from transformers import AutoTokenizer

from course_utils import artifacts, cache
from course_utils.data.paraphrases import PAIRS, SENTENCES
from course_utils.profiles import absolute
from course_utils.training.finetuning import FinetuneConfig, FinetuneResult, finetune

SETTINGS = [f for f in fields(FinetuneConfig) if f.name not in ("warmup", "weight_decay", "head_factor", "max_pairs")]


def run_finetuning(
    pairs: str, encoder: str, config: FinetuneConfig, output: str | Path | None = None
) -> FinetuneResult:
    """Fine-tune, print the result as JSON, and save all to the folder `output`, which is an encoder for another run."""
    pairs, encoder, folder = absolute(pairs), absolute(encoder), Path(output).expanduser() if output else None
    if folder:
        folder.mkdir(parents=True, exist_ok=True)  # fails before the training if it cannot be made
    location = artifacts.encoder_folder(encoder, pairs)
    result = finetune(pairs, location, config)
    line = json.dumps({**result.metrics, "seconds": round(result.seconds, 1), "processes": result.processes})
    if PartialState().is_main_process:
        print(line, flush=True)
        if folder:
            result.model.save_pretrained(folder)
            AutoTokenizer.from_pretrained(location).save_pretrained(folder)
            (folder / "result.json").write_text(line + "\n", encoding="utf-8", newline="\n")
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the script; a user's error is one message, not a traceback."""
    parser = argparse.ArgumentParser("course_utils.finetune", description="Fine-tune a classifier on sentence pairs.")
    pairs_help = f"{PAIRS}, {SENTENCES}, a folder, or a Hub id such as nyu-mll/glue:mrpc"
    parser.add_argument("--pairs", default=PAIRS, help=pairs_help)
    encoder_help = "course (the installed package), scratch, a folder, or a Hub id"
    parser.add_argument("--encoder", default="course", help=encoder_help)
    for f in SETTINGS:
        parser.add_argument(f"--{f.name.replace('_', '-')}", type=f.type, default=f.default, help=f.metadata["text"])
    parser.add_argument("--output", help="folder for the fine-tuned model")
    given = parser.parse_args(arguments)
    try:
        config = FinetuneConfig(**{f.name: getattr(given, f.name) for f in SETTINGS})
        with cache.naming_the_disk(Path(given.output or "", "model")):
            run_finetuning(given.pairs, given.encoder, config, given.output)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
