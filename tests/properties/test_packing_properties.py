import tempfile
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from course_utils.data.encoding import Encoder
from course_utils.data.packing import (
    ConstantLengthDataset,
    make_chunker,
    pack,
    pack_dataset,
    share_lost_by_packing,
    tokens_lost_by_chunking,
)
from course_utils.data.tokenization import byte_tokenizer

# More workers than this machine has processors are meant here.
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")

EOS = 0
IDS = st.lists(st.integers(1, 60_000), max_size=40)
DOCUMENTS = st.lists(st.text(st.characters(codec="utf-8"), max_size=30), min_size=1, max_size=12)
LENGTHS = st.integers(1, 16)


@pytest.fixture(scope="module")
def encoder():
    return Encoder(byte_tokenizer())


def joined(encoder, texts):
    tokenizer = encoder.tokenizer
    ids = tokenizer(texts, add_special_tokens=False, split_special_tokens=True).input_ids if texts else []
    return [token for document in ids for token in [*document, tokenizer.eos_token_id]]


@given(documents=st.lists(IDS, max_size=20), length=LENGTHS)
def test_packing_conserves_every_token_in_order(documents, length):
    rows, left = pack(documents, EOS, length)
    expected = [token for ids in documents for token in [*ids, EOS]]
    assert rows.reshape(-1).tolist() + left.tolist() == expected
    assert rows.shape == (len(expected) // length, length)
    assert len(left) < length
    if documents:
        assert share_lost_by_packing([len(ids) for ids in documents], length) == len(left) / len(expected)


@given(documents=st.lists(IDS, max_size=20), length=LENGTHS, data=st.data())
def test_packing_in_parts_equals_packing_at_once(documents, length, data):
    cuts = sorted(data.draw(st.lists(st.integers(0, len(documents)), max_size=4)))
    parts, left = [], ()
    for start, end in zip([0, *cuts], [*cuts, len(documents)], strict=True):
        rows, left = pack(documents[start:end], EOS, length, carry=left)
        parts.append(rows)
    whole, rest = pack(documents, EOS, length)
    assert np.concatenate(parts).tolist() == whole.tolist()
    assert left.tolist() == rest.tolist()


@settings(max_examples=60)
@given(texts=DOCUMENTS, length=LENGTHS)
def test_chunking_loses_exactly_the_tails(encoder, texts, length):
    chunks = make_chunker(encoder.tokenizer, length)({"content": texts})["input_ids"]
    counts = [len(text.encode()) for text in texts]
    if sum(counts):
        assert sum(counts) - sum(map(len, chunks)) == tokens_lost_by_chunking(counts, length)
    assert all(len(chunk) == length for chunk in chunks)


@settings(max_examples=40)
@given(texts=DOCUMENTS, length=LENGTHS, stream=st.booleans())
def test_a_packed_data_set_conserves_every_token(encoder, texts, length, stream):
    expected = joined(encoder, texts)
    data = Dataset.from_dict({"content": texts})
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        path = Path(folder, "packed.arrow")
        source = data.to_iterable_dataset() if stream else data
        if len(expected) < length:
            with pytest.raises(ValueError, match="do not fill one sequence"):
                pack_dataset(source, encoder, length, path, show_progress=False)
            assert not path.exists()
            return
        packed = pack_dataset(source, encoder, length, path, show_progress=False)
        rows = np.array(packed.dataset["input_ids"][:])
        assert rows.reshape(-1).tolist() == expected[: rows.size]
        assert packed.tokens_lost == len(expected) - rows.size < length


@settings(max_examples=60)
@given(
    texts=DOCUMENTS,
    length=LENGTHS,
    processes=st.integers(1, 3),
    workers=st.integers(1, 3),
    sequences=st.integers(1, 5),
    kind=st.sampled_from(["map-style", "stream", "rows"]),
)
def test_every_token_comes_exactly_once_for_workers_times_processes(
    encoder, texts, length, processes, workers, sequences, kind
):
    data = Dataset.from_dict({"content": texts})
    source = {"map-style": data, "stream": data.to_iterable_dataset(), "rows": iter(())}[kind]
    for process in range(processes):
        for worker in range(workers):
            source = ({"content": text} for text in texts) if kind == "rows" else source
            dataset = ConstantLengthDataset(
                encoder, source, False, length, sequences, process_index=process, num_processes=processes
            )
            tokens = [t for row in dataset.read_shard(worker, workers) for t in row["input_ids"].tolist()]
            mine = joined(encoder, texts[process * workers + worker :: processes * workers])
            assert tokens == mine[: len(tokens)]
            assert len(mine) - len(tokens) == dataset.tokens_dropped < length


@settings(max_examples=40)
@given(texts=DOCUMENTS, length=LENGTHS, epoch=st.integers(0, 3), workers=st.integers(1, 3))
def test_shuffling_gives_all_documents_to_some_worker(encoder, texts, length, epoch, workers):
    dataset = ConstantLengthDataset(
        encoder, Dataset.from_dict({"content": texts}), False, 1, 4, shuffle=True, process_index=0, num_processes=1
    )
    dataset.set_epoch(epoch)
    tokens = [row["input_ids"].item() for worker in range(workers) for row in dataset.read_shard(worker, workers)]
    assert sorted(tokens) == sorted(joined(encoder, texts))


@settings(max_examples=5)
@given(
    texts=DOCUMENTS,
    length=LENGTHS,
    processes=st.integers(1, 3),
    workers=st.integers(0, 3),
    stream=st.booleans(),
)
def test_real_loaders_of_several_processes_share_the_tokens(encoder, texts, length, processes, workers, stream):
    data = Dataset.from_dict({"content": texts})
    rows, dropped = [], 0
    for process in range(processes):
        dataset = ConstantLengthDataset(
            encoder,
            data.to_iterable_dataset() if stream else data,
            seq_length=length,
            process_index=process,
            num_processes=processes,
        )
        loader = DataLoader(dataset, batch_size=2, num_workers=workers)
        rows += [row.tolist() for batch in loader for row in batch["input_ids"]]
        dropped += dataset.tokens_dropped
    shards = processes * max(workers, 1)
    streams = [joined(encoder, texts[shard::shards]) for shard in range(shards)]
    cut = [s[i : i + length] for s in streams for i in range(0, len(s) - length + 1, length)]
    assert sorted(rows) == sorted(cut)
    assert dropped == sum(len(s) % length for s in streams)


@settings(max_examples=30)
@given(texts=DOCUMENTS, length=LENGTHS, wanted=st.integers(0, 40))
def test_infinite_passes_repeat_the_documents_without_a_gap(encoder, texts, length, wanted):
    dataset = ConstantLengthDataset(encoder, Dataset.from_dict({"content": texts}), True, length, 2)
    tokens = [t for row in islice(dataset, wanted) for t in row["input_ids"].tolist()]
    once = joined(encoder, texts)
    assert tokens == (once * (wanted * length // len(once) + 1))[: wanted * length]
