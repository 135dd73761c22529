"""Every token exactly once: chunks lose the tails, packs lose less than one sequence, whoever shares the work."""

import json
from functools import partial
from itertools import chain, islice
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset, IterableDataset
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models
from torch.utils.data import DataLoader
from transformers import DataCollatorForLanguageModeling, PreTrainedTokenizerFast

from course_utils.data import packing
from course_utils.data.tokenization import base_tokenizer

# More workers than this machine has processors are meant here.
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")

DOCUMENTS = st.lists(st.text(st.characters(codec="utf-8"), max_size=30), min_size=1, max_size=12)
LENGTHS = st.integers(1, 16)
BYTES = base_tokenizer()
LENGTH = 32


@pytest.fixture(scope="module")
def texts():
    paths = sorted(Path(json.__file__).parents[1].glob("email/*.py"))[:16]
    return ["", *(path.read_text(encoding="utf-8") for path in paths), "x = '<|endoftext|>'\n"]


@pytest.fixture(scope="module")
def data(texts):
    return Dataset.from_dict({"path": [str(n) for n in range(len(texts))], "content": texts})


@pytest.fixture(scope="module")
def tokenizer(session_tokenizer):
    return session_tokenizer


@pytest.fixture(scope="module")
def make(tokenizer):
    options = {"seq_length": LENGTH, "num_of_sequences": 20, "chars_per_token": 2.0}
    return partial(packing.ConstantLengthDataset, tokenizer, **options)


def joined(tokenizer, texts):
    ids = tokenizer(texts, add_special_tokens=False, split_special_tokens=True).input_ids if texts else []
    return [token for document in ids for token in [*document, tokenizer.eos_token_id]]


def cut(stream, length):
    return [tuple(stream[i : i + length]) for i in range(0, len(stream) - length + 1, length)]


def read(loader):
    return [tuple(row.tolist()) for batch in loader for row in batch["input_ids"]]


def source_of(data, kind):
    if kind == "generator":
        return IterableDataset.from_generator(partial(iter, list(data)))
    shards = {"one": 1, "three": 3}
    return data.to_iterable_dataset(num_shards=shards[kind]) if kind in shards else data


# --- chunks ---------------------------------------------------------------------------------------------------------


@settings(max_examples=60)
@given(texts=DOCUMENTS, length=LENGTHS)
@example(texts=["x = '<|endoftext|>'"], length=4)
def test_chunks_are_the_full_cuts_of_every_document_without_an_end(texts, length):
    chunks = packing.make_chunker(BYTES, length)({"content": texts})["input_ids"]
    documents = BYTES(texts, split_special_tokens=True).input_ids
    assert [tuple(ids) for ids in chunks] == [row for ids in documents for row in cut(ids, length)]
    assert BYTES.eos_token_id not in chain(*chunks)


def test_a_forgotten_batched_is_refused_where_it_would_lose_the_corpus(data, tokenizer):
    with pytest.raises(ValueError, match="batched=True"):
        data.map(packing.make_chunker(tokenizer, 32), remove_columns=data.column_names)


# --- packs ----------------------------------------------------------------------------------------------------------


@given(documents=st.lists(st.lists(st.integers(1, 60_000), max_size=40), max_size=20), length=LENGTHS, data=st.data())
def test_packing_in_any_number_of_calls_conserves_every_token_in_order(documents, length, data):
    cuts = sorted(data.draw(st.lists(st.integers(0, len(documents)), max_size=4)))
    parts, left = [], ()
    for start, end in zip([0, *cuts], [*cuts, len(documents)], strict=True):
        rows, left = packing.pack(documents[start:end], 0, length, carry=left)
        assert (rows.shape[1], rows.dtype) == (length, np.int32)
        parts.append(rows)
    expected = [token for ids in documents for token in [*ids, 0]]
    assert np.concatenate(parts).reshape(-1).tolist() + left.tolist() == expected
    assert len(left) < length


@settings(max_examples=40)
@given(texts=DOCUMENTS, length=LENGTHS, stream=st.booleans())
def test_a_packed_data_set_conserves_every_token(tmp_path_factory, texts, length, stream):
    expected, data = joined(BYTES, texts), Dataset.from_dict({"content": texts})
    path = tmp_path_factory.mktemp("packed") / "p.arrow"
    source = data.to_iterable_dataset() if stream else data
    if len(expected) < length:
        with pytest.raises(ValueError, match="do not fill one sequence"):
            packing.pack_dataset(source, BYTES, length, path)
        assert list(path.parent.iterdir()) == []
        return
    packed = packing.pack_dataset(source, BYTES, length, path)
    assert [tuple(row) for row in packed.dataset["input_ids"][:]] == cut(expected, length)
    assert packed.tokens_lost == len(expected) - len(packed.dataset) * length < length
    text_bytes = sum(len(text.encode()) for text in texts)
    assert (packed.tokens, packed.text_bytes) == (len(expected), text_bytes)
    assert Dataset.from_file(str(path))[:] == packed.dataset[:]


def test_packed_data_become_the_tensors_a_model_takes(data, texts, tokenizer, tmp_path):
    packed = packing.pack_dataset(data, tokenizer, 64, tmp_path / "p.arrow").dataset
    assert [tuple(row) for row in packed["input_ids"][:]] == cut(joined(tokenizer, texts), 64)
    assert packed.features["input_ids"].feature.dtype == "uint16"
    collate = DataCollatorForLanguageModeling(tokenizer, mlm=False)
    for source in (packed, packed.with_format("torch")):
        batch = collate([source[n] for n in range(5)])
        assert (batch["input_ids"].shape, batch["input_ids"].dtype) == ((5, 64), torch.int64)
        assert (batch["labels"] == batch["input_ids"]).all()  # no end of text is hidden from the loss
        assert (batch["labels"] == tokenizer.eos_token_id).any()


def test_ids_beyond_65_535_are_packed_whole_even_with_few_tokens(tmp_path):
    model = models.WordLevel({"a": 70_000, "b": 1, "</s>": 2}, unk_token="b")
    gaps = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(model), eos_token="</s>")
    packed = packing.pack_dataset([{"content": "a"}], gaps, 2, tmp_path / "p.arrow").dataset
    assert packed[0]["input_ids"] == [70_000, 2]


# --- ConstantLengthDataset ------------------------------------------------------------------------------------------


@settings(max_examples=60)
@given(DOCUMENTS, LENGTHS, *[st.integers(1, 3)] * 3, st.sampled_from(["map-style", "one", "rows"]), st.booleans())
def test_every_token_comes_once_for_all_workers(texts, length, processes, workers, sequences, kind, shuffle):
    source, got, data = None, [], Dataset.from_dict({"content": texts})
    for process in range(processes):
        for worker in range(workers):
            source = ({"content": text} for text in texts) if kind == "rows" else source or source_of(data, kind)
            dataset = packing.ConstantLengthDataset(
                BYTES, source, False, 1 if shuffle else length, sequences,
                shuffle=shuffle, process_index=process, num_processes=processes,
            )  # fmt: skip
            tokens = [t for row in dataset.read_shard(worker, workers) for t in row["input_ids"].tolist()]
            mine = joined(BYTES, texts[process * workers + worker :: processes * workers])
            assert shuffle or (tokens == mine[: len(tokens)] and len(mine) - len(tokens) < length)
            got += tokens
    assert not shuffle or sorted(got) == sorted(joined(BYTES, texts))


@pytest.mark.parametrize("kind", ["map-style", "one", "three", "generator"])
@pytest.mark.parametrize("workers", [0, 3])
def test_real_workers_of_two_processes_give_every_token_exactly_once(data, texts, make, tokenizer, kind, workers):
    rows, shards = [], 2 * max(workers, 1)
    for process in range(2):
        dataset = make(source_of(data, kind), process_index=process, num_processes=2)
        rows += read(DataLoader(dataset, batch_size=64, num_workers=workers))
    streams = [joined(tokenizer, texts[shard::shards]) for shard in range(shards)]
    assert sorted(rows) == sorted(row for stream in streams for row in cut(stream, LENGTH))


def test_a_pass_ends_and_is_the_same_again(data, texts, make, tokenizer):
    dataset, expected = make(data), cut(joined(tokenizer, texts), LENGTH)
    for epoch in (0, 0, 5):  # a validation loop may read it again and again
        dataset.set_epoch(epoch)
        assert [tuple(row["input_ids"].tolist()) for row in islice(dataset, len(expected) + 1)] == expected
    assert next(iter(dataset))["input_ids"].dtype == torch.int64
    *full, last = dataset._buffers(texts)
    assert len(full) > 3
    assert all(sum(map(len, buffer)) >= 20 * LENGTH * 2.0 for buffer in full)
    assert [*chain(*full), *last] == texts


@pytest.mark.parametrize("persistent", [False, True])
@pytest.mark.parametrize("kind", ["map-style", "shuffled stream", "three"])
def test_the_epoch_and_the_seed_decide_the_order_also_in_living_workers(data, make, kind, persistent):
    stream = data.to_iterable_dataset(num_shards=2).shuffle(seed=1, buffer_size=5)
    source = stream if kind == "shuffled stream" else source_of(data, kind)
    dataset = make(source, shuffle=kind != "shuffled stream", seed=3)
    loader = DataLoader(dataset, batch_size=64, num_workers=2, persistent_workers=persistent)
    orders = []
    for epoch in (0, 1, 0):
        dataset.set_epoch(epoch)
        orders.append(read(loader))
    assert orders[0] == orders[2] != orders[1]
    assert kind == "shuffled stream" or read(DataLoader(make(source, shuffle=True, seed=4), num_workers=2)) != orders[0]


@settings(max_examples=30)
@given(texts=DOCUMENTS, length=LENGTHS, wanted=st.integers(0, 40))
def test_infinite_passes_repeat_the_documents_without_a_gap(texts, length, wanted):
    dataset = packing.ConstantLengthDataset(BYTES, Dataset.from_dict({"content": texts}), True, length, 2)
    tokens = [t for row in islice(dataset, wanted) for t in row["input_ids"].tolist()]
    once = joined(BYTES, texts)
    assert tokens == (once * (wanted * length // len(once) + 1))[: wanted * length]


def test_an_infinite_pass_starts_again_in_a_new_order(data, texts, make, tokenizer):
    a_pass = len(joined(tokenizer, texts)) // LENGTH
    for kind in ("map-style", "one"):
        dataset = make(source_of(data, kind), infinite=True, shuffle=True)
        rows = [tuple(row["input_ids"].tolist()) for row in islice(dataset, 2 * a_pass)]
        assert rows[: a_pass - 20] != rows[a_pass : 2 * a_pass - 20]


@pytest.mark.parametrize("infinite", [False, True])
@pytest.mark.parametrize("kind", ["map-style", "generator", "rows", "used up"])
def test_data_without_documents_are_an_error_not_a_hang(make, infinite, kind):
    source = {"rows": [], "used up": iter([])}.get(kind, Dataset.from_dict({"content": []}))
    with pytest.raises(ValueError, match="no documents for reader 1 of 2"):
        next(make(source_of(source, kind), infinite=infinite).read_shard(0, 2))


def test_a_worker_that_no_document_falls_to_is_an_error_when_it_would_wait_forever(make):
    one = Dataset.from_dict({"content": ["x = 1\n" * 50]})
    assert len(list(make(one).read_shard(0, 2))) > 0
    assert list(make(one).read_shard(1, 2)) == []
    assert len(list(islice(make(one, infinite=True).read_shard(0, 2), 100))) == 100
    with pytest.raises(ValueError, match="no documents for reader 2 of 2"):
        next(make(one, infinite=True).read_shard(1, 2))


def test_processes_come_from_torch_or_from_the_launchers_environment(data, make, monkeypatch, tmp_path):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "3")
    made = [make(data), make(data, process_index=0, num_processes=2)]
    torch.distributed.init_process_group("gloo", init_method=(tmp_path / "store").as_uri(), rank=0, world_size=1)
    try:
        made.append(make(data))
    finally:
        torch.distributed.destroy_process_group()
    assert [(each.process_index, each.num_processes) for each in made] == [(1, 3), (0, 2), (0, 1)]
