"""Exercises of notebook 02: what a tokenizer makes of code."""

import functools
import random
import string
from collections.abc import Callable, Sequence

from course_utils.exercises import Exercise

Encode = Callable[[str], list[int]]
_NAMES = ["plt", "pd", "sk", "fit", "predict", "import", "testtest", "np", "return", "é", "x", ""]


def single_tokens(encode: Encode, words: Sequence[str]) -> list[str]:
    """Return the words that are one token each, in their order; `encode` turns a text into token ids."""
    return [word for word in words if len(encode(word)) == 1]


def characters_per_token(encode: Encode, texts: Sequence[str]) -> float:
    """Return how many characters one token stands for: all characters over all tokens of the texts."""
    return sum(len(text) for text in texts) / sum(len(encode(text)) for text in texts)


@functools.cache
def _encode() -> Encode:
    """Make a byte-level BPE tokenizer that knows a few words of code, with and without a space in front."""
    import tiktoken

    ranks = {bytes([i]): i for i in range(256)}
    for word in ("import", " import", " pd", " plt", "plt", "fit", " fit", " predict", " return", "test"):
        for end in range(2, len(word) + 1):
            ranks.setdefault(word[:end].encode(), len(ranks))
    bpe = tiktoken.Encoding("exercise", pat_str=r" ?\w+|\s+|.", mergeable_ranks=ranks, special_tokens={})

    def encode(text: str) -> list[int]:
        return bpe.encode(text, disallowed_special=())

    return encode


def encode(text: str) -> list[int]:
    """Encode with the small tokenizer of these exercises."""
    return _encode()(text)


def _ids(encode: Encode, texts: Sequence[str]) -> str:
    return ", ".join(f"encode({text!r}) = {encode(text)}" for text in texts[:4])


def _words(rng: random.Random) -> tuple[Encode, list[str]]:
    return encode, [rng.choice(["", " "]) + rng.choice(_NAMES) for _ in range(rng.randint(0, 5))]


def _texts(rng: random.Random) -> tuple[Encode, list[str]]:
    alphabet = string.ascii_lowercase + "  éü日"
    parts = [rng.choice([*_NAMES, "".join(rng.choices(alphabet, k=4))]) for _ in range(rng.randint(1, 8))]
    return encode, ["x", *(" ".join(parts[:i]) for i in range(rng.randint(0, len(parts))))]


EXERCISES = (
    Exercise(
        id="02.single_tokens",
        title="Which words are one token?",
        reference=single_tokens,
        examples=((encode, [" plt", " pd", " sk", " testtest"]), (encode, ["fit", "predict"])),
        edge_cases=((encode, []), (encode, [""]), (encode, ["x", " x", "é"]), (encode, [" fit", "x", " fit"])),
        random_arguments=_words,
        describe=_ids,
        hints=(
            "`encode(word)` is a list of token ids. How long is it for a word that is one token?",
            'Encode each word as it is. The space in front belongs to it: "pd" and " pd" are different tokens.',
            "Return the words themselves, in their order, not their ids.",
        ),
    ),
    Exercise(
        id="02.characters_per_token",
        title="How much text is one token?",
        reference=characters_per_token,
        examples=((encode, ["import pd", "x"]), (encode, ["return fit"])),
        edge_cases=((encode, ["x"]), (encode, ["", "import"]), (encode, ["日本", "é"])),
        random_arguments=_texts,
        describe=_ids,
        hints=(
            "Count characters with `len(text)` and tokens with `len(encode(text))`.",
            "Add up both over all texts first and divide once: a mean of ratios gives short texts too much weight.",
            "Characters are not bytes: `len('é')` is 1, though UTF-8 needs two bytes for it.",
        ),
    ),
)
