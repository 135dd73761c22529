"""The few kinds of figure the course draws: labelled, colour-blind safe, with alternative text.

Charts are shown at once. Pictures (`spans`, `strips`, `frames`) are returned; a cell shows the one it ends with.
"""

import base64
import hashlib
import html
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from IPython.display import display
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from course_utils import language

# Okabe and Ito's palette, which people with any colour vision can tell apart.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")

# Fill of the cells and pieces of pictures, by kind: tints of the palette that dark text can stand on, and hatching.
TINTS = ("#ffffff", "#cfe3f3", "#fbe3b3", "#c9ecdf", "#f6d5bd", "#f3dce9", "#d9eefa", "#e4e4e4")
HATCHED = "repeating-linear-gradient(45deg,#fff,#fff 3px,#bbb 3px,#bbb 5px)"

Curves = Mapping[str, tuple[Sequence[float], Sequence[float]]]


def lines(series: Curves, *, x: str, y: str, alt: str, band: tuple | None = None, log_x=False, log_y=False) -> None:
    """Draw up to seven named curves, each (x values, y values); `band` is (x, low, high, name), shaded behind them."""
    figure, axes = _axes(x, y)
    if band is not None:
        axes.fill_between(*band[:3], color="0.85", label=band[3])
    _draw(axes, series)
    axes.set_xscale("log" if log_x else "linear")
    axes.set_yscale("log" if log_y else "linear")
    lowest, highest = axes.get_ylim()
    if log_y and highest < 10 * lowest:  # less than a power of ten: plain numbers read better than powers
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter("{x:g}")
    _show(figure, alt)


def plot_losses(
    epochs_seen, tokens_seen, train_losses, val_losses, *, alt="Training and validation loss over epochs."
) -> None:
    """Draw training and validation loss over epochs, at their true places, with a second axis for tokens."""
    _show(_losses_figure(epochs_seen, tokens_seen, train_losses, val_losses), alt)


def _losses_figure(epochs_seen, tokens_seen, train_losses, val_losses) -> Figure:
    epochs_seen = [float(epochs) for epochs in epochs_seen]  # of a tensor, too
    figure, axes = _axes("epochs", "loss (nats per token)")
    _draw(axes, {"training": (epochs_seen, train_losses), "validation": (epochs_seen, val_losses)})
    # Every pass over the data has as many tokens as the last one, so tokens are epochs times a number.
    tokens_per_epoch = tokens_seen[-1] / epochs_seen[-1]
    above = axes.secondary_xaxis("top", (lambda epochs: epochs * tokens_per_epoch, lambda t: t / tokens_per_epoch))
    above.set_xlabel("tokens seen")
    above.xaxis.set_major_formatter("{x:,.0f}")
    return figure


def bars(values: Mapping[str, float | Mapping[str, float]], *, x: str, y: str, alt: str, form: str = "{:.3g}") -> None:
    """Draw one bar per name, or one group of bars per name if the values are mappings; `form` labels the bars."""
    groups = {k: v if isinstance(v, Mapping) else {"": v} for k, v in values.items()}
    names = list(next(iter(groups.values())))
    figure, axes = _axes(x, y)
    width = 0.8 / len(names)
    for i, name in enumerate(names):
        places = [place + (i - (len(names) - 1) / 2) * width for place in range(len(groups))]
        drawn = axes.bar(places, [group[name] for group in groups.values()], width, color=COLOURS[i], label=name)
        axes.bar_label(drawn, fmt=form, fontsize=8, padding=1)
    axes.set_xticks(range(len(groups)), list(groups))
    if len(names) > 1:  # above the bars, which may fill the axes
        axes.legend(frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=len(names))
    _show(figure, alt)


def ranking(values: Mapping[str, float], *, x: str, alt: str, form: str = "{:,.0f}") -> None:
    """Draw horizontal bars, one per name, the first name on top: for long names."""
    figure, axes = _axes(x, "", height=0.8 + 0.28 * len(values))
    drawn = axes.barh(range(len(values)), list(values.values()), color=COLOURS[0])
    axes.bar_label(drawn, fmt=form, fontsize=8, padding=2)
    axes.set_yticks(range(len(values)), list(values))
    axes.invert_yaxis()
    axes.margins(x=0.15)
    _show(figure, alt)


def histogram(values: Sequence[float], *, x: str, y: str, alt: str, marks: Sequence[float] = ()) -> None:
    """Draw how often positive values occur, in bins equally wide on a logarithmic axis; `marks` are dashed lines."""
    figure, axes = _axes(x, y)
    values = [value for value in values if value > 0]
    axes.hist(values, bins=np.geomspace(min(values), max(values) + 1, 40), color=COLOURS[0])
    for mark in marks:
        axes.axvline(mark, color=COLOURS[3], linestyle="--")
    axes.set_xscale("log")
    _show(figure, alt)


def heatmap(values: Sequence[Sequence[float]], *, x: str, y: str, alt: str) -> None:
    """Draw a table of numbers between 0 and 1 as a grid, row 0 on top, the numbers written in it."""
    figure, axes = _axes(x, y, height=0.5 + 0.42 * len(values))
    axes.imshow(values, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        colour = "white" if value > 0.6 else "black"
        axes.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=8, color=colour)
    axes.set_xticks(range(len(values[0])))
    axes.set_yticks(range(len(values)))
    _show(figure, alt)


def flow(steps: Sequence[str], *, highlight: Sequence[str] = (), skips: Sequence[tuple] = (), alt: str) -> None:
    """Draw steps as a row of boxes joined by arrows, the highlighted ones filled; `skips` are arrows around steps."""
    figure = Figure(figsize=(min(11, 1.35 * len(steps)), 1.35 if skips else 0.95), layout="constrained")
    axes = figure.subplots()
    axes.set_axis_off()
    axes.set(xlim=(-0.5, len(steps) - 0.5), ylim=(-0.5, 0.5))
    for place, step in enumerate(steps):
        colour = COLOURS[5] if step in highlight else "white"
        box = {"boxstyle": "round,pad=0.5", "facecolor": colour, "edgecolor": COLOURS[0]}
        axes.text(place, 0, step, ha="center", va="center", fontsize=9, bbox=box)
        if place:
            arrow = {"arrowstyle": "->", "color": COLOURS[0], "shrinkA": 0, "shrinkB": 0}
            axes.annotate("", xy=(place - 0.42, 0), xytext=(place - 0.58, 0), arrowprops=arrow)
    for start, end in skips:
        bow = {"arrowstyle": "->", "color": COLOURS[3], "connectionstyle": "arc3,rad=-0.12"}
        axes.annotate("", xy=(end, 0.17), xytext=(start, 0.17), arrowprops=bow)
    _show(figure, alt)


@dataclass(frozen=True)
class Picture:
    """Something to look at, as HTML for a notebook and as text for a terminal."""

    html: str
    text: str

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict[str, str]:
        return {"text/html": self.html, "text/plain": self.text}


def spans(
    pieces: Sequence[str], *, alt: str, kinds: Sequence[int | str] = (), titles: Sequence[str] = (), legend: str = ""
) -> Picture:
    """Return pieces of text side by side, each with a border; spaces and line ends become visible.

    `kinds` gives each its number in `TINTS`, "hatched" or a CSS color (without: two tints in turn); `titles` appear
    under the mouse; `legend` is HTML above.
    """
    kinds = kinds or [1 + 2 * (place % 2) for place in range(len(pieces))]
    made = []
    for place, (piece, kind) in enumerate(zip(pieces, kinds, strict=True)):
        fill = HATCHED if kind == "hatched" else TINTS[kind] if isinstance(kind, int) else kind
        title = f' title="{_escaped(titles[place])}"' if titles else ""
        style = f"background:{fill};color:#1a1a1a;border:1px solid #999;border-radius:3px;padding:0 1px"
        made.append(f'<span style="{style}"{title}>{_visible(piece)}</span>' + "\n" * piece.count("\n"))
    style = "white-space:pre-wrap;overflow-wrap:anywhere;font-family:monospace;line-height:1.7;margin:0;color:inherit"
    pre = f'<pre style="{style}">'
    figure = f'<figure role="group" aria-label="{_escaped(alt)}" style="margin:0">{legend}{pre}'
    return Picture(f"{figure}{''.join(made)}</pre></figure>", "|".join(pieces))


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
    group = f'<div role="group" aria-label="{_escaped(alt)}" style="{grid}">{"".join(bars)}</div>'
    return Picture(group, "\n".join(lines))


def stack(pictures: Mapping[str, Picture], *, alt: str) -> Picture:
    """Return pictures one below another, each under its title."""
    parts = (f'<div style="margin:.7em 0 .2em">{_escaped(name)}</div>{p.html}' for name, p in pictures.items())
    joined = f'<div role="group" aria-label="{_escaped(alt)}">{"".join(parts)}</div>'
    return Picture(joined, "\n\n".join(f"{name}\n{picture.text}" for name, picture in pictures.items()))


def strips(
    rows: Mapping[str, Sequence[tuple]], *, x: str, alt: str, legend: Mapping[int | str, str] = {}, cuts: int = 0
) -> Picture:
    """Return rows of segments, true to scale; a segment is (width, kind) or (width, kind, text).

    A kind is a number in `TINTS`, "hatched", or "end" for a black bar; `legend` names kinds; dashed lines mark the
    multiples of `cuts`.
    """
    figure, axes = _axes(x, "", height=0.75 + 0.34 * len(rows) + 0.3 * -(-len(legend) // 3))
    longest = max(sum(segment[0] for segment in row) for row in rows.values())
    for place, row in enumerate(rows.values()):
        start = 0.0
        for width, kind, *text in row:
            color, line = ("black", 1.5) if kind == "end" else ("#666666", 0.5)  # an end stays visible in a long row
            axes.barh(place, width, left=start, height=0.7, linewidth=line, edgecolor=color, **_fill(kind))
            if text:
                axes.text(start + width / 2, place, text[0], ha="center", va="center", fontsize=8)
            start += width
    for cut in np.arange(cuts, longest + 1, cuts) if cuts else ():
        axes.axvline(cut, color=COLOURS[3], linewidth=1, linestyle="--")
    axes.set_yticks(range(len(rows)), list(rows))
    axes.set(xlim=(0, longest * 1.01), ylim=(len(rows) - 0.5, -0.5))  # the first row on top
    if legend:
        patches = [Patch(label=name, edgecolor="#666666", **_fill(kind)) for kind, name in legend.items()]
        axes.legend(handles=patches, frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=min(len(patches), 3))
    return Picture(_image(figure, alt), f"[figure: {language.text(alt)}]")


def _fill(kind: int | str) -> dict[str, str]:
    if kind == "hatched":
        return {"facecolor": "white", "hatch": "////"}
    return {"facecolor": "black" if kind == "end" else TINTS[kind]}


def frames(pages: Mapping[str, Picture], *, label: str, alt: str, start: int = 0) -> Picture:
    """Return pages with a slider that chooses one by its name; without scripts, page number `start` is there."""
    names, bodies = list(map(_escaped, pages)), [page.html for page in pages.values()]
    root = "frames-" + hashlib.sha256("".join([label, *names, *bodies]).encode()).hexdigest()[:12]
    stored = (f'<template data-name="{name}">{body}</template>' for name, body in zip(names, bodies, strict=True))
    shown = f"""<div id="{root}" role="group" aria-label="{_escaped(alt)}">
<label>{_escaped(label)}: <input type="range" min="0" max="{len(names) - 1}" value="{start}" hidden></label>
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


def _escaped(text: str) -> str:
    return html.escape(language.text(text), quote=True)


def _axes(x: str, y: str, height: float = 3.4):
    figure = Figure(figsize=(7, height), layout="constrained")
    axes = figure.subplots()
    axes.set(xlabel=x, ylabel=y)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _draw(axes, series: Curves) -> None:
    axes.set_prop_cycle(color=COLOURS, marker=MARKERS)
    for name, (xs, ys) in series.items():
        axes.plot(xs, ys, markersize=4, label=name)
    axes.legend(frameon=False)


def _show(figure: Figure, alt: str) -> None:
    """Show a figure as an image element, since a plain PNG output has no place for alternative text."""
    display({"text/html": _image(figure, alt), "text/plain": f"[figure: {language.text(alt)}]"}, raw=True)


def _image(figure: Figure, alt: str) -> str:
    language.translate(figure)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    return f'<img src="data:image/png;base64,{data}" alt="{_escaped(alt)}" style="max-width:100%">'
