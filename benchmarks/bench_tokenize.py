"""Tokenize and pack against the tutorial's chunking map, on the data-science files of this environment.

Both start from the same Dataset and end in an Arrow-backed one. CPU seconds count all threads and children. The
tokenizers library runs on one thread: with more, the tutorial's way needs less time but more CPU seconds.
"""

from __future__ import annotations

import os
import statistics
import sysconfig
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
from datasets import Dataset, disable_progress_bars, enable_progress_bars

from course_utils.data.filtering import KEYWORDS
from course_utils.data.packing import pack, pack_dataset
from course_utils.data.tokenization import batch_iterator, train_code_tokenizer

TARGETS = {"tokenize + pack": 10}
MOST_LOST = 0.01  # % of tokens
TEXT_BYTES = 10_000_000
VOCABULARY = 8_192
LENGTH = 128  # the tutorial's context
ROUNDS = 3


def data_science_files(limit: int) -> Iterator[str]:
    """Yield installed Python files with one of the keywords, about `limit` bytes of them, spread over all packages."""
    paths = sorted(Path(sysconfig.get_paths()["purelib"]).rglob("*.py"))
    for start in range(7):  # every seventh file first, so that no package makes up the whole sample
        for path in paths[start::7]:
            content = path.read_bytes()
            if not any(keyword.encode() in content for keyword in KEYWORDS):
                continue
            try:
                yield content.decode("utf-8")
            except UnicodeDecodeError:
                continue
            limit -= len(content)
            if limit <= 0:
                return


def tutorial_map(data: Dataset, tokenizer) -> Dataset:
    """Chunk as the tutorial does: every text cut by the tokenizer, full pieces kept, through Dataset.map."""

    def tokenize(element: dict) -> dict:
        outputs = tokenizer(
            element["content"], truncation=True, max_length=LENGTH, return_overflowing_tokens=True, return_length=True
        )
        return {"input_ids": [i for n, i in zip(outputs["length"], outputs["input_ids"], strict=True) if n == LENGTH]}

    return data.map(tokenize, batched=True, remove_columns=data.column_names, load_from_cache_file=False)


def cpu_seconds(work: Callable[[], object]) -> float:
    process = psutil.Process()
    before = sum(process.cpu_times()[:4])
    work()
    return sum(process.cpu_times()[:4]) - before


def run() -> list[dict]:
    """Check that the ids are the same, then measure in turns; ratios above 1 are in our favour."""
    before = os.environ.get("TOKENIZERS_PARALLELISM")
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    disable_progress_bars()
    try:
        data = Dataset.from_dict({"content": list(data_science_files(TEXT_BYTES))})
        tokenizer = train_code_tokenizer(batch_iterator(data), VOCABULARY)
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            return measure(data, tokenizer, Path(folder))
    finally:
        enable_progress_bars()
        os.environ.pop("TOKENIZERS_PARALLELISM") if before is None else os.environ.update(TOKENIZERS_PARALLELISM=before)


def measure(data: Dataset, tokenizer, folder: Path) -> list[dict]:
    packed = pack_dataset(data, tokenizer, LENGTH, folder / "packed.arrow")
    own_ids = tokenizer(list(data["content"]), add_special_tokens=False, split_special_tokens=True)["input_ids"]
    rows, _ = pack(own_ids, tokenizer.eos_token_id, LENGTH)
    assert np.array_equal(np.array(packed.dataset["input_ids"][:]), rows), "the ids differ"
    chunks = tutorial_map(data, tokenizer)
    tokens = sum(map(len, own_ids))

    times: dict[str, list[float]] = {"ours": [], "theirs": []}
    for turn in range(ROUNDS):
        path = folder / f"{turn}.arrow"
        times["ours"].append(cpu_seconds(lambda p=path: pack_dataset(data, tokenizer, LENGTH, p)))
        times["theirs"].append(cpu_seconds(lambda: tutorial_map(data, tokenizer)))
    megabytes = packed.text_bytes / 1e6
    ours, theirs = (megabytes / statistics.median(times[side]) for side in ("ours", "theirs"))
    lost = 100 * packed.tokens_lost / packed.tokens
    assert lost < MOST_LOST, f"{lost:.4f} % of the tokens were lost by packing"
    lost_by_chunks = 100 * (1 - len(chunks) * LENGTH / tokens)
    return [
        row("tokenize + pack", ours, theirs, ours / theirs, "MB of text per CPU second"),
        row(f"tokens lost at context {LENGTH}", lost, lost_by_chunks, lost_by_chunks / max(lost, 1e-9), "% of tokens"),
    ]


def row(name: str, ours: float, theirs: float, ratio: float, unit: str) -> dict:
    return {"name": name, "ours": ours, "theirs": theirs, "ratio": ratio, "unit": unit}


if __name__ == "__main__":
    print(*run(), sep="\n")
