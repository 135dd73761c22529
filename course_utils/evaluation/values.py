"""Plain Python values as inert JSON: how a trusted process and an untrusted one exchange arguments and answers.

JSON has neither tuples, sets, bytes, nan nor keys other than strings, so these are objects with one key, their tag.
Nothing that is decoded can run code, and its size, depth and number of hashed elements are limited: made-up numbers
with equal hashes would make a large set take minutes.
"""

import json
import math
import os

MESSAGE_LIMIT = 4 << 20  # bytes of one message
DEPTH_LIMIT = 50
HASHED_LIMIT = 10_000  # keys of dicts and elements of sets in one message
_CONTAINERS = {tuple: "tuple", set: "set", frozenset: "frozenset"}
_BASES = (int, float, str, bytes, list, tuple, set, frozenset)


class NotPlain(ValueError):
    """The value cannot be sent: its type is not plain, or it is too large or nested too deeply."""


def encode(value: object, convert: bool = False, depth: int = 0) -> object:
    """Return `value` as `json.dumps` takes it.

    With `convert`, subclasses become the builtin type they extend, and arrays, series and NumPy's scalars lists and
    numbers. Raises `NotPlain` for every other type, and for values nested deeper than `DEPTH_LIMIT`.
    """
    kind = type(value)
    if depth > DEPTH_LIMIT:
        raise NotPlain(f"a value nested deeper than {DEPTH_LIMIT}")
    if value is None or kind in (bool, int, str) or (kind is float and math.isfinite(value)):
        return value
    if kind is float:
        return {"float": repr(value)}
    if kind is complex:
        return {"complex": [encode(value.real), encode(value.imag)]}
    if kind is bytes:
        return {"bytes": value.hex()}
    if kind is list:
        return [encode(item, convert, depth + 1) for item in value]
    if kind in _CONTAINERS:
        return {_CONTAINERS[kind]: [encode(item, convert, depth + 1) for item in value]}
    if kind is dict:
        return {"dict": [[encode(part, convert, depth + 1) for part in pair] for pair in value.items()]}
    if convert:
        return encode(_converted(value), convert, depth + 1)
    raise NotPlain(f"a value of type {kind.__name__}")


def _converted(value: object) -> object:
    for base in _BASES:
        if isinstance(value, base):
            return base(value)
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
    hashed[0] -= inside
    if hashed[0] < 0:
        raise ValueError(f"more than {HASHED_LIMIT} values in keys and elements of sets")
    if depth > DEPTH_LIMIT:
        raise ValueError(f"a value nested deeper than {DEPTH_LIMIT}")
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
        pairs = [(_decode(k, hashed, depth + 2, True), _decode(v, hashed, depth + 2, inside)) for k, v in content]
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
