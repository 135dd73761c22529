import hashlib
import importlib.util
import re
from collections import Counter
from pathlib import Path

import datasets
import numpy as np
import pytest
from scipy import sparse

from course_utils.data import deduplication
from course_utils.data.deduplication import (
    MIN_WORDS,
    content_hash,
    deduplicate,
    duplicate_clusters,
    duplication_curve,
    exact_duplicates,
    minhash,
    near_duplicates,
)


@pytest.fixture(scope="module")
def documents():
    texts = []
    for package in ("sklearn", "joblib", "networkx", "scipy", "numpy", "pandas"):
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
        kept = (i < j) & (sizes[i] >= MIN_WORDS) & (sizes[j] >= MIN_WORDS) & (jaccard >= threshold)
        pairs |= dict(zip(zip(i[kept].tolist(), j[kept].tolist(), strict=True), jaccard[kept].tolist(), strict=True))
    return pairs


@pytest.mark.parametrize("threshold", [0.85, 0.7])
def test_none_missed_and_none_extra_against_all_pairs_of_real_files(documents, threshold):
    expected = oracle(documents, threshold)
    found = near_duplicates(documents, threshold)
    assert len(documents) >= 2000
    assert len(expected) > 200
    assert {(i, j): jaccard for i, j, jaccard in found} == pytest.approx(expected)
    assert found == sorted(found)
    assert len(found) == len(expected)


def test_small_blocks_give_the_same_pairs(documents, monkeypatch):
    expected = near_duplicates(documents[-800:])
    monkeypatch.setattr(deduplication, "_PRODUCTS_AT_ONCE", 50)
    monkeypatch.setattr(deduplication, "_PAIRS_AT_ONCE", 3)
    assert near_duplicates(documents[-800:]) == expected
    assert expected


@pytest.mark.parametrize(("size", "changed"), [(20, 3), (100, 15), (40, 6), (37, 3), (17 * 37, 3 * 37)])
def test_similarity_just_at_the_limit_counts(size, changed):
    # A floating-point hair above 0.85 · size would make the prefix one word too short.
    whole = [f"w{number:04d}" for number in range(size)]
    part = " ".join(whole[changed:])
    threshold = (size - changed) / size
    for other in range(5):  # other documents decide which words are rare
        crowd = [" ".join(whole[: other * 2]) + f" c{number}" for number in range(other)]
        found = near_duplicates([" ".join(whole), part, *crowd], threshold)
        assert (0, 1, threshold) in found


def test_short_documents_have_no_near_copies():
    short, enough = "a b c d e f g h i", "a b c d e f g h i j"
    assert near_duplicates([short, short, short + " a b"]) == []
    assert near_duplicates([enough, enough]) == [(0, 1, 1.0)]


def test_words_split_at_everything_but_ascii_letters_digits_and_underscores():
    a = "alpha beta_1 gamma+delta(epsilon) zeta.eta é theta日iota kappa,lambda1 mu"
    b = "mu;lambda1;kappa;iota;theta;eta;zeta;epsilon;delta;gamma;beta_1;alpha"
    assert near_duplicates([a, b]) == [(0, 1, 1.0)]


@pytest.mark.parametrize("texts", [[], [""], [None, None], ["", "  ", "x"], ["one two three"] * 3])
def test_nothing_to_compare(texts):
    assert near_duplicates(texts) == []


def test_a_very_long_document_is_compared():
    long = " ".join(f"w{number}" for number in range(200_000)) + " pad" * 10_000_000  # 41 MB
    assert near_duplicates([long, "short", long + " more"])[0][:2] == (0, 2)


@pytest.mark.parametrize("threshold", [0, -1, 1.01, float("nan")])
def test_thresholds_out_of_range_are_refused(threshold):
    with pytest.raises(ValueError, match=r"0\.85"):
        near_duplicates(["a"], threshold)


def test_hash_is_sha256_of_utf8():
    assert content_hash("é\n") == hashlib.sha256("é\n".encode()).hexdigest()
    assert content_hash(None) == content_hash("") != content_hash(" ")
    assert len(content_hash("\ud800")) == 64


def test_exact_duplicates_name_the_first_of_their_kind():
    assert exact_duplicates(["a", "b", "a", None, "", "b", "a"]).tolist() == [0, 1, 0, 3, 3, 1, 0]
    assert exact_duplicates([]).tolist() == []


def test_duplication_curve_counts_files():
    # 1000 unique files: one with 501 copies, nine with 51, the rest alone: 501 + 459 + 990 = 1950 files.
    copies = [1] * 990 + [501] + [51] * 9
    curve = duplication_curve(copies)
    assert curve == pytest.approx({0.001: 501 / 1950, 0.01: 960 / 1950, 0.1: 1050 / 1950})
    assert duplication_curve(map(str, copies)) == curve
    assert duplication_curve([1] * 50) == {0.001: 0.02, 0.01: 0.02, 0.1: 0.1}
    assert duplication_curve([3, 1], shares=[1]) == {1: 1.0}
    assert duplication_curve([1] * 9 + [91], shares=[1e-12]) == {1e-12: 0.91}


@pytest.mark.parametrize(("copies", "shares"), [([], [0.1]), ([0, 1], [0.1]), ([1], [0]), ([1], [1.5])])
def test_duplication_curve_refuses_what_makes_no_sense(copies, shares):
    with pytest.raises(ValueError):
        duplication_curve(copies, shares)


def test_clusters_join_chains_and_are_named_by_their_first():
    assert duplicate_clusters([(1, 4, 0.9), (4, 5, 0.9), (0, 2)], 6).tolist() == [0, 1, 0, 3, 1, 1]
    assert duplicate_clusters([], 3).tolist() == [0, 1, 2]
    assert duplicate_clusters([], 0).tolist() == []


def test_deduplicate_keeps_the_first_of_every_cluster_in_order(documents):
    texts = [*documents[-600:], None, documents[-1], "", documents[-600]]
    source = datasets.Dataset.from_dict({"content": texts, "n": range(len(texts))})
    kept, report = deduplicate(source, show_progress=False)
    first = exact_duplicates(texts)
    unique = sorted(set(first.tolist()))
    pairs = oracle([texts[number] or "" for number in unique], 0.85)
    clusters = duplicate_clusters(pairs, len(unique))
    assert kept["n"][:] == [unique[number] for number in sorted(set(clusters.tolist()))]
    assert (report.documents, report.exact) == (len(texts), len(texts) - len(unique))
    assert report.documents - report.exact - report.near == len(kept)
    assert min(report.exact, report.near) > 2
    again, nothing = deduplicate(kept, show_progress=False)
    assert nothing.exact == 0
    assert len(again) <= len(kept)


def test_deduplicate_an_empty_data_set_and_one_without_the_column():
    kept, report = deduplicate(datasets.Dataset.from_dict({"content": []}), show_progress=False)
    assert (len(kept), report.documents, report.exact, report.near) == (0, 0, 0, 0)
    with pytest.raises(ValueError, match=r"no column 'content'.*'text'"):
        deduplicate(datasets.Dataset.from_dict({"text": ["a"]}))


def test_deduplicate_refuses_a_stream_and_says_what_to_do():
    stream = datasets.Dataset.from_dict({"content": ["a"]}).to_iterable_dataset()
    with pytest.raises(ValueError, match=r"got IterableDataset.*filter_streaming_dataset"):
        deduplicate(stream, show_progress=False)


def test_copies_of_real_files_are_counted(documents):
    firsts = Counter(exact_duplicates(documents).tolist())
    texts = Counter(documents)
    assert sorted(firsts.values()) == sorted(texts.values())


def test_minhash_estimates_the_jaccard_similarity(documents):
    sets = [words_of(text) for text in documents[:400:4] if len(words_of(text)) >= MIN_WORDS]
    signatures = [minhash(words) for words in sets]
    errors = []
    for (a, one), (b, two) in zip(
        zip(sets, signatures, strict=True), list(zip(sets, signatures, strict=True))[1:], strict=False
    ):
        errors.append((one == two).mean() - len(a & b) / len(a | b))
    assert np.abs(np.mean(errors)) < 0.01
    assert np.std(errors) < 0.035  # √(¼ / 256) at most
    assert (minhash(["b", "a", "a"]) == minhash(["a", "b"])).all()
    assert (minhash(["a"], seed=1) != minhash(["a"])).any()
    assert minhash(["a"], permutations=7).shape == (7,)
    with pytest.raises(ValueError, match="no words"):
        minhash([])
