"""Cut markdown and code into the pieces that are translated, and put translations in their place.

A piece is one block: a paragraph, heading, list item, quote, table cell, text between HTML tags, or the comment lines
that stand together in code. Its marks (`#`, `-`, `|`, `>`) stay outside. What is no piece is copied byte by byte.
"""

import ast
import io
import re
import tokenize
from collections.abc import Callable, Iterator
from typing import NamedTuple

from markdown_it import MarkdownIt

MARKDOWN = MarkdownIt("commonmark").enable("table")
BADGE = "[![Open in Colab]"
CODE_SPAN = re.compile(r"(?<!`)(`+)(?!`)(.+?)(?<!`)\1(?!`)", re.DOTALL)
FORMULA = re.compile(r"\$\$.+?\$\$|(?<![\\$\w])\$(?! )[^$\n]+?(?<! )\$(?![\w$])", re.DOTALL)
TAG = re.compile(r"</?[a-zA-Z][^<>]*>")
ADDRESS = re.compile(r"https?://[^\s)>\]]+|\]\([^)\s]*\)")
_KINDS = {
    "heading_open": "heading",
    "th_open": "table cell",
    "td_open": "table cell",
    "list_item_open": "list item",
    "blockquote_open": "quote",
}
_NO_PROSE = re.compile(r"fmt: |noqa|type: |pragma|ruff: |%%|!")
MAGIC = re.compile(r"^(\s*)[%!].*$", re.MULTILINE)


class Piece(NamedTuple):
    """Characters `start` to `end` of a source; line n > 0 of the text stands after `prefixes[n - 1]`."""

    start: int
    end: int
    text: str
    kind: str
    prefixes: tuple[str, ...] = ()


def has_words(text: str) -> bool:
    """Tell whether something is left to translate beside code, formulas, tags, addresses and names with digits."""
    for pattern in (CODE_SPAN, FORMULA, TAG, ADDRESS):
        text = pattern.sub(" ", text)
    return re.search(r"(?<!\w)[^\W\d_]{2,}(?!\w)", text) is not None


def markdown_pieces(source: str) -> list[Piece]:
    """Return what is translated in a markdown text, in order."""
    lines, pieces, open_blocks, row, cursor = source.split("\n"), [], [], [], 0
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line) + 1)
    for token in MARKDOWN.parse(source):
        if token.nesting == 1:
            open_blocks.append(token.type)
        elif token.nesting == -1:
            open_blocks.pop()
        if token.type == "tr_open":
            row, cursor = token.map, starts[token.map[0]]
        if token.type == "html_block":
            pieces += _html_pieces(source, starts[token.map[0]], starts[token.map[1]] - 1)
        if token.type != "inline" or not token.content:
            continue
        kind = next((_KINDS[block] for block in _KINDS if block in open_blocks), "paragraph")
        if kind == "table cell":
            content = token.content.replace("|", r"\|")
            start = source.find(content, cursor, starts[row[1]])
            piece = Piece(start, start + len(content), content, kind) if start >= 0 else None
            cursor = max(cursor, start + len(content))
        else:
            piece = _piece(source, starts, token.map[0], token.content, kind)
        if piece and has_words(piece.text) and not piece.text.startswith(BADGE):
            pieces.append(piece)
    return sorted(pieces)


def _piece(source: str, starts: list[int], line: int, content: str, kind: str) -> Piece | None:
    """Find the lines of a block's text in the source; None where they cannot be told from its marks."""
    spans: list[tuple[int, int]] = []
    for part in content.split("\n"):
        start = source.find(part, starts[line], starts[line + 1])
        if start < 0:
            return None
        spans.append((start, start + len(part)))
        line += 1
    ends = [end for _, end in spans[:-1]]
    prefixes = [source[end + 1 : start] for end, (start, _) in zip(ends, spans[1:], strict=True)]
    return Piece(spans[0][0], spans[-1][1], content, kind, tuple(prefixes))


def _html_pieces(source: str, start: int, end: int) -> Iterator[Piece]:
    if not re.match(r"\s*<(?:!--|script|style|svg|pre)", source[start:end]):
        for match in re.finditer(r"(?<=>)([^<>]+)(?=<)|\balt=\"([^\"]+)\"", source[start:end]):
            text = (match[1] or match[2]).strip()
            if has_words(text) and "\n" not in text:
                place = source.index(text, start + match.start())
                yield Piece(place, place + len(text), text, "HTML")


def comment_pieces(source: str) -> list[Piece]:
    """Return the comments of a code cell that are prose; lines that stand together are one piece."""
    lines, starts = source.split("\n"), [0]
    for line in lines:
        starts.append(starts[-1] + len(line) + 1)
    pieces: list[Piece] = []
    last = (-1, 0)  # line and column of the comment line before
    if source.startswith("%%"):  # a cell in another language
        return []
    try:
        tokens = list(tokenize.generate_tokens(io.StringIO(MAGIC.sub(r"\1pass", source)).readline))
    except (tokenize.TokenError, SyntaxError):
        return []
    for token in tokens:
        line, column = token.start
        text = token.string[1:].strip()
        if token.type != tokenize.COMMENT or not _is_prose(text):
            continue
        start = starts[line - 1] + column + token.string.index(text, 1)
        alone = not lines[line - 1][:column].strip()
        if alone and last == (line - 1, column) and source[pieces[-1].end] == "\n":
            before = pieces.pop()
            prefix = source[before.end + 1 : start]
            joined = f"{before.text}\n{text}"
            pieces.append(Piece(before.start, start + len(text), joined, "comment", (*before.prefixes, prefix)))
        else:
            pieces.append(Piece(start, start + len(text), text, "comment"))
        last = token.start if alone else (-1, 0)
    return pieces


def _is_prose(comment: str) -> bool:
    if _NO_PROSE.match(comment) or not re.search(r"(?<!\w)[^\W\d_]{3,}(?!\w)", CODE_SPAN.sub("", comment)):
        return False
    try:  # a line of code that is switched off
        nodes = [type(node) for node in ast.walk(ast.parse(comment))]
    except SyntaxError:
        return True
    return not {*nodes} & {ast.Call, ast.Assign, ast.Import, ast.ImportFrom, ast.Attribute, ast.Return}


def replaced(source: str, pieces: list[Piece], translate: Callable[[str], str | None]) -> str:
    """Return the source with every piece replaced by its translation, or left as it is where there is none."""
    for piece in reversed(pieces):
        translation = translate(piece.text)
        if translation is not None:
            first, *others = translation.split("\n")
            prefixes = [*piece.prefixes, *piece.prefixes[-1:] * len(others)] or [""] * len(others)
            text = first + "".join(f"\n{prefix}{line}" for prefix, line in zip(prefixes, others, strict=False))
            source = source[: piece.start] + text + source[piece.end :]
    return source
