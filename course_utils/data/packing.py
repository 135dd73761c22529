"""From token ids to the fixed-length sequences a model is trained on: chunks that drop, or packs that keep.

Chunking cuts every document by itself and drops what is left over. Packing writes the documents one after the other,
each with an end-of-text token behind it, and then cuts: at most one incomplete sequence is lost in all.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from datasets import Dataset, Features, List, Value
from torch.utils.data import IterableDataset, get_worker_info
from tqdm.auto import tqdm

from course_utils.data.encoding import as_encoder
from course_utils.data.tokenization import batch_iterator, check_column, end_of_text_id

MOST_WORKERS = 1024  # data-loader workers of one process that can report what they dropped


def make_chunker(
    tokenizer: Any, context_length: int = 128, column: str = "content"
) -> Callable[[dict[str, list]], dict[str, list]]:
    """Return the tutorial's `tokenize(element)`, for `dataset.map(tokenize, batched=True, remove_columns=…)`.

    Each document becomes chunks of exactly `context_length` tokens; a shorter last one is dropped, and nothing marks
    the end of a document. Raises ValueError for a length that is not positive or beyond the tokenizer's maximum; the
    function returned raises it for one text instead of a list (`batched=True` was forgotten).
    """
    length = _checked_length(context_length, tokenizer)

    def tokenize(element: dict[str, list]) -> dict[str, list]:
        if isinstance(element[column], str):
            raise ValueError("got one text instead of a list of them; call dataset.map(…, batched=True)")
        outputs = tokenizer(
            list(element[column]),
            truncation=True,
            max_length=length,
            return_overflowing_tokens=True,
            return_length=True,
            add_special_tokens=False,
            split_special_tokens=True,
        )
        pairs = zip(outputs["length"], outputs["input_ids"], strict=True)
        return {"input_ids": [ids for n, ids in pairs if n == length]}

    return tokenize


def pack(
    token_lists: Iterable[Sequence[int]], eos_id: int, length: int, *, carry: Sequence[int] = ()
) -> tuple[np.ndarray, np.ndarray]:
    """Join the documents, `eos_id` after each of them, and cut: (full sequences (N, length), what is left over).

    `carry` is the left-over of an earlier call and comes first, so that any number of calls gives the same sequences as
    one. Both arrays are int32. Raises ValueError for a length that is not positive, and for ids that are no int32.
    """
    length = _checked_length(length)
    end = _as_ids([eos_id])
    pieces = [_as_ids(carry)]
    for ids in token_lists:
        pieces += (_as_ids(ids), end)
    tokens = np.concatenate(pieces)
    full = len(tokens) // length * length
    return tokens[:full].reshape(-1, length), tokens[full:]


def _as_ids(ids: Sequence[int]) -> np.ndarray:
    given = np.asarray(ids)
    if given.dtype == np.int32:
        return given
    ids = given.astype(np.int32) if given.dtype.kind in "biuf" else None
    if ids is None or not (ids == given).all():
        raise ValueError(f"Token ids, the end-of-text token's too, must be whole numbers of 32 bits, not {given!r}.")
    return ids


def tokens_lost_by_chunking(token_counts: Sequence[int], length: int) -> int:
    """Return how many tokens are dropped when documents of these lengths are cut one by one."""
    return int((_checked_counts(token_counts) % _checked_length(length)).sum())


def share_lost(token_counts: Sequence[int], length: int) -> float:
    """Return the share of all tokens that chunking drops, between 0 and 1; ValueError without documents."""
    return tokens_lost_by_chunking(token_counts, length) / max(1, int(_checked_counts(token_counts).sum()))


def share_lost_by_packing(token_counts: Sequence[int], length: int) -> float:
    """Return the share of all tokens that packing drops, end-of-text tokens included, between 0 and 1."""
    total = int((_checked_counts(token_counts) + 1).sum())
    return total % _checked_length(length) / total


def share_documents_lost(token_counts: Sequence[int], length: int) -> float:
    """Return the share of documents that chunking drops whole, because they are shorter than one chunk."""
    return float((_checked_counts(token_counts) < _checked_length(length)).mean())


@dataclass(frozen=True)
class Packed:
    """Packed sequences with the account of what went into them; tokens include one end-of-text token per document."""

    dataset: Dataset  # column input_ids, sequences of one length
    documents: int
    tokens: int
    tokens_lost: int  # the last, incomplete sequence
    text_bytes: int  # UTF-8, for bits per byte


def pack_dataset(
    dataset: Any, tokenizer: Any, length: int, path: Path | str, *, column: str = "content", show_progress: bool = True
) -> Packed:
    """Encode and pack a data set or finite stream into an Arrow file, in memory that does not grow with the data.

    `tokenizer` may be an Encoder. The file at `path` can be opened again with `Dataset.from_file`; its fixed-size lists
    hold uint16 where the vocabulary allows, else int32, and the collators make int64 tensors of both. Raises ValueError
    for a bad length, a tokenizer without end-of-text token, or less text than one sequence; then no file is left.
    """
    encoder, path = as_encoder(tokenizer), Path(path)
    length, eos_id = _checked_length(length, encoder.tokenizer), end_of_text_id(encoder.tokenizer)
    largest = max(encoder.tokenizer.get_vocab().values())  # not the number of tokens: ids may have gaps
    dtype = "uint16" if largest < 2**16 else "int32"
    schema = Features({"input_ids": List(Value(dtype), length=length)}).arrow_schema
    documents = tokens = text_bytes = 0
    left: Sequence[int] = ()
    partial = path.with_name(path.name + ".partial")
    total = len(dataset) if hasattr(dataset, "__len__") else None
    try:
        with (
            pa.OSFile(str(partial), "wb") as sink,
            pa.ipc.new_stream(sink, schema) as writer,
            tqdm(total=total, unit=" documents", desc="packing", disable=not show_progress) as bar,
        ):
            for texts in batch_iterator(dataset, column=column):
                ids = encoder.encode_batch(texts)
                rows, left = pack(ids, eos_id, length, carry=left)
                flat = pa.array(rows.reshape(-1).astype(dtype))
                writer.write(pa.record_batch([pa.FixedSizeListArray.from_arrays(flat, length)], schema=schema))
                documents += len(texts)
                tokens += sum(map(len, ids)) + len(ids)
                text_bytes += sum(len(text) if text.isascii() else len(text.encode()) for text in texts)
                bar.update(len(texts))
        if tokens < length:
            raise ValueError(
                f"{documents} documents with {tokens} tokens do not fill one sequence of {length}. "
                "Give more text, or choose a shorter length."
            )
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return Packed(Dataset.from_file(str(path)), documents, tokens, len(left), text_bytes)


class ConstantLengthDataset(IterableDataset):
    """Packed sequences of one length, made while they are read; yields `{"input_ids": (seq_length,) int64}`.

    Documents are collected until they hold about `num_of_sequences` sequences (`chars_per_token` turns that into
    characters), encoded, and packed with an end-of-text token after each. One pass by default; `infinite=True` starts
    again, in a new order if `shuffle` is set: documents of a map-style data set, and the sequences of each buffer. For
    a stream, shuffle the documents with `dataset.shuffle(seed=…, buffer_size=…)`; its order changes with the epoch too.
    Every pass reads the stream from its first document, whatever state was loaded into it.

    Every document goes to exactly one of processes × workers (document i to shard i modulo their number), which packs
    what it gets. So a pass loses less than `seq_length` tokens per shard, counted in `tokens_dropped`. The process is
    taken from torch.distributed or from RANK and WORLD_SIZE. Where Accelerate or Trainer prepares the loader, they
    share out the sequences themselves: pass `process_index=0, num_processes=1`, or each would get a share of a share.

    Raises ValueError for arguments out of range, and when a pass finds no documents. (Tutorial: "Training transformers
    from scratch", `ConstantLengthDataset`, which never ends, and repeats every document in every worker.)
    """

    def __init__(
        self,
        tokenizer: Any,
        dataset: Any,
        infinite: bool = False,
        seq_length: int = 1024,
        num_of_sequences: int = 1024,
        chars_per_token: float = 3.6,
        content_field: str = "content",
        shuffle: bool = False,
        seed: int = 0,
        *,
        process_index: int | None = None,
        num_processes: int | None = None,
        on_fill: Callable[[int, int], None] | None = None,
    ) -> None:
        """Check the arguments; `on_fill(characters, documents)` is called in the worker whenever a buffer is full."""
        super().__init__()
        if num_of_sequences < 1 or not chars_per_token > 0:  # nan too
            raise ValueError(
                f"num_of_sequences must be at least 1 and chars_per_token above 0, "
                f"not {num_of_sequences} and {chars_per_token}."
            )
        check_column(dataset, content_field)
        self.encoder, self.dataset, self.column = as_encoder(tokenizer), dataset, content_field
        self.seq_length = _checked_length(seq_length, self.encoder.tokenizer)
        self.eos_id = end_of_text_id(self.encoder.tokenizer)
        self.buffer_characters = self.seq_length * num_of_sequences * chars_per_token
        self.infinite, self.shuffle, self.seed, self.on_fill = infinite, shuffle, seed, on_fill
        self.process_index, self.num_processes = _process(process_index, num_processes)
        # Shared memory: workers that persist between epochs see a new epoch, and this process sees what they dropped.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()
        self._dropped = torch.zeros(MOST_WORKERS, dtype=torch.int64).share_memory_()

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the next pass; the same epoch and seed give the same order."""
        self._epoch.fill_(epoch)

    @property
    def tokens_dropped(self) -> int:
        """Tokens in the incomplete last sequences of this process's workers, after the last finished pass."""
        return int(self._dropped.sum())

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        """Yield the sequences of this process and data-loader worker."""
        info = get_worker_info()
        return self.read_shard(*((info.id, info.num_workers) if info else (0, 1)))

    def read_shard(self, worker: int, num_workers: int) -> Iterator[dict[str, torch.Tensor]]:
        """Yield the sequences that one of `num_workers` workers of this process is given."""
        shard, shards = self.process_index * num_workers + worker, self.num_processes * num_workers
        self._dropped[num_workers:] = self._dropped[worker] = 0
        first, left = int(self._epoch), ()
        for epoch in itertools.count(first) if self.infinite else (first,):
            for number, texts in enumerate(self._buffers(epoch, shard, shards)):
                rows, left = pack(self.encoder.encode_batch(texts), self.eos_id, self.seq_length, carry=left)
                if self.shuffle:
                    rows = np.random.default_rng([self.seed, epoch, shard, number]).permutation(rows)
                for row in rows:
                    yield {"input_ids": torch.from_numpy(row.astype(np.int64))}
        self._dropped[worker] = len(left)

    def _buffers(self, epoch: int, shard: int, shards: int) -> Iterator[list[str]]:
        texts, characters, documents = [], 0, 0
        for text in self._documents(epoch, shard, shards):
            documents += 1
            texts.append(text)
            characters += len(text)
            if characters >= self.buffer_characters:
                if self.on_fill:
                    self.on_fill(characters, len(texts))
                yield texts
                texts, characters = [], 0
        if texts:
            yield texts
        if documents == 0 and self.infinite:  # this shard would wait for ever
            raise ValueError(f"There are fewer documents than shards ({shards}): use fewer workers or more data.")

    def _documents(self, epoch: int, shard: int, shards: int) -> Iterator[str]:
        """Yield this shard's documents. A stream is read whole by every shard, so that one file suffices for many."""
        seen = 0
        if hasattr(self.dataset, "__len__"):
            seen = len(self.dataset)
            order = np.random.default_rng([self.seed, epoch]).permutation(seen) if self.shuffle else np.arange(seen)
            mine = ({self.column: self.dataset[int(i)][self.column]} for i in order[shard::shards])
            yield from itertools.chain.from_iterable(batch_iterator(mine, column=self.column))
        else:
            stream = self.dataset
            if hasattr(stream, "set_epoch"):
                stream = stream.select_columns([self.column])  # a new object: workers may be in different epochs
                stream.set_epoch(epoch)
            for text in itertools.chain.from_iterable(batch_iterator(stream, column=self.column)):
                if seen % shards == shard:
                    yield text
                seen += 1
        if seen == 0:
            raise ValueError("The data holds no documents. Is the split right, or was a generator read before?")


def _process(index: int | None, count: int | None) -> tuple[int, int]:
    if (index is None) != (count is None):
        raise ValueError("Give process_index and num_processes together, or neither.")
    if index is None:
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            index, count = torch.distributed.get_rank(), torch.distributed.get_world_size()
        else:
            index, count = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    if not 0 <= index < count:
        raise ValueError(f"process_index is {index}, but with num_processes={count} it must be 0 to {count - 1}.")
    return index, count


def _checked_length(length: int, tokenizer: Any = None) -> int:
    if isinstance(length, bool) or not isinstance(length, int | np.integer) or length < 1:
        raise ValueError(f"The sequence length must be a whole number of tokens, at least 1, not {length!r}.")
    if tokenizer is not None and length > tokenizer.model_max_length:
        raise ValueError(
            f"A sequence length of {length} exceeds what the tokenizer's model can read, {tokenizer.model_max_length} "
            "tokens. Choose a shorter one, or raise tokenizer.model_max_length together with the model's n_positions."
        )
    return int(length)


def _checked_counts(token_counts: Sequence[int]) -> np.ndarray:
    counts = np.asarray(token_counts, dtype=np.int64)
    if len(counts) == 0 or counts.min() < 0:
        raise ValueError("Give the number of tokens of every document: at least one number, and none below 0.")
    return counts
