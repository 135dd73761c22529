"""Sliding windows over one text: every pair, no copies, and what is too short."""

import logging
import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from course_utils.data import sliding_windows


class Characters:
    """The smallest tokenizer: one token per character, with the library's arguments."""

    def encode(self, text, add_special_tokens=True, verbose=True):
        return [ord(character) for character in text]


TEXT = "".join(chr(97 + i % 26) for i in range(120))


@given(st.integers(2, 60), st.integers(1, 12), st.integers(1, 15))
def test_windows_are_those_of_the_plain_loop(length, max_length, stride):
    tokens = [ord(character) for character in TEXT[:length]]
    starts = range(0, len(tokens) - max_length, stride)
    if not starts:
        with pytest.raises(ValueError, match=f"the text has {length} tokens"):
            sliding_windows.GPTDatasetV1(TEXT[:length], Characters(), max_length, stride)
        return
    dataset = sliding_windows.GPTDatasetV1(TEXT[:length], Characters(), max_length, stride)
    expected = [(tokens[i : i + max_length], tokens[i + 1 : i + max_length + 1]) for i in starts]
    assert [tuple(part.tolist() for part in dataset[i]) for i in range(len(dataset))] == expected
    storage = dataset.tokens.untyped_storage().data_ptr()  # overlapping windows cost no memory
    assert {part.untyped_storage().data_ptr() for part in dataset[len(dataset) - 1]} == {storage}


@pytest.mark.parametrize("workers", [0, 2])
def test_loader_has_every_window_once_in_an_order_of_its_seed(workers):
    def starts(seed):
        options = {"drop_last": False, "num_workers": workers, "seed": seed}
        loader = sliding_windows.create_dataloader_v1(TEXT, 4, 8, 8, tokenizer=Characters(), **options)
        return [row[0].item() for inputs, _ in loader for row in inputs], [inputs.shape for inputs, _ in loader]

    state = torch.get_rng_state()
    (first, shapes), (same, _), (other, _) = starts(1), starts(1), starts(2)
    assert torch.equal(torch.get_rng_state(), state)  # drawing the order leaves other randomness alone
    assert first == same != other
    assert sorted(first) == sorted(other) == sorted(ord(TEXT[i]) for i in range(0, 112, 8))
    assert shapes == [(4, 8)] * 3 + [(2, 8)]


def test_too_little_text_is_refused_where_no_batch_or_window_would_be_left():
    with pytest.raises(ValueError, match=r"makes 3 windows, fewer than a batch of 4.*drop_last=False"):
        sliding_windows.create_dataloader_v1(TEXT[:40], 4, 10, 10, tokenizer=Characters())
    assert len(sliding_windows.create_dataloader_v1(TEXT[:40], 4, 10, 10, drop_last=False, tokenizer=Characters())) == 1
    assert sliding_windows.check_token_counts(TEXT, TEXT[:9], Characters(), 8) == (120, 9)
    for parts in ((TEXT, TEXT[:8]), (TEXT[:8], TEXT)):
        with pytest.raises(ValueError, match="the text has 8 tokens, a window and its target need 9"):
            sliding_windows.check_token_counts(*parts, Characters(), 8)


def test_a_text_longer_than_the_tokenizers_context_gives_no_warning(code_tokenizer, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    code_tokenizer.model_max_length = 16
    dataset = sliding_windows.GPTDatasetV1("import numpy as np\n" * 20, code_tokenizer, 8, 8)
    assert len(dataset.tokens) > 16
    assert not caplog.records


def test_the_stories_are_long_enough_and_their_card_counts_right(session_tokenizer, repository, tmp_path):
    (tmp_path / "marked.txt").write_bytes(b"\xef\xbb\xbf" + "Grüße\r\n".encode())
    assert sliding_windows.load_text(tmp_path / "marked.txt") == "Grüße\n"
    text = sliding_windows.load_text()
    parts = sliding_windows.split_text(text)
    assert "".join(parts) == text
    train, validation = sliding_windows.check_token_counts(*parts, session_tokenizer, 128)
    assert train > 5 * validation
    words = re.findall(r"[A-Za-z]+(?:['-][A-Za-z]+)*", text)
    counts = (len(text), len(set(text)), len(words), len({word.lower() for word in words}), text.count("\n\n") + 1)
    row = " | ".join(f"{count:,}".replace(",", " ") for count in counts)
    card = (repository / "course_utils" / "data" / "stories" / "README.md").read_text(encoding="utf-8")
    assert f"| `harbour.txt` | {row} |" in card
    assert text.isascii()
