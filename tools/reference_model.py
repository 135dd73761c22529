"""Make the model that the course ships: `tools/offline.py -m tools.reference_model --minutes 90`, after `fetch`.

It trains the modern recipe, and writes weights in bf16, tokenizer, curve, checksums and card, measured on the weights
as they are shipped. A run that was stopped goes on with the same command. `--check 1000` repeats the first steps of the
committed model's training and compares the curve there; CI does so every night.
"""

import argparse
import json
import math
import shlex
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from difflib import SequenceMatcher
from functools import partial
from itertools import islice
from pathlib import Path
from textwrap import indent
from typing import Any

import torch
from safetensors.torch import load_file
from torch.utils.data import DataLoader

from course_utils import artifacts, cache, environment
from course_utils.data.documents import kind_of
from course_utils.data.packing import pack_dataset
from course_utils.data.tokenization import load_tokenizer
from course_utils.evaluation.metrics import share_interval
from course_utils.evaluation.tasks import Judgement, Task, score_tasks
from course_utils.models.causal import count_parameters
from course_utils.models.generation import complete_greedily, score_idioms
from course_utils.models.prompts import IDIOMS, TUTORIAL_PROMPTS, UNSEEN_IDIOMS
from course_utils.profiles import PROFILES
from course_utils.train import run_training
from course_utils.training import checkpoints, heldout, loop
from course_utils.training.config import TrainConfig, modern

CURVE, PLAN, CARD = "curve.json", "plan.json", Path(__file__).with_name("reference_card.md")
BIGGEST = 16_000_000  # bytes of the weights
EVERY = 250  # steps between two points of the curve; 1 000, where the nightly check looks, is a multiple
TOLERANCE = 0.05
PENALTIES = (1.0, 1.1, 1.2)
DOCUMENTS = 200  # whose beginnings are prompts in the search for repeated passages


def recipe(profile: str, depth: int, steps: int | None = None) -> TrainConfig:
    """Return the settings; without `steps` the recipe's own number of them."""
    config = modern(depth, PROFILES[profile])
    steps = steps or config.profile.train_steps
    every = EVERY if steps >= 4 * EVERY else math.ceil(steps / 4)
    sizes = {"train_steps": steps, "warmup_steps": math.ceil(steps / 50), "eval_steps": every, "save_steps": every}
    return replace(config, profile=replace(config.profile, **sizes), keep_checkpoints=10_000, tracker="none")


def first_steps(config: TrainConfig, steps: int) -> tuple[torch.nn.Module, float]:
    """Train the first `steps` of a training; return the model, and the seconds per step after the first tenth."""
    with tempfile.TemporaryDirectory() as folder:
        accelerator, _ = loop.make_accelerator(config, folder)
        tokenizer, data = artifacts.code_tokenizer(config.profile), artifacts.packed_data(config.profile)
        run = loop.prepare(config, tokenizer, data, accelerator)
        times = [time.perf_counter() for _ in islice(loop.optimizer_steps(run), steps)][steps // 10 :]
        return accelerator.unwrap_model(run.model), (times[-1] - times[0]) / max(len(times) - 1, 1)


def measure(model: torch.nn.Module, config: TrainConfig) -> dict[str, float]:
    """Return bits per byte on held-out user-style and library text, of rows taken evenly from all of it."""
    profile, found = config.profile, {}
    documents, tokenizer = artifacts.clean_corpus(profile).load("validation"), artifacts.code_tokenizer(profile)
    with tempfile.TemporaryDirectory() as folder:
        accelerator, _ = loop.make_accelerator(config, folder)
        for kind in ("user", "library"):
            mine = documents.filter(lambda path, kind=kind: kind_of(path) == kind, input_columns="path")
            whole = pack_dataset(mine, tokenizer, profile.context_length, Path(folder) / f"{kind}.arrow")
            rows = whole.dataset.select(range(0, len(whole.dataset), -(-len(whole.dataset) // profile.eval_sequences)))
            loader = DataLoader(rows.with_format("torch"), profile.batch_size, collate_fn=_batch)
            evaluation = heldout.evaluate(model, loader, accelerator, whole.tokens / whole.text_bytes)
            found[kind] = round(evaluation.bits_per_byte, 4)
    return found


def _batch(rows: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    return {"input_ids": torch.stack([row["input_ids"] for row in rows]).long()}


def train(config: TrainConfig, output: Path) -> list[dict[str, float]]:
    """Train into `output`, or go on there; return the curve, each point measured on its checkpoint."""
    run_training(config, output, resume="auto")
    model, curve = artifacts.load_model(output / "final"), []
    for checkpoint in reversed(checkpoints.newest_first(output / "checkpoints")):
        position = checkpoints.read(checkpoint)["position"]
        model.load_state_dict(load_file(checkpoint / "model.safetensors"), strict=False)  # the tied head is left out
        point = {"step": position["step"], "tokens": position["tokens"], "minutes": round(position["seconds"] / 60, 1)}
        curve.append(point | measure(model, config))
        print(curve[-1], flush=True)
    return curve


def passages(model: Any, tokenizer: Any, documents: Sequence[str], context: int) -> list[str]:
    """Return, longest first, what greedy continuations of training documents share with the true ones."""
    found, start, new = [], context // 4, context // 2
    for text in documents[:: max(1, len(documents) // DOCUMENTS)]:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        prompt, true = tokenizer.decode(ids[:start]), tokenizer.decode(ids[start : start + new])
        got = complete_greedily(model, tokenizer, prompt, new)
        match = SequenceMatcher(None, true, got, autojunk=False).find_longest_match()
        found.append(true[match.a : match.a + match.size])
    return sorted(found, key=len, reverse=True)


def scores(model: Any, tokenizer: Any, tasks: Sequence[Task] = ()) -> str:
    """Return the rows of the card's table: idioms, and tasks at each repetition penalty, with intervals."""
    rows = []
    for name, idioms in (("idioms", IDIOMS), ("idioms that can only be copied", UNSEEN_IDIOMS)):
        rows.append((name, "none", score_idioms(model, tokenizer, idioms)))
    for penalty in PENALTIES:
        greedy = partial(complete_greedily, model, tokenizer, new_tokens=64, repetition_penalty=penalty)
        table = score_tasks(greedy, tasks)
        for name, part in (("tasks", table), ("the HF course's tasks", table[table["name"].isin(TUTORIAL_PROMPTS)])):
            rows += [(f"{name}, right {column}", penalty, part[column]) for column in Judgement._fields]
    shares = ((*row, *share_interval(row[-1])) for row in rows)
    return "\n".join(f"| {n} | {p} | {sum(hits)} of {len(hits)} | {a:.0%} to {b:.0%} |" for n, p, hits, a, b in shares)


def write(output: Path, folder: Path, config: TrainConfig, curve: list, tasks: Sequence[Task] = (), **how: Any) -> None:
    """Write the folder that the course ships from a finished training in `output`; `how` it was made, for the card."""
    with cache.replacing(folder) as temporary:
        tokenizer = load_tokenizer(output / "final")
        artifacts.load_model(output / "final").bfloat16().save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        settings = json.loads((temporary / "config.json").read_text(encoding="utf-8"))
        save_json(temporary / "config.json", settings | {"dtype": "float32"})  # to compute in, whatever is stored
        save_json(temporary / CURVE, how | {"points": curve})
        if (size := (temporary / "model.safetensors").stat().st_size) > BIGGEST:
            raise ValueError(f"the weights have {size} bytes; at most {BIGGEST} may be shipped. Choose a lower depth.")
        checkpoints.seal(temporary)
        model, train = artifacts.load_model(temporary), artifacts.clean_corpus(config.profile).load("train").to_pandas()
        projects = train.assign(size=train["content"].str.len()).groupby(["repo_name", "license"])["size"]
        repeated = passages(model, tokenizer, train["content"], config.profile.context_length)
        final = {kind: f"{value:.2f}" for kind, value in measure(model, config).items()}
        held = artifacts.clean_corpus(config.profile).load("validation")["repo_name"]
        card = CARD.read_text(encoding="utf-8").format(
            **how | curve[-1] | final, context=config.profile.context_length, vocabulary=len(tokenizer),
            parameters=f"{count_parameters(model) / 1e6:.1f}", megabytes=f"{size / 1e6:.1f}",
            projects="\n".join(f"| {n} | {lic} | {len(s)} | {s.sum() / 1e6:.2f} |" for (n, lic), s in projects),
            held_out=", ".join(sorted(set(held))), scores=scores(model, tokenizer, tasks), tried=len(repeated),
            longest=len(repeated[0]), median=len(repeated[len(repeated) // 2]), passage=indent(repeated[0], "    "),
        )  # fmt: skip
        (temporary / "README.md").write_text(card, encoding="utf-8", newline="\n")  # not sealed: prose may be mended


def check(config: TrainConfig, points: list[dict[str, float]], steps: int) -> str:
    """Train the first `steps` again; return a sentence; raise `ValueError` if a value is more than 5 % off."""
    there = next(point for point in points if point["step"] == steps)
    now = measure(first_steps(config, steps)[0], config)
    said = ", ".join(f"{kind} {now[kind]:.3f} (committed: {there[kind]:.3f})" for kind in now)
    if any(abs(now[kind] / there[kind] - 1) > TOLERANCE for kind in now):
        raise ValueError(f"step {steps} is more than {TOLERANCE:.0%} off: {said}")
    return f"bits per byte at step {steps}: {said}"


def save_json(path: Path, value: Any) -> None:
    """Write JSON with LF at the ends of lines."""
    path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8", newline="\n")


def planned_steps(options: argparse.Namespace) -> int | None:
    """Return the length of the training; from `--minutes` only once, as a resumed run keeps its length."""
    plan = options.work / PLAN
    if options.minutes and not plan.is_file():
        _, seconds = first_steps(recipe(options.profile, options.depth), 50)
        options.work.mkdir(parents=True, exist_ok=True)
        save_json(plan, int(0.9 * 60 * options.minutes / seconds))  # the rest: evaluations and checkpoints
    return json.loads(plan.read_text(encoding="utf-8")) if options.minutes else options.steps


def main() -> int:
    """Make the reference model, or check the committed one."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--profile", choices=sorted(PROFILES), default="laptop", help="its data and seed")
    parser.add_argument("--depth", type=int, default=6, help="blocks of the modern recipe")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--minutes", type=float, help="longest training on this machine; its speed is measured first")
    length.add_argument("--steps", type=int, help="optimizer steps (default: the recipe's own number)")
    parser.add_argument("--output", type=Path, default=artifacts.REFERENCE_MODEL, help="the folder to write")
    parser.add_argument("--work", type=Path, default=cache.home() / "reference_model", help="where checkpoints stay")
    parser.add_argument("--check", type=int, metavar="STEPS", help="repeat so many steps of the model in --output")
    options = parser.parse_args()
    if options.check and options.output == artifacts.REFERENCE_MODEL and not options.output.is_dir():
        print("There is no committed reference model yet, so nothing is checked.")
        return 0
    if options.check:
        made = json.loads((options.output / CURVE).read_text(encoding="utf-8"))
        print(check(recipe(made["profile"], made["depth"], made["steps"]), made["points"], options.check))
        return 0
    config, machine = recipe(options.profile, options.depth, planned_steps(options)), environment.describe()
    how = {"profile": options.profile, "depth": options.depth, "steps": config.profile.train_steps}
    how |= {"command": shlex.join(["python", "-m", "tools.reference_model", *sys.argv[1:]])}
    how |= {"machine": f"{machine.device_name}, {machine.cores} cores, {machine.precision}, torch {torch.__version__}"}
    write(options.work, options.output, config, train(config, options.work), **how)
    print(f"written: {options.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
