"""Exercises of notebook 02: byte-pair encoding on single words, and what a tokenizer makes of code."""

import re
from collections import Counter
from itertools import pairwise
from numbers import Real
from typing import Any

from course_utils.exercises.comparing import shown
from course_utils.exercises.exercise import exercise

_WORDS = ("plt", " pd", "sk", "fit", " fit", "predict", "import", "testtest", " np", "é", "x", "日")


def count_pairs(words: dict) -> Counter:
    """Count neighbouring pieces, as in the notebook; `words` maps a word, or its pieces, to how often it occurs."""
    counts: Counter = Counter()
    for pieces, count in words.items():
        for pair in pairwise(pieces):
            counts[pair] += count
    return counts


def join(pieces: tuple, pair: tuple) -> tuple:
    """Join a pair wherever it occurs among the pieces of one word, from left to right, as in the notebook."""
    joined: list[str] = []
    for piece in pieces:
        if joined and (joined[-1], piece) == pair:
            joined[-1] += piece
        else:
            joined.append(piece)
    return tuple(joined)


def merge(words: dict, pair: tuple) -> dict:
    """Join a pair in all words, as in the notebook."""
    return {join(pieces, pair): count for pieces, count in words.items()}


def _word(rng) -> str:
    return "".join(rng.choices("abc", k=rng.randint(1, 5)))


def _words(rng) -> dict[str, int]:
    return {_word(rng): rng.randint(1, 4) for _ in range(rng.randint(0, 3))}


def _most_common(words):
    return count_pairs(words).most_common(1)[0][0]


def _never_merged(words, merges):
    return [_most_common(words)] * merges if count_pairs(words) else []


def _counted_once(words, merges):
    return [pair for pair, _ in count_pairs(words).most_common(merges)]


def _never_stops(words, merges):
    pairs = []
    for _ in range(merges):
        pairs.append(_most_common(words))
        words = merge(words, pairs[-1])
    return pairs


@exercise(
    "02.train_bpe",
    "`merge` returns the words after the merge. Keep them, and count these in the next round.",
    "Each merge changes the other counts: after `pl` is joined, the pair l, o is gone. Count again in every round.",
    "When every word is one piece there is no pair left. Stop then, even if fewer than `merges` were joined.",
    examples=[
        ({"plot": 5, "plots": 2, "plt": 4, "split": 3, "spot": 2}, 4),
        ({"plot": 5, "plots": 2, "plt": 4, "split": 3, "spot": 2}, 1),
        ({"aaab": 2, "aa": 1}, 2),
        ({"plot": 5}, 0),
        ({"plt": 4}, 9),
        ({"x": 1}, 1),
    ],
    random_inputs=lambda rng: (_words(rng), rng.randint(0, 4)),
    mistakes={0: _never_merged, 1: _counted_once, 2: _never_stops},
)
def train_bpe(words, merges):
    from course_utils.exercises.tokenizer import count_pairs, merge  # as in the cells above

    pairs = []
    for _ in range(merges):
        counts = count_pairs(words)
        if not counts:
            break
        pair = counts.most_common(1)[0][0]
        pairs.append(pair)
        words = merge(words, pair)
    return pairs


def _any_known_pair(word, merges):
    pieces, place = list(word), 0
    while place < len(pieces) - 1:
        if (pieces[place], pieces[place + 1]) in merges:
            pieces[place : place + 2] = [pieces[place] + pieces[place + 1]]
        else:
            place += 1
    return pieces


def _most_frequent_here(word, merges):
    pieces = tuple(word)
    while known := [pair for pair in pairwise(pieces) if pair in merges]:
        pieces = join(pieces, Counter(known).most_common(1)[0][0])
    return list(pieces)


def _letters_only(word, merges):
    pieces = tuple(word)
    for pair in merges:
        if all(len(piece) == 1 for piece in pair):
            pieces = join(pieces, pair)
    return list(pieces)


def _learned(rng) -> tuple[str, list[tuple[str, str]]]:
    words = [_word(rng) for _ in range(4)]
    return rng.choice(words) + rng.choice(words), train_bpe(dict.fromkeys(words, 1), rng.randint(0, 5))


@exercise(
    "02.encode",
    "The list says in which order the pairs were learned. Go through it, and join each pair wherever it stands.",
    "How often a pair occurs in this word does not matter. New text is cut in the order that was learned.",
    "A joined piece may join again: `pl` and `ot` become `plot`. Go on with the pieces of the last step.",
    examples=[
        ("pot", [("o", "t"), ("p", "o")]),
        ("plots", [("p", "l"), ("o", "t"), ("pl", "ot")]),
        ("popopot", [("o", "t"), ("p", "o")]),
        ("ababcb", [("c", "b"), ("b", "c"), ("a", "b")]),
        ("aaa", [("a", "a")]),
        ("plt", []),
        ("", [("p", "l")]),
    ],
    random_inputs=_learned,
    mistakes={1: _most_frequent_here, 2: _letters_only},
    bug=_any_known_pair,
)
def encode(word, merges):
    from course_utils.exercises.tokenizer import join  # as in the cell above

    pieces = tuple(word)
    for pair in merges:
        pieces = join(pieces, pair)
    return list(pieces)


def toy_encode(text: str) -> list[int]:
    """Encode with a toy tokenizer: a token has up to four letters, or a space and up to two."""
    return [sum(token.encode()) for token in re.findall(r" \w{1,2}|\w{1,4}|(?s:.)", text)]


toy_encode.__name__ = "encode"  # the name that the learner's parameter has


def _mean_of_ratios(encode, texts):
    ratios = [len(text) / len(encode(text)) for text in texts]
    return sum(ratios) / len(ratios)


def _without_empty_texts(encode, texts):
    return _mean_of_ratios(encode, [text for text in texts if text])


def _bytes(encode, texts):
    return sum(len(text.encode()) for text in texts) / sum(len(encode(text)) for text in texts)


@exercise(
    "02.characters",
    "A mean of ratios gives a short text the weight of a long one. Add up first, and divide once.",
    "Count characters with `len(text)`: `len('é')` is 1, though UTF-8 needs two bytes for it.",
    "Add up the characters of all texts, and the tokens of all texts. An empty text adds nothing to either.",
    examples=[
        (toy_encode, ["import pandas as pd", "x"]),
        (toy_encode, ["import pd", ""]),
        (toy_encode, ["日本", "é"]),
    ],
    random_inputs=lambda rng: (toy_encode, [rng.choice(_WORDS), *rng.choices(["", *_WORDS], k=rng.randint(0, 2))]),
    mistakes={0: _without_empty_texts, 1: _bytes},
    bug=_mean_of_ratios,
)
def characters_per_token(encode, texts):
    characters = sum(len(text) for text in texts)
    tokens = sum(len(encode(text)) for text in texts)
    return characters / tokens


def _doubling(answer: Any, gains: list[float]) -> str:
    """Judge a predicted gain by the gains of all doublings, the asked one last."""
    if not isinstance(answer, Real) or isinstance(answer, bool) or answer != answer:
        return f"Give a number of characters per token; this is {shown(answer)}."
    *known, asked = gains
    if abs(answer - asked) <= max(0.03, 0.15 * asked):
        return ""
    if answer < 0:
        return "A larger vocabulary joins more pairs, so a token never stands for less text."
    if answer > 1.5 * known[0]:
        return "Give the gain, which is a difference: characters per token after the doubling, minus those before."
    if answer >= 0.95 * known[-1]:
        return "That is the last gain or more. Compare the last gain with the one before: which way do they go?"
    return f"The doubling added {asked:.2f} characters per token; you said {float(answer):.2f}."


@exercise(
    "02.doubling",
    "Read two gains off the plot: how much higher is the second point than the first, and the third than the second?",
    "Divide the second gain by the first. If the third one shrinks by the same factor, how large is it?",
    examine=_doubling,
)
def next_gain(first_gain, second_gain):
    return second_gain * second_gain / first_gain
