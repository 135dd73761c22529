"""Text to token ids, fast, and exactly as the tokenizer itself would do it.

GPT-2's kind of tokenizer (byte-level BPE) runs on tiktoken: MIT licence, kept up since 2022, part of Colab, and about
ten times faster than calling the tokenizer. kitoken gave other ids on the same files; fastokens and gigatoken are
faster still, but less than a year old. Other tokenizers, and the few documents that tiktoken is not made for, go
through the tokenizers library.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable
from typing import Any

import numpy as np
import tiktoken
from tokenizers import Tokenizer

# GPT-2's split pattern, written so that most matches need no backtracking (1.7 times faster than its usual form). The
# same pieces: contractions; letters, digits or symbols with one space before them; white space, whose last character is
# left to what follows.
GPT2_PATTERN = r"(?:'(?:[sdmt]|ll|ve|re)| ?(?:\p{L}+|\p{N}+|[^\s\p{L}\p{N}]+))|\s(?:\s*(?!\S))?"

# tiktoken refuses about a million white-space characters in a row. A run of twice this many fills one whole window.
WINDOW = 250_000  # characters


class Encoder:
    """Encode batches of texts into the ids that `tokenizer(text, add_special_tokens=False)` gives.

    With `split_special_tokens=True`, the default, a file in which `<|endoftext|>` is written is text like any other:
    only packing ends a document. With False the words become the control token, as they do in a tokenizer called
    without that argument. Encoders can be pickled for data-loader workers.
    """

    def __init__(self, tokenizer: Any, *, split_special_tokens: bool = True) -> None:
        """Take a Hugging Face tokenizer; a fast one is copied, so that later changes to it have no effect here."""
        self.tokenizer = tokenizer
        self.split_special_tokens = split_special_tokens
        self._library: Tokenizer | None = None
        self._tiktoken: tiktoken.Encoding | None = None
        self._set_apart: list[str] = []  # texts that become one token before anything is split
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if isinstance(backend, Tokenizer):
            specification = json.loads(backend.to_str())
            self._library = Tokenizer.from_str(backend.to_str())
            self._library.no_truncation()
            self._library.no_padding()
            added = specification["added_tokens"]
            self._set_apart = [t["content"] for t in added if not (t["special"] and split_special_tokens)]
            self._tiktoken = _tiktoken_encoding(specification, self._library)

    @property
    def uses_tiktoken(self) -> bool:
        """Whether this tokenizer is of the kind that tiktoken reproduces."""
        return self._tiktoken is not None

    def encode_batch(self, texts: Iterable[str]) -> list[np.ndarray]:
        """Encode every text into an int32 array of ids.

        Raises ValueError for anything that is not text, and for text that holds half a surrogate pair.
        """
        if isinstance(texts, str):
            raise ValueError("encode_batch takes a list of texts, and got one text: put it into a list.")
        texts = list(texts)
        suits = [self._suits_tiktoken(_checked(position, text)) for position, text in enumerate(texts)]
        others = iter(self._encode_with_library([text for text, fast in zip(texts, suits, strict=True) if not fast]))
        return [
            self._tiktoken.encode_to_numpy(text, disallowed_special=()).view(np.int32) if fast else next(others)
            for text, fast in zip(texts, suits, strict=True)
        ]

    def _suits_tiktoken(self, text: str) -> bool:
        if self._tiktoken is None or any(content in text for content in self._set_apart):
            return False
        return len(text) < WINDOW or not any(text[i : i + WINDOW].isspace() for i in range(0, len(text), WINDOW))

    def _encode_with_library(self, texts: list[str]) -> list[np.ndarray]:
        if not texts:
            return []
        if self._library is None:  # a tokenizer written in Python
            options = {"add_special_tokens": False, "split_special_tokens": self.split_special_tokens}
            ids = self.tokenizer(texts, **options)["input_ids"]
        else:
            self._library.encode_special_tokens = self.split_special_tokens  # at each call: pickling forgets it
            ids = [encoding.ids for encoding in self._library.encode_batch_fast(texts, add_special_tokens=False)]
        return [np.array(i, dtype=np.int32) for i in ids]


def as_encoder(tokenizer: Any) -> Encoder:
    """Return an encoder for a tokenizer; an encoder is returned as it is."""
    return tokenizer if isinstance(tokenizer, Encoder) else Encoder(tokenizer)


def _checked(position: int, text: Any) -> str:
    if not isinstance(text, str):
        remedy = (
            "Drop documents without text first: dataset.filter(lambda row: isinstance(row['content'], str))."
            if text is None
            else "Give each document as a str; a data set with a format gives them after dataset.with_format(None)."
        )
        raise ValueError(f"Document {position} of this batch is {type(text).__name__}, not text. {remedy}")
    try:
        if not text.isascii():
            text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(
            f"Document {position} of this batch is no valid Unicode: half a surrogate pair at character {error.start}. "
            "Read files with encoding='utf-8' and errors='strict', and drop those that fail."
        ) from error
    return text


def _tiktoken_encoding(specification: dict, library: Tokenizer) -> tiktoken.Encoding | None:
    """Return the tiktoken encoding that gives the same ids for every text, or None where that is not certain."""
    ranks = _ranks(specification["model"], library) if _is_gpt2_like(specification) else None
    if ranks is None:
        return None
    # Without any special token tiktoken searches for the empty string at every position, at half the speed.
    unused = {"<|unused|>": max(ranks.values()) + 1}
    return tiktoken.Encoding("course", pat_str=GPT2_PATTERN, mergeable_ranks=ranks, special_tokens=unused)


def _is_gpt2_like(specification: dict) -> bool:
    """Whether text is split GPT-2's way, with nothing changed before, into a plain BPE over bytes."""
    split, model = specification["pre_tokenizer"] or {}, specification["model"]
    return (
        specification["normalizer"] is None
        and split.get("type") == "ByteLevel"
        and not split["add_prefix_space"]
        and split["use_regex"]
        and model["type"] == "BPE"
        and not any(
            model.get(option)
            for option in ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "ignore_merges")
        )
    )


def _ranks(model: dict, library: Tokenizer) -> dict[bytes, int] | None:
    """Return bytes → id for all tokens that merging makes, or None if tiktoken could merge differently.

    tiktoken joins two neighbours when their joined bytes are a token, the library when this very pair is in its list.
    They agree on every text if (1) each token comes from one pair only and (2) each token, taken alone, is encoded as
    itself. For what happens inside a stretch that no merge crosses does not depend on its surroundings: by (2) the
    stretch passes through one state of two pieces, by (1) it is the listed pair, and no other with these bytes meets.
    """
    vocabulary, merges = model["vocab"], [tuple(pair) for pair in model["merges"]]
    byte_of = _byte_of_character()
    tokens = [*byte_of, *(first + second for first, second in merges)]
    if len(set(tokens)) != len(tokens) or not all(token in vocabulary for token in tokens):
        return None
    ids = [vocabulary[token] for token in tokens[256:]]
    if any(later <= earlier for earlier, later in itertools.pairwise(ids)):
        return None  # tiktoken merges in the order of the ids
    if any(len(library.model.tokenize(token)) != 1 for token in tokens[256:]):
        return None
    return {bytes(byte_of[character] for character in token): vocabulary[token] for token in tokens}


def _byte_of_character() -> dict[str, int]:
    """Return the 256 characters that stand for bytes in a byte-level vocabulary: printable ones for themselves."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + n): byte for n, byte in enumerate(others)}
