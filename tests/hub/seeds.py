"""Small repositories under the ids that the profile `full` names, made of the course's own tiny data."""

import gzip
import io
import json
from pathlib import Path

from faults import FaultyHub

from course_utils import artifacts
from course_utils.data import paraphrases
from course_utils.evaluation.problems import load_problems
from course_utils.models.encoder import save_scratch_encoder
from course_utils.profiles import get_profile

GLUE = """---
configs:
- config_name: mrpc
  data_files:
  - {split: train, path: mrpc/train-*}
  - {split: validation, path: mrpc/validation-*}
  - {split: test, path: mrpc/test-*}
- config_name: sst2
  data_files:
  - {split: train, path: sst2/train-*}
  - {split: validation, path: sst2/validation-*}
---
# GLUE, as far as the tests need it
"""
# Of the profile `full`, what a test can pay for: names stay, sizes shrink.
SMALL = {
    "VOCAB_SIZE": 2048, "MODEL_LAYERS": 1, "MODEL_WIDTH": 32, "MODEL_HEADS": 2,
    "BATCH_SIZE": 8, "ACCUMULATION_STEPS": 1, "TRAIN_STEPS": 24,
    "EVAL_STEPS": 6, "SAVE_STEPS": 6, "EVAL_SEQUENCES": 16, "SAMPLE_DOCUMENTS": 200,
    "FINETUNE_EPOCHS": 1, "FINETUNE_PAIRS": 32, "FINETUNE_SEEDS": 2,
}  # fmt: skip


def seed(hub: FaultyHub, tmp_path: Path, documents: int = 400) -> None:
    """Fill the Hub with the tutorials' data sets and models, small, in the layout that they have there."""
    profile = get_profile("tiny")
    corpora = {"transformersbook/codeparrot": artifacts.code_corpus(profile)}
    corpora["huggingface-course/codeparrot-ds"] = artifacts.filtered_corpus(profile)
    for name, corpus in corpora.items():
        for split, part in (("train", "train"), ("validation", "valid")):
            rows = corpus.load(split)
            rows = rows.select(range(0, len(rows), max(1, len(rows) // documents)))
            hub.add_files("datasets", f"{name}-{part}", layout(name, rows))
    glue = {"README.md": GLUE}
    for config, place in (("mrpc", paraphrases.PAIRS), ("sst2", paraphrases.SENTENCES)):
        for split, rows in paraphrases.load_pairs(place).items():
            if config == "mrpc" or split != "test":
                glue[f"{config}/{split}-00000-of-00001.parquet"] = parquet(rows)
    hub.add_files("datasets", "nyu-mll/glue", glue)
    problems = {"openai_humaneval/test-00000-of-00001.parquet": parquet(load_problems().select(range(5)))}
    hub.add_files("datasets", "openai/openai_humaneval", problems)
    add_model(hub, "openai-community/gpt2", "gpt2", {"config.json": GPT2})
    texts = paraphrases.load_pairs(paraphrases.PAIRS)["train"]["sentence1"][:]
    save_scratch_encoder(tmp_path / "bert", texts)
    bert = {path.name: path.read_bytes() for path in (tmp_path / "bert").iterdir()}
    add_model(hub, "google-bert/bert-base-uncased", "bert-base-uncased", bert)


GPT2 = json.dumps({
    "architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "n_ctx": 1024, "n_embd": 768, "n_head": 12,
    "n_layer": 12, "n_positions": 1024, "vocab_size": 50257, "bos_token_id": 50256, "eos_token_id": 50256,
    "activation_function": "gelu_new", "layer_norm_epsilon": 1e-5, "initializer_range": 0.02,
})  # fmt: skip


def add_model(hub: FaultyHub, name: str, old: str, files: dict) -> None:
    """Add a model under its first name, from when names had no owner, and rename it as the Hub did."""
    hub.add_files("models", old, files)
    hub.storage.move("models", old, name)


def layout(name: str, rows) -> dict[str, bytes]:
    """Return files as the two data sets have them: compressed JSON lines, or Parquet."""
    if name.endswith("-ds"):
        return {"data/train-00000-of-00001.parquet": parquet(rows)}
    half = len(rows) // 2
    parts = (rows.select(range(half)), rows.select(range(half, len(rows))))
    lines = ("".join(json.dumps(row) + "\n" for row in part) for part in parts)
    return {f"file-{n:012}.json.gz": gzip.compress(text.encode(), mtime=0) for n, text in enumerate(lines, 1)}


def parquet(rows) -> bytes:
    rows.to_parquet(file := io.BytesIO())
    return file.getvalue()
