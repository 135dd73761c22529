"""Find near-duplicates, per CPU second: MinHash one document at a time, as the CodeParrot script does, against ours.

Both are held against an oracle that compares all pairs: ours must find every pair and no other.
"""

import random
import re
import statistics
import time
from collections import defaultdict
from collections.abc import Callable

import numpy as np
from scipy import sparse

from benchmarks.real_files import installed_files

TARGETS = {"near-duplicates, speed": 5, "near-duplicates, pairs found": 1}
DOCUMENTS = 2500
REPETITIONS = 2
THRESHOLD = 0.85
PERMUTATIONS = 256
LEAST_WORDS = 10


def run() -> list[dict]:
    from course_utils.data.deduplication import near_duplicates

    texts = sample()
    true = all_pairs(texts)
    seconds = {"theirs": [], "ours": []}
    for _ in range(REPETITIONS):
        candidates = timed(seconds["theirs"], lambda: tutorials_way(texts))
        found = timed(seconds["ours"], lambda: near_duplicates(texts, THRESHOLD))
        assert {(i, j) for i, j, _ in found} == true, "near_duplicates differs from the comparison of all pairs"
    theirs, ours = (len(texts) / statistics.median(seconds[way]) for way in ("theirs", "ours"))
    part = 100 * len(candidates & true) / len(true)
    return [
        {
            "name": "near-duplicates, speed",
            "ours": ours,
            "theirs": theirs,
            "ratio": ours / theirs,
            "unit": "documents per CPU second",
        },
        {
            "name": "near-duplicates, pairs found",
            "ours": 100.0,
            "theirs": part,
            "ratio": 100 / part,
            "unit": "% of pairs",
        },
    ]


def sample() -> list[str]:
    """Return different files, near copies among them, in a fixed random choice."""
    texts = sorted({text for _, text in installed_files()})
    return random.Random(0).sample(texts, min(DOCUMENTS, len(texts)))


def timed(seconds: list[float], function: Callable):
    start = time.process_time()
    result = function()
    seconds.append(time.process_time() - start)
    return result


def tutorials_way(texts: list[str]) -> set[tuple[int, int]]:
    """Row E2 as described: one MinHash per document, clusters by queries, each reduced by true Jaccard.

    Returns the pairs that the queries proposed.
    """
    from datasketch import MinHash, MinHashLSH

    index = MinHashLSH(threshold=THRESHOLD, num_perm=PERMUTATIONS)
    sets, clusters, pairs = {}, defaultdict(set), set()
    for number, text in enumerate(texts):
        words = {word for word in re.split(r"[^A-Za-z_0-9]", text) if word.strip()}
        if len(words) < LEAST_WORDS:
            continue
        sets[number] = words
        signature = MinHash(num_perm=PERMUTATIONS)
        for word in words:
            signature.update(word.encode())
        close = index.query(signature)
        index.insert(number, signature)
        pairs |= {(other, number) for other in close}
        if close:
            clusters[next((other for other in close if other in clusters), close[0])].add(number)
    for base, members in clusters.items():
        kept = []
        for number in sorted({base, *members}):
            if not any(len(sets[number] & sets[one]) >= THRESHOLD * len(sets[number] | sets[one]) for one in kept):
                kept.append(number)
    return pairs


def all_pairs(texts: list[str]) -> set[tuple[int, int]]:
    """Compare all pairs: the numbers of common words are one sparse matrix product."""
    sets = [set(re.findall(r"[A-Za-z0-9_]+", text)) for text in texts]
    names = {word: number for number, word in enumerate(sorted(set().union(*sets)))}
    rows = np.repeat(np.arange(len(sets)), [len(words) for words in sets])
    columns = [names[word] for words in sets for word in words]
    matrix = sparse.csr_array((np.ones(len(rows), dtype=np.int32), (rows, columns)), (len(sets), len(names)))
    sizes, pairs = matrix.sum(axis=1), set()
    for start in range(0, len(sets), 500):
        common = (matrix[start : start + 500] @ matrix.T).tocoo()
        i, j = common.coords[0] + start, common.coords[1]
        alike = common.data / (sizes[i] + sizes[j] - common.data) >= THRESHOLD
        kept = alike & (i < j) & (np.minimum(sizes[i], sizes[j]) >= LEAST_WORDS)
        pairs |= set(zip(i[kept].tolist(), j[kept].tolist(), strict=True))
    return pairs
