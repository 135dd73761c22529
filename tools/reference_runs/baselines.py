"""The table of baselines: gzip, the counting model, the model of notebook 04 and any others, judged alike.

Text: held-out documents of the clean corpus, each kind packed by itself into rows of the model's own length. A row's
first token is given, not predicted. Idioms and tasks: the most likely token each time, for networks also with tokens
that were there already made less likely (repetition penalty). Where counting wins, the table shows it.
"""

import gzip
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from course_utils import artifacts, cache
from course_utils.data import packing, tokenization
from course_utils.data.documents import kind_of
from course_utils.data.encoding import Encoder
from course_utils.evaluation import tasks
from course_utils.evaluation.metrics import share_interval
from course_utils.evaluation.tasks import load_tasks, score_tasks
from course_utils.models import prompts
from course_utils.models.causal import context_length
from course_utils.models.counting import CountingModel
from course_utils.models.prompts import IDIOMS, TUTORIAL_PROMPTS, UNSEEN_IDIOMS
from course_utils.profiles import Profile
from course_utils.training import heldout, losses
from tools.records import Record

KINDS = ("user", "library")
PENALTIES = (1.0, 1.1, 1.2)
NEW_TOKENS = 48  # of a task's answer
BATCH = 16

# What decides besides the models; where it changes, all is judged anew.
JUDGES = {module.__name__.split(".")[-1]: Path(module.__file__).with_suffix(".json") for module in (prompts, tasks)}

Complete = Callable[[str, int], str]  # (prompt, number of new tokens) -> continuation
RowsLoss = Callable[[np.ndarray], float]  # rows of token ids (N, T) -> nats per predicted token


class Rival(NamedTuple):
    """What the table needs of a model: its tokenizer, length of rows, loss, and ways to continue a text."""

    tokenizer: PreTrainedTokenizerBase
    length: int
    loss: RowsLoss
    ways: dict[float, Complete]  # by repetition penalty


def gzip_bits_per_byte(texts: Sequence[str]) -> float:
    """Return what gzip needs for texts, which it reads as one and adapts to."""
    data = "".join(texts).encode()
    return 8 * len(gzip.compress(data, 9)) / len(data)


def compare(record: Record, profile: Profile, models: list[Path], max_rows: int = 0) -> str:
    """Measure all that the record lacks; return the table as text."""
    texts = held_out_texts(profile)
    record.run(lambda: {"bits_per_byte": {k: gzip_bits_per_byte(v) for k, v in texts.items()}}, model="gzip")
    measured = partial(measure, texts=texts, max_rows=max_rows)
    record.run(lambda: measured(counting(profile)), model="counting", rows=max_rows)
    own = artifacts.find_pretrained(profile)
    if own is None:
        print(f"Notebook 04's model for {profile.name} is not there, so its row is missing; run the notebook.")
    elif cache.read_key(own)["data"][0] != artifacts.packed_data(profile).digest:
        print("Notebook 04's model was trained on rows made by other code; run the notebook again to be exact.")
    named = {"GPT-2 of notebook 04": own} if own else {}
    for name, folder in (named | {path.name: path for path in models}).items():
        weights = cache.file_sha256(next(iter(sorted(folder.glob("*.safetensors")))))[:16]
        record.run(lambda folder=folder: measured(network(folder)), model=name, rows=max_rows, weights=weights)
    return table(record)


def held_out_texts(profile: Profile) -> dict[str, list[str]]:
    """Return the held-out documents by kind; there are no tests among them."""
    rows = artifacts.clean_corpus(profile).load("validation")
    kinds = [kind_of(path) for path in rows["path"]]
    return {kind: [text for text, k in zip(rows["content"], kinds, strict=True) if k == kind] for kind in KINDS}


def counting(profile: Profile) -> Rival:
    """Return the counting model of all training rows."""
    tokenizer = artifacts.code_tokenizer(profile)
    rows = artifacts.packed_data(profile).train.with_format("numpy")["input_ids"][:]
    model = CountingModel(rows, len(tokenizer))
    return Rival(tokenizer, profile.context_length, model.loss, {1.0: partial(model.complete, tokenizer)})


def network(folder: Path) -> Rival:
    """Return a saved model, with the tokenizer beside it, in float32."""
    model, tokenizer = artifacts.load_model(folder).float(), tokenization.load_tokenizer(folder)
    ways = {penalty: partial(complete, model, tokenizer, penalty) for penalty in PENALTIES}
    return Rival(tokenizer, context_length(model), partial(rows_loss, model), ways)


@torch.inference_mode()
def rows_loss(model: PreTrainedModel, rows: np.ndarray) -> float:
    """Return the mean loss of rows (N, T), in nats per token, without their first tokens."""
    total = 0.0
    for part in torch.from_numpy(rows.astype(np.int64)).to(model.device).split(BATCH):
        total += losses.token_losses(part, model(part).logits.float()).double().sum().item()
    return total / rows[:, 1:].size


@torch.inference_mode()
def complete(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, penalty: float, prompt: str, new_tokens: int
) -> str:
    """Continue a prompt greedily; one that leaves no room in the context loses tokens on its left."""
    ids = tokenizer(prompt, return_tensors="pt", add_special_tokens=False)["input_ids"]
    ids = ids[:, new_tokens - context_length(model) :].to(model.device)
    made = model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=new_tokens, do_sample=False, use_cache=True,
        repetition_penalty=penalty, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    return tokenizer.decode(made[0, ids.shape[1] :], skip_special_tokens=True)


def measure(rival: Rival, texts: dict[str, list[str]], max_rows: int = 0) -> dict[str, Any]:
    """Return bits per byte by kind of text, and for each repetition penalty the idioms and tasks."""
    bits = {kind: bits_per_byte(rival, documents, max_rows) for kind, documents in texts.items()}
    answers = {f"{penalty:.1f}": judged(rival.tokenizer, way) for penalty, way in rival.ways.items()}
    return {"row_length": rival.length, "bits_per_byte": bits, "repetition_penalty": answers}


def bits_per_byte(rival: Rival, documents: list[str], max_rows: int = 0) -> float:
    """Return bits per byte of documents, packed; at most `max_rows` rows, evenly from all."""
    ids = Encoder(rival.tokenizer).encode_batch(documents)
    rows, _ = packing.pack(ids, rival.tokenizer.eos_token_id, rival.length)
    if max_rows and len(rows) > max_rows:
        rows = rows[[len(rows) * i // max_rows for i in range(max_rows)]]
    tokens = sum(map(len, ids)) + len(ids)
    return heldout.bits_per_byte(rival.loss(rows), tokens, sum(len(text.encode()) for text in documents))


def judged(tokenizer: PreTrainedTokenizerBase, way: Complete) -> dict[str, Any]:
    """Return hits among idioms and among tasks, with 95 % intervals of the tasks' shares, and which tasks were hit."""
    result: dict[str, Any] = {}
    for name, idioms in (("idioms", IDIOMS), ("unseen_idioms", UNSEEN_IDIOMS)):
        lengths = [len(tokenizer(expected, add_special_tokens=False)["input_ids"]) for *_, expected in idioms]
        pairs = zip(idioms, lengths, strict=True)
        hits = [way(prompt, length + 2).startswith(expected) for (_, prompt, expected), length in pairs]
        result[name] = {"hits": sum(hits), "of": len(hits)}
    scores = score_tasks(lambda prompt: way(prompt, NEW_TOKENS), load_tasks())
    for name in ("function", "arguments"):
        low, high = share_interval(scores[name])
        hits = scores["name"][scores[name]].tolist()
        result[name] = {"hits": len(hits), "of": len(scores), "low": round(low, 3), "high": round(high, 3)}
        result[name]["names"] = hits
    tutorial = scores[scores["name"].isin(TUTORIAL_PROMPTS)]
    result["tutorial"] = dict(zip(tutorial["name"], tutorial["completion"], strict=True))
    return result


def table(record: Record) -> str:
    """Return one line per model and repetition penalty."""
    rows = []
    for run in record.runs:
        text = {f"{kind} text (bits/byte)": round(run["bits_per_byte"][kind], 3) for kind in KINDS}
        for penalty, found in run.get("repetition_penalty", {"": {}}).items():
            row = {"model": run["model"], "penalty": penalty, **text}
            for name in ("idioms", "unseen_idioms", "function", "arguments"):
                part = found.get(name)
                row[name] = f"{part['hits']}/{part['of']}" if part else "-"
                if part and "low" in part:
                    row[name] += f" ({part['low']:.2f}-{part['high']:.2f})"
            right = set(found.get("arguments", {}).get("names", ())) & set(TUTORIAL_PROMPTS)
            rows.append(row | {"HF course's four": f"{len(right)}/4" if found else "-"})
    return pd.DataFrame(rows).to_string(index=False)
