"""Plain Python values as inert JSON: how a trusted process and an untrusted one exchange arguments and answers.

JSON has neither tuples, sets, bytes, nan nor keys other than strings, so these are objects with one key, their tag.
Nothing that is decoded can run code, and its size, depth and number of hashed elements are limited: made-up numbers
with equal hashes would make a large set take minutes.
"""

import functools
import json
import math
import os

MESSAGE_LIMIT = 4 << 20  # bytes of one message
DEPTH_LIMIT = 50
HASHED_LIMIT = 10_000  # keys of dicts and elements of sets in one message
_CONTAINERS = {tuple: "tuple", set: "set", frozenset: "frozenset"}
# How to get the plain value of what extends a type. str() of a member of an enumeration would be its name.
_BASES = {int: int.__int__, float: float.__float__, str: str.__str__, bytes: bytes.__bytes__}
_BASES |= {kind: kind for kind in (list, tuple, set, frozenset)}
_EXACT = {type(None), bool, complex, dict, *_BASES}


class NotPlain(ValueError):
    """The value cannot be sent: its type is not plain, or it is too large or nested too deeply."""


def encode(value: object, convert: bool = False) -> object:
    """Return `value` as `json.dumps` takes it.

    With `convert`, subclasses become the builtin type they extend, and arrays, series and NumPy's scalars lists and
    numbers. Raises `NotPlain` for every other type, and for what `decode` would refuse: values nested deeper than
    `DEPTH_LIMIT`, or with more than `HASHED_LIMIT` parts in keys and elements of sets.
    """
    return _encode(value, convert, [HASHED_LIMIT], 0)


def _encode(value: object, convert: bool, hashed: list[int], depth: int, inside: bool = False) -> object:
    _count(hashed, depth, inside)
    if convert and type(value) not in _EXACT:
        value = _converted(value)
    kind = type(value)
    parts = functools.partial(_encode, convert=convert, hashed=hashed, depth=depth + 1)
    if value is None or kind in (bool, int, str) or (kind is float and math.isfinite(value)):
        return value
    if kind is float:
        return {"float": repr(value)}
    if kind is complex:
        return {"complex": [parts(value.real, inside=inside), parts(value.imag, inside=inside)]}
    if kind is bytes:
        return {"bytes": value.hex()}
    if kind is list:
        return [parts(item, inside=inside) for item in value]
    if kind in _CONTAINERS:
        inside = inside or kind is not tuple
        return {_CONTAINERS[kind]: [parts(item, inside=inside) for item in value]}
    if kind is dict:
        return {"dict": [[parts(key, inside=True), parts(item, inside=inside)] for key, item in value.items()]}
    raise NotPlain(f"a value of type {kind.__name__}")


def _count(hashed: list[int], depth: int, inside: bool) -> None:
    """Take one part off those that may still be `inside` of keys and elements of sets."""
    hashed[0] -= inside
    if hashed[0] < 0:
        raise NotPlain(f"more than {HASHED_LIMIT} values in keys and elements of sets")
    if depth > DEPTH_LIMIT:
        raise NotPlain(f"a value nested deeper than {DEPTH_LIMIT}")


def _converted(value: object) -> object:
    for base, plain in _BASES.items():
        if isinstance(value, base):
            return plain(value)
    if isinstance(value, dict):
        return dict(value.items())
    if callable(getattr(type(value), "tolist", None)):  # arrays and scalars of NumPy, series of pandas
        return value.tolist()
    raise NotPlain(f"a value of type {type(value).__name__}")


def decode(tree: object) -> object:
    """Return the value that `encode` was given.

    Raises `ValueError` for everything that `encode` does not write, and beyond the limits.
    """
    return _decode(tree, [HASHED_LIMIT], 0)


def _decode(tree: object, hashed: list[int], depth: int, inside: bool = False) -> object:
    """Decode a part; `hashed` holds how many more parts may be `inside` of keys and elements of sets."""
    _count(hashed, depth, inside)
    if tree is None or type(tree) in (bool, int, float, str):
        return tree
    if type(tree) is list:
        return [_decode(item, hashed, depth + 1, inside) for item in tree]
    if type(tree) is not dict or len(tree) != 1:
        raise ValueError("an object that is no tag")
    ((tag, content),) = tree.items()
    if tag == "float" and content in ("nan", "inf", "-inf"):
        return float(content)
    if tag == "bytes" and type(content) is str:
        return bytes.fromhex(content)
    if type(content) is not list:
        raise ValueError(f"the tag {tag[:20]!r} with a wrong content")
    if tag == "dict" and all(type(pair) is list and len(pair) == 2 for pair in content):
        pairs = [(_decode(k, hashed, depth + 1, True), _decode(v, hashed, depth + 1, inside)) for k, v in content]
        return _decode_container(tag, pairs)
    inside = inside or tag in ("set", "frozenset")
    return _decode_container(tag, [_decode(item, hashed, depth + 1, inside) for item in content])


def _decode_container(tag: str, items: list) -> object:
    try:
        if tag == "complex" and [type(item) for item in items] == [float, float]:
            return complex(*items)
        return {"tuple": tuple, "set": set, "frozenset": frozenset, "dict": dict}[tag](items)
    except (KeyError, TypeError) as error:
        raise ValueError(f"the tag {tag[:20]!r} with a wrong content") from error


def packed(tree: object) -> bytes:
    """Return a message: four bytes of length, then JSON. Raises `NotPlain` if it is too long."""
    try:
        data = json.dumps(tree, separators=(",", ":")).encode()
    except (ValueError, RecursionError) as error:  # an integer of more than 4300 digits
        raise NotPlain(f"a value that JSON cannot hold ({error})") from error
    if len(data) > MESSAGE_LIMIT:
        raise NotPlain(f"a value of {len(data)} bytes; at most {MESSAGE_LIMIT} can be sent")
    return len(data).to_bytes(4, "big") + data


def unpacked(message: bytes) -> object:
    """Return the value in a message that `encode` and `packed` made."""
    return decode(json.loads(message[4:]))


def send(descriptor: int, message: bytes) -> None:
    """Write a whole message to a pipe."""
    view = memoryview(message)
    while view:
        view = view[os.write(descriptor, view) :]


def receive(descriptor: int) -> object:
    """Read one message from a pipe. Raises `EOFError` at its end, `ValueError` for what is no message."""
    length = int.from_bytes(_read(descriptor, 4), "big")
    if length > MESSAGE_LIMIT:
        raise ValueError(f"a message of {length} bytes; at most {MESSAGE_LIMIT} are read")
    try:
        return json.loads(_read(descriptor, length))
    except RecursionError as error:
        raise ValueError("a message nested too deeply") from error


def _read(descriptor: int, size: int) -> bytes:
    parts = bytearray()
    while len(parts) < size:
        part = os.read(descriptor, min(size - len(parts), 1 << 16))
        if not part:
            raise EOFError("the other side has closed the pipe")
        parts += part
    return bytes(parts)
