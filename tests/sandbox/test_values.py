"""Plain values survive the way through the pipe exactly; nothing else does."""

import datetime
import decimal
import fractions
import io
import json
from collections import Counter, defaultdict, deque, namedtuple
from enum import Enum, IntEnum

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from course_utils.sandbox import values

NUMBERS = st.integers() | st.floats() | st.complex_numbers() | st.fractions() | st.decimals(allow_nan=False)
MOMENTS = (st.datetimes() | st.times()).map(lambda moment: moment.replace(fold=0))
HASHABLE = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text() | st.binary() | MOMENTS | st.dates() | st.timedeltas()
    | st.integers(0, 99).map(range),
    lambda inner: st.tuples(inner, inner) | st.frozensets(inner, max_size=3),
    max_leaves=5,
)  # fmt: skip
VIEWS = [lambda value: value.keys(), lambda value: value.values(), lambda value: value.items()]
ANYTHING = st.recursive(
    HASHABLE | st.sets(HASHABLE, max_size=3) | st.builds(bytearray, st.binary()),
    lambda inner: st.lists(inner, max_size=4) | st.tuples(inner) | st.dictionaries(HASHABLE, inner, max_size=4)
    | st.builds(deque, st.lists(inner, max_size=4), st.none() | st.integers(0, 5))
    | st.builds(lambda view, value: view(value), st.sampled_from(VIEWS), st.dictionaries(HASHABLE, inner, max_size=4)),
    max_leaves=20,
)  # fmt: skip


def shape(value):
    """Return what tells apart what == does not: types, nan, the sign of zero, the order of a dict."""
    name = type(value).__name__
    if isinstance(value, dict):
        return [name, *[(shape(k), shape(v)) for k, v in value.items()]]
    if isinstance(value, set | frozenset):
        return [name, sorted(map(repr, map(shape, value)))]
    if isinstance(value, list | tuple | deque) or name.startswith("dict_"):
        return [name, getattr(value, "maxlen", None), *map(shape, value)]
    return [name, repr(value)]


def through_the_pipe(value, **options):
    pipe = io.BytesIO()
    values.send(pipe, values.packed(values.encode(value, **options)))
    pipe.seek(0)
    return values.decode(values.receive(pipe))


@given(ANYTHING)
def test_values_survive_exactly(value):
    assert shape(through_the_pipe(value)) == shape(value)


PART = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["1e99", "0x1f", "1"])
TAGS = st.sampled_from([*values._PARTS, "x"])
TREES = st.recursive(PART, lambda x: st.lists(x, max_size=4) | st.dictionaries(TAGS, st.lists(x), max_size=2))


@given(TREES)
def test_any_json_is_decoded_or_refused(tree):
    try:
        value = values.decode(tree)
    except ValueError:
        return
    assert shape(values.decode(json.loads(json.dumps(values.encode(value))))) == shape(value)


Colour = IntEnum("Colour", "RED")
Shade = Enum("Shade", {"RED": "red"}, type=str)  # StrEnum has a str() of its own
Odd = type("Odd", (str,), {"__str__": lambda self: "another"})
Kelvin = type("Kelvin", (float,), {"__float__": lambda self: 2.5})


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (np.float64(0.5), 0.5), (np.int64(3), 3), (np.bool_(True), True), (np.str_("a"), "a"),
        (np.arange(4).reshape(2, 2), [[0, 1], [2, 3]]), (pd.Series([1, 2]), [1, 2]), (pd.Index(["a"]), ["a"]),
        ([{np.int64(1): np.nan}], [{1: float("nan")}]), (Counter("aab"), {"a": 2, "b": 1}),
        (defaultdict(list, a=[1]), {"a": [1]}), (namedtuple("Point", "x y")(1, 2), (1, 2)), (Colour.RED, 1),
        ({Shade.RED: [Shade.RED]}, {"red": ["red"]}), (Odd("a"), "a"), (Kelvin(0.5), 0.5),
    ],
)  # fmt: skip
def test_the_child_converts_what_is_nearly_plain(value, plain):
    assert shape(through_the_pipe(value, convert=True)) == shape(plain)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        *((value, "a value of type") for value in (
            object(), print, int, pd.DataFrame({"a": [1]}), iter([]), iter({1}), np.longdouble(1), (n for n in [1]),
            datetime.datetime.now(datetime.UTC),
        )),
        (range(values.RANGE_LIMIT + 1), "a range of more than 1000000 elements"),
        ([1 << values.BITS_LIMIT], "an integer of more than 131072 bits"),
        (fractions.Fraction(1, 1 << values.BITS_LIMIT), "an integer of more"),
        (decimal.Decimal("1e10001"), "a Decimal with an exponent beyond"),
        ("x" * values.MESSAGE_LIMIT, "bytes; at most 8388608 can be sent"),
        (set(range(values.HASHED_LIMIT)), "more than 10000 values in keys and elements of sets"),
        ([set(range(5000)), dict.fromkeys(range(5000))], "more than 10000 values"),
        ({(1,) * 300: 1, **dict.fromkeys(range(9700))}, "more than 10000 values"),
    ],
)  # fmt: skip
def test_everything_else_is_refused(value, words):
    with pytest.raises(values.NotPlain, match=words):
        values.packed(values.encode(value, convert=True))


def encodable(value):
    try:
        return values.encode(value) is not None
    except values.NotPlain:
        return False


def test_what_is_encoded_can_be_decoded_up_to_the_limits():
    for wrap in (lambda x: {"k": x}, lambda x: (x,), lambda x: [x], lambda x: [x, ""], lambda x: deque([x])):
        deep, count = 0, 0
        while encodable(deep):
            assert shape(through_the_pipe(deep)) == shape(deep)
            deep, count = wrap(deep), count + 1
        assert 45 < count <= values.DEPTH_LIMIT + 1
    most = values.HASHED_LIMIT - 1
    for many in ({*range(most)}, dict.fromkeys(range(most)), {1: [*range(2 * most)]}, range(values.RANGE_LIMIT)):
        assert through_the_pipe(many) == many
    assert through_the_pipe([*range(10**6)]) == [*range(10**6)]


@pytest.mark.parametrize(
    "tree",
    [{}, {"a": [], "b": []}, {"eval": []}, {"builtins.eval": ["1"]}, {"builtins.set": [[[]]]}, {"builtins.set": 1},
     {"builtins.dict": [[1], [2]]}, {"builtins.dict": [{"builtins.dict_keys": [[1]]}, []]}, {"builtins.int": [5]},
     {"builtins.bytes": ["x"]}, {"builtins.bytes": [9]}, {"builtins.complex": ["1"]},
     {"builtins.int": ["f" * 99999]}, {"builtins.range": [0, 10**7, 1]}, {"builtins.range": [0, 1, 0]},
     {"fractions.Fraction": ["1e9999999"]},
     {"fractions.Fraction": [1, 0]}, {"decimal.Decimal": ["1e99999"]}, {"decimal.Decimal": ["x"]},
     {"datetime.date": [{"builtins.bytes": [[9] * 4]}]}, {"datetime.date": [1, 99, 1]}, {"collections.deque": [[], -1]},
     {"datetime.timedelta": [10**15]}, {"builtins.tuple": [[], []]}, {"builtins.set": [[*range(20000)]]},
     [{"builtins.set": [[*range(9999)]]}, {"builtins.set": [[1]]}],
     {"builtins.set": [[{"builtins.tuple": [[*range(100)]]}] * 200]}],
)  # fmt: skip
def test_malformed_and_costly_trees_are_refused(tree):
    with pytest.raises(ValueError):
        values.decode(tree)


@pytest.mark.parametrize("data", [b"", b"\xff\xff\xff\xff", b"\0\0\0\2[1", b"\0\0\0\1{", b"\0\0\0\2\xff\xff",
                                  b"\0\0\0\x1e" + b"9" * 30, b"\0\1\0\0" + b"[" * 65536])  # fmt: skip
def test_what_is_not_a_message_is_refused(data):
    with pytest.raises((ValueError, EOFError)):
        values.receive(io.BytesIO(data))
