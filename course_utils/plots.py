"""The few kinds of figure the course draws: labelled, colour-blind safe, with alternative text.

Charts are shown at once. Pictures (`strips`, `grid`, `graph`, and those of `pictures`) are returned; a cell shows the
one it ends with.
"""

import base64
import io
from collections.abc import Hashable, Mapping, Sequence
from functools import reduce

import numpy as np
from IPython.display import display
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, NullLocator

from course_utils import language
from course_utils.pictures import (  # noqa: F401  (notebooks take the pictures from here, too)
    COLOURS,
    HATCHED,
    TINTS,
    Picture,
    chances,
    escaped,
    frames,
    spans,
    stack,
    widget,
)

MARKERS = ("o", "s", "^", "D", "v", "P", "X")

Curves = Mapping[str, tuple[Sequence[float], ...]]


def lines(
    series: Curves, *, x: str, y: str, alt: str, band: tuple | None = None, diagonal="", log_x=False, log_y=False,
    first: int = 0,
) -> None:  # fmt: skip
    """Draw up to seven named curves, each (x values, y values) or (x values, y values, sizes of the points).

    `band` is (x, low, high, name), shaded behind them; `diagonal` names a dashed line where y is x; colors and markers
    begin with number `first`.
    """
    figure, axes = _axes(x, y)
    if diagonal:
        axes.plot([0, 1], [0, 1], "--", color="0.6", label=diagonal)
    if band is not None:
        axes.fill_between(*band[:3], color="0.85", label=band[3])
    _draw(axes, series, first)
    axes.set_xscale("log" if log_x else "linear")
    axes.set_yscale("log" if log_y else "linear")
    places = sorted({float(place) for curve in series.values() for place in curve[0]})
    few = log_x and len(places) < 10 and all(len(curve[0]) > 1 for curve in series.values())
    if few:  # their own numbers, as far as there is room
        shown = reduce(lambda kept, place: [*kept, place] if place >= 1.5 * kept[-1] else kept, places, places[:1])
        axes.set_xticks(shown, [f"{place:,.0f}" if place >= 10 else f"{place:.2g}" for place in shown])
        axes.xaxis.set_minor_locator(NullLocator())
    for axis, log in ((axes.xaxis, log_x and not few), (axes.yaxis, log_y)):
        lowest, highest = axis.get_view_interval()
        if log and highest < 10 * lowest:  # less than a power of ten: plain numbers read better than powers
            axis.set(major_locator=MaxNLocator(5), minor_locator=NullLocator(), major_formatter="{x:g}")
        elif log and lowest > 1e-3 and highest < 1e7:
            subs = (1, 3) if highest < 300 * lowest else (1,)
            axis.set(major_locator=LogLocator(subs=subs), major_formatter=_plain, minor_formatter=NullFormatter())
    if not log_x and places[-1] < 20 and all(map(float.is_integer, places)):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _show(figure, alt)


def plot_losses(
    epochs_seen, tokens_seen, train_losses, val_losses, *, alt="Training and validation loss over epochs."
) -> None:
    """Draw training and validation loss over epochs, at their true places, with a second axis for tokens."""
    epochs_seen = [float(epochs) for epochs in epochs_seen]  # of a tensor, too
    figure, axes = _axes("epochs", "loss (nats per token)")
    _draw(axes, {"training": (epochs_seen, train_losses), "validation": (epochs_seen, val_losses)})
    # Every pass over the data has as many tokens as the last one, so tokens are epochs times a number.
    tokens_per_epoch = tokens_seen[-1] / epochs_seen[-1]
    above = axes.secondary_xaxis("top", (lambda epochs: epochs * tokens_per_epoch, lambda t: t / tokens_per_epoch))
    above.set_xlabel("tokens seen")
    above.xaxis.set_major_formatter("{x:,.0f}")
    _show(figure, alt)


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


def ranking(
    values: Mapping[str, float], *, x: str, alt: str, form: str = "{:,.0f}", intervals: Mapping = {}, mark: float = 0.0
) -> None:
    """Draw horizontal bars, one per name, the first name on top: for long names.

    `intervals` holds (low, high) by name, drawn as a line across the bar's end; `mark` is a dashed line.
    """
    figure, axes = _axes(x, "", height=0.8 + 0.28 * len(values))
    drawn = axes.barh(range(len(values)), list(values.values()), color=COLOURS[5] if intervals else COLOURS[0])
    axes.bar_label(drawn, fmt=form, fontsize=8, padding=2, label_type="center" if intervals else "edge")
    for place, name in enumerate(values):
        if name in intervals:
            axes.plot(intervals[name], [place] * 2, color="black", marker="|", linewidth=1)
    if mark:
        axes.axvline(mark, color=COLOURS[3], linestyle="--")
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
        axes.annotate(f"{mark:,g}", (mark, 1), (3, -9), xycoords=("data", "axes fraction"), textcoords="offset points")
    axes.set_xscale("log")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    _show(figure, alt)


def distributions(
    groups: Mapping[str, Sequence[float]], *, x: str, y: str, alt: str, cut: float, limits: tuple | None = None
) -> Picture:
    """Return one histogram per group, one below another with the same bins, and a dashed line at `cut`."""
    figure = Figure(figsize=(7, 0.6 + 1.3 * len(groups)), layout="constrained")
    bins = np.histogram_bin_edges(np.concatenate([*groups.values()]), 24, limits)
    rows = figure.subplots(len(groups), sharex=True, sharey=True, squeeze=False)[:, 0]
    for axes, color, (name, values) in zip(rows, COLOURS, groups.items(), strict=False):
        axes.hist(values, bins, color=color)
        axes.axvline(cut, color=COLOURS[3], linestyle="--")
        axes.set_title(name, loc="left", fontsize=9)
        axes.set_ylabel(y)
        axes.spines[["top", "right"]].set_visible(False)
    rows[-1].set_xlabel(x)
    return Picture(_image(figure, alt), f"[figure: {language.text(alt)}]")


def strips(
    rows: Mapping[str, Sequence[tuple]], *, x: str, alt: str, legend: Mapping[int | str, str] = {}, cuts: int = 0
) -> Picture:
    """Return rows of segments, true to scale; a segment is (width, kind) or (width, kind, text).

    A kind is a number in `TINTS`, "hatched", or "end" for a black bar; `legend` names kinds; dashed lines mark the
    multiples of `cuts`.
    """
    drawn = {segment[1] for row in rows.values() for segment in row}
    legend = {kind: name for kind, name in legend.items() if kind in drawn}
    columns = len(legend) if len("".join(legend.values())) < 40 else 3
    figure, axes = _axes(x, "", height=0.75 + 0.34 * len(rows) + 0.3 * -(-len(legend) // max(1, columns)))
    longest = max(sum(segment[0] for segment in row) for row in rows.values())
    for place, row in enumerate(rows.values()):
        start = 0.0
        for width, kind, *text in row:
            color, line = ("black", 1.5) if kind == "end" else ("#666666", 0.5)  # an end stays visible in a long row
            axes.barh(place, width, left=start, height=0.7, linewidth=line, edgecolor=color, **_fill(kind))
            if text:
                style = {"color": "white" if kind == "end" else "black", "fontsize": 8}
                style |= {"bbox": {"facecolor": "white", "edgecolor": "none", "pad": 1}} if kind == "hatched" else {}
                axes.text(start + width / 2, place, text[0], ha="center", va="center", **style)
            start += width
    for cut in np.arange(cuts, longest + 1, cuts) if cuts else ():
        axes.axvline(cut, color=COLOURS[3], linewidth=1, linestyle="--")
    axes.set_yticks(range(len(rows)), list(rows))
    axes.set(xlim=(0, longest * 1.01), ylim=(len(rows) - 0.5, -0.5))  # the first row on top
    if longest <= 12 and not cuts and all(segment[0] == 1 for row in rows.values() for segment in row):
        axes.set_xticks([])  # single squares: the axis would number their edges
    if legend:
        patches = [Patch(label=name, edgecolor="#666666", **_fill(kind)) for kind, name in legend.items()]
        axes.legend(handles=patches, frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=columns)
    return Picture(_image(figure, alt), f"[figure: {language.text(alt)}]")


def _fill(kind: int | str) -> dict[str, str]:
    if kind == "hatched":
        return {"facecolor": "white", "hatch": "////"}
    return {"facecolor": "black" if kind == "end" else TINTS[kind]}


def grid(
    values: Sequence[Sequence[float]], *, x: str, y: str, alt: str, names: Sequence[str] = (), numbers: bool = True
) -> Picture:
    """Return a table of numbers between 0 and 1 as shaded cells, row 0 on top; NaN is gray.

    `names` stand at rows and columns; without `numbers` in the cells these are small enough for a line of tokens.
    """
    figure, axes = _axes(x, y, height=0.9 + (0.42 if numbers else 0.15) * len(values))
    axes.set_facecolor("0.85")
    axes.imshow(np.ma.masked_invalid(values), cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for (row, column), value in np.ndenumerate(values) if numbers else ():
        style = {"ha": "center", "va": "center", "fontsize": 8, "color": "white" if value > 0.6 else "black"}
        axes.text(column, row, "" if np.isnan(value) else f"{value:.2f}", **style)
    small = {} if numbers else {"fontsize": 7, "family": "monospace"}
    # A line end becomes visible, and a dollar begins no formula.
    labels = [repr(name)[1:-1].replace("$", r"\$") for name in names] or list(map(str, range(len(values))))
    axes.set_xticks(range(len(labels)), labels, rotation=0 if numbers else 90, **small)
    axes.set_yticks(range(len(labels)), labels, **small)
    return Picture(_image(figure, alt), f"[figure: {language.text(alt)}]")


# The lines of a graph, by kind.
_LINES = {
    "arrow": {"arrowstyle": "->", "color": COLOURS[0]},
    "kept": {"arrowstyle": "-", "color": "#1a1a1a", "linewidth": 1.6},
    "dropped": {"arrowstyle": "-", "color": "#bbbbbb"},
    "dotted": {"arrowstyle": "-", "color": COLOURS[3], "linewidth": 2.4, "linestyle": ":"},
}


def graph(
    nodes: Mapping[Hashable, tuple[float, float, str]], edges: Sequence[tuple], *, alt: str, height: float = 3.4
) -> Picture:
    """Return texts in boxes, joined by lines; a node is (x, y downwards, text), an empty text is a bare point.

    An edge is (from, to, text, kind) with the kind "arrow", "kept", "dropped" or "dotted".
    """
    figure = Figure(figsize=(9, height), layout="constrained")
    axes = figure.subplots()
    axes.set_axis_off()
    box = {"boxstyle": "round,pad=0.25", "facecolor": "white", "edgecolor": "#999999"}
    for start, end, text, kind in edges:
        (x0, y0, _), (x1, y1, _) = nodes[start], nodes[end]
        axes.annotate("", (x1, y1), (x0, y0), arrowprops={"shrinkA": 0, "shrinkB": 0, **_LINES[kind]}, zorder=1)
        place = {"ha": "center", "va": "center", "bbox": {"facecolor": "white", "edgecolor": "none", "pad": 1}}
        axes.text(x0 + 0.55 * (x1 - x0), y0 + 0.55 * (y1 - y0), text, fontsize=7, zorder=2, **(place if text else {}))
    for x, y, text in nodes.values():
        axes.text(x, y, text, ha="center", va="center", fontsize=8, zorder=3, bbox=box if text else None)
    xs, ys, _ = zip(*nodes.values(), strict=True)
    axes.set(xlim=(min(xs) - 0.3, max(xs) + 0.3), ylim=(max(ys) + 0.5, min(ys) - 0.5))
    return Picture(_image(figure, alt), f"[figure: {language.text(alt)}]")


def _plain(number: float, place: int | None) -> str:
    return f"{number:,.0f}" if number >= 10 else f"{number:g}"


def _axes(x: str, y: str, height: float = 3.4):
    figure = Figure(figsize=(7, height), layout="constrained")
    axes = figure.subplots()
    axes.set(xlabel=x, ylabel=y)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _draw(axes, series: Curves, first: int = 0) -> None:
    axes.set_prop_cycle(color=(COLOURS * 2)[first : first + 7], marker=(MARKERS * 2)[first : first + 7])
    for name, (xs, ys, *sizes) in series.items():
        (curve,) = axes.plot(xs, ys, markersize=4 if len(xs) <= 40 else 0, label=name)  # many would be a rope
        for areas in sizes:
            axes.scatter(xs, ys, areas, color=curve.get_color(), marker=curve.get_marker())
    if len(axes.get_legend_handles_labels()[1]) > 1:
        axes.legend(frameon=False)


def _show(figure: Figure, alt: str) -> None:
    """Show a figure as an image element, since a plain PNG output has no place for alternative text."""
    display({"text/html": _image(figure, alt), "text/plain": f"[figure: {language.text(alt)}]"}, raw=True)


def _image(figure: Figure, alt: str) -> str:
    language.translate(figure)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    return f'<img src="data:image/png;base64,{data}" alt="{escaped(language.text(alt))}" style="max-width:100%">'
