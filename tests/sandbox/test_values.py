"""Plain values survive the way through the pipe exactly; nothing else does."""

import json
import os
from collections import Counter, defaultdict, namedtuple
from enum import Enum, IntEnum

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from course_utils.sandbox import values

HASHABLE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.complex_numbers(),
    lambda inner: st.tuples(inner, inner) | st.frozensets(inner, max_size=3),
    max_leaves=5,
)
ANYTHING = st.recursive(
    HASHABLE | st.sets(HASHABLE, max_size=3),
    lambda inner: st.lists(inner, max_size=4) | st.tuples(inner) | st.dictionaries(HASHABLE, inner, max_size=4),
    max_leaves=20,
)


def shape(value):
    """What tells apart what == does not: types, nan, the sign of zero, the order of a dict."""
    if isinstance(value, dict):
        return ["dict", *[(shape(k), shape(v)) for k, v in value.items()]]
    if isinstance(value, set | frozenset):
        return [type(value).__name__, sorted(map(repr, map(shape, value)))]
    if isinstance(value, list | tuple):
        return [type(value).__name__, *map(shape, value)]
    return [type(value).__name__, repr(value)]


def through_the_pipe(value, **options):
    read, write = os.pipe()
    try:
        message = values.packed(values.encode(value, **options))
        assert len(message) < 60_000  # what a pipe holds
        values.send(write, message)
        return values.decode(values.receive(read))
    finally:
        os.close(read)
        os.close(write)


@given(ANYTHING)
def test_values_survive_exactly(value):
    assert shape(through_the_pipe(value)) == shape(value)


TAGS = st.sampled_from(["tuple", "set", "float", "bytes", "complex", "dict", "x"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TAGS, inner, max_size=2),
)


@given(JSON)
def test_any_json_is_decoded_or_refused(tree):
    try:
        value = values.decode(tree)
    except ValueError:
        return
    assert shape(values.decode(json.loads(json.dumps(values.encode(value))))) == shape(value)


class Colour(IntEnum):
    RED = 1


class Shade(str, Enum):  # noqa: UP042 - StrEnum has a str() of its own
    RED = "red"


class Odd(str):
    def __str__(self):
        return "another"


class Kelvin(float):
    def __float__(self):
        return 2.5


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (np.float64(0.5), 0.5),
        (np.float32(0.5), 0.5),
        (np.int64(3), 3),
        (np.bool_(True), True),
        (np.str_("a"), "a"),
        (np.arange(4).reshape(2, 2), [[0, 1], [2, 3]]),
        (pd.Series([1, 2]), [1, 2]),
        (pd.Index(["a"]), ["a"]),
        ({np.int64(1): np.nan}, {1: float("nan")}),
        (Counter("aab"), {"a": 2, "b": 1}),
        (defaultdict(list, a=[1]), {"a": [1]}),
        (namedtuple("Point", "x y")(1, 2), (1, 2)),
        (Colour.RED, 1),
        (Shade.RED, "red"),
        ({Shade.RED: [Shade.RED]}, {"red": ["red"]}),
        (Odd("a"), "a"),
        (Kelvin(0.5), 0.5),
    ],
)
def test_the_child_converts_what_is_nearly_plain_and_the_parent_does_not(value, plain):
    assert shape(through_the_pipe(value, convert=True)) == shape(plain)
    with pytest.raises(values.NotPlain):
        values.encode(value) if not isinstance(value, dict) or type(value) is not dict else values.encode([*value])


@pytest.mark.parametrize(
    "value",
    [object(), print, range(3), pd.DataFrame({"a": [1]}), iter([]), 1j.__class__, {1}.__iter__(), np.longdouble(1)],
)
def test_everything_else_is_refused(value):
    with pytest.raises(values.NotPlain, match="a value of type"):
        values.encode(value, convert=True)


def test_what_is_encoded_can_be_decoded():
    for wrap in (lambda inner: {"k": inner}, lambda inner: defaultdict(list, k=inner), lambda inner: [inner]):
        deep = 0
        for _ in range(values.DEPTH_LIMIT):
            deep = wrap(deep)
        assert shape(through_the_pipe(deep, convert=True)) == shape(deep)
        with pytest.raises(values.NotPlain, match="nested deeper"):
            values.encode(wrap(deep), convert=True)
    most = values.HASHED_LIMIT
    for many in (set(range(most)), dict.fromkeys(range(most)), {(1,): 0, frozenset(range(most - 3)): 0}):
        assert values.decode(values.encode(many)) == many
        for more in ([many, {-1}], (many, {(): 1}), {-1: many}):
            with pytest.raises(values.NotPlain, match="more than 10000 values in keys and elements of sets"):
                values.encode(more)


def test_limits_of_size_depth_and_hashed_elements():
    deep = []
    for _ in range(values.DEPTH_LIMIT + 1):
        deep = [deep]
    with pytest.raises(values.NotPlain, match="nested deeper"):
        values.encode(deep)
    with pytest.raises(ValueError, match="nested deeper"):
        values.decode(deep)
    with pytest.raises(values.NotPlain, match="at most"):
        values.packed("x" * values.MESSAGE_LIMIT)
    with pytest.raises(values.NotPlain, match="that JSON cannot hold"):
        values.packed(10**5000)
    many = list(range(values.HASHED_LIMIT))
    assert values.decode({"set": many}) == set(many)
    with pytest.raises(ValueError, match="keys and elements of sets"):
        values.decode([{"set": many}, {"set": [1]}])
    long = {"tuple": list(range(100))}  # hashing it takes as long as hashing its parts
    for tree in ({"set": [long] * 200}, {"dict": [[long, 1]] * 200}, {"set": [{"tuple": [long] * 200}]}):
        with pytest.raises(ValueError, match="keys and elements of sets"):
            values.decode(tree)
    assert len(values.decode({"dict": [["a", many * 2]]})["a"]) == 2 * values.HASHED_LIMIT  # a value is not hashed


@pytest.mark.parametrize(
    "tree",
    [{}, {"a": 1, "b": 2}, {"eval": []}, {"set": [[]]}, {"set": 1}, {"dict": [[1]]}, {"dict": [[[], 1]]},
     {"float": "1.5"}, {"float": []}, {"bytes": "x"}, {"bytes": 1}, {"complex": [1.0]}, {"complex": ["a", "b"]},
     {"__class__": []}, {"tuple": {"tuple": []}}],
)  # fmt: skip
def test_malformed_trees_are_refused(tree):
    with pytest.raises(ValueError):
        values.decode(tree)


@pytest.mark.parametrize("data", [b"\xff\xff\xff\xff", b"\0\0\0\2[1", b"\0\0\0\1{", b"\0\0\0\2\xff\xff"])
def test_what_is_no_message_is_refused(data):
    read, write = os.pipe()
    os.write(write, data)
    os.close(write)
    with pytest.raises((ValueError, EOFError)):
        values.receive(read)
    os.close(read)
