"""Sliding windows over one text: every pair, no copies, and what is too short."""

import logging
import re

import pytest
import tiktoken
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
    got = [(inputs.tolist(), targets.tolist()) for inputs, targets in (dataset[i] for i in range(len(dataset)))]
    assert got == expected


def test_overlapping_windows_cost_no_memory():
    dataset = sliding_windows.GPTDatasetV1(TEXT, Characters(), 50, 1)
    assert len(dataset) == 70
    storage = dataset.tokens.untyped_storage().data_ptr()
    assert {part.untyped_storage().data_ptr() for i in (0, 69) for part in dataset[i]} == {storage}


@pytest.mark.parametrize("workers", [0, 2])
def test_loader_gives_every_window_once_in_an_order_of_its_seed(workers):
    def starts(seed):
        loader = sliding_windows.create_dataloader_v1(
            TEXT, 4, 8, 8, drop_last=False, num_workers=workers, tokenizer=Characters(), seed=seed
        )
        return [row[0].item() for inputs, _ in loader for row in inputs], [len(inputs) for inputs, _ in loader]

    (first, sizes), (same, _), (other, _) = starts(1), starts(1), starts(2)
    assert first == same != other
    assert sorted(first) == sorted(other) == sorted(ord(TEXT[i]) for i in range(0, 112, 8))
    assert sizes == [4, 4, 4, 2]


def test_drawing_the_order_leaves_other_randomness_alone():
    loader = sliding_windows.create_dataloader_v1(TEXT, 2, 8, 4, tokenizer=Characters())
    state = torch.get_rng_state()
    list(loader)
    assert torch.equal(torch.get_rng_state(), state)


def test_without_a_tokenizer_and_without_network_the_error_says_what_to_give(monkeypatch, tmp_path, network_violations):
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(tiktoken.registry, "ENCODINGS", {})  # none that another test has loaded
    with pytest.raises(ConnectionError, match=r"GPT-2's tokenizer is not here .*tokenizer="):
        sliding_windows.create_dataloader_v1(TEXT)
    assert network_violations()


def test_targets_are_the_inputs_one_token_later():
    loader = sliding_windows.create_dataloader_v1(TEXT, 5, 8, 4, tokenizer=Characters())
    for inputs, targets in loader:
        assert inputs.shape == targets.shape == (5, 8)
        assert torch.equal(inputs[:, 1:], targets[:, :-1])


def test_too_little_text_for_a_batch_is_told():
    with pytest.raises(ValueError, match=r"gives 3 windows, fewer than a batch of 4.*drop_last=False"):
        sliding_windows.create_dataloader_v1(TEXT[:40], 4, 10, 10, tokenizer=Characters())
    assert len(sliding_windows.create_dataloader_v1(TEXT[:40], 4, 10, 10, drop_last=False, tokenizer=Characters())) == 1


@pytest.mark.parametrize(("max_length", "stride"), [(0, 1), (4, 0)])
def test_sizes_below_one_are_refused(max_length, stride):
    with pytest.raises(ValueError, match="both must be at least 1"):
        sliding_windows.GPTDatasetV1(TEXT, Characters(), max_length, stride)


def test_text_is_split_without_loss():
    train, validation = sliding_windows.split_text(TEXT)
    assert train + validation == TEXT
    assert len(train) == 108


@pytest.mark.parametrize(
    ("text", "ratio", "message"),
    [(TEXT, 1.0, "train_ratio is 1.0"), (TEXT, 0.0, "train_ratio is 0.0"), ("", 0.9, "too short"), ("a", 0.5, "short")],
)
def test_impossible_splits_are_refused(text, ratio, message):
    with pytest.raises(ValueError, match=message):
        sliding_windows.split_text(text, ratio)


def test_token_counts_are_checked_in_both_parts():
    assert sliding_windows.check_token_counts(TEXT, TEXT[:9], Characters(), 8) == (120, 9)
    with pytest.raises(ValueError, match=r"validation part has 8 tokens, .*need 9; .*a smaller train_ratio"):
        sliding_windows.check_token_counts(TEXT, TEXT[:8], Characters(), 8)
    with pytest.raises(ValueError, match=r"training part has 8 tokens.*a larger train_ratio"):
        sliding_windows.check_token_counts(TEXT[:8], TEXT, Characters(), 8)


def test_a_text_longer_than_the_tokenizers_context_gives_no_warning(code_tokenizer, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    code_tokenizer.model_max_length = 16
    dataset = sliding_windows.GPTDatasetV1("import numpy as np\n" * 20, code_tokenizer, 8, 8)
    assert len(dataset.tokens) > 16
    assert not caplog.records


def test_the_courses_own_text_is_long_enough(session_tokenizer):
    text = sliding_windows.load_text()
    train, validation = sliding_windows.check_token_counts(*sliding_windows.split_text(text), session_tokenizer, 128)
    assert train > 5 * validation
    assert text == sliding_windows.load_text("course-stories")


def test_any_file_in_utf8_is_read(tmp_path):
    for name, data in {"plain.txt": "Grüße\n".encode(), "marked.txt": b"\xef\xbb\xbf" + "Grüße\r\n".encode()}.items():
        (tmp_path / name).write_bytes(data)
        assert (
            sliding_windows.load_text(tmp_path / name) == sliding_windows.load_text(str(tmp_path / name)) == "Grüße\n"
        )


def test_unreadable_texts_are_refused(tmp_path):
    for name, data in {"latin.txt": "Grüße".encode("latin-1"), "empty.txt": b" \n"}.items():
        (tmp_path / name).write_bytes(data)
    with pytest.raises(ValueError, match=r"latin.txt is not UTF-8 .*at byte 2"):
        sliding_windows.load_text(tmp_path / "latin.txt")
    with pytest.raises(ValueError, match=r"empty.txt is empty"):
        sliding_windows.load_text(tmp_path / "empty.txt")
    with pytest.raises(ValueError, match="is no file; give the path of a text file, or 'course-stories'"):
        sliding_windows.load_text(tmp_path / "missing.txt")


def test_the_card_of_the_stories_counts_right(repository):
    text = sliding_windows.load_text()
    words = re.findall(r"[A-Za-z]+(?:['-][A-Za-z]+)*", text)
    counts = (len(text), len(set(text)), len(words), len({word.lower() for word in words}), text.count("\n\n") + 1)
    row = " | ".join(f"{count:,}".replace(",", " ") for count in counts)
    card = (repository / "course_utils" / "data" / "stories" / "README.md").read_text(encoding="utf-8")
    assert f"| `harbour.txt` | {row} |" in card
    assert text.isascii()
