"""Figures: shown as images with alternative text; curves that differ."""

import base64

import pytest

from course_utils import plots

XY = {"x": "x", "y": "y"}
SEVEN = {str(i): ([1, 10], [3, 4]) for i in range(7)}
DRAW = {
    "lines": lambda alt: plots.lines(SEVEN, **XY, alt=alt, band=([1, 2], [2, 3], [4, 5], "r"), log_x=True, log_y=True),
    "losses": lambda alt: plots.plot_losses([0, 0.5, 1], [0, 50, 100], [3, 2, 1], [3, 2.5, 2], alt=alt),
    "bars": lambda alt: plots.bars({"128": 2.1, "256": 4.2}, **XY, alt=alt),
    "groups": lambda alt: plots.bars({"128": {"a": 2, "b": 1}, "256": {"a": 3, "b": 1}}, **XY, alt=alt),
    "ranking": lambda alt: plots.ranking({"MIT": 10, "BSD-3-Clause": 20}, x="files", alt=alt),
    "histogram": lambda alt: plots.histogram([1, 2, 3, 100, 0], **XY, alt=alt),
    "flow": lambda alt: plots.flow(["code", "tokens", "model"], highlight=["tokens"], skips=[(0, 2)], alt=alt),
}


@pytest.mark.parametrize("draw", DRAW.values(), ids=DRAW)
def test_figure_is_a_real_picture_with_alternative_text(monkeypatch, draw):
    shown = []
    monkeypatch.setattr(plots, "display", lambda data, raw: shown.append(data))
    draw('rises "steeply" & falls')
    (output,) = shown
    assert 'alt="rises &quot;steeply&quot; &amp; falls"' in output["text/html"]
    assert "steeply" in output["text/plain"]
    assert base64.b64decode(output["text/html"].split("base64,")[1].split('"')[0]).startswith(b"\x89PNG")


def test_seven_curves_differ_in_colour_and_marker():
    _, axes = plots._axes("x", "y")
    plots._draw(axes, SEVEN)
    assert len({(line.get_color(), line.get_marker()) for line in axes.lines}) == 7


def test_grid_writes_numbers_and_leaves_hidden_cells_gray():
    values = [[1.0, float("nan")], [0.3, 0.7]]
    for numbers in (True, False):
        picture = plots.grid(values, **XY, names=["$a", "\n"], numbers=numbers, alt="two rows")
        assert 'alt="two rows"' in picture.html
        assert picture.text == "[figure: two rows]"
