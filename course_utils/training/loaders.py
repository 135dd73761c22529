"""Data loaders for a loop on any number of processes: every row exactly once, in an order that can be resumed.

Accelerate fills the last batch with rows from the beginning, so that all processes get as many batches. Here we pad
with empty rows: their labels are all ignored, so no token counts twice, and none is left out.
"""

from collections.abc import Iterator, Sequence
from inspect import signature
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, DistributedSampler, IterableDataset
from transformers import PreTrainedTokenizerBase

from course_utils.data.packing import ConstantLengthDataset
from course_utils.environment import choose_device
from course_utils.training.config import TrainConfig
from course_utils.training.heldout import labels_of
from course_utils.training.losses import IGNORED

Row = dict[str, torch.Tensor]
_USED = ("input_ids", "attention_mask", "labels")


class FilledRows(Dataset):
    """Rows of one length, and empty ones up to a multiple of `multiple`: yields input_ids and labels, (T,) each.

    `labels` or `attention_mask` of the rows tell which tokens count. With a multiple of the global batch (batch size
    x processes x accumulation), a pass has the same batches for any number of processes, each with a real row.
    """

    def __init__(self, rows: Any, multiple: int) -> None:
        """Take a map-style data set."""
        self.rows, self.multiple = rows, multiple

    def __len__(self) -> int:
        """Count the rows, empty ones included."""
        return -(-len(self.rows) // self.multiple) * self.multiple

    def __getitems__(self, indices: Sequence[int]) -> Row:
        """Return the rows of a batch, (B, T), read at once, which is much faster than one by one."""
        wanted = torch.as_tensor(indices)
        real = wanted < len(self.rows)
        batch = self.rows[wanted.where(real, 0).tolist()]
        batch = {name: torch.as_tensor(batch[name]).long() for name in _USED if name in batch}
        return {"input_ids": batch["input_ids"], "labels": labels_of(batch).masked_fill(~real[:, None], IGNORED)}


class FilledStream(IterableDataset):
    """The same for a finite stream of rows: each data-loader worker fills up its own part."""

    def __init__(self, stream: Any, multiple: int) -> None:
        """Take an iterable of rows."""
        super().__init__()
        self.stream, self.multiple = stream, multiple

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the next pass."""
        self.stream.set_epoch(epoch)

    def __iter__(self) -> Iterator[Row]:
        """Yield all rows, then the empty ones."""
        count, row = 0, None
        for row in self.stream:
            count += 1
            yield {"input_ids": row["input_ids"], "labels": labels_of(row)}
        for _ in range(-count % self.multiple):
            yield _empty(row["input_ids"])


def _empty(like: torch.Tensor) -> Row:
    return {"input_ids": torch.zeros_like(like), "labels": torch.full_like(like, IGNORED)}


def _as_it_is(batch: Row) -> Row:
    return batch


def check_rows(train: Any, validation: Any, step_rows: int) -> None:
    """Raise `ValueError` if there are fewer rows than one step takes, or none to evaluate; a stream has no length."""
    rows = len(train) if hasattr(train, "__len__") else step_rows
    if rows < step_rows or len(validation) == 0:
        what = f"{rows} training and {len(validation)} held-out rows are too few for steps of {step_rows} rows."
        raise ValueError(f"{what} Use more text, or set COURSE_BATCH_SIZE or COURSE_ACCUMULATION_STEPS lower.")


def create_dataloaders(
    train: Any, validation: Any, batch_size: int, *, processes: int = 1, accumulation_steps: int = 1,
    num_workers: int = 0, seed: int = 0,
) -> tuple[DataLoader, DataLoader]:  # fmt: skip
    """Make the loaders for training and evaluation, for Accelerate to prepare (A14, C7).

    `train` is a map-style data set, shuffled in each pass, or a finite stream. Call `set_epoch` before each pass.
    """
    step_rows = batch_size * processes * accumulation_steps
    check_rows(train, validation, step_rows)
    settings = {"batch_size": batch_size, "num_workers": num_workers, "pin_memory": choose_device().type == "cuda"}
    # Loaders draw from generators of their own: the random numbers of dropout do not depend on when a pass begins.
    eval_rows = FilledRows(validation, batch_size * processes)
    eval_loader = DataLoader(eval_rows, generator=torch.Generator(), collate_fn=_as_it_is, **settings)
    if not hasattr(train, "__len__"):
        # Each worker fills up its last batch only, so that no batch is empty on all processes.
        stream = FilledStream(train, batch_size * processes)
        return DataLoader(stream, generator=torch.Generator(), **settings), eval_loader
    rows = FilledRows(train, step_rows)
    sampler = DistributedSampler(rows, num_replicas=1, rank=0, seed=seed)  # one that knows epochs
    options = {"sampler": sampler, "generator": torch.Generator(), "collate_fn": _as_it_is}
    return DataLoader(rows, **options, **settings), eval_loader


def packed_stream(config: TrainConfig, tokenizer: PreTrainedTokenizerBase, documents: Any) -> ConstantLengthDataset:
    """Return a stream of documents as a stream of rows, shuffled among documents and among rows."""
    if config.shuffle_buffer:
        # Newer versions of datasets read several files at once, and then wait 5 seconds at the end of each pass.
        option = "max_buffer_input_shards"
        one_file = {option: 1} if option in signature(documents.shuffle).parameters else {}
        documents = documents.shuffle(seed=config.profile.seed, buffer_size=config.shuffle_buffer, **one_file)
    return ConstantLengthDataset(  # for one process: Accelerate shares out the rows
        tokenizer, documents, seq_length=config.profile.context_length, num_of_sequences=config.buffer_sequences,
        shuffle=True, seed=config.profile.seed, process_index=0, num_processes=1,
    )  # fmt: skip
