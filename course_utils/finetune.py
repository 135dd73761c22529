"""The fine-tuning script: `python -m course_utils.finetune --pairs course-pairs --encoder course --epochs 4`.

Also for `accelerate launch -m`, `torchrun -m` and `notebook_launcher(run_finetuning, …)`. The last line printed is the
result as JSON: accuracy and F1 on validation and test.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import AutoTokenizer

from course_utils import artifacts
from course_utils.data.paraphrases import PAIRS, SENTENCES
from course_utils.training.finetuning import FinetuneConfig, Result, finetune


def run_finetuning(
    pairs: str, encoder: str, config: FinetuneConfig, output: str | Path | None = None, show_progress: bool = True
) -> Result:
    """Fine-tune, print the result as JSON, and save model, tokenizer and result to the folder `output`, if given.

    Such a folder is an encoder for another run. Raises `OSError` before the training if it cannot be made.
    """
    if output is not None:
        Path(output).expanduser().mkdir(parents=True, exist_ok=True)
    location = artifacts.encoder_folder(encoder, pairs)
    result = finetune(pairs, location, config, show_progress)
    main_process = not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0
    if main_process:
        line = json.dumps({**result.metrics, "seconds": round(result.seconds, 1), "processes": result.processes})
        print(line, flush=True)
        if output is not None:
            folder = Path(output).expanduser()
            result.model.save_pretrained(folder)
            AutoTokenizer.from_pretrained(location).save_pretrained(folder)
            (folder / "result.json").write_text(line + "\n", encoding="utf-8", newline="\n")
    return result


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser("course_utils.finetune", description="Fine-tune a classifier on sentence pairs.")
    default = FinetuneConfig()
    parser.add_argument(
        "--pairs", default=PAIRS, help=f"{PAIRS}, {SENTENCES}, a folder, or a Hub id such as nyu-mll/glue:mrpc"
    )
    parser.add_argument(
        "--encoder", default="course", help="course (the installed package), scratch, a folder, or a Hub id"
    )
    parser.add_argument("--epochs", type=int, default=default.epochs)
    parser.add_argument("--learning-rate", type=float, default=default.learning_rate)
    parser.add_argument("--batch-size", type=int, default=default.batch_size, help="rows per process")
    parser.add_argument("--seed", type=int, default=default.seed)
    parser.add_argument("--dropout", type=float, default=default.dropout, help="share of values set to 0 in training")
    parser.add_argument("--output", help="folder for the fine-tuned model")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the script; a user's error is one message, not a traceback."""
    options = parse_arguments(arguments)
    try:
        config = FinetuneConfig(
            options.epochs, options.learning_rate, options.batch_size, options.seed, dropout=options.dropout
        )
        run_finetuning(options.pairs, options.encoder, config, options.output)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
