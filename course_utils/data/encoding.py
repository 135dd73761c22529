"""Text to token ids, fast, and exactly as the tokenizer itself would do it.

GPT-2's kind of tokenizer (byte-level BPE) runs on tiktoken, about ten times faster than calling the tokenizer. (kitoken
gave other ids on the same files; fastokens and gigatoken are less than a year old.) Other tokenizers, and the few
documents that tiktoken is not made for, go through the tokenizers library.
"""

import itertools
import json
from collections.abc import Iterable

import numpy as np
import tiktoken
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

# GPT-2's split pattern, written so that most matches need no backtracking (1.7 times faster than its usual form). The
# same pieces: contractions; letters, digits or symbols with one space before them; white space, whose last character is
# left to what follows.
GPT2_PATTERN = r"(?:'(?:[sdmt]|ll|ve|re)| ?(?:\p{L}+|\p{N}+|[^\s\p{L}\p{N}]+))|\s(?:\s*(?!\S))?"

# tiktoken refuses about a million white-space characters in a row. A run of twice this many fills one whole window.
WINDOW = 250_000  # characters


class Encoder:
    """Encode batches of texts into the ids of `tokenizer(text, add_special_tokens=False, split_special_tokens=True)`.

    A file in which `<|endoftext|>` is written is text like any other: only packing ends a document.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        """Copy the tokenizer, so that truncation which somebody switches on cuts nothing here."""
        text = tokenizer.backend_tokenizer.to_str()
        specification, self._library = json.loads(text), Tokenizer.from_str(text)
        self._library.no_truncation()
        self._library.no_padding()
        # Texts that become one token before anything is split.
        self._set_apart = [token["content"] for token in specification["added_tokens"] if not token["special"]]
        self._tiktoken = None
        if ranks := _ranks(specification["model"], self._library) if _is_gpt2_like(specification) else None:
            # Without any special token tiktoken searches for the empty string at every position, at half the speed.
            names = {"mergeable_ranks": ranks, "special_tokens": {"<|unused|>": max(ranks.values()) + 1}}
            self._tiktoken = tiktoken.Encoding("course", pat_str=GPT2_PATTERN, **names)

    def encode_batch(self, texts: Iterable[str]) -> list[np.ndarray]:
        """Encode every text into an int32 array of ids."""
        self._library.encode_special_tokens = True  # at each call: pickling forgets it
        return [self._encode(text) for text in texts]

    def _encode(self, text: str) -> np.ndarray:
        apart = any(content in text for content in self._set_apart)
        gap = len(text) >= WINDOW and any(text[i : i + WINDOW].isspace() for i in range(0, len(text), WINDOW))
        if self._tiktoken is None or apart or gap:
            return np.array(self._library.encode(text, add_special_tokens=False).ids, dtype=np.int32)
        return self._tiktoken.encode_to_numpy(text, disallowed_special=()).view(np.int32)


def _is_gpt2_like(specification: dict) -> bool:
    """Return True if text is split GPT-2's way, with nothing changed before, into a plain BPE over bytes."""
    split, model = specification["pre_tokenizer"] or {}, specification["model"]
    split_alike = split.get("type") == "ByteLevel" and split["use_regex"] and not split["add_prefix_space"]
    options = map(model.get, ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "ignore_merges"))
    return specification["normalizer"] is None and split_alike and model["type"] == "BPE" and not any(options)


def _ranks(model: dict, library: Tokenizer) -> dict[bytes, int] | None:
    """Return bytes → id for all tokens that merging makes, or None if tiktoken could merge differently.

    tiktoken joins two neighbours when their joined bytes are a token, the library when this very pair is in its list.
    They agree on every text if (1) each token comes from one pair only and (2) each token, taken alone, is encoded as
    itself. For what happens inside a stretch that no merge crosses does not depend on its surroundings: by (2) the
    stretch passes through one state of two pieces, by (1) it is the listed pair, and no other with these bytes meets.
    """
    vocabulary, byte_of = model["vocab"], _byte_of_character()
    tokens = [*byte_of, *map("".join, model["merges"])]
    if not all(token in vocabulary for token in tokens):
        return None
    ids = [vocabulary[token] for token in tokens[256:]]
    if any(later <= earlier for earlier, later in itertools.pairwise(ids)):
        return None  # tiktoken merges in the order of the ids; a token of two pairs has its id twice
    if any(len(library.model.tokenize(token)) != 1 for token in tokens[256:]):
        return None
    return {bytes(byte_of[character] for character in token): vocabulary[token] for token in tokens}


def _byte_of_character() -> dict[str, int]:
    """Return the 256 characters that stand for bytes in a byte-level vocabulary: printable ones for themselves."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + n): byte for n, byte in enumerate(others)}
