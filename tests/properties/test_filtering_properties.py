import ast

import datasets
from hypothesis import example, given, settings
from hypothesis import strategies as st

from course_utils.data.cleaning import RULES, clean
from course_utils.data.deduplication import (
    MIN_WORDS,
    duplicate_clusters,
    duplication_curve,
    exact_duplicates,
    near_duplicates,
)
from course_utils.data.filtering import (
    KEYWORDS,
    any_keyword_in_string,
    filter_streaming_dataset,
    imported_modules,
    imports_any,
)

NAMES = st.sampled_from([*KEYWORDS, "numpy", "os", "pandas_like", "xpandas"])
DOTTED = st.builds(".".join, st.lists(NAMES, min_size=1, max_size=3))
ALIASED = st.builds(
    lambda name, short: f"{name} as {short}" if short else name, DOTTED, st.sampled_from(["", "a", "pandas"])
)
IMPORT = st.one_of(
    st.builds(lambda names: "import " + ", ".join(names), st.lists(ALIASED, min_size=1, max_size=3)),
    st.builds(
        lambda dots, name, what: f"from {dots}{name} import {what}", st.sampled_from(["", ".", ".."]), DOTTED, NAMES
    ),
)
LINE = st.one_of(
    IMPORT,
    st.builds("if True:\n    {}".format, IMPORT),
    st.builds("# {}".format, IMPORT),
    st.builds('"""\n{}\n"""'.format, IMPORT),
    st.builds("x = '{}'".format, IMPORT),
    st.builds("{}  # pandas".format, NAMES),
)
SOURCE = st.builds("\n".join, st.lists(LINE, max_size=5))
# Few different words, so that similar documents are frequent.
DOCUMENT = st.builds(" ".join, st.lists(st.sampled_from([f"w{number}" for number in range(24)]), max_size=40))
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)


@given(SOURCE, st.sets(NAMES, min_size=1, max_size=3))
@example("import numpy as np, pandas", {"pandas"})
def test_import_test_agrees_with_the_syntax_tree(source, modules):
    ast.parse(source)
    assert imports_any(source, modules) == bool(imported_modules(source) & modules)


@settings(max_examples=25)
@given(
    st.lists(st.one_of(st.none(), TEXT, SOURCE), max_size=12), st.lists(st.one_of(TEXT, NAMES), min_size=1, max_size=3)
)
def test_a_data_set_is_filtered_like_its_strings(contents, words):
    words = [word for word in words if word] or ["pandas"]
    features = datasets.Features({"content": datasets.Value("string"), "n": datasets.Value("int64")})
    source = datasets.Dataset.from_dict({"content": contents, "n": range(len(contents))}, features=features)
    kept = filter_streaming_dataset(source, words, show_progress=False)
    found = [n for n, text in enumerate(contents) if text is not None and any_keyword_in_string(text, words)]
    assert kept["n"][:] == found
    imports = filter_streaming_dataset(source, words, match="import", show_progress=False)
    assert imports["n"][:] == [n for n in found if imports_any(contents[n], words)]


@given(st.text(max_size=400), st.text(max_size=30))
def test_cleaning_never_raises_and_names_the_first_rule(text, path):
    decision = clean(text, path)
    broken = [rule.name for rule in RULES if not clean(text, path, [rule]).keep]
    assert decision == (not broken, broken[0] if broken else "")


def words_of(text):
    return set(text.split())


@given(st.lists(DOCUMENT, max_size=12), st.sampled_from([0.3, 0.5, 0.6, 2 / 3, 0.75, 0.8, 0.85, 0.9, 1.0]))
def test_near_duplicates_are_all_pairs_compared(documents, threshold):
    sets = [words_of(text) for text in documents]
    expected = [
        (i, j, len(a & b) / len(a | b))
        for i, a in enumerate(sets)
        for j, b in enumerate(sets)
        if i < j and min(len(a), len(b)) >= MIN_WORDS and len(a & b) / len(a | b) >= threshold
    ]
    assert near_duplicates(documents, threshold) == expected


@given(st.lists(st.sampled_from(["a", "b", "c", "", None]), max_size=20))
def test_exact_duplicates_point_to_an_equal_document(contents):
    first = exact_duplicates(contents)
    for index, target in enumerate(first):
        assert (contents[index] or "") == (contents[target] or "")
        assert target == [text or "" for text in contents].index(contents[index] or "")


@given(st.integers(1, 20).flatmap(lambda n: st.tuples(st.just(n), st.lists(st.tuples(*[st.integers(0, n - 1)] * 2)))))
def test_clusters_are_the_finest_that_keep_every_pair_together(case):
    n, pairs = case
    expected = list(range(n))
    for _ in range(n):
        for i, j in pairs:
            expected[i] = expected[j] = min(expected[i], expected[j])
    assert duplicate_clusters(pairs, n).tolist() == expected


@given(st.lists(st.integers(1, 50), min_size=1, max_size=60), st.lists(st.floats(0.001, 1), min_size=1, max_size=4))
def test_duplication_curve_rises_to_all_files(copies, shares):
    curve = duplication_curve(copies, sorted(shares))
    assert list(curve.values()) == sorted(curve.values())
    assert duplication_curve(copies, [1]) == {1: 1.0}
    assert all(held >= share - 1e-9 for share, held in curve.items())
