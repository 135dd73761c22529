"""Build what learners open in a language: notebooks, the README, and the texts that the package shows."""

import copy
import json
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import polib

from . import sources
from .catalogs import current
from .codes import autonym, is_right_to_left
from .segments import CODE_SPAN, MARKDOWN, Piece, markdown_pieces, replaced

_COLAB = re.compile(r"https://colab\.research\.google\.com/github/[^/\s]+/[^/\s]+/blob/[^/\s]+/(?=notebooks/)")
_FENCE = re.compile(r"^( *)(```|~~~).*?^\1\2[^\n]*$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r'(\]\(|\b(?:src|href)=")([^)\s"]+)(?=[)\s"])')
_STAYS = re.compile(r"[a-z]+:|#|/|(?:notebooks/)?\d\d_\w+\.ipynb|\.\./README\.md")  # absolute, or within the language


class Language:
    """A language with its translations: one mapping for each catalog, from the English."""

    def __init__(self, code: str, files: Mapping[str, polib.POFile], released: list[str]) -> None:
        self.code, self.right_to_left = code, is_right_to_left(code)
        self.texts = {name: current(file) for name, file in files.items()}
        self.credits = list(dict.fromkeys(filter(None, map(_credit, files.values()))))
        self.others = [other for other in ["en", *released] if other != code]

    def own(self, sentence: str, **values: Any) -> str:
        """Return a sentence of the builder, in this language if it is translated."""
        english = sources.SENTENCES[sentence]
        return self.texts.get("course_utils", {}).get(english, english).format(**values)

    def head(self, title: str, forms: tuple[str, str], texts: Mapping[str, str], pieces: Iterable[Piece]) -> list[str]:
        """Return blocks: links to the text in other languages, credits, and how much of it is translated."""
        links = (f"[{autonym(other)}]({forms[other != 'en'].format(other)})" for other in self.others)
        blocks = [f"{self.own(title)} {' · '.join(links)}"]
        blocks += [self.own("credits", names=", ".join(self.credits))] if self.credits else []
        words = {piece.text: len(piece.text.split()) for piece in pieces}
        if missing := words.keys() - texts.keys():
            share = 1 - sum(words[text] for text in missing) / sum(words.values())
            blocks.append(f"> {self.own('part', percent=int(100 * share))}")
        return blocks

    def directed(self, blocks: list[str]) -> str:
        """Return blocks as markdown, marked where they are read from right to left."""
        text = "\n\n".join(blocks)
        return f'<div dir="rtl">\n\n{text}\n\n</div>' if self.right_to_left else text


def _credit(file: polib.POFile) -> str:
    """Return the translator's name from the header of a catalog, without the address."""
    name = re.sub(r"\s*<.*", "", file.metadata.get("Last-Translator", "")).strip()
    return "" if name.upper() in ("FULL NAME", "AUTOMATICALLY GENERATED") else name


def notebook(language: Language, name: str, path: Path) -> str:
    """Return the text of a translated notebook: the English cells, a switcher, and a cell that sets the language."""
    texts, made = language.texts.get(name, {}), copy.deepcopy(sources.read_notebook(path))
    cells, pieces = made["cells"], []
    for cell in cells:
        pieces += (found := sources.pieces_of(cell))
        if cell["cell_type"] == "markdown":
            cell["source"] = markdown(language, texts, cell["source"], "../../../notebooks/")
        else:
            cell["source"] = replaced(cell["source"], found, texts.get)
    forms = (f"../../../notebooks/{path.name}", f"../../{{}}/notebooks/{path.name}")
    head = language.head("languages", forms, texts, pieces)
    if badge := _COLAB.search(sources.read_notebook(path)["cells"][0]["source"]):
        folders = {other: f"translations/{other}/" if other != "en" else "" for other in language.others}
        links = (f"[{autonym(o)}]({badge[0]}{folder}notebooks/{path.name})" for o, folder in folders.items())
        head.insert(1, f"{language.own('colab')} {' · '.join(links)}")
    setting = f'# {language.own("language")}\nimport os\n\nos.environ["COURSE_LANGUAGE"] = "{language.code}"'
    code = {"cell_type": "code", "execution_count": None, "metadata": {}, "outputs": []}
    place = next((n for n, cell in enumerate(cells) if cell["cell_type"] == "code"), len(cells))
    place += place < len(cells) and cells[place]["id"] == "colab"  # which installs what knows the language
    cells.insert(place, code | {"id": "language", "source": setting})
    cells.insert(1, {"cell_type": "markdown", "id": "languages", "metadata": {}, "source": language.directed(head)})
    for cell in cells:
        cell["source"] = cell["source"].splitlines(keepends=True)
    return json.dumps(made, ensure_ascii=False, indent=1, sort_keys=True) + "\n"


def readme(language: Language, source: str) -> str:
    """Return the README of a language, with links to the others on top."""
    texts, pieces = language.texts.get("README", {}), markdown_pieces(source)
    text = markdown(language, texts, source, "../../")
    anchors = {_anchor(p.text): _anchor(texts.get(p.text, p.text)) for p in pieces if p.kind == "heading"}
    text = re.sub(r"(?<=\]\(#)[^)]+", lambda match: anchors.get(match[0], match[0]), text)
    head = language.head("page", ("../../README.md", "../{}/README.md"), texts, pieces)
    return f"{language.directed(head)}\n\n{text}"


def _anchor(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")


def package_texts(language: Language) -> str:
    """Return the translations that `course_utils/language.py` looks up, as JSON."""
    own, texts = set(sources.SENTENCES.values()), language.texts.get("course_utils", {})
    return json.dumps({e: t for e, t in texts.items() if e not in own}, ensure_ascii=False, indent=0) + "\n"


def markdown(language: Language, texts: Mapping[str, str], source: str, up: str) -> str:
    """Return a markdown text translated; `up` leads from the new place to the folder of the English file."""
    if language.right_to_left:
        text = _right_to_left(source, texts)
    else:
        text = replaced(source, markdown_pieces(source), texts.get)

    def moved(match: re.Match) -> str:
        stays = _STAYS.match(match[2])
        return match[0] if stays else match[1] + re.sub(r"[^/.]+/\.\./", "", up + match[2])

    colab = f"\\g<0>translations/{language.code}/"
    return _outside_code(text, lambda part: _LINK.sub(moved, _COLAB.sub(colab, part)))


def _outside_code(text: str, change: Callable[[str], str]) -> str:
    """Change a markdown text outside fences and code spans."""
    kept: list[str] = []

    def keep(match: re.Match) -> str:
        kept.append(match[0])
        return f"\0{len(kept) - 1}\0"

    text = change(CODE_SPAN.sub(keep, _FENCE.sub(keep, text)))
    while "\0" in text:
        text = re.sub("\0(\\d+)\0", lambda match: kept[int(match[1])], text)
    return text


def _right_to_left(source: str, texts: Mapping[str, str]) -> str:
    """Return a markdown text whose runs of translated blocks are marked; fences, formulas, HTML stay outside."""
    lines, end = source.split("\n"), 0
    runs: list[tuple[bool, list[str]]] = []
    for token in MARKDOWN.parse(source):
        if token.level == 0 and token.map and token.nesting >= 0:
            block, end = "\n".join(lines[end : token.map[1]]).strip("\n"), token.map[1]
            pieces = markdown_pieces(block)
            turned = token.type != "html_block" and any(piece.text in texts for piece in pieces)
            if not runs or runs[-1][0] != turned:
                runs.append((turned, []))
            runs[-1][1].append(replaced(block, pieces, lambda text: _marked(texts[text]) if text in texts else None))
    parts = [("\n\n".join(blocks), turned) for turned, blocks in runs]
    rest = "\n".join(lines[end:]).rstrip("\n")
    return "\n\n".join(f'<div dir="rtl">\n\n{p}\n\n</div>' if turned else p for p, turned in parts) + rest


def _marked(text: str) -> str:
    """Keep code in its place, and the groups of a number in order, in text that is read from right to left."""
    text = CODE_SPAN.sub("\u200e\\g<0>\u200e", text)
    return re.sub(r"(?<=\d) (?=\d{3}\b)", "\u00a0", text)
