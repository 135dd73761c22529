"""One long text as overlapping windows of tokens, each with the same window one token later as its target."""

from pathlib import Path
from typing import Any

import tiktoken
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

STORIES = Path(__file__).parent / "stories" / "harbour.txt"


def load_text(path: str | Path = STORIES) -> str:
    """Return the text of the course's own stories, or of any file in UTF-8."""
    return Path(path).read_text(encoding="utf-8-sig")  # a byte-order mark, as Windows writes it, is not text


def split_text(text: str, train_ratio: float = 0.9) -> tuple[str, str]:
    """Cut a text in two, for training and validation: the first `train_ratio` of its characters, and the rest."""
    cut = int(train_ratio * len(text))
    return text[:cut], text[cut:]


def check_token_counts(train_text: str, val_text: str, tokenizer: Any, max_length: int) -> tuple[int, int]:
    """Return the numbers of tokens of both parts; raises `ValueError` if one has no window (D5)."""
    train, val = (GPTDatasetV1(text, tokenizer, max_length, max_length) for text in (train_text, val_text))
    return len(train.tokens), len(val.tokens)


def encode_text(text: str, tokenizer: Any) -> list[int]:
    """Return the token ids of a text, from tiktoken or a Hugging Face tokenizer; no special tokens are added."""
    if isinstance(tokenizer, tiktoken.Encoding):
        return tokenizer.encode(text, allowed_special="all")
    return tokenizer.encode(text, add_special_tokens=False, verbose=False)  # longer than any context: no warning


class GPTDatasetV1(Dataset):
    """Windows of `max_length` tokens, `stride` tokens apart, as (input, target); a final partial window is dropped.

    All windows are views of one tensor: overlapping ones cost no memory. Raises `ValueError` for a text without any.
    """

    def __init__(self, txt: str, tokenizer: Any, max_length: int, stride: int) -> None:
        """Encode the text once."""
        self.tokens = torch.tensor(encode_text(txt, tokenizer), dtype=torch.long)
        if len(self.tokens) <= max_length:
            raise ValueError(
                f"the text has {len(self.tokens)} tokens, a window and its target need {max_length + 1}; "
                "use a longer text or a shorter max_length."
            )
        self.windows = self.tokens.unfold(0, max_length + 1, stride)  # (N, T + 1), a view

    def __len__(self) -> int:
        """Return the number of windows."""
        return len(self.windows)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Return window number `index`, and the same one token later: (T,) and (T,)."""
        window = self.windows[index]
        return window[:-1], window[1:]


def create_dataloader_v1(
    txt: str, batch_size: int = 4, max_length: int = 256, stride: int = 128, shuffle: bool = True,
    drop_last: bool = True, num_workers: int = 0, *, tokenizer: Any = None, seed: int = 0,
) -> DataLoader:  # fmt: skip
    """Make a loader of (inputs, targets), each (B, T), from a text; `seed` alone decides the order.

    Without a tokenizer it is GPT-2's own, which tiktoken downloads once. Raises `ValueError` for a text that does not
    fill one window, or not one batch where incomplete ones are dropped.
    """
    dataset = GPTDatasetV1(txt, tokenizer or tiktoken.get_encoding("gpt2"), max_length, stride)
    if drop_last and len(dataset) < batch_size:  # a loss over no batch
        raise ValueError(
            f"the text makes {len(dataset)} windows, fewer than a batch of {batch_size}, which would be dropped; use a "
            "longer text, a smaller batch_size, or drop_last=False."
        )
    # Its own source of randomness: then the order changes no dropout, and dropout no order.
    order = torch.Generator().manual_seed(seed)
    return DataLoader(dataset, batch_size, shuffle, drop_last=drop_last, num_workers=num_workers, generator=order)
