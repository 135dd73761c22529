"""Bugs planted at known places of working code, to measure whether a model's surprise finds them; none is ever run."""

import ast
import functools
import itertools
import math
import random
import re
from collections.abc import Iterator, Sequence
from statistics import fmean
from typing import Any, NamedTuple

import pandas as pd
from transformers import PreTrainedModel

from course_utils.evaluation.surprise import Token, token_surprise

_CLASSES = (ast.Add, ast.Sub, ast.Mult, ast.Div, ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.Eq, ast.NotEq, ast.And, ast.Or)
_SYMBOLS = ("+", "-", "*", "/", "<", "<=", ">", ">=", "==", "!=", "and", "or")  # neighbours are taken for each other
_OPERATORS = {made: (symbol, _SYMBOLS[i ^ 1]) for i, (made, symbol) in enumerate(zip(_CLASSES, _SYMBOLS, strict=True))}
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_SCOPES = (*_FUNCTIONS, ast.Lambda, ast.ClassDef, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)

Place = tuple[int, int, str]  # first character, the one after the last, and what takes their place


class PlantedBug(NamedTuple):
    """A file with one bug: characters `start` to `end` of `source` stand where `original` stood."""

    kind: str
    source: str
    start: int
    end: int
    original: str

    @property
    def original_source(self) -> str:
        """The file before the bug."""
        return self.source[: self.start] + self.original + self.source[self.end :]


def plant_bugs(source: str, seed: int, per_kind: int = 1) -> list[PlantedBug]:
    """Plant up to `per_kind` bugs of each kind into copies of a Python file, one bug per copy; the seed chooses them.

    A wrong variable is another one of the same function (or of the module) that was assigned before; swapped arguments
    are two neighbors in a call; a wrong operator is + for -, < for <=, == for !=, and for or, and so on.
    """
    file, bugs = _Source(source), []
    for kind, find in KINDS.items():
        found = list(find(file))
        random.Random(f"{seed} {kind}").shuffle(found)
        planted = (_plant(file, kind, *place) for place in found)
        bugs += itertools.islice(filter(None, planted), per_kind)
    return bugs


def _plant(file: "_Source", kind: str, start: int, end: int, replacement: str) -> PlantedBug | None:
    """Return the bug, unless the changed file does not parse or means the same."""
    source = file.text[:start] + replacement + file.text[end:]
    try:
        changed = ast.dump(ast.parse(source)) != file.meaning
    except SyntaxError:
        return None
    return PlantedBug(kind, source, start, start + len(replacement), file.text[start:end]) if changed else None


class _Source:
    """A parsed file that knows at which characters its nodes stand."""

    def __init__(self, text: str) -> None:
        self.text, self.tree = text, ast.parse(text)
        self.meaning = ast.dump(self.tree)
        self._lines = text.encode().splitlines(keepends=True)  # of bytes: ends lines where Python does
        self._starts = [0, *itertools.accumulate(len(line.decode()) for line in self._lines)]

    def span(self, node: ast.AST) -> tuple[int, int]:
        places = ((node.lineno, node.col_offset), (node.end_lineno, node.end_col_offset))  # columns count bytes
        start, end = (self._starts[row - 1] + len(self._lines[row - 1][:column].decode()) for row, column in places)
        return start, end


def _nodes(root: ast.AST, stop: tuple[type, ...] = ()) -> Iterator[ast.AST]:
    """Yield all nodes below `root`, without those in `stop`; positions in f-strings are wrong before Python 3.12."""
    for node in ast.iter_child_nodes(root):
        if not isinstance(node, (ast.JoinedStr, *stop)):
            yield node
            yield from _nodes(node, stop)


def _variables(file: _Source) -> Iterator[Place]:
    for scope in (file.tree, *(node for node in _nodes(file.tree) if isinstance(node, _FUNCTIONS))):
        inside = list(_nodes(scope, _SCOPES))
        assigned = {node.arg: 0 for node in inside if isinstance(node, ast.arg)}  # name -> where it first has a value
        for node in inside:
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                assigned.setdefault(node.id, file.span(node)[1])
        for statement in (node for node in inside if isinstance(node, ast.stmt)):
            before = sorted(name for name, end in assigned.items() if end <= file.span(statement)[0])
            for node in _nodes(statement, (*_SCOPES, ast.stmt)):
                if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id in before:
                    yield from ((*file.span(node), other) for other in before if other != node.id)


def _arguments(file: _Source) -> Iterator[Place]:
    for call in (node for node in _nodes(file.tree) if isinstance(node, ast.Call)):
        for left, right in itertools.pairwise(call.args):
            ordered = getattr(call.func, "id", "") not in ("max", "min")
            if ordered and not isinstance(left, ast.Starred) and not isinstance(right, ast.Starred):
                (start, middle), (after, end) = file.span(left), file.span(right)
                yield start, end, file.text[after:end] + file.text[middle:after] + file.text[start:middle]


def _operators(file: _Source) -> Iterator[Place]:
    for node in _nodes(file.tree):
        match node:
            case ast.BinOp(left=left, op=op, right=right):
                values, ops = [left, right], [op]
            case ast.BoolOp(op=op, values=values):
                ops = [op] * (len(values) - 1)
            case ast.Compare(left=left, ops=ops, comparators=others):
                values = [left, *others]
            case _:
                continue
        for (left, right), op in zip(itertools.pairwise(values), ops, strict=True):
            if type(op) in _OPERATORS:
                symbol, other = _OPERATORS[type(op)]
                start, end = file.span(left)[1], file.span(right)[0]
                between = re.sub(r"#[^\r\n]*", lambda comment: " " * len(comment[0]), file.text[start:end])
                at = start + between.index(symbol)
                yield at, at + len(symbol), other


KINDS = {"wrong variable": _variables, "swapped arguments": _arguments, "wrong operator": _operators}


def bug_ranks(model: PreTrainedModel, tokenizer: Any, bugs: Sequence[PlantedBug]) -> pd.DataFrame:
    """Rank every planted bug among all tokens of its file by surprise, in one row.

    Columns: kind; tokens of the bug's span and others; share and original_share of the others that are more surprising
    than the most surprising token of the span, with the bug and without it, where ties count half.
    """
    surprise = functools.cache(lambda source: token_surprise(model, tokenizer, source))
    rows = []
    for bug in bugs:
        inside, outside = _split(surprise(bug.source), bug.start, bug.end)
        before, around = _split(surprise(bug.original_source), bug.start, bug.start + len(bug.original))
        shares = (_share_above(max(inside), outside), _share_above(max(before), around))
        rows.append((bug.kind, len(inside), len(outside), *shares))
    columns = ["kind", "tokens", "others", "share", "original_share"]
    return pd.DataFrame(rows, columns=columns)


def _share_above(bits: float, others: Sequence[float]) -> float:
    return sum((other > bits) + (other == bits) / 2 for other in others) / max(1, len(others))


def _split(tokens: Sequence[Token], start: int, end: int) -> tuple[list[float], list[float]]:
    """Return the bits of the tokens that touch characters `start` to `end`, and those of the others."""
    parts = ([], [])
    for token in tokens:
        parts[token.end <= start or token.start >= end].append(token.bits)
    return parts


def chance_in_top(ranks: pd.DataFrame, share: float) -> float:
    """Return how often random surprises would rank a bug within the top `share`; a longer span has more chances."""
    return fmean(_chance(*sizes, share) for sizes in zip(ranks["tokens"], ranks["others"], strict=True))


def _chance(tokens: int, others: int, share: float) -> float:
    """Return the probability that at most `share` of the others are above the best of the span, in random order."""
    below = others - math.floor(share * others)
    return 1 - math.comb(below + tokens - 1, tokens) / math.comb(others + tokens, tokens)
