"""Find the texts that Python prints or draws for learners: in the package and in the notebooks' code.

They are looked up when they are shown (`course_utils/language.py`): by the exact English, or, where values are already
filled in, by a template. An f-string becomes a template whose fields are named by their expressions.
"""

import ast
import itertools
import re
import string
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping

# Functions of `plots` whose first argument is a mapping with names, and those whose first argument is data.
NAMED = {"lines", "bars", "ranking", "distributions", "strips", "stack", "frames", "_draw"}
OTHERS = {"histogram", "grid", "graph", "spans", "chances", "plot_losses", "_axes"}
WORDS = {"x": "axis", "y": "axis", "alt": "alt text", "label": "label", "legend": "label", "titles": "label"}
WORDS |= {"notes": "label", "band": "label", "desc": "progress"}
KINDS = {"hatched", "end"}  # of segments, which are no texts
LOOKED_UP = {"say": "sentence", "text": "text", "language.text": "text"}


class Names:
    """What the names of a notebook or module stand for: the values assigned, and the keys stored in mappings."""

    def __init__(self, trees: Iterable[ast.Module]) -> None:
        self.values: defaultdict[str, list[ast.expr]] = defaultdict(list)
        self.keys: defaultdict[str, list[ast.expr]] = defaultdict(list)
        for node in itertools.chain.from_iterable(map(ast.walk, trees)):
            if isinstance(node, ast.Assign):
                for target in node.targets:
                    if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                        for name, value in zip(target.elts, node.value.elts, strict=False):
                            self._assign(name, value)
                    self._assign(target, node.value)
            elif isinstance(node, ast.NamedExpr | ast.AugAssign):
                self._assign(node.target, node.value)

    def _assign(self, target: ast.expr, value: ast.expr) -> None:
        if isinstance(target, ast.Name):
            self.values[target.id].append(value)
        elif isinstance(target, ast.Subscript) and isinstance(target.value, ast.Name):
            self.keys[target.value.id].append(target.slice)


def templates(node: ast.expr, names: Names, depth: int = 3) -> list[str]:
    """Return the texts that an expression can have, with `{field}` where a value comes in; [] if it is no text."""
    match node:
        case ast.Constant(value=str(value)):
            return [value]
        case ast.IfExp(body=body, orelse=orelse):
            return templates(body, names, depth) + templates(orelse, names, depth)
        case ast.Name(id=name) if depth:
            return [text for value in names.values[name] for text in templates(value, names, depth - 1)]
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            sides = [templates(side, names, depth) or [_field(side)] for side in (left, right)]
            return _product(sides)
        case ast.JoinedStr(values=parts):
            return _product([list(_part(part, names, depth)) for part in parts])
    return []


def _part(part: ast.expr, names: Names, depth: int) -> Iterator[str]:
    if isinstance(part, ast.Constant):
        yield part.value.replace("{", "{{").replace("}", "}}")
    elif isinstance(part, ast.FormattedValue):
        yield from (isinstance(part.value, ast.IfExp) and templates(part.value, names, depth)) or [_field(part.value)]


def _product(parts: list[list[str]]) -> list[str]:
    return ["".join(choice) for choice in itertools.product(*parts)]


def _field(node: ast.expr) -> str:
    return "{" + (re.sub(r"\W+", "_", ast.unparse(node)).strip("_")[:24].strip("_") or "value") + "}"


def _keys(node: ast.expr, names: Names, depth: int = 3) -> list[str]:
    """Return the texts that the keys of a mapping can have."""
    match node:
        case ast.Dict(keys=keys, values=values):
            inner = [text for k, v in zip(keys, values, strict=True) if k is None for text in _keys(v, names, depth)]
            nested = [text for value in values for text in _keys(value, names, depth)]
            return [text for key in keys if key for text in templates(key, names)] + inner + nested
        case ast.DictComp(key=key, value=value):
            return templates(key, names) + _keys(value, names, depth)
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return _keys(left, names, depth) + _keys(right, names, depth)
        case ast.Name(id=name) if depth:
            found = [text for value in names.values[name] for text in _keys(value, names, depth - 1)]
            return found + [text for key in names.keys[name] for text in templates(key, names)]
    return []


def _inside(node: ast.expr, names: Names) -> list[str]:
    """Return all texts in an expression that is a text or holds some."""
    if found := templates(node, names):
        return found
    parts = [part for part in ast.iter_child_nodes(node) if isinstance(part, ast.expr | ast.comprehension)]
    return [text for part in parts for text in _inside(part, names)]


def texts_of_code(trees: Mapping[str, ast.Module]) -> Iterator[tuple[str, str, str]]:
    """Yield (text, kind, place) of everything that a notebook's or a module's code shows; trees by their place."""
    names = Names(trees.values())
    for place, tree in trees.items():
        for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
            yield from ((text, kind, place) for text, kind in _texts_of_call(call, names) if _is_text(text))


def _texts_of_call(call: ast.Call, names: Names) -> Iterator[tuple[str, str]]:
    function = ast.unparse(call.func)
    short = function.removeprefix("plots.")
    if function in LOOKED_UP and call.args:
        yield from ((text, LOOKED_UP[function]) for text in templates(call.args[0], names))
    elif function == "reveal" and len(call.args) > 2:
        yield from ((text, "unit") for text in templates(call.args[2], names))
    elif short in NAMED | OTHERS:
        keys = _keys(call.args[0 if short != "_draw" else 1], names) if short in NAMED and call.args else []
        segments = _inside(call.args[0], names) if short == "strips" and call.args else []
        axes = [text for value in call.args for text in templates(value, names)] if short == "_axes" else []
        yield from ((text, "label") for text in [*keys, *segments, *axes] if text not in KINDS)
        for word in call.keywords:
            if word.arg in WORDS:
                yield from ((text, WORDS[word.arg]) for text in _inside(word.value, names) if text not in KINDS)


def texts_of_exercises(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Yield (text, kind) of the hints and findings of a module of exercises: its sentences."""
    documentation = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    names, seen = Names([]), set()
    for node in ast.walk(tree):
        if id(node) not in documentation | seen and isinstance(node, ast.Constant | ast.JoinedStr | ast.BinOp):
            found = templates(node, names)
            seen |= {id(part) for part in ast.walk(node)} if found else set()
            yield from ((text, "hint") for text in found if re.match(r"(?s)[A-Z`“{].* .*[.?)]\Z", text) and _is_text(text))


def _is_text(text: str) -> bool:
    try:
        literal = " ".join(part for part, *_ in string.Formatter().parse(text))
    except ValueError:
        literal = text
    return re.search(r"(?<!\w)[^\W\d_]{2,}(?!\w)", literal) is not None
