"""GPT-2 with 124 million parameters on one GPU: the HF course's recipe and the course's own, same seconds.

On a machine with the corpus `python -m benchmarks.gpu --prepare build/gpu` writes tokenizer and tokens (20 MB), and on
the GPU, which needs no network, `python -m benchmarks.gpu --data build/gpu` makes all runs in about eight minutes and
writes their rows into RESULTS.md. `--try` makes them with a tiny model and prints them, also on a processor.

Both read the same rows in bf16. Each is timed for a few steps first, and gets as many steps as fit into its seconds, so
that every schedule ends on time. The recipes differ in what they are made of: GPT-2, AdamW, dropout 0.1, 1 000 steps of
warm-up and batches of 256 rows by the Trainer; and a Qwen3-style model of the same shape, Muon, warm-up-stable-decay,
compiled, in our loop.
"""

import argparse
import json
import shlex
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from itertools import islice
from pathlib import Path

RESULTS = Path(__file__).with_name("RESULTS.md")
HEADING = "## One GPU"
SHAPE = {"model_layers": 12, "model_width": 768, "model_heads": 12}
TINY = {"model_layers": 2, "model_width": 64, "model_heads": 2}
VOCABULARY, CONTEXTS, RECIPES = 50_000, (128, 1024), ("tutorial", "ours")
ROWS = {128: 256, 1024: 32}  # of our recipe, per step: the tutorial reads 256 rows at every length
TIMED, WARM = 12, 6  # steps
COLUMNS = ("recipe", "context", "million parameters", "tokens/s", "MFU", "GB", "steps", "seconds", "loss", "bits/byte")


def prepare(folder: Path, profile: str) -> None:
    """Write what the GPU needs: a tokenizer as large as the tutorial's, and the tokens of both splits."""
    import numpy as np

    from course_utils import artifacts
    from course_utils.profiles import PROFILES

    chosen = replace(PROFILES[profile], vocab_size=VOCABULARY, eval_sequences=10**9)
    data = artifacts.packed_data(chosen)
    artifacts.code_tokenizer(chosen).save_pretrained(folder)
    tokens = {"train": data.train, "validation": data.validation}
    flat = {name: np.concatenate(rows.with_format("numpy")["input_ids"][:]) for name, rows in tokens.items()}
    lengths = [data.validation_tokens, data.validation_bytes]
    np.savez_compressed(folder / "tokens.npz", lengths=lengths, **{n: ids.astype("uint16") for n, ids in flat.items()})
    print(f"{folder}: {', '.join(f'{len(ids):,} tokens to {name}' for name, ids in flat.items())}")


def load(folder: Path, context: int, rows: int):
    """Return tokenizer and packed rows of `context` tokens, of the held-out ones at most `rows`."""
    import numpy as np
    from datasets import Dataset

    from course_utils.data.tokenization import load_tokenizer
    from course_utils.training.pretraining import PackedData

    saved = np.load(folder / "tokens.npz")
    splits = []
    for name in ("train", "validation"):
        ids = saved[name][: len(saved[name]) // context * context].reshape(-1, context).astype("int32")
        chosen = ids if name == "train" else ids[:: -(-len(ids) // rows)]
        splits.append(Dataset.from_dict({"input_ids": list(chosen)}).with_format("torch"))
    return load_tokenizer(folder), PackedData(*splits, *map(int, saved["lengths"]), digest=str(folder))


def settings(recipe: str, context: int, vocabulary: int, tiny: bool):
    """Return the settings of a recipe; `train_steps` is not known yet."""
    from course_utils.profiles import PROFILES
    from course_utils.training.config import modern
    from tools.recipes import tutorial_settings

    base = replace(PROFILES["full"], vocab_size=vocabulary, context_length=context, **(TINY if tiny else SHAPE))
    base = replace(base, train_steps=10_000, eval_steps=10**6, save_steps=10**6, eval_sequences=512)
    if recipe == "tutorial":
        own = tutorial_settings(base)
        less = {"batch_size": 2, "accumulation_steps": 2} if tiny else {}
        return replace(own, train_steps=10_000, eval_steps=10**6, save_steps=10**6, **less), None
    config = modern(12, base)  # its learning rates follow from the width
    slower = (config.profile.model_width / base.model_width) ** 0.5
    rates = {"learning_rate": config.profile.learning_rate * slower, "batch_size": 4 if tiny else ROWS[context]}
    config = replace(config, matrix_rate=config.matrix_rate * slower, tracker="none")
    return replace(base, **rates, accumulation_steps=1), config


def train_tutorial(profile, tokenizer, data, folder: str, steps: int, stop: int):
    """Train `stop` of `steps` steps with the Trainer; return the model, and the time after each step."""
    from transformers import TrainerCallback

    from course_utils.training import pretraining

    times = []

    class Clock(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            times.append(time.perf_counter())
            control.should_training_stop |= len(times) >= stop

    trainer = pretraining.make_trainer(replace(profile, train_steps=steps), tokenizer, data, folder, dropout=0.1)
    trainer.args.warmup_steps = profile.warmup_steps  # as it stands, also where the run is shorter
    trainer.args.eval_on_start, trainer.args.save_strategy, trainer.args.disable_tqdm = False, "no", True
    trainer.add_callback(Clock())
    trainer.train()
    return trainer.model, times


def train_ours(profile, config, tokenizer, data, folder: str, steps: int, stop: int):
    """Train `stop` of `steps` steps with our loop; return the model, and the time after each step."""
    from course_utils.training import loop

    config = replace(config, profile=replace(profile, train_steps=steps, warmup_steps=-(-steps // 50)))
    accelerator, _ = loop.make_accelerator(config, folder)
    run = loop.prepare(config, tokenizer, data, accelerator)
    times = [time.perf_counter() for _ in islice(loop.optimizer_steps(run), stop)]
    return accelerator.unwrap_model(run.model), times


def one_run(recipe: str, context: int, folder: Path, seconds: float, tiny: bool) -> dict:
    """Time a recipe, train it for `seconds`, and return its row."""
    import torch
    from accelerate import Accelerator

    from course_utils.environment import PEAKS, choose_device, choose_precision
    from course_utils.models.causal import count_parameters
    from course_utils.training import heldout, loaders, tracking

    tokenizer, data = load(folder, context, 16 if tiny else 512 * 128 // context)
    profile, config = settings(recipe, context, len(tokenizer), tiny)
    device = choose_device()
    name = torch.cuda.get_device_name() if device.type == "cuda" else "processor"

    def train(steps: int, stop: int):
        with tempfile.TemporaryDirectory() as scratch:
            if recipe == "tutorial":
                return train_tutorial(profile, tokenizer, data, scratch, steps, stop)
            return train_ours(profile, config, tokenizer, data, scratch, steps, stop)

    _, times = train(10_000, TIMED)
    steps = max(2, int(seconds * (TIMED - WARM) / (times[-1] - times[WARM - 1])))
    start = time.perf_counter()
    model, times = train(steps, steps)
    memory = tracking.memory_gb(device)
    speed = (len(times) - 1) * profile.tokens_per_step / (times[-1] - times[0])
    _, loader = loaders.create_dataloaders(data.train, data.validation, 4 if tiny else 16)
    accelerator = Accelerator(mixed_precision=choose_precision().mixed_precision, cpu=device.type == "cpu")
    result = heldout.evaluate(model, accelerator.prepare(loader), accelerator, data.tokens_per_byte)
    parameters = count_parameters(model)
    operations = 6 * parameters + 12 * profile.model_layers * profile.model_width * context  # per token
    peak = next((peak for gpu, peak in (PEAKS | {"H200": PEAKS["H100"]}).items() if gpu in name), None)
    return {
        "recipe": recipe, "context": context, "million parameters": f"{parameters / 1e6:.1f}",
        "tokens/s": f"{speed:,.0f}", "MFU": f"{operations * speed / peak:.0%}" if peak else "-", "GB": f"{memory:.1f}",
        "steps": steps, "seconds": f"{times[-1] - start:.0f}", "loss": f"{result.loss:.3f}",
        "bits/byte": f"{result.bits_per_byte:.3f}", "device": name,
    }  # fmt: skip


def table(rows: list[dict]) -> str:
    lines = [COLUMNS, ["---"] * len(COLUMNS), *([str(row[name]) for name in COLUMNS] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def write_results(text: str, path: Path = RESULTS) -> None:
    """Replace the section about one GPU, and leave the others as they are."""
    old = path.read_text(encoding="utf-8") if path.is_file() else "# Results\n\n"
    before, _, section = old.partition(HEADING)
    rest = section[section.find("\n## ") :] if "\n## " in section else ""
    path.write_text(f"{before}{HEADING}\n\n{text}\n{rest}", encoding="utf-8", newline="\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--prepare", type=Path, metavar="FOLDER", help="write tokenizer and tokens here, and stop")
    what.add_argument("--data", type=Path, metavar="FOLDER", help="make the runs with what --prepare wrote")
    parser.add_argument("--profile", default="laptop", help="whose corpus --prepare takes")
    parser.add_argument("--seconds", type=float, default=75, help="training per run; 180 need 13 minutes")
    parser.add_argument(
        "--try", action="store_true", dest="tiny", help="a tiny model on short rows, and nothing is written"
    )
    parser.add_argument("--run", nargs=2, metavar=("RECIPE", "CONTEXT"), help="one run only, printed as JSON")
    options = parser.parse_args()
    if options.prepare:
        prepare(options.prepare, options.profile)
        return
    if options.run:
        recipe, context = options.run
        print(json.dumps(one_run(recipe, int(context), options.data, options.seconds, options.tiny)))
        return
    rows = []
    command = ["-m", "benchmarks.gpu", *sys.argv[1:]]
    for context in (length // 8 if options.tiny else length for length in CONTEXTS):
        for recipe in RECIPES:  # each in a process of its own: its memory is its own
            one = [sys.executable, *command, "--run", recipe, str(context)]
            rows.append(json.loads(subprocess.run(one, stdout=subprocess.PIPE, check=True).stdout.splitlines()[-1]))
            print(rows[-1], flush=True)
    text = f"{rows[0]['device']}, `python {shlex.join(command)}`:\n\n{table(rows)}"
    print(text)
    if not options.tiny:
        write_results(text)


if __name__ == "__main__":
    main()
