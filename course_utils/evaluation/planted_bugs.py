"""Bugs planted at known places of working code, to measure whether a model's surprise finds them.

Nothing here proves or repairs a bug, and no planted file is ever run.
"""

import ast
import io
import math
import random
import tokenize
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from transformers import PreTrainedModel

from course_utils.evaluation.surprise import Token, token_surprise

KINDS = ("wrong variable", "swapped arguments", "wrong operator")
SHARES = (0.01, 0.05, 0.10)
_OTHER_OPERATOR = dict(
    pair
    for one, other in (("+", "-"), ("*", "/"), ("<", "<="), (">", ">="), ("==", "!="), ("and", "or"))
    for pair in ((one, other), (other, one))
)
_OPERATORS = dict(
    zip(
        (ast.Add, ast.Sub, ast.Mult, ast.Div, ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.Eq, ast.NotEq, ast.And, ast.Or),
        ("+", "-", "*", "/", "<", "<=", ">", ">=", "==", "!=", "and", "or"),
        strict=True,
    )
)


@dataclass(frozen=True)
class PlantedBug:
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


@dataclass(frozen=True)
class BugRank:
    """Where one bug stands: `share` of the `others` (tokens outside its span) are more surprising than its worst token.

    `tokens` is the length of the span; `bits` and `original_bits` are its highest surprise with the bug and without.
    """

    kind: str
    share: float
    tokens: int
    others: int
    bits: float
    original_bits: float


def plant_bugs(source: str, seed: int, kinds: Sequence[str] = KINDS, per_kind: int = 1) -> list[PlantedBug]:
    """Plant up to `per_kind` bugs of each kind into copies of a Python file, one bug per copy; the seed chooses them.

    A wrong variable is another one of the same function (or of the module) that has a value by then; swapped arguments
    are two neighbours in a call; a wrong operator is + for -, < for <=, == for !=, and for or, and so on. A file
    without a place for a kind gives none. Raises `ValueError` for a file that does not parse, and an unknown kind.
    """
    if unknown := set(kinds) - set(KINDS):
        raise ValueError(f"unknown kinds {sorted(unknown)}; there are {', '.join(KINDS)}.")
    try:
        file = _Source(source)
    except (SyntaxError, ValueError, tokenize.TokenError) as error:
        raise ValueError(f"this is no Python file that parses ({error}); bugs are planted in working code.") from error
    places = dict(zip(KINDS, (_variables, _arguments, _operators), strict=True))
    bugs = []
    for kind in kinds:
        found = list(places[kind](file))
        random.Random(f"{seed} {kind}").shuffle(found)
        planted = (_plant(file, kind, *place) for place in found)
        bugs += [bug for bug, _ in zip((bug for bug in planted if bug), range(per_kind), strict=False)]
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
    """A parsed file whose nodes and operators are found by character positions."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tree = ast.parse(text)
        self.meaning = ast.dump(self.tree)
        self._lines = list(io.StringIO(text, newline=""))  # ends lines where Python does
        self._starts = [0]
        for line in self._lines:
            self._starts.append(self._starts[-1] + len(line))
        tokens = tokenize.generate_tokens(io.StringIO(text, newline="").readline)
        self._operators = [
            (self._starts[token.start[0] - 1] + token.start[1], token.string)
            for token in tokens
            if token.string in _OTHER_OPERATOR
        ]

    def _place(self, row: int, column: int) -> int:  # columns count UTF-8 bytes
        return self._starts[row - 1] + len(self._lines[row - 1].encode()[:column].decode())

    def span(self, node: ast.AST) -> tuple[int, int]:
        return self._place(node.lineno, node.col_offset), self._place(node.end_lineno, node.end_col_offset)

    def operator(self, left: ast.AST, symbol: str, right: ast.AST) -> int | None:
        first, last = self.span(left)[1], self.span(right)[0]
        return next((at for at, string in self._operators if string == symbol and first <= at < last), None)


def _nodes(root: ast.AST, stop: tuple[type, ...] = ()) -> Iterator[ast.AST]:
    """All nodes below `root`, not those inside of `stop`; positions in f-strings are wrong before Python 3.12."""
    for node in ast.iter_child_nodes(root):
        if not isinstance(node, (ast.JoinedStr, *stop)):
            yield node
            yield from _nodes(node, stop)


_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_SCOPES = (*_FUNCTIONS, ast.Lambda, ast.ClassDef, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


def _variables(file: _Source) -> Iterator[tuple[int, int, str]]:
    for scope in (file.tree, *(node for node in _nodes(file.tree) if isinstance(node, _FUNCTIONS))):
        bound = _bound(file, scope)
        for node in (node for statement in scope.body for node in (statement, *_nodes(statement, _SCOPES))):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
                start, end = file.span(node)
                others = sorted(name for name, since in bound.items() if since <= start and name != node.id)
                if bound.get(node.id, end) <= start:
                    yield from ((start, end, other) for other in others)


def _bound(file: _Source, scope: ast.AST) -> dict[str, int]:
    """Return the variables of a scope, each with the character from which on it has a value."""
    bound: dict[str, int] = {}
    if isinstance(scope, _FUNCTIONS):
        given = scope.args
        parameters = [*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg]
        bound = {parameter.arg: 0 for parameter in parameters if parameter}
    for statement in scope.body:
        if isinstance(statement, _SCOPES):
            continue
        for node in (statement, *_nodes(statement, _SCOPES)):
            targets, since = _targets(node)
            for target in targets:
                for name in (target, *_nodes(target, _SCOPES)):
                    if isinstance(name, ast.Name) and isinstance(name.ctx, ast.Store):
                        bound[name.id] = min(bound.get(name.id, len(file.text)), file.span(since)[1])
    return bound


def _targets(node: ast.AST) -> tuple[list[ast.AST], ast.AST]:
    """Return what a node gives a value to, and the node after which it has it."""
    if isinstance(node, ast.Assign):
        return node.targets, node
    if isinstance(node, ast.AnnAssign):
        return [node.target] if node.value else [], node
    if isinstance(node, (ast.For, ast.AsyncFor)):
        return [node.target], node.iter
    if isinstance(node, ast.withitem) and node.optional_vars:
        return [node.optional_vars], node.optional_vars
    return [], node


def _arguments(file: _Source) -> Iterator[tuple[int, int, str]]:
    for call in _nodes(file.tree):
        if not isinstance(call, ast.Call) or getattr(call.func, "id", "") in ("max", "min"):
            continue  # their order does not matter
        for left, right in zip(call.args, call.args[1:], strict=False):
            if not isinstance(left, ast.Starred) and not isinstance(right, ast.Starred):
                (start, middle), (after, end) = file.span(left), file.span(right)
                yield start, end, file.text[after:end] + file.text[middle:after] + file.text[start:middle]


def _operators(file: _Source) -> Iterator[tuple[int, int, str]]:
    for node in _nodes(file.tree):
        if isinstance(node, ast.BinOp):
            uses = [(node.left, node.op, node.right)]
        elif isinstance(node, ast.BoolOp):
            uses = [(left, node.op, right) for left, right in zip(node.values, node.values[1:], strict=False)]
        elif isinstance(node, ast.Compare):
            uses = zip([node.left, *node.comparators[:-1]], node.ops, node.comparators, strict=True)
        else:
            continue
        for left, operation, right in uses:
            symbol = _OPERATORS.get(type(operation))
            at = file.operator(left, symbol, right) if symbol else None
            if at is not None:
                yield at, at + len(symbol), _OTHER_OPERATOR[symbol]


def bug_ranks(model: PreTrainedModel, tokenizer: Any, bugs: Sequence[PlantedBug]) -> list[BugRank]:
    """Rank every planted bug among all tokens of its file by surprise; ties count half."""
    originals: dict[str, list[Token]] = {}
    ranks = []
    for bug in bugs:
        tokens = token_surprise(model, tokenizer, bug.source)
        original = originals.get(bug.original_source) or token_surprise(model, tokenizer, bug.original_source)
        originals[bug.original_source] = original
        inside, outside = _split(tokens, bug.start, bug.end)
        before, _ = _split(original, bug.start, bug.start + len(bug.original))
        worst = max(inside)
        above = sum((bits > worst) + (bits == worst) / 2 for bits in outside)
        share = above / max(1, len(outside))
        ranks.append(BugRank(bug.kind, share, len(inside), len(outside), worst, max(before)))
    return ranks


def _split(tokens: Sequence[Token], start: int, end: int) -> tuple[list[float], list[float]]:
    """Bits of the tokens that touch characters `start` to `end`, and of the others; a token nothing predicts has 0."""
    parts: tuple[list[float], list[float]] = ([], [])
    for token in tokens:
        parts[token.end <= start or token.start >= end].append(token.bits or 0.0)
    return parts


def ranking_score(ranks: Sequence[BugRank]) -> dict[str, dict[str, float]]:
    """Sum up ranks: measure -> {"model", "chance"}, where chance is a model that knows nothing (random surprises).

    Measures: share of bugs among the most surprising 1, 5 and 10 % of the tokens; area under the ROC curve (how often a
    bug is more surprising than another token of its file, averaged over bugs); mean bits that the bug adds at its
    place; share of bugs that are more surprising than what stood there (ties count half). A span of several tokens has
    several chances to be surprising, and `chance` counts them. Raises `ValueError` without bugs.
    """
    if not ranks:
        raise ValueError("there are no bugs to rank; plant some with plant_bugs(source, seed).")
    score = {
        f"in the top {share:.0%}": {
            "model": fmean(rank.share <= share for rank in ranks),
            "chance": fmean(_chance(rank, share) for rank in ranks),
        }
        for share in SHARES
    }
    added = [rank.bits - rank.original_bits for rank in ranks]
    score["ROC area"] = {
        "model": fmean(1 - rank.share for rank in ranks),
        "chance": fmean(rank.tokens / (rank.tokens + 1) for rank in ranks),
    }
    score["bits added"] = {"model": fmean(added), "chance": 0.0}
    score["more surprising than the original"] = {
        "model": fmean((more > 0) + (more == 0) / 2 for more in added),
        "chance": 0.5,
    }
    return score


def _chance(rank: BugRank, share: float) -> float:
    """Probability that the best of the span's tokens has at most `share` of the others above it, in random order."""
    total, top = rank.tokens + rank.others, math.floor(share * rank.others) + 1
    return 1 - math.comb(total - top, rank.tokens) / math.comb(total, rank.tokens)
