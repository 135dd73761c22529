"""The learner's language for what code shows: sentences, labels, alternative texts, hints.

COURSE_LANGUAGE names it. Texts are looked up by their exact English in `locale/<language>.json`, which is built from
`translations/`; a text that is not there stays English. Errors, tables and the command line are English.
"""

import functools
import json
import os
import re
import string
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

_FOLDER = Path(__file__).parent / "locale"
_told: set[str] = set()  # languages whose missing letters were reported


def languages() -> list[str]:
    """Return the codes of the languages there are, English first."""
    return ["en", *sorted(path.stem for path in _FOLDER.glob("*.json"))]


def chosen() -> str:
    """Return the language that COURSE_LANGUAGE names, else `en`; raises `ValueError` for one that is not there."""
    code = os.environ.get("COURSE_LANGUAGE") or "en"
    if code not in languages():
        raise ValueError(f"unknown language {code!r}; set COURSE_LANGUAGE to one of {', '.join(languages())}.")
    return code


def text(english: str) -> str:
    """Return a text in the learner's language: an exact one, or one made from a template such as `{n} tokens`."""
    code = os.environ.get("COURSE_LANGUAGE") or "en"
    texts, templates = _texts(code)
    if english not in texts and re.search(r"[^\W\d_]{2}", english):
        for pattern, translation in templates:
            if found := pattern.fullmatch(english):
                return translation.format(**{name: texts.get(part, part) for name, part in found.groupdict().items()})
    return texts.get(english, english)


def filled(template: str, values: Mapping[str, Any]) -> str:
    """Return a template in the learner's language with its values; those that are exactly a text are translated."""
    texts = _texts(os.environ.get("COURSE_LANGUAGE") or "en")[0]
    return text(template).format(**{k: texts.get(v, v) if isinstance(v, str) else v for k, v in values.items()})


@functools.cache
def _texts(code: str) -> tuple[dict[str, str], list[tuple[re.Pattern, str]]]:
    """Return the texts of a language and, those with most words of their own first, its templates as patterns."""
    path = _FOLDER / f"{code}.json"
    if code == "en" or not path.exists():
        return {}, []
    texts = json.loads(path.read_text(encoding="utf-8"))
    templates = sorted((t for t in texts if "{" in t), key=lambda t: -len(re.sub(r"\{\w*\}", "", t)))
    patterns = [(re.compile("".join(_pattern(template)), re.DOTALL), texts[template]) for template in templates]
    return texts, [(pattern, translation) for pattern, translation in patterns if pattern.groups]


def _pattern(template: str) -> Iterator[str]:
    """Yield a pattern's parts: what stands in the template, and a group for each field."""
    seen: set[str] = set()
    try:
        parts = list(string.Formatter().parse(template))
    except ValueError:  # braces, but no template
        return
    for literal, field, form, conversion in parts:
        yield re.escape(literal)
        if field is not None and not form and not conversion and field.isidentifier():
            yield f"(?P={field})" if field in seen else f"(?P<{field}>.+?)"
            seen.add(field)
        elif field is not None:
            yield "(?!)"  # a template of `say`, which is looked up before values are filled in


def translate(figure) -> None:
    """Put the words of a figure into the learner's language: all of them, or none where no font has the letters."""
    code = os.environ.get("COURSE_LANGUAGE") or "en"
    if not _texts(code)[0]:
        return
    from matplotlib.text import Text  # scripts that draw nothing do without

    from course_utils import fonts

    axes = (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis))
    ticks = {axis: [label.get_text() for label in axis.get_ticklabels()] for axis in axes}
    ticks = {axis: new for axis, old in ticks.items() if (new := list(map(text, old))) != old}
    words = [*(text(part.get_text()) for part in figure.findobj(Text)), *map("".join, ticks.values())]
    families = fonts.families(frozenset(filter(str.isprintable, "".join(words))), code)
    if not families:
        if code not in _told:
            print(text("The labels of figures stay English: no font here has the letters. Noto Sans CJK has most."))
        _told.add(code)
        return
    for axis, new in ticks.items():
        axis.set_ticklabels(new)
    for part in figure.findobj(Text):
        part.set_text(text(part.get_text()))
        part.set_fontfamily(families)
