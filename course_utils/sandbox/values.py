"""Plain Python values as inert JSON: how a trusted process and an untrusted one exchange arguments and answers.

What JSON lacks (tuples, sets, bytes, long integers, dates, …) is an object with one key, the name of its type, and the
parts that make it. Nothing that is decoded can run code. Size, depth and number of hashed elements are limited: made-up
numbers with equal hashes would make a large set take minutes; so would arithmetic with huge numbers, or endless ranges.
"""

import io
import json
from operator import attrgetter

MESSAGE_LIMIT = 8 << 20  # bytes of one message; a list of a million small numbers has 7 MB
DEPTH_LIMIT = 100  # a tuple in a tuple is two deeper: the list of its items lies between
HASHED_LIMIT = 10_000  # keys of dicts and elements of sets, with all their parts, in one message
RANGE_LIMIT = 1_000_000  # elements of a range
BITS_LIMIT = 1 << 17  # of an integer: 39 000 digits
EXPONENT_LIMIT = 10_000  # of a Decimal
_SHORT = 1 << 63  # integers below are JSON's; the json module reads longer ones slowly, or not at all
_NUMBERS = {int, float, type(None)}
_JSON = {bool, str, *_NUMBERS}
_Left = list[int] | None
_HASHING = ("builtins.set", "builtins.frozenset", "builtins.dict_keys")


# For each type: the parts of a value, and of which types they may be. A Fraction of a text would compute what it says.
_LISTED = ("bytes", "bytearray", "tuple", "set", "frozenset", "dict_keys", "dict_values")
_PARTS = {f"builtins.{name}": (lambda value: ([*value],), {list}) for name in _LISTED}
_PARTS |= {
    "builtins.int": (lambda value: (hex(value),), {str}),
    "builtins.complex": (attrgetter("real", "imag"), {float}),
    "builtins.dict": (lambda value: (value.keys(), [*value.values()]), {type({}.keys()), list}),
    "builtins.dict_items": (lambda value: (dict(value),), {dict}),
    "builtins.range": (attrgetter("start", "stop", "step"), {int}),
    "collections.deque": (lambda value: ([*value], value.maxlen), {list, int, type(None)}),
    "datetime.date": (attrgetter("year", "month", "day"), {int}),
    "datetime.datetime": (lambda value: (*value.timetuple()[:6], value.microsecond, value.tzinfo), _NUMBERS),
    "datetime.time": (attrgetter("hour", "minute", "second", "microsecond", "tzinfo"), _NUMBERS),
    "datetime.timedelta": (attrgetter("days", "seconds", "microseconds"), {int}),
    "decimal.Decimal": (lambda value: (str(value),), {str}),
    "fractions.Fraction": (attrgetter("numerator", "denominator"), {int}),
}
# What makes a value of its parts, where it is not the type itself.
_MAKERS = {
    "builtins.int": lambda digits: int(digits, 16),
    "builtins.dict": lambda keys, items: dict(zip(keys.mapping, items, strict=True)),  # no list, which was not counted
    "builtins.dict_keys": lambda items: dict.fromkeys(items).keys(),
    "builtins.dict_values": lambda items: dict(enumerate(items)).values(),
    "builtins.dict_items": lambda pairs: pairs.items(),
}
# How to get the plain value of what extends a type. str() of a member of an enumeration would be its name.
_BASES = {int: int.__int__, float: float.__float__, str: str.__str__, bytes: bytes.__bytes__, dict: dict.copy}
_BASES |= {kind: kind for kind in (list, tuple, set, frozenset)}


class NotPlain(ValueError):
    """The value cannot be sent: its type is not plain, or it is too large or nested too deeply."""


def encode(value: object, convert: bool = False, hashed: _Left = None, depth: int = 0, inside: bool = False) -> object:
    """Return `value` as `json.dumps` takes it; raise `NotPlain` for other types and for what `decode` would refuse.

    With `convert`, subclasses become the builtin type they extend, and arrays, series and NumPy's scalars lists and
    numbers. The other parameters are for parts of a value: how many may still be hashed, how deep, whether in a key.
    """
    hashed = _count(hashed, depth, inside)
    kind = type(value)
    if convert and kind not in _JSON and kind is not list and _tag(value) not in _PARTS:
        value = _converted(value)
        kind = type(value)
    if kind in _JSON and (kind is not int or -_SHORT < value < _SHORT):
        return value
    if kind is list:
        kinds = set(map(type, value))  # a list of a million numbers is JSON as it stands
        short = kinds == {float} or (kinds == {int} and min(value) > -_SHORT and max(value) < _SHORT)
        if short and not inside and depth < DEPTH_LIMIT:
            return [*value]
        return [encode(item, convert, hashed, depth + 1, inside) for item in value]
    tag = _tag(value)
    if tag not in _PARTS:
        raise NotPlain(f"a value of type {kind.__name__}")
    parts = _PARTS[tag][0](_limited(value))
    return {tag: [encode(part, convert, hashed, depth + 1, inside or tag in _HASHING) for part in parts]}


def _tag(value: object) -> str:
    return f"{type(value).__module__}.{type(value).__name__}"


def _count(hashed: _Left, depth: int, inside: bool) -> list[int]:
    """Return what is left of the parts that may be `inside` of keys and elements of sets, less this one."""
    hashed = hashed or [HASHED_LIMIT]
    hashed[0] -= inside
    if hashed[0] < 0:
        raise NotPlain(f"more than {HASHED_LIMIT} values in keys and elements of sets")
    if depth > DEPTH_LIMIT:
        raise NotPlain("a value nested too deeply")
    return hashed


def _limited(value: object) -> object:
    """Return the value; raise `NotPlain` if it is short, but computing with it takes long."""
    kind = type(value).__name__
    if kind == "int" and value.bit_length() > BITS_LIMIT:
        raise NotPlain(f"an integer of more than {BITS_LIMIT} bits")
    if kind == "range" and value[RANGE_LIMIT:]:
        raise NotPlain(f"a range of more than {RANGE_LIMIT} elements")
    if kind == "Decimal" and value.is_finite() and abs(value.adjusted()) > EXPONENT_LIMIT:
        raise NotPlain(f"a Decimal with an exponent beyond {EXPONENT_LIMIT}")
    return value


def _converted(value: object) -> object:
    for base, plain in _BASES.items():
        if isinstance(value, base):
            return plain(value)
    if callable(getattr(type(value), "tolist", None)):  # arrays and scalars of NumPy, series of pandas
        return value.tolist()
    raise NotPlain(f"a value of type {type(value).__name__}")


def decode(tree: object, hashed: _Left = None, depth: int = 0, inside: bool = False) -> object:
    """Return the value that `encode` was given; raise `ValueError` for what it does not write."""
    hashed = _count(hashed, depth, inside)
    if type(tree) in _JSON:
        return tree
    if type(tree) is list:
        if not inside and depth < DEPTH_LIMIT and set(map(type, tree)) <= _NUMBERS:
            return tree
        return [decode(item, hashed, depth + 1, inside) for item in tree]
    if type(tree) is not dict or len(tree) != 1:
        raise ValueError("an object that is not a tag")
    ((tag, content),) = tree.items()
    if tag not in _PARTS or type(content) is not list:
        raise ValueError(f"the unknown tag {tag[:20]!r}")
    parts = [decode(part, hashed, depth + 1, inside or tag in _HASHING) for part in content]
    if not {type(part) for part in parts} <= _PARTS[tag][1]:
        raise ValueError(f"the tag {tag} with a wrong content")
    module, name = tag.split(".")
    try:
        return _limited((_MAKERS.get(tag) or getattr(__import__(module), name))(*parts))
    except (TypeError, AttributeError, ArithmeticError) as error:
        raise ValueError(f"the tag {tag} with a wrong content") from error


def packed(tree: object) -> bytes:
    """Return a message: four bytes of length, then JSON. Raises `NotPlain` if it is too long."""
    data = json.dumps(tree, separators=(",", ":")).encode()
    if len(data) > MESSAGE_LIMIT:
        raise NotPlain(f"a value of {len(data)} bytes; at most {MESSAGE_LIMIT} can be sent")
    return len(data).to_bytes(4, "big") + data


def _short_int(digits: str) -> int:
    if len(digits) > 20:  # would take minutes where Python's own limit is lifted
        raise ValueError("a number that is too long")
    return int(digits)


def send(pipe: io.BufferedIOBase, message: bytes) -> None:
    """Write a whole message to a pipe."""
    pipe.write(message)
    pipe.flush()


def receive(pipe: io.BufferedIOBase) -> object:
    """Read one message from a pipe. Raises `EOFError` at its end, `ValueError` for what is not a message."""
    length = int.from_bytes(_read(pipe, 4), "big")
    if length > MESSAGE_LIMIT:
        raise ValueError(f"a message of {length} bytes; at most {MESSAGE_LIMIT} are read")
    try:
        return json.loads(_read(pipe, length).decode(), parse_int=_short_int)
    except RecursionError as error:
        raise ValueError("a message nested too deeply") from error


def _read(pipe: io.BufferedIOBase, size: int) -> bytes:
    data = pipe.read(size)
    if len(data) < size:
        raise EOFError("the other side has closed the pipe")
    return data
