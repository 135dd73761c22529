"""Exercises of notebook 02: what a tokenizer makes of code."""

import re

from course_utils.exercises.exercise import exercise

_WORDS = ("plt", " pd", "sk", "fit", " fit", "predict", "import", "testtest", " np", "é", "x", "日")


def encode(text: str) -> list[int]:
    """Encode with a toy tokenizer: a token has up to four letters, or a space and up to two."""
    return [sum(token.encode()) for token in re.findall(r" \w{1,2}|\w{1,4}|(?s:.)", text)]


@exercise(
    "02.characters_per_token",
    "Count characters with `len(text)` and tokens with `len(encode(text))`.",
    "Add up both over all texts first and divide once: a mean of ratios gives short texts too much weight.",
    "Characters are not bytes: `len('é')` is 1, though UTF-8 needs two bytes for it.",
    examples=[(encode, ["import pd", "x"]), (encode, ["日本", "é"])],
    random_inputs=lambda rng: (encode, rng.choices(_WORDS, k=rng.randint(1, 3))),
    mistakes={1: lambda encode, texts: sum(len(text) / len(encode(text)) for text in texts) / len(texts)},
)
def characters_per_token(encode, texts):
    characters = sum(len(text) for text in texts)
    tokens = sum(len(encode(text)) for text in texts)
    return characters / tokens


@exercise(
    "02.single_tokens",
    "`encode(word)` is a list of token ids. How long is it for a word that is one token? The empty text has none.",
    'Encode each word as it is. The space in front belongs to it: "pd" and " pd" are different tokens.',
    examples=[(encode, [" plt", " pd", " sk", " testtest"]), (encode, ["fit", " fit", "predict"])],
    random_inputs=lambda rng: (encode, rng.choices([*_WORDS, ""], k=rng.randint(0, 3))),
    mistakes={1: lambda encode, words: [word for word in words if len(encode(word.strip())) == 1]},
)
def single_tokens(encode, words):
    return [word for word in words if len(encode(word)) == 1]
