"""From token ids to the fixed-length sequences a model is trained on: chunks that drop, or packs that keep.

Chunking cuts every document by itself and drops what is left over. Packing writes the documents one after the other,
each with an end-of-text token behind it, and then cuts: at most one incomplete sequence is lost in all.
"""

import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import torch
from datasets import Dataset, Features, List, Value
from torch.utils.data import IterableDataset, get_worker_info
from tqdm.auto import tqdm
from transformers import PreTrainedTokenizerBase

from course_utils.cache import replacing
from course_utils.data.encoding import Encoder
from course_utils.data.tokenization import batch_iterator

_ROWS_AT_ONCE = 100


def make_chunker(tokenizer: PreTrainedTokenizerBase, context_length: int = 128) -> Callable[[dict], dict]:
    """Return the tutorial's `tokenize(element)`, for `dataset.map(tokenize, batched=True, remove_columns=…)` (A5)."""

    def tokenize(element: dict[str, list]) -> dict[str, list]:
        if isinstance(element["content"], str):  # nearly all of the corpus would be lost
            raise ValueError("got one text instead of a list of them; call dataset.map(…, batched=True)")
        outputs = tokenizer(
            list(element["content"]), truncation=True, max_length=context_length, return_overflowing_tokens=True,
            return_length=True, add_special_tokens=False, split_special_tokens=True,
        )  # fmt: skip
        pairs = zip(outputs["length"], outputs["input_ids"], strict=True)
        return {"input_ids": [ids for n, ids in pairs if n == context_length]}

    return tokenize


def pack(
    token_lists: Iterable[Sequence[int]], eos_id: int, length: int, *, carry: Sequence[int] = ()
) -> tuple[np.ndarray, np.ndarray]:
    """Join the documents, `eos_id` after each of them, and cut: (full sequences (N, length), what is left over).

    `carry`, the left-over of an earlier call, comes first, so that many calls make the same sequences as one.
    """
    pieces = [np.asarray(carry, dtype=np.int32)]
    for ids in token_lists:
        pieces += (np.asarray(ids, dtype=np.int32), np.array([eos_id], dtype=np.int32))
    tokens = np.concatenate(pieces)
    full = len(tokens) // length * length
    return tokens[:full].reshape(-1, length), tokens[full:]


class Packed(NamedTuple):
    """Packed sequences with the account of what went into them; tokens include one end-of-text token per document."""

    dataset: Dataset  # column input_ids, sequences of one length
    tokens: int
    tokens_lost: int  # the last, incomplete sequence
    text_bytes: int  # UTF-8, for bits per byte


def pack_dataset(dataset: Any, tokenizer: PreTrainedTokenizerBase, length: int, path: Path | str) -> Packed:
    """Encode and pack a data set or finite stream into an Arrow file, in memory that does not grow with the data.

    Ids are uint16 where the vocabulary allows, else int32. Raises ValueError for less text than one sequence.
    """
    encoder = Encoder(tokenizer)
    largest = max(tokenizer.get_vocab().values())  # not the number of tokens: ids may have gaps
    dtype = "uint16" if largest < 2**16 else "int32"
    schema = Features({"input_ids": List(Value(dtype), length=length)}).arrow_schema
    tokens, text_bytes, left = 0, 0, ()
    with replacing(Path(path)) as partial:
        with pa.ipc.new_stream(str(partial), schema) as writer:
            for texts in batch_iterator(tqdm(dataset, "packing", unit=" documents")):
                ids = encoder.encode_batch(texts)
                rows, left = pack(ids, tokenizer.eos_token_id, length, carry=left)
                flat = pa.array(rows.reshape(-1).astype(dtype))
                writer.write(pa.record_batch([pa.FixedSizeListArray.from_arrays(flat, length)], schema=schema))
                tokens += sum(map(len, ids)) + len(ids)
                text_bytes += sum(len(text) if text.isascii() else len(text.encode()) for text in texts)
        if tokens < length:
            raise ValueError(f"{tokens} tokens do not fill one sequence of {length}; give more, or a shorter length.")
    return Packed(Dataset.from_file(str(path)), tokens, len(left), text_bytes)


class ConstantLengthDataset(IterableDataset):
    """Packed sequences of one length, made while they are read; yields `{"input_ids": (seq_length,) int64}` (C4).

    A buffer of documents of about `num_of_sequences` sequences (in characters: times `chars_per_token`) is encoded and
    packed at once. `infinite` starts again after a pass. `shuffle` gives each pass an order of its own: documents of a
    map-style data set, and the sequences of each buffer; for a stream, use its own `shuffle`, which follows the epoch.

    Document i goes to shard i modulo processes × workers; a pass loses less than `seq_length` tokens per shard. The
    process is that of torch.distributed, or of RANK and WORLD_SIZE. Where Accelerate or Trainer shares out the
    sequences, pass `process_index=0, num_processes=1`, or the data would be sharded twice.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, dataset: Any, infinite: bool = False, seq_length: int = 1024,
        num_of_sequences: int = 1024, chars_per_token: float = 3.6, content_field: str = "content",
        shuffle: bool = False, seed: int = 0, *, process_index: int | None = None, num_processes: int | None = None,
    ) -> None:  # fmt: skip
        """Take a data set, stream or list of rows."""
        super().__init__()
        self.encoder, self.eos_id = Encoder(tokenizer), tokenizer.eos_token_id
        self.dataset, self.column, self.seq_length = dataset, content_field, seq_length
        self.buffer_characters = seq_length * num_of_sequences * chars_per_token
        self.infinite, self.shuffle, self.seed = infinite, shuffle, seed
        rank, world = _process()
        self.process_index = rank if process_index is None else process_index
        self.num_processes = world if num_processes is None else num_processes
        # Shared memory: workers that persist between epochs see a new epoch.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the next pass; the same epoch and seed give the same order."""
        self._epoch.fill_(epoch)

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        """Yield the sequences of this process and data-loader worker."""
        info = get_worker_info()
        return self.read_shard(*((info.id, info.num_workers) if info else (0, 1)))

    def read_shard(self, worker: int, num_workers: int) -> Iterator[dict[str, torch.Tensor]]:
        """Yield the sequences that one of `num_workers` workers of this process gets.

        Raises ValueError for data without documents, and in an infinite pass if this worker gets none.
        """
        shard, shards = self.process_index * num_workers + worker, self.num_processes * num_workers
        first, left = int(self._epoch), ()
        for epoch in itertools.count(first) if self.infinite else (first,):
            for number, texts in enumerate(self._buffers(self._documents(epoch, shard, shards))):
                rows, left = pack(self.encoder.encode_batch(texts), self.eos_id, self.seq_length, carry=left)
                if self.shuffle:
                    rows = np.random.default_rng([self.seed, epoch, shard, number]).permutation(rows)
                for row in rows:
                    yield {"input_ids": torch.from_numpy(row.astype(np.int64))}

    def _buffers(self, documents: Iterable[str]) -> Iterator[list[str]]:
        texts, characters = [], 0
        for text in documents:
            texts.append(text)
            characters += len(text)
            if characters >= self.buffer_characters:
                yield texts
                texts, characters = [], 0
        if texts:
            yield texts

    def _documents(self, epoch: int, shard: int, shards: int) -> Iterator[str]:
        """Yield this shard's documents. A stream is read whole by every shard, so that one file suffices for many."""
        if hasattr(self.dataset, "__len__"):
            count = len(self.dataset)
            order = np.random.default_rng([self.seed, epoch]).permutation(count) if self.shuffle else range(count)
            texts = (self.dataset[int(i)][self.column] for i in order[shard::shards])
        else:
            every = (row[self.column] for row in self.dataset)
            if hasattr(self.dataset, "set_epoch"):
                stream = self.dataset.select_columns([self.column])  # a new object: workers may be in different epochs
                stream.set_epoch(epoch)
                # Not iter(stream): in a worker, that would share out the rows a second time.
                every = itertools.chain.from_iterable(batch[self.column] for batch in stream.iter(_ROWS_AT_ONCE))
            texts = itertools.islice(every, shard, None, shards)
        first = list(itertools.islice(texts, 1))
        if not first and (self.infinite or shard == 0):  # the first shard has documents if there are any
            raise ValueError(
                f"There are no documents for reader {shard + 1} of {shards} (workers x processes). Is the split right, "
                "was a generator read before, or are there more readers than documents?"
            )
        yield from itertools.chain(first, texts)


def _process() -> tuple[int, int]:
    """Return the number of this process and of all, as torch or the launcher knows them."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
