"""One long text as overlapping windows of tokens, each with the same window one token later as its target."""

from pathlib import Path
from typing import Any

import tiktoken
import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from transformers import PreTrainedTokenizerBase

STORIES = "course-stories"


def load_text(location: str | Path = STORIES) -> str:
    """Read the course's own stories, or any text file in UTF-8.

    Raises `ValueError` if there is no such file, if it is not UTF-8, or if it holds nothing but white space.
    """
    own = Path(__file__).parent / "stories" / "harbour.txt"
    path = own if str(location) == STORIES else Path(location).expanduser()
    if not path.is_file():
        raise ValueError(f"{location} is no file; give the path of a text file, or {STORIES!r} for the course's own.")
    try:
        text = path.read_text(encoding="utf-8-sig")  # a byte-order mark, as Windows writes it, is no text
    except UnicodeDecodeError as error:
        raise ValueError(f"{location} is not UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8.") from None
    if not text.strip():
        raise ValueError(f"{location} is empty; choose a file with text.")
    return text


def split_text(text: str, train_ratio: float = 0.9) -> tuple[str, str]:
    """Cut a text in two, for training and validation: the first `train_ratio` of its characters, and the rest.

    Raises `ValueError` for a ratio outside (0, 1), and if one part would be empty.
    """
    if not 0 < train_ratio < 1:
        raise ValueError(f"train_ratio is {train_ratio}; it must be between 0 and 1, for example 0.9.")
    cut = int(train_ratio * len(text))
    if not text[:cut].strip() or not text[cut:].strip():
        raise ValueError(f"a text of {len(text)} characters is too short to split {train_ratio:g} to the rest.")
    return text[:cut], text[cut:]


def check_token_counts(train_text: str, val_text: str, tokenizer: Any, max_length: int) -> tuple[int, int]:
    """Return the numbers of tokens of both parts; raises `ValueError` if one has less than a window and its target."""
    counts = tuple(len(encode_text(text, tokenizer)) for text in (train_text, val_text))
    for name, count, remedy in zip(("training", "validation"), counts, ("a larger", "a smaller"), strict=True):
        if count <= max_length:
            raise ValueError(
                f"the {name} part has {count} tokens, a window and its target need {max_length + 1}; "
                f"use a longer text, a shorter max_length or {remedy} train_ratio."
            )
    return counts


def encode_text(text: str, tokenizer: Any) -> list[int]:
    """Return the token ids of a text, from any tokenizer with `encode`; special tokens in it are kept, none added."""
    if isinstance(tokenizer, tiktoken.Encoding):
        return tokenizer.encode(text, allowed_special="all")
    if isinstance(tokenizer, PreTrainedTokenizerBase):
        return tokenizer.encode(text, add_special_tokens=False, verbose=False)  # longer than any context: no warning
    if isinstance(tokenizer, Tokenizer):
        return tokenizer.encode(text, add_special_tokens=False).ids
    return tokenizer.encode(text)


class GPTDatasetV1(Dataset):
    """Windows of `max_length` tokens, `stride` tokens apart, as (input, target); tokens that fill no window are left.

    All windows are views of one tensor: overlapping ones cost no memory. Raises `ValueError` for a text without a
    single window, and for sizes below 1.
    """

    def __init__(self, txt: str, tokenizer: Any, max_length: int, stride: int) -> None:
        """Encode the text once."""
        if max_length < 1 or stride < 1:
            raise ValueError(f"max_length is {max_length} and stride {stride}; both must be at least 1.")
        self.tokens = torch.tensor(encode_text(txt, tokenizer), dtype=torch.long)
        if len(self.tokens) <= max_length:
            raise ValueError(
                f"the text has {len(self.tokens)} tokens, a window and its target need {max_length + 1}; "
                "use a longer text or a shorter max_length."
            )
        self.windows = self.tokens.unfold(0, max_length + 1, stride)  # (N, T + 1), a view

    def __len__(self) -> int:
        """Number of windows."""
        return len(self.windows)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Return window number `index`, and the same one token later: (T,) and (T,)."""
        window = self.windows[index]
        return window[:-1], window[1:]


def create_dataloader_v1(
    txt: str,
    batch_size: int = 4,
    max_length: int = 256,
    stride: int = 128,
    shuffle: bool = True,
    drop_last: bool = True,
    num_workers: int = 0,
    *,
    tokenizer: Any = None,
    seed: int = 0,
) -> DataLoader:
    """Make a loader of (inputs, targets), each (B, T), from a text; `seed` alone decides the order.

    Without a tokenizer it is GPT-2's own, which tiktoken downloads once; `ConnectionError` where it cannot.
    (`train_model_simple` seeds the loader anew for every epoch, so that a training can go on after a break.)
    Raises `ValueError` for a text that does not fill one window, or not one batch where incomplete ones are dropped.
    """
    dataset = GPTDatasetV1(txt, _gpt2_tokenizer() if tokenizer is None else tokenizer, max_length, stride)
    if drop_last and len(dataset) < batch_size:
        raise ValueError(
            f"the text gives {len(dataset)} windows, fewer than a batch of {batch_size}, which would be dropped; use a "
            "smaller batch_size, max_length or stride, a longer text, or drop_last=False."
        )
    return DataLoader(
        dataset,
        batch_size,
        shuffle,
        drop_last=drop_last,
        num_workers=num_workers,
        # Its own source of randomness: then the order changes no dropout, and dropout no order.
        generator=torch.Generator().manual_seed(seed),
    )


def _gpt2_tokenizer() -> tiktoken.Encoding:
    try:
        return tiktoken.get_encoding("gpt2")
    except OSError as error:  # requests' errors are OSErrors
        raise ConnectionError(
            f"GPT-2's tokenizer is not here and cannot be downloaded ({type(error).__name__}); give another one: "
            "tokenizer=artifacts.code_tokenizer(profile)."
        ) from error
