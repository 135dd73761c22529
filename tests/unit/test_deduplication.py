"""Duplicates are found exactly: the oracle compares all pairs, on real files and on random documents."""

import hashlib
import importlib.util
import re
from pathlib import Path

import datasets
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from course_utils.data import deduplication

# Few different words, so that similar documents are frequent.
DOCUMENT = st.lists(st.sampled_from([f"w{number}" for number in range(24)]), max_size=40).map(" ".join)


@pytest.fixture(scope="module")
def documents():
    texts = []
    for package in ("sklearn", "joblib", "networkx", "scipy", "numpy"):
        root = Path(importlib.util.find_spec(package).origin).parent
        texts += [file.read_text(encoding="utf-8", errors="replace") for file in sorted(root.rglob("*.py"))]
    texts = [text for text in texts if len(text) < 25_000]
    # Near copies on both sides of the limit, so that there are pairs whatever these packages hold.
    changed = [re.sub(r"\bself\b", "this", text) for text in texts[::40]]
    shortened = [text[: int(len(text) * share)] for share in (0.7, 0.8, 0.9) for text in texts[::40]]
    return texts + changed + shortened


def words_of(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"[A-Za-z0-9_]+", text))


def oracle(texts: list[str], threshold: float) -> dict[tuple[int, int], float]:
    """All pairs, each compared: the overlap of every document with every other is one matrix product."""
    sets = [words_of(text) for text in texts]
    names = {word: number for number, word in enumerate(set().union(*sets))}
    rows = np.repeat(np.arange(len(sets)), [len(words) for words in sets])
    columns = [names[word] for words in sets for word in words]
    matrix = sparse.csr_array((np.ones(len(rows), dtype=np.int32), (rows, columns)), (len(sets), len(names)))
    sizes, pairs = matrix.sum(axis=1), {}
    for start in range(0, len(sets), 500):
        common = (matrix[start : start + 500] @ matrix.T).tocoo()
        i, j = common.coords[0] + start, common.coords[1]
        jaccard = common.data / (sizes[i] + sizes[j] - common.data)
        kept = (i < j) & (np.minimum(sizes[i], sizes[j]) >= deduplication.MIN_WORDS) & (jaccard >= threshold)
        pairs |= dict(zip(zip(i[kept].tolist(), j[kept].tolist(), strict=True), jaccard[kept].tolist(), strict=True))
    return pairs


@pytest.mark.parametrize("threshold", [0.85, 0.7])
def test_none_missed_and_none_extra_against_all_pairs_of_real_files(documents, threshold, monkeypatch):
    expected = oracle(documents, threshold)
    found = deduplication.near_duplicates(documents, threshold)
    assert len(documents) >= 2000
    assert len(expected) > 150
    assert {(i, j): jaccard for i, j, jaccard in found} == pytest.approx(expected)
    assert (found, len(found)) == (sorted(found), len(expected))
    monkeypatch.setattr(deduplication, "_PRODUCTS_AT_ONCE", 5_000)  # small blocks give the same pairs
    monkeypatch.setattr(deduplication, "_PAIRS_AT_ONCE", 3)
    start = len(documents) - 800
    last = [(i - start, j - start, jaccard) for i, j, jaccard in found if i >= start]
    assert deduplication.near_duplicates(documents[start:], threshold) == last


@given(st.lists(DOCUMENT, max_size=12), st.sampled_from([0.3, 0.5, 0.6, 2 / 3, 0.75, 0.8, 0.85, 0.9, 1.0]))
def test_near_duplicates_are_all_pairs_compared(documents, threshold):
    sets = [words_of(text) for text in documents]
    assert deduplication.near_duplicates(documents, threshold) == [
        (i, j, len(a & b) / len(a | b))
        for i, a in enumerate(sets)
        for j, b in enumerate(sets)
        if i < j and min(len(a), len(b)) >= deduplication.MIN_WORDS and len(a & b) / len(a | b) >= threshold
    ]


@pytest.mark.parametrize(("size", "changed"), [(20, 3), (100, 15), (40, 6), (37, 3), (17 * 37, 3 * 37)])
def test_similarity_just_at_the_limit_counts(size, changed):
    # A floating-point hair above 0.85 · size would make the prefix one word too short.
    whole = [f"w{number:04d}" for number in range(size)]
    part = " ".join(whole[changed:])
    threshold = (size - changed) / size
    for other in range(5):  # other documents decide which words are rare
        crowd = [" ".join(whole[: other * 2]) + f" c{number}" for number in range(other)]
        assert (0, 1, threshold) in deduplication.near_duplicates([" ".join(whole), part, *crowd], threshold)


def test_words_split_at_everything_but_ascii_letters_digits_and_underscores():
    a = "alpha beta_1 gamma+delta(epsilon) zeta.eta é theta日iota kappa,lambda1 mu"
    b = "mu;lambda1;kappa;iota;theta;eta;zeta;epsilon;delta;gamma;beta_1;alpha"
    assert deduplication.near_duplicates([a, b]) == [(0, 1, 1.0)]
    for too_short in ([], [None, None], ["", "  ", "x"], ["a b c d e f g h i"] * 3):
        assert deduplication.near_duplicates(too_short) == []


@pytest.mark.parametrize("threshold", [0, 85, float("nan")])
def test_thresholds_out_of_range_are_refused(threshold):
    with pytest.raises(ValueError, match=r"0\.85"):
        deduplication.near_duplicates(["a"], threshold)


@given(st.lists(st.sampled_from(["a", "b", " ", "", None]), max_size=20))
def test_exact_duplicates_name_the_first_of_their_kind(contents):
    texts = [text or "" for text in contents]
    assert deduplication.exact_duplicates(contents).tolist() == [texts.index(text) for text in texts]
    assert deduplication.content_hash("é\n") == hashlib.sha256("é\n".encode()).hexdigest()


def test_duplication_curve_counts_files():
    # 1000 unique files: one with 501 copies, nine with 51, the rest alone: 501 + 459 + 990 = 1950 files.
    copies = [1] * 990 + [501] + [51] * 9
    curve = deduplication.duplication_curve(copies)
    assert curve == pytest.approx({0.001: 501 / 1950, 0.01: 960 / 1950, 0.1: 1050 / 1950})
    assert deduplication.duplication_curve(map(str, copies)) == curve
    assert deduplication.duplication_curve([1] * 50) == {0.001: 0.02, 0.01: 0.02, 0.1: 0.1}
    assert deduplication.duplication_curve([3, 1], shares=[1]) == {1: 1.0}


@given(st.integers(1, 20).flatmap(lambda n: st.tuples(st.just(n), st.lists(st.tuples(*[st.integers(0, n - 1)] * 2)))))
def test_clusters_are_the_finest_that_keep_every_pair_together(case):
    n, pairs = case
    expected = list(range(n))
    for _ in range(n):
        for i, j in pairs:
            expected[i] = expected[j] = min(expected[i], expected[j])
    assert deduplication.duplicate_clusters(pairs, n).tolist() == expected


def test_deduplicate_keeps_the_first_of_every_cluster_in_order(documents):
    texts = [*documents[-600:], None, documents[-1], "", documents[-600]]
    kept, report = deduplication.deduplicate(datasets.Dataset.from_dict({"content": texts, "n": range(len(texts))}))
    unique = sorted(set(deduplication.exact_duplicates(texts).tolist()))
    clusters = deduplication.duplicate_clusters(oracle([texts[number] or "" for number in unique], 0.85), len(unique))
    assert kept["n"][:] == [unique[number] for number in sorted(set(clusters.tolist()))]
    assert (report.documents, report.exact) == (len(texts), len(texts) - len(unique))
    assert report.documents - report.exact - report.near == len(kept)
    assert min(report.exact, report.near) > 2
    nothing, report = deduplication.deduplicate(datasets.Dataset.from_dict({"content": []}))
    assert (len(nothing), *report) == (0, 0, 0, 0)
