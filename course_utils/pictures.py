"""Pictures made of HTML, which a cell ends with: pieces of text, bars of probabilities, pages with sliders."""

import hashlib
import html
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from course_utils import language

# Okabe and Ito's palette, which people with any colour vision can tell apart.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#000000")
# Fill of the cells and pieces of pictures, by kind: tints of the palette that dark text can stand on, and hatching.
TINTS = ("#ffffff", "#cfe3f3", "#fbe3b3", "#c9ecdf", "#f6d5bd", "#f3dce9", "#ddd6f3", "#e4e4e4")
PAGE_TEXT = re.compile(r"\[\[(.+?)\]\]")  # a text in a widget's page
HATCHED = "repeating-linear-gradient(45deg,#fff,#fff 3px,#bbb 3px,#bbb 5px)"


@dataclass(frozen=True)
class Picture:
    """Something to look at, as HTML for a notebook and as text for a terminal."""

    html: str
    text: str

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict[str, str]:
        return {"text/html": self.html, "text/plain": self.text}

    def __str__(self) -> str:
        """Return the text, which a terminal shows."""
        return self.text


def spans(
    pieces: Sequence[str],
    *,
    alt: str,
    kinds: Sequence[int | str] = (),
    titles: Sequence[str] = (),
    legend: str = "",
    plain: bool = False,
) -> Picture:
    """Return pieces of text side by side, each with a border; spaces and line ends become visible.

    `kinds` gives each its number in `TINTS`, "hatched" or a CSS color (without: two tints in turn); `titles` appear
    under the mouse; `legend` is HTML above; `plain` leaves out borders and marks, so that code looks like code.
    """
    kinds = kinds or [1 + 2 * (place % 2) for place in range(len(pieces))]
    made = []
    for place, (piece, kind) in enumerate(zip(pieces, kinds, strict=True)):
        fill = HATCHED if kind == "hatched" else TINTS[kind] if isinstance(kind, int) else kind
        title = f' title="{_told(titles[place])}"' if titles else ""
        style, shown, after = f"background:{fill};color:#1a1a1a", escaped(piece), ""  # both: for dark themes, too
        if not plain:
            style += ";border:1px solid #999;border-radius:3px;padding:0 1px"
            lined = _visible(piece).replace("↵", "↵\n")
            shown = lined.rstrip("\n")
            after = lined[len(shown) :]
        elif piece[:1] in ("\n", "\r"):
            style += ";padding-left:.5em"  # a line end has no width of its own
        made.append(f'<span style="{style}"{title}>{shown}</span>{after}')
    style = "white-space:pre-wrap;overflow-wrap:anywhere;font-family:monospace;line-height:1.7;margin:0;"
    pre = (
        f'<pre style="{style}{"padding:.6em;background:#fff;border:1px solid #c8c8c8" if plain else "color:inherit"}">'
    )
    figure = f'<figure role="group" aria-label="{_told(alt)}" style="margin:0">{legend}{pre}'
    return Picture(f"{figure}{'<wbr>'.join(made)}</pre></figure>", "|".join(pieces))


def _visible(piece: str) -> str:
    return html.escape(piece.replace(" ", "·").replace("\r", "␍").replace("\n", "↵"))


def chances(values: Mapping[str, float], *, alt: str, notes: Mapping[str, str] = {}, form: str = "{:.1%}") -> Picture:
    """Return one bar per piece of text with its probability, true to scale; a note outlines a bar and says why."""
    bars, lines = [], []
    for piece, value in values.items():
        style = f"display:inline-block;height:.8em;width:{max(60 * value, 0.2):.1f}%;background:{COLOURS[0]}"
        style += f";outline:2px solid {COLOURS[3]}" if piece in notes else ""
        words = f"{form.format(value)} {language.text(notes.get(piece, ''))}".rstrip()
        bars.append(f'<code>{_visible(piece)}</code><span><span style="{style}"></span> {html.escape(words)}</span>')
        lines.append(f"{piece!r:<16} {words}")
    grid = "display:grid;grid-template-columns:max-content 1fr;gap:2px 8px"
    group = f'<div role="group" aria-label="{_told(alt)}" style="{grid}">{"".join(bars)}</div>'
    return Picture(group, "\n".join(lines))


def stack(pictures: Mapping[str, Picture], *, alt: str) -> Picture:
    """Return pictures one below another, each under its title."""
    parts = (f'<div style="margin:.7em 0 .2em">{_told(name)}</div>{p.html}' for name, p in pictures.items())
    joined = f'<div role="group" aria-label="{_told(alt)}">{"".join(parts)}</div>'
    return Picture(joined, "\n\n".join(f"{name}\n{picture.text}" for name, picture in pictures.items()))


def frames(pages: Mapping[str, Picture], *, label: str, alt: str, start: int = 0) -> Picture:
    """Return pages with a slider that chooses one by its name; without scripts, page number `start` is there."""
    names, bodies = list(map(_told, pages)), [page.html for page in pages.values()]
    root = "frames-" + hashlib.sha256("".join([label, *names, *bodies]).encode()).hexdigest()[:12]
    stored = (f'<template data-name="{name}">{body}</template>' for name, body in zip(names, bodies, strict=True))
    shown = f"""<div id="{root}" role="group" aria-label="{_told(alt)}">
<label>{_told(label)}: <input type="range" min="0" max="{len(names) - 1}" value="{start}" hidden></label>
<output>{names[start]}</output><div>{bodies[start]}</div>{"".join(stored)}</div>
<script>(() => {{
  const root = document.getElementById("{root}"), [input, output] = root.querySelectorAll("input, output");
  const pages = root.querySelectorAll(":scope > template");
  input.hidden = false;
  input.oninput = () => {{
    output.textContent = pages[input.value].dataset.name;
    root.querySelector(":scope > div").replaceChildren(pages[input.value].content.cloneNode(true));
  }};
}})();</script>"""
    return Picture(shown, "\n\n".join(f"{label}: {name}\n{page.text}" for name, page in pages.items()))


def widget(name: str, data: Any, *, still: Picture, alt: str) -> Picture:
    """Return the page `widgets/<name>.html`, which computes in the browser; without scripts, `still` is there.

    Its texts stand in [[double brackets]] and are translated; `{part}` in one is a place that the script fills.
    """
    page = (Path(__file__).parent / "widgets" / f"{name}.html").read_text(encoding="utf-8")
    page = PAGE_TEXT.sub(lambda found: re.sub(r"\{(\w+)\}", r'<b data-part="\1"></b>', _told(found[1])), page)
    text = json.dumps(data).replace("<", "\\u003c")  # no data can end the script
    root = f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    for mark, value in {"@root@": root, "@alt@": _told(alt), "@still@": still.html, "@data@": text}.items():
        page = page.replace(mark, value)
    return Picture(page, f"{alt}\n{still.text}")


def _told(text: str) -> str:
    return escaped(language.text(text))


def escaped(text: str) -> str:
    """Return a text as it stands in HTML and its attributes.

    A page's reader would turn a carriage return into a line feed, and a zero character into nothing.
    """
    return html.escape(text, quote=True).replace("\r", "&#13;").replace("\0", "\N{SYMBOL FOR NULL}")
