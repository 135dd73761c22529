"""What is wrong with a translation that can be seen without knowing its language.

Each check of a message yields what differs from the English. Where a difference is right, a comment of the translator
says so: `# allow numbers: the language counts in tens of thousands`.
"""

import ast
import io
import json
import re
import string
import tokenize
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import polib

from . import sources
from .catalogs import is_current
from .codes import checked_code, folders
from .segments import ADDRESS, CODE_SPAN, FORMULA, MAGIC, MARKDOWN, TAG, replaced

_ALLOW = re.compile(r"^allow ([\w ]+):(.*)$", re.MULTILINE)
_NUMBER_WORDS = re.compile(
    r"\b(?:one|once|two|twice|half|halves|three|four|five|six|seven|eight|nine|ten|eleven|twelve|fifteen|twenty|thirty|"
    r"dozen|hundred|thousand|first|second|third|fourth|fifth|both|pair|single)\b",
    re.IGNORECASE,
)
_LARGE = re.compile(r"\b(?:thousand|million|billion)s?\b", re.IGNORECASE)
_FORBIDDEN = re.compile("[\u200b\u2028\u2029\u202a-\u202e\u2060\u2066-\u2069\ufeff\u00ad]")
_MARK = re.compile(r"#{1,6} |[-*+] |> |\d+[.)] |\||```|~~~|\s|---")


def _differences(wanted: list[str], got: list[str]) -> Iterator[str]:
    """Say what is missing, and what is too much."""
    missing, extra = Counter(wanted) - Counter(got), Counter(got) - Counter(wanted)
    if missing:
        yield f"{', '.join(map(repr, missing))} is missing"
    if extra:
        yield f"{', '.join(map(repr, extra))} is not in the English"


def _code_spans(english: str, text: str, kind: str) -> Iterator[str]:
    yield from _differences(*([match[2] for match in CODE_SPAN.finditer(part)] for part in (english, text)))
    if CODE_SPAN.sub("", text).count("`") != CODE_SPAN.sub("", english).count("`"):
        yield "a backtick has no partner"


def _links(english: str, text: str, kind: str) -> Iterator[str]:
    yield from _differences(*(ADDRESS.findall(CODE_SPAN.sub("", part)) for part in (english, text)))


def _images(english: str, text: str, kind: str) -> Iterator[str]:
    if english.count("![") != text.count("!["):
        yield "the number of images differs"
    if re.search(r"!\[\s*\]", text) and not re.search(r"!\[\s*\]", english):
        yield "an image has lost its alt text"


def _maths(english: str, text: str, kind: str) -> Iterator[str]:
    yield from _differences(*(FORMULA.findall(CODE_SPAN.sub("", part)) for part in (english, text)))


def _tags(english: str, text: str, kind: str) -> Iterator[str]:
    yield from _differences(*(TAG.findall(CODE_SPAN.sub("", part)) for part in (english, text)))


def _numbers(english: str, text: str, kind: str) -> Iterator[str]:
    wanted, got = (_digits(part, bool(_LARGE.search(english))) for part in (english, text))
    if _NUMBER_WORDS.search(english):  # a number in words may become digits
        got = list((Counter(got) & Counter(wanted)).elements())
    yield from _differences(wanted, got)


def _digits(text: str, large: bool) -> list[str]:
    """Return the numbers in a text without their separators; with `large`, without zeros at the ends."""
    for pattern in (CODE_SPAN, FORMULA, ADDRESS, TAG):
        text = pattern.sub(" ", text)
    text = re.sub(r"\{[^{}]*\}", " ", text)
    text = re.sub(r"(?<=\d)(?:[.,'’٫٬](?=\d)|[ \u00a0\u202f\u2009](?=\d{3}(?!\d)))", "", text)
    numbers = ["".join(str(int(digit)) for digit in number) for number in re.findall(r"\d+", text)]
    return [number.strip("0") or "0" for number in numbers] if large else numbers


def _placeholders(english: str, text: str, kind: str) -> Iterator[str]:
    try:
        wanted = fields(english)
    except ValueError:
        return
    try:
        got = fields(text)
    except ValueError as error:
        yield f"a brace has no partner ({error})"
        return
    yield from _differences(sorted(wanted.keys()), sorted(got.keys()))
    for name in wanted.keys() & got.keys():
        if got[name] != wanted[name]:
            yield f"{{{name}}} must be written as in the English, {{{name}{wanted[name]}}}"


def fields(template: str) -> dict[str, str]:
    """Return the fields of a template with their forms; raises `ValueError` if it is none."""
    return {
        name: (f"!{conversion}" if conversion else "") + (f":{form}" if form else "")
        for _, name, form, conversion in string.Formatter().parse(template)
        if name is not None
    }


def _emphasis(english: str, text: str, kind: str) -> Iterator[str]:
    wanted, got = map(_rendered, (english, text))
    if got[1] > wanted[1]:
        yield "** or * does not render here: a mark inside stands beside a letter outside; move the punctuation outside"
    elif got[0] != wanted[0]:
        yield f"{got[0]} bold parts, {wanted[0]} in the English"


def _rendered(text: str) -> tuple[int, int]:
    """Return how many parts are bold, and how many asterisks a reader would see."""
    children = [child for token in MARKDOWN.parseInline(text) for child in token.children or ()]
    seen = sum(child.content.count("*") for child in children if child.type == "text")
    return sum(child.type == "strong_open" for child in children), seen


def _pipes(english: str, text: str, kind: str) -> Iterator[str]:
    if "table cell" in kind and re.search(r"(?<!\\)\|", text):
        yield r"| would end the table's cell; write \|"


def _lines(english: str, text: str, kind: str) -> Iterator[str]:
    if text.count("\n") > english.count("\n"):
        yield "there is a line break that the English does not have"
    if text != text.strip() and english == english.strip():
        yield "there is white space at the beginning or the end"


def _blocks(english: str, text: str, kind: str) -> Iterator[str]:
    if "comment" not in kind and kind not in RUNTIME:
        for line in text.split("\n"):
            if _MARK.match(line) and not _MARK.match(english):
                yield f"it begins with {line[:3].split()[0]!r}, which would start another kind of block"


def _marks(english: str, text: str, kind: str) -> Iterator[str]:
    for mark in sorted({*_FORBIDDEN.findall(text)} - {*_FORBIDDEN.findall(english)}):
        yield f"it has the invisible character U+{ord(mark):04X}; the tool sets those that are needed"


def _questions(english: str, text: str, kind: str) -> Iterator[str]:
    asked = [bool(re.search(r"[?？؟]", CODE_SPAN.sub("", part))) for part in (english, text)]
    if asked == [True, False]:
        yield "the English asks a question"
    if asked == [False, True]:
        yield "the English asks no question"


RUNTIME = {"sentence", "text", "label", "axis", "alt text", "unit", "hint", "builder", "progress"}
CHECKS: dict[str, Callable[[str, str, str], Iterator[str]]] = {
    "code spans": _code_spans,
    "links": _links,
    "images": _images,
    "maths": _maths,
    "tags": _tags,
    "numbers": _numbers,
    "placeholders": _placeholders,
    "emphasis": _emphasis,
    "pipes": _pipes,
    "lines": _lines,
    "blocks": _blocks,
    "marks": _marks,
    "questions": _questions,
}


def of_catalog(path: Path, catalog: polib.POFile) -> Iterator[str]:
    """Yield what is wrong with the current messages of a catalog, with file and line."""
    for entry in filter(is_current, catalog):
        yield from (f"{path}:{entry.linenum}: {fault}" for fault in of_message(entry, path.stem == "course_utils"))


def of_message(entry: polib.POEntry, runtime: bool) -> Iterator[str]:
    """Yield what is wrong with one message, without what its comments allow."""
    allowed = {name.strip(): reason.strip() for name, reason in _ALLOW.findall(entry.tcomment)}
    for name, reason in allowed.items():
        if name not in CHECKS:
            yield f"there is no check {name!r} to allow; there are {', '.join(CHECKS)}"
        elif not reason:
            yield f"allow {name}: says no reason; write it behind the colon"
    for name, look in CHECKS.items():
        if name not in allowed and (name != "placeholders" or runtime):
            yield from (f"{name}: {fault}" for fault in look(entry.msgid, entry.msgstr, entry.comment))


def of_notebook(english: Path, built: Path) -> Iterator[str]:
    """Yield where a built notebook differs from the English one in more than text."""
    made = json.loads(built.read_text(encoding="utf-8"))["cells"]
    for cell in made:
        cell["source"] = "".join(cell["source"])
    cells, own = sources.read_notebook(english)["cells"], ("languages", "language")
    translated = [cell for cell in made if cell["id"] not in own]
    if [cell["id"] for cell in translated] != [cell["id"] for cell in cells]:
        yield f"{built}: the cells are not those of the English notebook, in order"
        return
    for cell, other in zip(cells, translated, strict=True):
        place = f"{built}#{cell['id']}"
        if cell["cell_type"] == "code" and code_of(cell["source"]) != code_of(other["source"]):
            yield f"{place}: the code differs from the English"


def code_of(source: str) -> list[tuple]:
    """Return everything of a code cell but its comments: tokens, magics, and the syntax tree."""
    masked = MAGIC.sub(r"\1pass", source)
    skipped = (tokenize.COMMENT, tokenize.NL)
    tokens = [
        (token.type, token.string)
        for token in tokenize.generate_tokens(io.StringIO(masked).readline)
        if token.type not in skipped
    ]
    return [*tokens, *(match[0] for match in MAGIC.finditer(source)), ast.dump(ast.parse(masked))]


def wrong_name(code: str) -> str:
    """Return what is wrong with the name of a language's folder, or nothing."""
    try:
        right = checked_code(code)
    except ValueError as error:
        return str(error)
    return "" if right == code else f"a folder of this language is called {right!r}; rename it."


def of_blocks(catalog: Path, english: Path, texts: Mapping[str, str]) -> Iterator[str]:
    """Yield the markdown cells whose translation has other blocks than the English."""
    for cell in sources.read_notebook(english)["cells"]:
        if cell["cell_type"] == "markdown" and (pieces := sources.pieces_of(cell)):
            if _structure(cell["source"]) != _structure(replaced(cell["source"], pieces, texts.get)):
                yield f"{catalog}: blocks: in cell {cell['id']} it has other headings, lists or tables than the English"


def of_folders(root: Path, codes: list[str]) -> list[str]:
    """Return files that belong to no notebook or language."""
    names, found = sources.notebooks(root), []
    for code in codes:
        folder = root / "translations" / code
        if wrong := wrong_name(code):
            found.append(f"{folder}: {wrong}")
        orphans = [path for path in folder.glob("LC_MESSAGES/*") if path.suffix not in (".po", ".mo")]
        orphans += [p for p in folder.glob("LC_MESSAGES/*.po") if p.stem not in sources.catalogs(root)]
        orphans += [path for path in folder.glob("notebooks/*") if path.stem not in names]
        found += [f"{path}: belongs to no English text; delete it." for path in orphans]
    texts = (root / "course_utils" / "locale").glob("*")
    return found + [f"{p}: belongs to no language; delete it." for p in texts if p.stem not in folders(root)]


def _structure(source: str) -> list[str]:
    return [token.type for token in MARKDOWN.parse(source)]
