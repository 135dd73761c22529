import email
import itertools
import json
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset, IterableDataset
from tokenizers import Tokenizer, models
from torch.utils.data import DataLoader
from transformers import DataCollatorForLanguageModeling, PreTrainedTokenizerFast

from course_utils.data.encoding import Encoder
from course_utils.data.packing import (
    ConstantLengthDataset,
    make_chunker,
    pack,
    pack_dataset,
    share_documents_lost,
    share_lost,
    share_lost_by_packing,
    tokens_lost_by_chunking,
)
from course_utils.data.tokenization import base_tokenizer, batch_iterator, byte_tokenizer, train_code_tokenizer

# More workers than this machine has processors are meant here.
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")


@pytest.fixture(scope="module")
def texts():
    paths = sorted(Path(json.__file__).parent.glob("*.py")) + sorted(Path(email.__file__).parent.glob("*.py"))[:12]
    return ["", *(path.read_text(encoding="utf-8") for path in paths), "x = '<|endoftext|>'\n"]


@pytest.fixture(scope="module")
def data(texts):
    return Dataset.from_dict({"path": [str(n) for n in range(len(texts))], "content": texts})


@pytest.fixture(scope="module")
def tokenizer(data):
    return train_code_tokenizer(batch_iterator(data), 700)


@pytest.fixture(scope="module")
def ids(tokenizer, texts):
    return tokenizer(texts, add_special_tokens=False, split_special_tokens=True).input_ids


def joined(ids, eos_id):
    return [token for document in ids for token in [*document, eos_id]]


def read(loader):
    return [tuple(row.tolist()) for batch in loader for row in batch["input_ids"]]


# --- chunking -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [16, 128])
def test_chunks_are_the_full_cuts_of_every_document(data, tokenizer, ids, length):
    chunks = data.map(make_chunker(tokenizer, length), batched=True, remove_columns=data.column_names)
    assert chunks.column_names == ["input_ids"]
    expected = [d[i : i + length] for d in ids for i in range(0, len(d) - length + 1, length)]
    assert list(chunks["input_ids"]) == expected
    counts = [len(d) for d in ids]
    assert sum(counts) - length * len(chunks) == tokens_lost_by_chunking(counts, length) > 0


def test_chunks_never_hold_the_end_of_text_and_packed_sequences_do(data, tokenizer, ids):
    chunks = make_chunker(tokenizer, 32)(data[:])["input_ids"]
    assert tokenizer.eos_token_id not in itertools.chain.from_iterable(chunks)
    rows, _ = pack(ids, tokenizer.eos_token_id, 32)
    assert (rows == tokenizer.eos_token_id).sum() >= len(ids) - 1


def test_a_forgotten_batched_is_refused_where_it_would_lose_the_corpus(data, tokenizer):
    with pytest.raises(ValueError, match="batched=True"):
        data.map(make_chunker(tokenizer, 32), remove_columns=data.column_names)


def test_the_tokens_lost_are_counted_as_the_lesson_shows():
    counts = [300, 100, 128]
    assert tokens_lost_by_chunking(counts, 128) == 44 + 100
    assert share_lost(counts, 128) == (44 + 100) / 528
    assert share_documents_lost(counts, 128) == 1 / 3
    assert share_lost_by_packing(counts, 128) == (528 + 3) % 128 / (528 + 3)
    assert share_lost([0, 0], 8) == 0


@pytest.mark.parametrize("counts", [[], [5, -1]])
@pytest.mark.parametrize("measure", [share_lost, share_lost_by_packing, share_documents_lost, tokens_lost_by_chunking])
def test_shares_of_nothing_are_refused(measure, counts):
    with pytest.raises(ValueError, match="number of tokens of every document"):
        measure(counts, 8)


# --- packing --------------------------------------------------------------------------------------------------------


def test_packing_joins_with_the_end_of_text_and_cuts():
    rows, left = pack([[1, 2, 3], [], [4]], 0, 3)
    assert rows.tolist() == [[1, 2, 3], [0, 0, 4]]
    assert left.tolist() == [0]
    again, left = pack([[5, 6]], 0, 3, carry=left)
    assert again.tolist() == [[0, 5, 6]]
    assert left.tolist() == [0]
    empty, left = pack([], 0, 4)
    assert empty.shape == (0, 4)
    assert len(left) == 0


@pytest.mark.parametrize(
    "ids", [np.array([2**33 + 5]), np.array([2**31 + 5], dtype=np.uint32), [2**31], [1.9], [None], ["3"]]
)
def test_ids_that_are_no_int32_are_refused_not_wrapped(ids):
    for tokens, eos_id, carry in (([ids], 0, ()), ([[1]], ids[0], ()), ([[1]], 0, ids)):
        with pytest.raises(ValueError, match="whole numbers of 32 bits"):
            pack(tokens, eos_id, 1, carry=carry)


@pytest.mark.parametrize("length", [0, -1, 1.5, True, "8"])
def test_lengths_that_are_no_lengths_are_refused(tokenizer, data, length, tmp_path):
    for call in (
        lambda: make_chunker(tokenizer, length),
        lambda: pack([[1]], 0, length),
        lambda: share_lost([3], length),
        lambda: pack_dataset(data, tokenizer, length, tmp_path / "x.arrow"),
        lambda: ConstantLengthDataset(tokenizer, data, seq_length=length),
    ):
        with pytest.raises(ValueError, match="whole number of tokens, at least 1"):
            call()


def test_lengths_beyond_the_maximum_and_a_missing_end_of_text_are_refused(data, tmp_path):
    short, endless = byte_tokenizer(), base_tokenizer()
    short.model_max_length = 64
    endless.eos_token = None
    for tokenizer, length, message in ((short, 65, "model can read, 64 tokens"), (endless, 64, "no end-of-text token")):
        with pytest.raises(ValueError, match=message):
            pack_dataset(data, tokenizer, length, tmp_path / "x.arrow")
        with pytest.raises(ValueError, match=message):
            ConstantLengthDataset(tokenizer, data, seq_length=length)
    with pytest.raises(ValueError, match="model can read, 64 tokens"):
        make_chunker(short, 65)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("stream", [False, True])
def test_a_packed_data_set_holds_the_tokenizers_own_ids(data, texts, tokenizer, ids, stream, tmp_path):
    source = data.to_iterable_dataset() if stream else data
    packed = pack_dataset(source, Encoder(tokenizer), 64, tmp_path / "p.arrow", show_progress=False)
    expected = joined(ids, tokenizer.eos_token_id)
    rows = np.array(packed.dataset["input_ids"][:])
    assert rows.reshape(-1).tolist() == expected[: rows.size]
    assert rows.shape[1] == 64
    assert packed.tokens == len(expected) == rows.size + packed.tokens_lost
    assert packed.tokens_lost == len(expected) % 64
    assert packed.documents == len(texts)
    assert packed.text_bytes == sum(len(text.encode()) for text in texts)
    assert [path.name for path in tmp_path.iterdir()] == ["p.arrow"]
    reopened = Dataset.from_file(str(tmp_path / "p.arrow"))
    assert reopened[len(reopened) - 1] == packed.dataset[len(reopened) - 1]


def test_packed_data_become_the_tensors_a_model_takes(data, tokenizer, tmp_path):
    packed = pack_dataset(data, tokenizer, 64, tmp_path / "p.arrow", show_progress=False).dataset
    assert packed.features["input_ids"].feature.dtype == "uint16"
    collate = DataCollatorForLanguageModeling(tokenizer, mlm=False)
    for source in (packed, packed.with_format("torch")):
        batch = collate([source[n] for n in range(5)])
        assert {name: (t.shape, t.dtype) for name, t in batch.items() if name != "attention_mask"} == {
            "input_ids": ((5, 64), torch.int64),
            "labels": ((5, 64), torch.int64),
        }
        assert (batch["labels"] == batch["input_ids"]).all()  # no end of text is hidden from the loss
        assert (batch["labels"] == tokenizer.eos_token_id).any()


def test_a_vocabulary_beyond_65_536_is_packed_as_int32(data, tmp_path):
    large = byte_tokenizer()
    large.add_tokens([f"word{n}" for n in range(70_000)])
    rows = Dataset.from_dict({"content": ["word69999 word1 a b c d"]})
    packed = pack_dataset(rows, large, 4, tmp_path / "p.arrow", show_progress=False).dataset
    assert packed.features["input_ids"].feature.dtype == "int32"
    assert packed[0]["input_ids"][0] == len(large) - 1


def test_ids_beyond_the_number_of_tokens_are_packed_whole(tmp_path):
    model = models.WordLevel({"a": 70_000, "b": 1, "</s>": 2}, unk_token="b")
    gaps = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(model), eos_token="</s>")
    packed = pack_dataset([{"content": "a"}], gaps, 2, tmp_path / "p.arrow", show_progress=False).dataset
    assert packed[0]["input_ids"] == [70_000, 2]


def test_a_resumed_stream_is_packed_from_where_it_stands(data, tokenizer, ids, tmp_path):
    stream, seen = data.to_iterable_dataset(), 3
    list(islice(stream, seen))
    stream.load_state_dict(stream.state_dict())
    packed = pack_dataset(stream, tokenizer, 64, tmp_path / "p.arrow", show_progress=False)
    assert packed.tokens == len(joined(ids[seen:], tokenizer.eos_token_id))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "0 documents with 0 tokens do not fill one sequence of 64"),
        ([{"content": "x"}], "1 documents with 2 tokens"),
        ([{"content": "x" * 100}, {"content": None}], "NoneType, not text"),
    ],
)
def test_too_little_or_no_text_leaves_no_file(tokenizer, rows, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        pack_dataset(rows, tokenizer, 64, tmp_path / "p.arrow", show_progress=False)
    assert list(tmp_path.iterdir()) == []


def test_packing_over_an_older_file_that_fails_keeps_the_older_one(data, tokenizer, tmp_path):
    pack_dataset(data, tokenizer, 64, tmp_path / "p.arrow", show_progress=False)
    before = (tmp_path / "p.arrow").read_bytes()
    with pytest.raises(ValueError, match="not text"):
        pack_dataset([{"content": None}], tokenizer, 64, tmp_path / "p.arrow", show_progress=False)
    assert (tmp_path / "p.arrow").read_bytes() == before


# --- ConstantLengthDataset ------------------------------------------------------------------------------------------

LENGTH = 32


@pytest.fixture(scope="module")
def make(tokenizer):
    return partial(ConstantLengthDataset, tokenizer, seq_length=LENGTH, num_of_sequences=20, chars_per_token=2.0)


def test_a_pass_gives_the_documents_in_order_and_ends(data, make, tokenizer, ids):
    dataset = make(data)
    expected = joined(ids, tokenizer.eos_token_id)
    for _ in range(2):  # a validation loop may read it again and again
        rows = [row["input_ids"] for row in dataset]
        assert all(row.dtype == torch.int64 and row.shape == (LENGTH,) for row in rows)
        assert torch.cat(rows).tolist() == expected[: len(rows) * LENGTH]
        assert dataset.tokens_dropped == len(expected) % LENGTH


def source_of(data, kind):
    if kind == "generator":
        return IterableDataset.from_generator(partial(iter, list(data)))
    return data if kind == "map-style" else data.to_iterable_dataset(num_shards={"one": 1, "three": 3}[kind])


@pytest.mark.parametrize("kind", ["map-style", "one", "three"])
@pytest.mark.parametrize("workers", [0, 2, 3])
def test_real_workers_give_every_token_exactly_once(data, make, tokenizer, ids, kind, workers):
    dataset = make(source_of(data, kind))
    rows = read(DataLoader(dataset, batch_size=64, num_workers=workers))
    shards = max(workers, 1)
    streams = [joined(ids[shard::shards], tokenizer.eos_token_id) for shard in range(shards)]
    cut = [tuple(s[i : i + LENGTH]) for s in streams for i in range(0, len(s) - LENGTH + 1, LENGTH)]
    assert sorted(rows) == sorted(cut)
    assert dataset.tokens_dropped == sum(len(stream) % LENGTH for stream in streams)


def test_the_drop_count_forgets_workers_that_are_gone(data, make, ids):
    dataset = make(data)
    read(DataLoader(dataset, batch_size=64, num_workers=3))
    read(DataLoader(dataset, batch_size=64))
    assert dataset.tokens_dropped == (sum(map(len, ids)) + len(ids)) % LENGTH


@pytest.mark.parametrize("shuffle", [False, True])
def test_a_pass_conserves_the_documents_when_the_stream_is_shuffled_too(data, make, ids, tokenizer, shuffle):
    stream = data.to_iterable_dataset(num_shards=2).shuffle(seed=1, buffer_size=5)
    dataset = make(stream, shuffle=shuffle)
    passes = []
    for epoch in (0, 1, 0):
        dataset.set_epoch(epoch)
        passes.append(read(DataLoader(dataset, batch_size=64, num_workers=2)))
        total = len(passes[-1]) * LENGTH + dataset.tokens_dropped
        assert total == sum(map(len, ids)) + len(ids)
    assert passes[0] == passes[2] != passes[1]


@pytest.mark.parametrize("persistent", [False, True])
def test_the_epoch_changes_the_order_and_reaches_living_workers(data, make, persistent):
    dataset = make(data, shuffle=True, seed=3)
    loader = DataLoader(dataset, batch_size=64, num_workers=2, persistent_workers=persistent)
    orders = []
    for epoch in (0, 1, 0):
        dataset.set_epoch(epoch)
        orders.append(read(loader))
    assert orders[0] == orders[2] != orders[1]


def test_without_shuffling_every_epoch_is_the_same(data, make):
    dataset = make(data)
    first = read(DataLoader(dataset, batch_size=64))
    dataset.set_epoch(5)
    assert read(DataLoader(dataset, batch_size=64)) == first


@pytest.mark.parametrize("kind", ["map-style", "one"])
def test_an_infinite_pass_starts_again_in_a_new_order(data, make, ids, kind, tokenizer):
    dataset = make(source_of(data, kind), infinite=True, shuffle=True)
    a_pass = (sum(map(len, ids)) + len(ids)) // LENGTH
    rows = [tuple(row["input_ids"].tolist()) for row in islice(dataset, 3 * a_pass)]
    assert len(rows) == 3 * a_pass
    first, second = rows[: a_pass - 20], rows[a_pass : 2 * a_pass - 20]
    assert first != second
    tokens = [np.bincount(np.ravel(part), minlength=700) for part in (rows[:a_pass], rows[a_pass : 2 * a_pass])]
    assert np.abs(tokens[0] - tokens[1]).sum() <= 4 * 20 * LENGTH


def test_seeds_and_epochs_decide_the_order(data, make):
    def order(seed, epoch):
        dataset = make(data, shuffle=True, seed=seed)
        dataset.set_epoch(epoch)
        return read(DataLoader(dataset, batch_size=64))

    assert order(0, 0) == order(0, 0)
    assert order(0, 0) != order(1, 0)
    assert order(0, 0) != order(0, 1)


@pytest.mark.parametrize("infinite", [False, True])
@pytest.mark.parametrize("kind", ["map-style", "generator", "rows", "used up"])
def test_data_without_documents_are_an_error_not_a_hang(make, infinite, kind):
    empty = Dataset.from_dict({"content": []})
    source = {"rows": [], "used up": iter([])}.get(kind, empty)
    dataset = make(source_of(empty, kind) if kind == "generator" else source, infinite=infinite)
    for worker in (0, 1):
        with pytest.raises(ValueError, match="holds no documents"):
            next(dataset.read_shard(worker, 2))


def test_a_worker_that_no_document_falls_to_is_an_error_when_it_would_wait_for_ever(make):
    one = Dataset.from_dict({"content": ["x = 1\n" * 50]})
    assert len(list(make(one).read_shard(0, 2))) > 0
    assert list(make(one).read_shard(1, 2)) == []
    assert len(list(islice(make(one, infinite=True).read_shard(0, 2), 100))) == 100
    with pytest.raises(ValueError, match=r"fewer documents than shards \(2\)"):
        next(make(one, infinite=True).read_shard(1, 2))


def test_an_infinite_pass_over_less_than_one_sequence_goes_on(make):
    tiny = Dataset.from_dict({"content": ["", "a"]})
    rows = [row["input_ids"] for row in islice(make(tiny, infinite=True), 3)]
    assert torch.cat(rows).shape == (3 * LENGTH,)
    assert list(make(tiny)) == []


def test_every_full_buffer_is_reported(data, make, texts):
    reports = []
    list(make(data, on_fill=lambda characters, documents: reports.append((characters, documents))))
    assert len(reports) > 3
    assert all(characters >= 20 * LENGTH * 2.0 for characters, _ in reports)
    assert sum(documents for _, documents in reports) <= len(texts)


def test_processes_come_from_torch_or_from_the_launchers_environment(data, make, monkeypatch, tmp_path):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "3")
    dataset = make(data)
    assert (dataset.process_index, dataset.num_processes) == (1, 3)
    explicit = make(data, process_index=0, num_processes=1)
    assert (explicit.process_index, explicit.num_processes) == (0, 1)
    torch.distributed.init_process_group("gloo", init_method=(tmp_path / "store").as_uri(), rank=0, world_size=1)
    try:
        running = make(data)
    finally:
        torch.distributed.destroy_process_group()
    assert (running.process_index, running.num_processes) == (0, 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"process_index": 2, "num_processes": 2}, "must be 0 to 1"),
        ({"process_index": 0}, "together, or neither"),
        ({"num_of_sequences": 0}, "num_of_sequences must be at least 1"),
        ({"chars_per_token": 0}, "chars_per_token above 0"),
        ({"chars_per_token": float("nan")}, "chars_per_token above 0"),
    ],
)
def test_arguments_out_of_range_are_refused(tokenizer, data, options, message):
    with pytest.raises(ValueError, match=message):
        ConstantLengthDataset(tokenizer, data, **options)


def test_a_length_of_few_bits_does_not_overflow(tokenizer, data):
    small, plain = (ConstantLengthDataset(tokenizer, data, seq_length=length) for length in (np.int16(128), 128))
    assert small.buffer_characters == plain.buffer_characters


def test_a_missing_column_is_named(make, data):
    with pytest.raises(ValueError, match="no column 'text', only path, content"):
        make(data.to_iterable_dataset(), content_field="text")
