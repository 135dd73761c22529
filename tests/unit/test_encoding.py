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
from transformers import ByT5Tokenizer, PreTrainedTokenizerFast

from course_utils.data.encoding import Encoder, as_encoder
from course_utils.data.tokenization import batch_iterator, byte_tokenizer, train_code_tokenizer, word_tokenizer

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


def check_same(encoder, texts):
    expected = encoder.tokenizer(
        texts, add_special_tokens=False, split_special_tokens=encoder.split_special_tokens
    ).input_ids
    got = encoder.encode_batch(texts)
    assert [ids.dtype for ids in got] == [np.int32] * len(texts)
    assert [ids.tolist() for ids in got] == expected


@pytest.fixture(scope="module")
def tokenizer():
    files = islice(read_files(sklearn), 150)
    return train_code_tokenizer(batch_iterator([{"content": text} for text in files]), 2000)


@pytest.fixture(scope="module")
def both_encoders(tokenizer):
    return [Encoder(tokenizer, split_special_tokens=split) for split in (True, False)]


def test_a_trained_tokenizer_runs_on_tiktoken_and_says_so(tokenizer):
    assert Encoder(tokenizer).uses_tiktoken
    assert Encoder(byte_tokenizer()).uses_tiktoken
    assert not Encoder(word_tokenizer(["a b"], 100)).uses_tiktoken
    assert as_encoder(encoder := Encoder(tokenizer)) is encoder


def test_the_ids_of_a_thousand_real_files_are_the_tokenizers(tokenizer):
    texts = list(islice(read_files(sklearn, sympy, largest=8_000), 1000))
    assert len(texts) == 1000
    check_same(Encoder(tokenizer), texts)


@settings(max_examples=300)
@given(text=CODE_LIKE | WITH_CONTROL_TOKENS)
def test_the_ids_of_any_text_are_the_tokenizers_either_way(both_encoders, text):
    for encoder in both_encoders:
        check_same(encoder, [text, "", text * 2])


def test_letters_digits_and_spaces_are_the_same_characters_for_both_libraries():
    # With these merges the ids show whether a character stands in one piece with a letter, a digit or a symbol.
    lead = [character for character in BYTES if character not in "a1!"]
    tokenizer = bpe([(kind, character) for kind in "a1!" for character in lead])
    encoder = Encoder(tokenizer)
    assert encoder.uses_tiktoken
    uniform = [range(0x3400, 0xA000), range(0xAC00, 0xD7A0), range(0xE000, 0xF900), range(0x20000, 0x34000)]
    numbers = [n for n in range(0x34000) if n not in range(0xD800, 0xE000)]
    numbers = [n for n in numbers if n % 64 == 0 or not any(n in block for block in uniform)]
    check_same(encoder, ["".join(f"a{chr(n)}1{chr(n)}!{chr(n)}\n" for n in numbers[i::40]) for i in range(40)])


def test_a_control_token_written_in_a_file_is_text_unless_asked_for(tokenizer):
    text = "end = '<|endoftext|>'  # <|pad|>"
    (as_text,) = Encoder(tokenizer).encode_batch([text])
    (as_control,) = Encoder(tokenizer, split_special_tokens=False).encode_batch([text])
    assert tokenizer.eos_token_id not in as_text
    assert tokenizer.pad_token_id not in as_text
    assert tokenizer.decode(as_text) == text
    assert tokenizer.eos_token_id in as_control
    assert tokenizer.pad_token_id in as_control


def test_added_words_stay_whole(tokenizer):
    changed = pickle.loads(pickle.dumps(tokenizer))
    changed.add_tokens(["DataFrame()"])
    encoder = Encoder(changed)
    check_same(encoder, ["x = pd.DataFrame()", "x = pd.DataFrame(1)", "<|pad|>"])
    assert len(changed) - 1 in encoder.encode_batch(["x = pd.DataFrame()"])[0]


# Tokens with two origins, and tokens that their own bytes do not lead to: tiktoken would merge differently.
@pytest.mark.parametrize(
    "merges",
    [
        [("a", "b"), ("b", "c"), ("ab", "c"), ("a", "bc")],
        [("b", "c"), ("a", "b"), ("ab", "c")],
    ],
)
def test_ambiguous_merges_go_through_the_library(merges):
    encoder = Encoder(bpe(merges))
    assert not encoder.uses_tiktoken
    check_same(encoder, ["abc", "abcbc aabc", "bcabc"])


@settings(max_examples=200)
@given(data=st.data())
def test_whatever_the_merges_the_ids_are_the_tokenizers(data):
    tokens, merges = ["a", "b", "c"], []
    for _ in range(data.draw(st.integers(0, 8))):
        pair = data.draw(st.tuples(st.sampled_from(tokens), st.sampled_from(tokens)))
        if pair not in merges:
            merges.append(pair)
            tokens.append("".join(pair))
    check_same(Encoder(bpe(merges)), data.draw(st.lists(st.text("abc", max_size=24), min_size=1)))


def with_backend(tokenizer, **parts):
    copy = pickle.loads(pickle.dumps(tokenizer))
    for name, part in parts.items():
        setattr(copy.backend_tokenizer, name, part)
    return copy


OTHERS = {
    "normalizer": lambda t: with_backend(t, normalizer=normalizers.Lowercase()),
    "prefix space": lambda t: with_backend(t, pre_tokenizer=pre_tokenizers.ByteLevel(add_prefix_space=True)),
    "no split": lambda t: with_backend(t, pre_tokenizer=pre_tokenizers.ByteLevel(False, use_regex=False)),
    "own split": lambda t: with_backend(
        t, pre_tokenizer=pre_tokenizers.Sequence([pre_tokenizers.Digits(True), pre_tokenizers.ByteLevel(False)])
    ),
    "word ends": lambda t: bpe([("a", "b")], end_of_word_suffix="</w>"),
    "words": lambda t: word_tokenizer(["import pandas as pd"], 50),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_other_kinds_of_tokenizer_go_through_the_library(tokenizer, kind):
    encoder = Encoder(OTHERS[kind](tokenizer))
    assert not encoder.uses_tiktoken
    check_same(encoder, ["import Pandas as pd  # 2024", "", "ab 12\n\n  x"])


def test_a_tokenizer_written_in_python_is_called_itself():
    encoder = Encoder(ByT5Tokenizer())
    assert not encoder.uses_tiktoken
    check_same(encoder, ["x = 'é'\n", "y"])


def test_texts_may_come_from_a_generator(tokenizer):
    texts = ["x = 1", "", "y"]
    got = Encoder(tokenizer).encode_batch(text for text in texts)
    assert [ids.tolist() for ids in got] == [ids.tolist() for ids in Encoder(tokenizer).encode_batch(texts)]


def test_truncation_that_somebody_switched_on_cuts_nothing(tokenizer):
    changed = pickle.loads(pickle.dumps(tokenizer))
    changed("x = 1", truncation=True, max_length=2)
    for start in (changed, word_tokenizer(["a b c d"], 100)):
        start("a b c d", truncation=True, max_length=2)
        assert len(Encoder(start).encode_batch(["a b c d"])[0]) == 4


@pytest.mark.parametrize("split", [True, False])
def test_encoders_can_be_pickled(tokenizer, split):
    texts = ["x = '<|endoftext|>'", "y" * 10]
    for source in (tokenizer, word_tokenizer(["x y"], 100)):
        copy = pickle.loads(pickle.dumps(Encoder(source, split_special_tokens=split)))
        check_same(copy, texts)


@pytest.mark.parametrize("filler", [" ", "\n"])
def test_a_gap_of_a_million_characters_is_encoded_like_the_tokenizer_does(tokenizer, filler):
    check_same(Encoder(tokenizer), ["import os" + filler * 1_100_000 + "x"])


@pytest.mark.parametrize("filler", ["a", "^", "x = 1; "])
def test_a_line_of_a_million_characters_is_encoded_like_the_tokenizer_does(tokenizer, filler):
    check_same(Encoder(tokenizer), [filler * (1_000_000 // len(filler))])


def test_a_document_of_50_mb_on_one_line_is_encoded(tokenizer):
    text = "value = compute(1, 2); " * (50_000_000 // 23)
    (ids,) = Encoder(tokenizer).encode_batch([text])
    (one,) = Encoder(tokenizer).encode_batch([" value = compute(1, 2);"])
    assert (ids[-1 - len(one) * 1000 : -1] == np.tile(one, 1000)).all()
    assert len(ids) == pytest.approx(len(text) / 23 * len(one), rel=1e-4)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["x", None], "Document 1 of this batch is NoneType, not text"),
        (["x", None], "Drop documents without text"),
        ([b"x"], r"bytes, not text.*as a str.*with_format\(None\)"),
        (["x\ud800"], "surrogate pair at character 1"),
        ("x", "put it into a list"),
    ],
)
def test_what_is_no_text_is_refused(tokenizer, texts, message):
    with pytest.raises(ValueError, match=message):
        Encoder(tokenizer).encode_batch(texts)
