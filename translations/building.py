"""Build what learners open in a language: notebooks, the README, and the texts that the package shows."""

import copy
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polib
from babel import Locale

from . import sources
from .catalogs import current
from .segments import ADDRESS, BADGE, CODE_SPAN, FORMULA, MARKDOWN, Piece, markdown_pieces, replaced

REPOSITORY = re.compile(r"https://colab\.research\.google\.com/github/[^/\s]+/[^/\s]+/blob/[^/\s]+/")
_FENCE = re.compile(r"^( *)(```|~~~).*?^\1\2[^\n]*$", re.MULTILINE | re.DOTALL)


class Language:
    """A language with its translations: one mapping for each catalog, from the English."""

    def __init__(self, code: str, files: Mapping[str, polib.POFile], released: list[str]) -> None:
        self.code = code
        self.texts = {name: current(file) for name, file in files.items()}
        self.names = [credit(file) for file in files.values()]
        self.others = [other for other in ["en", *released] if other != code]
        self.right_to_left = Locale.parse(code).text_direction == "rtl"

    def own(self, sentence: str, **values: Any) -> str:
        """Return a sentence of the builder, in this language if it is translated."""
        english = sources.SENTENCES[sentence]
        return self.texts["course_utils"].get(english, english).format(**values)


def credit(file: polib.POFile) -> str:
    """Return the translator's name from the header of a catalog, without the address."""
    name = re.sub(r"\s*<.*>", "", file.metadata.get("Last-Translator", "")).strip()
    return "" if name.upper() in ("", "FULL NAME", "AUTOMATICALLY GENERATED") else name


def autonym(code: str) -> str:
    """Return a language's name for itself."""
    locale = Locale.parse(code)
    name = locale.languages.get(f"{locale.language}_{locale.script}") or locale.languages[locale.language]
    return name[0].upper() + name[1:]


def notebook(language: Language, name: str, path: Path) -> str:
    """Return the text of a translated notebook: the English cells, a switcher, and a cell that sets the language."""
    texts, made = language.texts[name], copy.deepcopy(sources.read_notebook(path))
    for cell in made["cells"]:
        if cell["cell_type"] == "markdown":
            cell["source"] = markdown(language, texts, cell["source"], depth=2, here=name)
        else:
            cell["source"] = replaced(cell["source"], sources.pieces_of(cell), texts.get)
    texts_here = {piece.text for cell in sources.read_notebook(path)["cells"] for piece in sources.pieces_of(cell)}
    place = {"en": f"../../../notebooks/{path.name}"}
    head = _switcher(language, "languages", texts_here, texts, place, f"../../{{}}/notebooks/{path.name}")
    badge = REPOSITORY.search(made["cells"][0]["source"])
    if badge and language.others:
        folders = {other: "" if other == "en" else f"translations/{other}/" for other in language.others}
        links = (f"[{autonym(o)}]({badge[0]}{folder}notebooks/{path.name})" for o, folder in folders.items())
        head.insert(1, f"{language.own('colab')} {' · '.join(links)}")
    switcher = {"cell_type": "markdown", "id": "languages", "metadata": {}, "source": _directed(language, head)}
    comment = language.own("language")
    code = f'# {comment}\n%env COURSE_LANGUAGE={language.code}'
    setting = {"cell_type": "code", "execution_count": None, "id": "language", "metadata": {}, "outputs": [], "source": code}
    made["cells"].insert(1, switcher)
    first = next(place for place, cell in enumerate(made["cells"]) if cell["cell_type"] == "code")
    made["cells"].insert(first + (made["cells"][first]["id"] == "colab"), setting)
    for cell in made["cells"]:
        cell["source"] = cell["source"].splitlines(keepends=True)
    return json.dumps(made, ensure_ascii=False, indent=1, sort_keys=True) + "\n"


def readme(language: Language) -> str:
    """Return the README of a language, with links to the others on top."""
    source, texts = sources.readme(), language.texts["README"]
    pieces = markdown_pieces(source)
    text = markdown(language, texts, source, depth=2, here="")
    anchors = {_anchor(p.text): _anchor(texts.get(p.text, p.text)) for p in pieces if p.kind == "heading"}
    text = re.sub(r"\]\(#([^)]+)\)", lambda m: f"](#{anchors.get(m[1], m[1])})", text)
    head = _switcher(language, "page", {p.text for p in pieces}, texts, {"en": "../../README.md"}, "../{}/README.md")
    return f"{_directed(language, head)}\n\n{text}"


def package_texts(language: Language) -> str:
    """Return the translations that `course_utils/language.py` looks up."""
    own = set(sources.SENTENCES.values())
    texts = {english: text for english, text in language.texts["course_utils"].items() if english not in own}
    return json.dumps(texts, ensure_ascii=False, indent=0) + "\n"


def markdown(language: Language, texts: Mapping[str, str], source: str, depth: int, here: str) -> str:
    """Return a markdown text translated, with links that fit the place of the translated file."""
    text = replaced(source, pieces := markdown_pieces(source), texts.get)
    if language.right_to_left:
        text = _right_to_left(source, pieces, texts)
    return _outside_code(text, lambda part: _links(part, language.code, depth, bool(here)))


def _links(text: str, code: str, depth: int, is_notebook: bool) -> str:
    """Keep links between notebooks within the language; other relative links lead up to the English files."""
    text = REPOSITORY.sub(lambda m: m[0] if text[m.end() :].startswith("translations/") else f"{m[0]}translations/{code}/", text)

    def moved(match: re.Match) -> str:
        target = match[2]
        if re.match(r"[a-z]+:|#|/", target) or re.match(r"(notebooks/)?\d\d_\w+\.ipynb", target):
            return match[0]
        up = "../../../notebooks/" if is_notebook else "../../"
        return match[1] + re.sub(r"[^/.]+/\.\./", "", up + target) + match[3]

    return re.sub(r'(\]\(|\b(?:src|href)=")([^)\s"]+)([)\s"])', moved, text)


def _outside_code(text: str, change) -> str:
    """Change a markdown text outside fences and code spans."""
    kept: list[str] = []

    def keep(match: re.Match) -> str:
        kept.append(match[0])
        return f"\0{len(kept) - 1}\0"

    text = change(CODE_SPAN.sub(keep, _FENCE.sub(keep, text)))
    while "\0" in text:
        text = re.sub("\0(\\d+)\0", lambda match: kept[int(match[1])], text)
    return text


def _switcher(language: Language, title: str, wanted: set[str], texts: Mapping[str, str], own: dict[str, str], form: str) -> list[str]:
    """Return lines with links to the same text in other languages, credits, and how much is translated."""
    links = (f"[{autonym(other)}]({own.get(other) or form.format(other)})" for other in language.others)
    lines = [f"{language.own(title)} {' · '.join(links)}"]
    names = list(dict.fromkeys(name for name in language.names if name))
    lines += [language.own("credits", names=", ".join(names))] if names else []
    if missing := wanted - texts.keys():
        share = 100 * (len(wanted) - len(missing)) // len(wanted)
        lines.append(f"> {language.own('part', percent=share)}")
    return lines


def _directed(language: Language, blocks: list[str]) -> str:
    text = "\n\n".join(blocks)
    return f'<div dir="rtl">\n\n{text}\n\n</div>' if language.right_to_left else text


def _right_to_left(source: str, pieces: list[Piece], texts: Mapping[str, str]) -> str:
    """Return a translated text whose runs of translated blocks are marked as right to left."""
    lines = source.split("\n")
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line) + 1)
    # For each block of the top level: its lines, and whether anything in it is translated.
    spans = [t.map for t in MARKDOWN.parse(source) if t.level == 0 and t.map and t.nesting >= 0]
    runs: list[list] = []
    for first, last in spans:
        inside = [p for p in pieces if starts[first] <= p.start < starts[last]]
        turned = any(p.text in texts for p in inside) and not source[starts[first] :].lstrip().startswith("<")
        if runs and runs[-1][2] == turned:
            runs[-1][1] = last
        else:
            runs.append([first, last, turned])
    parts = []
    for first, last, turned in runs:
        part = "\n".join(lines[first:last]).rstrip("\n")
        part = replaced(part, markdown_pieces(part), lambda text: _marked(texts[text]) if text in texts else None)
        parts.append(f'<div dir="rtl">\n\n{part}\n\n</div>' if turned else part)
    return "\n\n".join(parts)


def _marked(text: str) -> str:
    """Keep code in its place and the groups of a number in order within text from right to left."""
    text = CODE_SPAN.sub("\u200e\\g<0>\u200e", text)
    return re.sub(r"(?<=\d) (?=\d{3}\b)", "\u00a0", text)


def _anchor(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")


__all__ = ["ADDRESS", "BADGE", "FORMULA", "Language", "autonym", "notebook", "package_texts", "readme"]
