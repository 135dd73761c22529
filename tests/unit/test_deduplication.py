"""Duplicates are found exactly: on random documents all pairs are compared."""

import hashlib
import re
from unittest import mock

import datasets
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from course_utils.data import deduplication

# Few different words, so that similar documents are frequent.
DOCUMENT = st.lists(st.sampled_from([f"w{number}" for number in range(24)]), max_size=40).map(" ".join)


def words_of(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"[A-Za-z0-9_]+", text))


@given(st.lists(DOCUMENT, max_size=12), st.sampled_from([0.3, 0.5, 0.6, 2 / 3, 0.75, 0.8, 0.85, 0.9, 1.0]))
@example([" ".join(f"w{number}" for number in range(12))] * 9, 0.85)  # the first alone is in two blocks of pairs
def test_near_duplicates_are_all_pairs_compared(documents, threshold):
    sets = [words_of(text) for text in documents]
    with mock.patch.multiple(deduplication, _PRODUCTS_AT_ONCE=10, _PAIRS_AT_ONCE=3):  # in many blocks, as a corpus is
        found = deduplication.near_duplicates(documents, threshold)
    assert found == [
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


def test_deduplicate_keeps_the_first_of_every_cluster_in_order():
    one, two, three, other = (" ".join(f"{name}{n}" for n in range(20)) for name in "abcd")
    near, far = (" ".join(one.split()[:length]) for length in (18, 16))  # `far` is near to `near`, not to `one`
    mixed = f"{' '.join(three.split()[:10])} {other}"
    backwards = "\n".join(two.split()[::-1])
    texts = [far, two, one, "", near, "x = 1", None, one, backwards, "x + 1", three, mixed]
    kept, report = deduplication.deduplicate(datasets.Dataset.from_dict({"content": texts, "n": range(len(texts))}))
    assert kept["n"][:] == [0, 1, 3, 5, 9, 10, 11]
    assert report == (12, 2, 3)
    nothing, report = deduplication.deduplicate(datasets.Dataset.from_dict({"content": []}))
    assert (len(nothing), *report) == (0, 0, 0, 0)
