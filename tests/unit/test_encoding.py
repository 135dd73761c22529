"""The encoder's ids are those of the tokenizer: on real files, on any text, and for any merges."""

import pickle
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import sklearn
import sympy
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from course_utils.data.encoding import Encoder
from course_utils.data.tokenization import word_tokenizer

BYTES = sorted(pre_tokenizers.ByteLevel.alphabet())
# White space of several kinds, contractions, letters and digits of several scripts, and the control tokens' characters.
CODE_LIKE = st.text(
    st.sampled_from(" \n\t\r\x0b\x1c\x85\xa0\u2003\u3000'sdmtrevl019x_.=(#é漢ñ١²Ⅷ\u0301\u200d🐍")
    | st.characters(codec="utf-8"),
    max_size=60,
)
WITH_CONTROL_TOKENS = st.lists(CODE_LIKE | st.sampled_from(["<|endoftext|>", "<|pad|>", "<|endof"])).map("".join)


def read_files(*packages, largest=12_000):
    paths = (path for package in packages for path in sorted(Path(package.__file__).parent.rglob("*.py")))
    return (path.read_text(encoding="utf-8") for path in paths if path.stat().st_size <= largest)


def bpe(merges, **options):
    """A byte-level BPE tokenizer with these merges, in this order."""
    tokens = list(dict.fromkeys([*BYTES, *(first + second for first, second in merges)]))
    model = models.BPE(vocab={token: n for n, token in enumerate(tokens)}, merges=merges, **options)
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|endoftext|>")


def check_same(tokenizer, texts, fast=None, encoder=None):
    """Compare the ids; `fast` tells whether they must have come from tiktoken, or must not."""
    encoder = encoder or Encoder(tokenizer)
    assert fast in (None, encoder._tiktoken is not None)
    expected = tokenizer(texts, add_special_tokens=False, split_special_tokens=True).input_ids
    got = encoder.encode_batch(texts)
    assert [ids.dtype for ids in got] == [np.int32] * len(texts)
    assert [ids.tolist() for ids in got] == expected


@pytest.fixture(scope="module")
def tokenizer(session_tokenizer):
    return session_tokenizer


@pytest.fixture(scope="module")
def encoder(tokenizer):
    return Encoder(tokenizer)


def test_the_ids_of_a_thousand_real_files_are_the_tokenizers(tokenizer):
    texts = list(islice(read_files(sklearn, sympy, largest=8_000), 1000))
    assert len(texts) == 1000
    check_same(tokenizer, texts, fast=True)


@settings(max_examples=300)
@given(text=CODE_LIKE | WITH_CONTROL_TOKENS)
def test_the_ids_of_any_text_are_the_tokenizers(tokenizer, encoder, text):
    check_same(tokenizer, [text, "", text * 2], encoder=encoder)


def test_letters_digits_and_spaces_are_the_same_characters_for_both_libraries():
    # With these merges the ids show whether a character stands in one piece with a letter, a digit or a symbol.
    lead = [character for character in BYTES if character not in "a1!"]
    tokenizer = bpe([(kind, character) for kind in "a1!" for character in lead])
    uniform = [range(0x3400, 0xA000), range(0xAC00, 0xD7A0), range(0xE000, 0xF900), range(0x20000, 0x34000)]
    numbers = [n for n in range(0x34000) if n % 64 == 0 or not any(n in block for block in uniform)]
    numbers = [n for n in numbers if n not in range(0xD800, 0xE000)]
    texts = ["".join(f"a{chr(n)}1{chr(n)}!{chr(n)}\n" for n in numbers[i::40]) for i in range(40)]
    check_same(tokenizer, texts, fast=True)


def test_a_control_token_written_in_a_file_is_text_and_added_words_stay_whole(tokenizer, encoder):
    text = "end = '<|endoftext|>'  # <|pad|>"
    (ids,) = encoder.encode_batch([text])
    assert not {tokenizer.eos_token_id, tokenizer.pad_token_id} & set(ids.tolist())
    assert tokenizer.decode(ids) == text
    changed = pickle.loads(pickle.dumps(tokenizer))
    changed.add_tokens(["DataFrame()"])
    check_same(changed, ["x = pd.DataFrame()", "x = pd.DataFrame(1)", "<|pad|>"], fast=True)
    assert len(changed) - 1 in Encoder(changed).encode_batch(["x = pd.DataFrame()"])[0]


@pytest.mark.parametrize(
    "merges",
    [
        [("a", "b"), ("b", "c"), ("ab", "c"), ("a", "bc")],  # a token with two origins
        [("b", "c"), ("a", "b"), ("ab", "c")],  # a token that its own bytes do not lead to
    ],
)
def test_merges_that_tiktoken_would_make_otherwise_go_through_the_library(merges):
    check_same(bpe(merges), ["abc", "abcbc aabc", "bcabc"], fast=False)


@settings(max_examples=200)
@given(data=st.data())
def test_whatever_the_merges_the_ids_are_the_tokenizers(data):
    tokens, merges = ["a", "b", "c"], []
    for _ in range(data.draw(st.integers(0, 8))):
        pair = data.draw(st.tuples(st.sampled_from(tokens), st.sampled_from(tokens)))
        if pair not in merges:
            merges.append(pair)
            tokens.append("".join(pair))
    check_same(bpe(merges), data.draw(st.lists(st.text("abc", max_size=24), min_size=1)))


def with_backend(tokenizer, **parts):
    copy = pickle.loads(pickle.dumps(tokenizer))
    for name, part in parts.items():
        setattr(copy.backend_tokenizer, name, part)
    return copy


DIGITS = pre_tokenizers.Sequence([pre_tokenizers.Digits(True), pre_tokenizers.ByteLevel(False)])
OTHERS = {
    "normalizer": lambda t: with_backend(t, normalizer=normalizers.Lowercase()),
    "prefix space": lambda t: with_backend(t, pre_tokenizer=pre_tokenizers.ByteLevel(add_prefix_space=True)),
    "no split": lambda t: with_backend(t, pre_tokenizer=pre_tokenizers.ByteLevel(False, use_regex=False)),
    "own split": lambda t: with_backend(t, pre_tokenizer=DIGITS),
    "word ends": lambda t: bpe([("a", "b")], end_of_word_suffix="</w>"),
    "words": lambda t: word_tokenizer(["import pandas as pd"], 50),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_other_kinds_of_tokenizer_go_through_the_library(tokenizer, kind):
    check_same(OTHERS[kind](tokenizer), ["import Pandas as pd  # 2024", "", "ab 12\n\n  x"], fast=False)


def test_encoders_can_be_pickled_and_truncation_that_somebody_switched_on_cuts_nothing(tokenizer):
    for source in (pickle.loads(pickle.dumps(tokenizer)), word_tokenizer(["a b c d"], 100)):
        check_same(source, ["x = '<|endoftext|>'", "y" * 10], encoder=pickle.loads(pickle.dumps(Encoder(source))))
        source("a b c d", truncation=True, max_length=2)
        assert len(Encoder(source).encode_batch(text for text in ["a b c d"])[0]) == 4


@pytest.mark.parametrize("filler", [" ", "\n", "a", "^", "x = 1; "])
def test_a_line_of_a_million_characters_is_encoded_like_the_tokenizer_does(tokenizer, filler):
    check_same(tokenizer, ["import os" + filler * (1_100_000 // len(filler)) + "x"], fast=True)
