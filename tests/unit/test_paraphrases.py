"""The course's labelled sets: balanced, without duplicates or leaks, and not solved by counting words."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset, DatasetDict, load_from_disk
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression

from course_utils.data import paraphrases
from course_utils.data.paraphrases import PAIRS, SENTENCES, load_pairs, word_overlap, words

FOLDER = Path(paraphrases.__file__).parent
HIGHEST = 0.60  # accuracy that no baseline may reach; the labels are balanced


@pytest.fixture(scope="module")
def pairs():
    return load_pairs(PAIRS)


def topics(folder):
    return json.loads((FOLDER / folder / "topics.json").read_text())


def test_columns_splits_and_labels_are_those_of_glue(pairs):
    assert {split: len(rows) for split, rows in pairs.items()} == {"train": 380, "validation": 120, "test": 120}
    for rows in pairs.values():
        assert set(rows.column_names) == {"sentence1", "sentence2", "label", "idx"}
        assert rows.features["label"].names == ["not_equivalent", "equivalent"]
        assert sum(rows["label"]) * 2 == len(rows)  # the majority has 0.50
        assert rows["idx"][:] == list(range(len(rows)))
    sentences = load_pairs(SENTENCES)
    assert sum(len(rows) for rows in sentences.values()) >= 300
    assert set(sentences["train"].column_names) == {"sentence", "label", "idx"}


@pytest.mark.parametrize(("name", "folder"), [(PAIRS, "paraphrase_pairs"), (SENTENCES, "opinion_sentences")])
def test_no_topic_and_no_text_is_in_two_splits_and_none_is_there_twice(name, folder):
    data, by_split, seen = load_pairs(name), topics(folder), {}
    columns = paraphrases.text_columns(data["train"].column_names)
    for split, rows in data.items():
        assert len(by_split[split]) == len(rows)
        for other in set(data) - {split}:
            assert not set(by_split[split]) & set(by_split[other])
        texts = [tuple(sorted(row[column] for column in columns)) for row in rows]
        assert len(set(texts)) == len(texts)
        for sentence in {text for pair in texts for text in pair}:
            assert seen.setdefault(sentence, split) == split
            assert sentence[0].isupper() or not sentence[0].isalpha()
            assert re.search(r"[.!?][\"']?$", sentence)


def all_rows(pairs):
    return [row for rows in pairs.values() for row in rows]


def best_threshold(values, labels):
    values, labels = np.asarray(values), np.asarray(labels)
    return max(max(((values >= t) == labels).mean(), ((values < t) == labels).mean()) for t in np.unique(values))


@pytest.mark.parametrize(
    "feature",
    [
        lambda row: word_overlap(row["sentence1"], row["sentence2"]),
        lambda row: abs(len(words(row["sentence1"])) - len(words(row["sentence2"]))),
        lambda row: len(words(row["sentence1"])) + len(words(row["sentence2"])),
        lambda row: len(words(row["sentence2"])) - len(words(row["sentence1"])),
    ],
    ids=["word overlap", "length difference", "length", "which is longer"],
)
def test_no_threshold_tells_the_labels_apart(pairs, feature):
    rows = all_rows(pairs)
    accuracy = best_threshold([feature(row) for row in rows], [row["label"] for row in rows])
    print(f"best threshold: {accuracy:.3f}")
    assert accuracy < HIGHEST
    for split in ("validation", "test"):  # even if chosen on the very pairs it is measured on
        few = pairs[split]
        assert best_threshold([feature(row) for row in few], few["label"][:]) < HIGHEST + 0.03


@pytest.mark.parametrize("counts", ["both sentences", "differing words", "shared and differing words"])
def test_no_model_of_word_counts_tells_the_labels_apart(pairs, counts):
    rows, train = all_rows(pairs), len(pairs["train"])
    vectorizer = CountVectorizer(token_pattern=r"[a-z0-9]+(?:['-][a-z0-9]+)*", binary=True)
    vectorizer.fit([row[column] for row in rows[:train] for column in ("sentence1", "sentence2")])
    first, second = (vectorizer.transform([row[c] for row in rows]).toarray() for c in ("sentence1", "sentence2"))
    inputs = {
        "both sentences": first + second,
        "differing words": abs(first - second),
        "shared and differing words": np.hstack([first & second, first ^ second]),
    }[counts]
    labels = np.array([row["label"] for row in rows])
    model = LogisticRegression(max_iter=2000).fit(inputs[:train], labels[:train])
    right = model.predict(inputs) == labels
    scores = {"validation": right[train : train + 120].mean(), "test": right[train + 120 :].mean()}
    print(scores)
    assert max(scores.values()) < HIGHEST


def test_overlap_and_length_are_balanced_within_the_labels(pairs):
    rows = all_rows(pairs)
    for feature, largest in (
        (lambda row: word_overlap(row["sentence1"], row["sentence2"]), 0.06),
        (lambda row: abs(len(words(row["sentence1"])) - len(words(row["sentence2"]))), 0.5),
        (lambda row: len(words(row["sentence1"] + " " + row["sentence2"])), 1.5),
    ):
        means = [np.mean([feature(row) for row in rows if row["label"] == label]) for label in (0, 1)]
        assert abs(means[0] - means[1]) < largest
    for label in (0, 1):  # every label has pairs with little, middle and high overlap
        overlaps = np.array([word_overlap(r["sentence1"], r["sentence2"]) for r in rows if r["label"] == label])
        for low, high in ((0, 0.3), (0.3, 0.5), (0.5, 1.01)):
            assert ((overlaps >= low) & (overlaps < high)).mean() > 0.2


def rows_with(**change):
    rows = {"sentence1": ["One.", "Two."], "sentence2": ["Uno.", "Dos."], "label": [1, 0], "idx": [0, 1]} | change
    return {name: values for name, values in rows.items() if values is not None}


def saved(folder, train, **splits):
    for split, rows in {"train": train, "validation": rows_with(), **splits}.items():
        Dataset.from_dict(rows).to_json(str(folder / f"{split}.jsonl"))
    return str(folder)


@pytest.mark.parametrize(
    ("train", "message"),
    [
        (rows_with(sentence2=None), r"has the columns .*; it needs label, and sentence1 and sentence2"),
        (rows_with(label=None), "it needs label"),
        (rows_with(label=[1, 2]), r"the split 'train' of .* has the labels \[2\]; only the numbers 0 and 1"),
        (rows_with(label=[1, -1]), r"has the labels \[-1\]"),
        (rows_with(label=["0", "1"]), r"has the labels \['0', '1'\]; only the numbers 0 and 1 .*dataset\.map"),
        (rows_with(label=[0.5, 1.0]), r"has the labels \[0\.5\]"),
        (rows_with(sentence1=["One.", "  "]), "row 1 of the split 'train' of .* has an empty sentence1"),
        (rows_with(sentence1=[1, 2]), "row 0 of .* has no text as sentence1, but 1; .*cast_column"),
        (rows_with(sentence1=["One.", "Two.\t1\tThree."]), "row 1 of .* a tab or line break in sentence1: .*use JSONL"),
    ],
)
def test_bad_rows_are_refused_with_what_is_wrong(tmp_path, train, message):
    with pytest.raises(ValueError, match=message):
        load_pairs(saved(tmp_path, train, validation=train))


def test_a_test_split_may_hide_its_labels_and_a_missing_split_is_named(tmp_path):
    hidden = load_pairs(saved(tmp_path, rows_with(), test=rows_with(label=[-1, -1])))
    assert isinstance(hidden, DatasetDict)
    assert hidden["test"]["label"][:] == [-1, -1]
    (tmp_path / "validation.jsonl").unlink()
    with pytest.raises(ValueError, match=r"has no split validation; it has train, test\. .*train_test_split"):
        load_pairs(str(tmp_path))
    with pytest.raises(ConnectionError, match=r"nyu-mll/glue:mrpc is not a local folder or file, and the Hub does not"):
        load_pairs("nyu-mll/glue:mrpc")


@pytest.mark.parametrize("kind", [float, bool, int])
def test_numbers_of_any_kind_become_named_labels(tmp_path, kind):
    loaded = load_pairs(saved(tmp_path, rows_with(label=[kind(1), kind(0)])))
    assert loaded["train"].features["label"].names == ["0", "1"]
    assert loaded["train"]["label"][:] == [1, 0]
    assert all(type(label) is int for label in loaded["train"]["label"])


def test_what_the_library_saved_is_read_without_its_temporary_files(tmp_path):
    load_pairs(PAIRS).save_to_disk(tmp_path / "saved")
    load_from_disk(tmp_path / "saved").map(lambda row: {"sentence1": row["sentence1"] + " "})  # leaves a file there
    assert list((tmp_path / "saved" / "train").glob("cache-*.arrow"))
    assert {split: len(rows) for split, rows in load_pairs(str(tmp_path / "saved")).items()} == {
        "train": 380,
        "validation": 120,
        "test": 120,
    }


@pytest.mark.parametrize(
    ("name", "text"), [("train.jsonl", '{"a"'), ("train.jsonl", ""), ("train.csv", "a,b\n1\n1,2,3\n"), ("other", "x")]
)
def test_files_that_cannot_be_read_are_one_message(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=r"cannot be read as a data set|has no split validation"):
        load_pairs(str(tmp_path))


def test_counting_words_does_not_tell_opinions_apart():
    sentences = load_pairs(SENTENCES)
    train, card = sentences["train"], (FOLDER / "opinion_sentences" / "README.md").read_text(encoding="utf-8")
    counts = CountVectorizer().fit(train["sentence"][:])
    model = LogisticRegression(max_iter=2000).fit(counts.transform(train["sentence"][:]), train["label"][:])
    for split in ("validation", "test"):
        rows = sentences[split]
        assert sum(rows["label"]) * 2 == len(rows)  # the majority has 0.50
        accuracy = model.score(counts.transform(rows["sentence"][:]), rows["label"][:])
        assert accuracy < HIGHEST
        assert f"{accuracy:.2f} on {split}" in card


def test_the_data_cards_say_what_the_files_hold():
    for folder, name in (("paraphrase_pairs", PAIRS), ("opinion_sentences", SENTENCES)):
        card = (FOLDER / folder / "README.md").read_text(encoding="utf-8")
        for split, rows in load_pairs(name).items():
            count, ones = len(rows), sum(rows["label"])
            assert f"| {split} | {count} | {ones} | {len(set(topics(folder)[split]))} |" in card
