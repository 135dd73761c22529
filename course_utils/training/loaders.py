"""Data loaders for a loop on any number of processes: every row exactly once, in an order that can be resumed.

Accelerate fills the last batch with rows from the beginning, so that all processes get as many batches. Here the rows
that fill up are empty: their labels are all ignored, so no token counts twice, and none is left out.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, DistributedSampler, IterableDataset

from course_utils.environment import choose_device
from course_utils.training.heldout import labels_of
from course_utils.training.losses import IGNORED

Row = dict[str, torch.Tensor]
_USED = ("input_ids", "attention_mask", "labels")


class FilledRows(Dataset):
    """Packed rows with labels, and empty rows up to a multiple of `multiple`: yields input_ids and labels, (T,) each.

    With a multiple of the global batch (batch size x processes x accumulation), a pass has the same batches for any
    number of processes, and every one of them has at least one real row.
    """

    def __init__(self, rows: Any, multiple: int) -> None:
        """Take a map-style data set with a column `input_ids`, rows of one length.

        Columns `labels` or `attention_mask` say which tokens count; without them, all do.
        """
        self.rows, self.multiple = rows, multiple

    def __len__(self) -> int:
        """Return the number of rows, the empty ones included."""
        return -(-len(self.rows) // self.multiple) * self.multiple

    def __getitem__(self, index: int) -> Row:
        """Return one row; raises `IndexError` behind the last one."""
        if index >= len(self):
            raise IndexError(f"row {index} of {len(self)}")
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Row]:
        """Return the rows of a batch, read at once, which is much faster than one by one."""
        real = [int(i) for i in indices if i < len(self.rows)]
        batch = self.rows[real or [0]]
        batch = {name: torch.as_tensor(batch[name]).long() for name in _USED if name in batch}
        pairs = iter(zip(batch["input_ids"], labels_of(batch), strict=True))
        like = batch["input_ids"][0]
        return [_row(*next(pairs)) if i < len(self.rows) else _empty(like) for i in indices]


class FilledStream(IterableDataset):
    """The same for a finite stream of rows: each data-loader worker fills up its own part."""

    def __init__(self, stream: Any, multiple: int) -> None:
        """Take an iterable of rows with `input_ids`, all of one length."""
        super().__init__()
        self.stream, self.multiple = stream, multiple

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the next pass."""
        self.stream.set_epoch(epoch)

    def __iter__(self) -> Iterator[Row]:
        """Yield all rows, then the empty ones."""
        count, ids = 0, None
        for row in self.stream:
            ids = row["input_ids"]
            count += 1
            yield _row(ids, labels_of(row))
        for _ in range(-count % self.multiple):
            yield _empty(ids)


def _row(ids: torch.Tensor, labels: torch.Tensor) -> Row:
    return {"input_ids": ids, "labels": labels}


def _empty(like: torch.Tensor) -> Row:
    return _row(torch.zeros_like(like), torch.full_like(like, IGNORED))


def create_dataloaders(
    train: Any,
    validation: Any,
    batch_size: int,
    *,
    processes: int = 1,
    accumulation_steps: int = 1,
    num_workers: int = 0,
    seed: int = 0,
) -> tuple[DataLoader, DataLoader]:
    """Make the loaders for training and evaluation, for Accelerate to prepare (A14, C7).

    `train` is a map-style data set, shuffled in each pass, or a finite stream such as `ConstantLengthDataset` (with
    `process_index=0, num_processes=1`: Accelerate shares out its rows). Call `set_epoch` before each pass. Raises
    `ValueError` if there are fewer rows than one optimizer step takes, or none to evaluate.
    """
    step_rows = batch_size * processes * accumulation_steps
    if hasattr(train, "__len__") and len(train) < step_rows:
        raise ValueError(
            f"{len(train)} rows do not fill one optimizer step of {step_rows} rows ({batch_size} per batch x "
            f"{processes} processes x {accumulation_steps} accumulated). Use more text, or set COURSE_BATCH_SIZE or "
            "COURSE_ACCUMULATION_STEPS lower."
        )
    if len(validation) == 0:
        raise ValueError("there are no rows to evaluate on; use more held-out text or shorter sequences.")
    settings = {"batch_size": batch_size, "num_workers": num_workers, "pin_memory": choose_device().type == "cuda"}
    # Loaders draw from generators of their own: the random numbers of dropout do not depend on when a pass begins.
    eval_rows = FilledRows(validation, batch_size * processes)
    eval_loader = DataLoader(eval_rows, generator=torch.Generator(), **settings)
    if not hasattr(train, "__len__"):
        # Each worker fills up its last batch only, so that no batch is empty on all processes.
        stream = FilledStream(train, batch_size * processes)
        return DataLoader(stream, generator=torch.Generator(), **settings), eval_loader
    rows = FilledRows(train, step_rows)
    sampler = DistributedSampler(rows, num_replicas=1, rank=0, seed=seed)  # one that knows epochs
    return DataLoader(rows, sampler=sampler, generator=torch.Generator(), **settings), eval_loader


def set_epoch(loader: Any, epoch: int) -> None:
    """Choose the order of the next pass of a prepared loader: the same epoch gives the same order."""
    loader.set_epoch(epoch)  # Accelerate's own count, which it would otherwise pass on
    for holder in (loader.dataset, *_samplers(loader)):
        if hasattr(holder, "set_epoch"):
            holder.set_epoch(epoch)


def _samplers(loader: Any) -> Iterator[Any]:
    """Yield the samplers behind a batch sampler; Accelerate wraps one into another to share out the batches."""
    holder = getattr(loader, "batch_sampler", None)
    while holder is not None:
        if hasattr(holder, "sampler"):
            yield holder.sampler
        holder = getattr(holder, "batch_sampler", None)
