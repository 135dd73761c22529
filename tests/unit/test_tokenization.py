"""Batches of texts from any stream, and tokenizers: trained alike twice, checked when loaded."""

import itertools
from pathlib import Path

import matplotlib
import pytest
from datasets import Dataset, IterableDataset
from transformers import GPT2Config

from course_utils.data import tokenization


@pytest.fixture(scope="module")
def texts():
    paths = sorted(Path(matplotlib.__file__).parent.rglob("*.py"))
    return [path.read_text(encoding="utf-8") for path in paths[:60]]


@pytest.fixture(scope="module")
def data(texts):
    return Dataset.from_dict({"path": [str(n) for n in range(len(texts))], "content": texts})


@pytest.fixture(scope="module")
def tokenizer(data):
    return tokenization.train_code_tokenizer(tokenization.batch_iterator(data), 1500)


def streams(data):
    return {
        "map-style": data,
        "two shards": data.to_iterable_dataset(num_shards=2),
        "rows": list(data),
        "generator": IterableDataset.from_generator(lambda: iter(list(data))),
    }


@pytest.mark.parametrize("kind", ["map-style", "two shards", "rows", "generator"])
@pytest.mark.parametrize(("limit", "sizes"), [(None, [25, 25, 10]), (30, [25, 5]), (0, []), (10_000, [25, 25, 10])])
def test_batches_hold_every_text_once_and_end_with_the_stream(data, texts, kind, limit, sizes):
    batches = list(tokenization.batch_iterator(streams(data)[kind], batch_size=25, limit=limit))
    assert [len(batch) for batch in batches] == sizes
    assert [text for batch in batches for text in batch] == texts[:limit]


def test_batches_read_no_more_of_a_stream_than_they_need():
    rows = ({"content": "ab"[n]} for n in itertools.count())  # IndexError if read on
    assert list(tokenization.batch_iterator(rows, batch_size=1, limit=2)) == [["a"], ["b"]]


def test_batches_follow_the_epoch_and_the_place_of_a_stream(data, texts):
    stream = data.to_iterable_dataset().shuffle(seed=0, buffer_size=20)
    orders = []
    for epoch in (0, 1, 0):
        stream.set_epoch(epoch)
        orders.append(list(tokenization.batch_iterator(stream)))
    assert orders[0] == orders[2] != orders[1]
    stream = data.to_iterable_dataset(num_shards=2)
    list(itertools.islice(stream, 40))
    stream.load_state_dict(stream.state_dict())
    assert [text for batch in tokenization.batch_iterator(stream, 7) for text in batch] == texts[40:]


def test_training_twice_gives_the_same_tokenizer_as_the_tutorials_call(data, tokenizer):
    again = tokenization.train_code_tokenizer(tokenization.batch_iterator(data.to_iterable_dataset(), limit=1000), 1500)
    assert again.backend_tokenizer.to_str() == tokenizer.backend_tokenizer.to_str()
    options = {"new_special_tokens": ["<|pad|>"], "show_progress": False}
    by_hand = tokenization.base_tokenizer().train_new_from_iterator(tokenization.batch_iterator(data), 1500, **options)
    assert by_hand.get_vocab() == tokenizer.get_vocab()


def test_a_trained_tokenizer_knows_all_bytes_and_is_loaded_with_its_control_tokens(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    loaded = tokenization.load_tokenizer(tmp_path)
    assert (len(loaded), loaded.pad_token, loaded.eos_token) == (1500, "<|pad|>", "<|endoftext|>")
    assert loaded.pad_token_id == tokenizer.pad_token_id != loaded.eos_token_id == tokenizer.eos_token_id
    text = "🐍 žluťoučký\x00\x7f\r\n"
    assert loaded("import os " + text)["input_ids"] == tokenizer("import os " + text)["input_ids"]
    assert loaded.decode(loaded(text)["input_ids"]) == text


@pytest.mark.parametrize(("batches", "size"), [([], 300), ([["", ""]], 300), ([["x = 1"] * 9], 258)])
def test_training_on_nothing_is_refused(batches, size):
    with pytest.raises(ValueError, match="Nothing was learned"):
        tokenization.train_code_tokenizer(iter(batches), size)


def test_a_tokenizer_that_is_empty_or_cannot_end_a_text_is_refused(tmp_path):
    GPT2Config().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="empty vocabulary"):
        tokenization.load_tokenizer(tmp_path)
    tokenizer = tokenization.base_tokenizer()
    assert tokenization.check_tokenizer(tokenizer) is tokenizer  # no padding token is no fault
    tokenizer.pad_token = tokenizer.eos_token
    with pytest.raises(ValueError, match="never learns to stop"):
        tokenization.check_tokenizer(tokenizer)
    tokenizer.eos_token = None
    with pytest.raises(ValueError, match="no end-of-text token"):
        tokenization.check_tokenizer(tokenizer)


def test_characters_per_token_are_measured_over_a_stream_and_over_a_column(data, texts, tokenizer):
    stream = data.to_iterable_dataset().take(20)
    expected = sum(map(len, texts[:20])) / sum(len(tokenizer(text)["input_ids"]) for text in texts[:20])
    assert tokenization.characters_per_token(tokenizer, (row["content"] for row in stream)) == expected
    assert 1.5 < expected < 5
    with pytest.raises(ValueError):
        tokenizer(data["content"])  # transformers 5 takes no column
    assert len({tokenization.characters_per_token(tokenizer, each) for each in (data["content"], texts)}) == 1


def test_bytes_are_long_words_lose_names_and_merges_lie_between(texts, tokenizer):
    kinds = [tokenization.base_tokenizer(), tokenization.word_tokenizer(texts[:30], 1500), tokenizer]
    assert [len(kind) for kind in kinds] == [257, 1500, 1500]
    rows = [kind(texts[30:])["input_ids"] for kind in kinds]
    lossless = [[kind.decode(ids) for ids in row] == texts[30:] for kind, row in zip(kinds, rows, strict=True)]
    assert lossless == [True, False, True]
    in_bytes, _, merged = (sum(map(len, row)) for row in rows)
    assert in_bytes == sum(len(text.encode()) for text in texts[30:]) > 2 * merged
    unknown = [ids.count(kinds[1].unk_token_id) for ids in rows[1]]
    assert 0 < sum(unknown) < 0.5 * sum(map(len, rows[1]))
