"""Figures: shown as images with alternative text; curves that differ; pictures of pieces, rows and pages."""

import base64

import pytest
from bs4 import BeautifulSoup
from IPython.core.formatters import DisplayFormatter

from course_utils import plots

XY = {"x": "x", "y": "y"}
SEVEN = {str(i): ([1, 10], [3, 4]) for i in range(7)}
DRAW = {
    "lines": lambda alt: plots.lines(SEVEN, **XY, alt=alt, band=([1, 2], [2, 3], [4, 5], "r"), log_x=True, log_y=True),
    "diagonal": lambda alt: plots.lines({"a": ([0, 1], [0, 1], [9, 90])}, **XY, alt=alt, diagonal="equal"),
    "losses": lambda alt: plots.plot_losses([0, 0.5, 1], [0, 50, 100], [3, 2, 1], [3, 2.5, 2], alt=alt),
    "bars": lambda alt: plots.bars({"128": 2.1, "256": 4.2}, **XY, alt=alt),
    "groups": lambda alt: plots.bars({"128": {"a": 2, "b": 1}, "256": {"a": 3, "b": 1}}, **XY, alt=alt),
    "ranking": lambda alt: plots.ranking({"MIT": 10, "BSD-3-Clause": 20}, x="files", alt=alt),
    "intervals": lambda alt: plots.ranking({"a": 1, "b": 2}, x="x", alt=alt, intervals={"b": (1, 3)}, mark=0.5),
    "histogram": lambda alt: plots.histogram([1, 2, 3, 100, 0], **XY, alt=alt, marks=[10]),
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


GROUPS = {"0": [0.0, 0.1, 1.0], "1": [0.9]}
NODES = {"a": (0, 0, "start"), "b": (1, 0, ""), "c": (1, 1, "end")}
EDGES = [("a", "b", "-0.5", "arrow"), ("a", "b", "", "kept"), ("a", "c", "x", "dropped"), ("a", "c", "", "dotted")]
CELLS = {"values": [[1.0, float("nan")], [0.3, 0.7]], "names": ["$a", "\n"]} | XY
PICTURES = {
    "distributions": lambda alt: plots.distributions(GROUPS, **XY, cut=0.5, limits=(0, 1), alt=alt),
    "graph": lambda alt: plots.graph(NODES, EDGES, alt=alt),
    "grid": lambda alt: plots.grid(**CELLS, alt=alt),
    "grid of tokens": lambda alt: plots.grid(**CELLS, numbers=False, alt=alt),
}


@pytest.mark.parametrize("draw", PICTURES.values(), ids=PICTURES)
def test_picture_to_combine_has_alternative_text(draw):
    picture = draw("two <ends>")
    assert 'alt="two &lt;ends&gt;"' in picture.html
    assert picture.text == "[figure: two <ends>]"


def test_pictures_of_probabilities_stand_one_below_another_and_as_text():
    bars = plots.chances({" plt": 0.5, "<b>\n": 0.001}, notes={"<b>\n": "true"}, alt="two bars")
    both = plots.stack({"before": plots.spans(["a", " b"], alt="two tokens"), "next": bars}, alt='"both"')
    assert both.text == "before\na| b\n\nnext\n' plt'           50.0%\n'<b>\\n'          0.1% true"
    assert all(part in both.html for part in ("·plt", "&lt;b&gt;↵", "width:30.0%", "outline", "&quot;both&quot;"))
    assert both.html.count("outline") == 1


def parsed(picture):
    return BeautifulSoup(picture.html, "html.parser")


def fills(picture):
    return [span["style"].split("background:")[1].split(";color")[0] for span in parsed(picture)("span")]


def test_pieces_show_white_space_and_keep_their_text():
    pieces = ["if", " a<b", ":", "\r\n   ", ' "&"']
    picture = plots.spans(pieces, alt='five "tokens"', titles=["1", "2", "3", '"4"', "5"], legend="<b>key</b>")
    assert picture.text == 'if| a<b|:|\r\n   | "&"'
    page = parsed(picture)
    assert [span.get_text() for span in page("span")] == ["if", "·a<b", ":", "␍↵\n···", '·"&"']
    assert page.pre.get_text() == 'if·a<b:␍↵\n····"&"'  # a real line end follows the visible one
    assert [span["title"] for span in page("span")] == ["1", "2", "3", '"4"', "5"]
    assert (page.figure["aria-label"], page.b.get_text()) == ('five "tokens"', "key")
    assert DisplayFormatter().format(picture)[0] == {"text/html": picture.html, "text/plain": picture.text}


def test_pieces_are_tinted_in_turn_or_by_their_kind():
    assert fills(plots.spans("abc", alt="x")) == [plots.TINTS[1], plots.TINTS[3], plots.TINTS[1]]
    assert fills(plots.spans("abc", kinds=(0, "hatched", "#abc"), alt="x")) == [plots.TINTS[0], plots.HATCHED, "#abc"]
    assert all(int(tint[place : place + 2], 16) > 0xB0 for tint in plots.TINTS for place in (1, 3, 5))  # for dark text
    with pytest.raises(ValueError):
        plots.spans("abc", kinds=[1], alt="x")


def test_strips_are_true_to_scale_with_cuts_and_a_legend(monkeypatch):
    figures = []
    monkeypatch.setattr(plots, "_image", lambda figure, alt: figures.append(figure) or alt)
    rows = {"a": [(100, 1), (1, "end"), (60, 2, "b")], "b": [(44, "hatched")]}
    picture = plots.strips(rows, x="tokens", alt="two rows", cuts=64, legend={1: "kept", "hatched": "lost"})
    assert picture == plots.Picture("two rows", "[figure: two rows]")
    (axes,) = figures[0].axes
    bars = [(bar.get_x(), bar.get_width(), round(bar.get_y() + bar.get_height() / 2)) for bar in axes.patches]
    assert bars == [(0, 100, 0), (100, 1, 0), (101, 60, 0), (0, 44, 1)]
    assert [line.get_xdata()[0] for line in axes.lines] == [64, 128]
    assert [text.get_text() for text in (*axes.texts, *axes.get_legend().get_texts())] == ["b", "kept", "lost"]
    assert [bar.get_hatch() for bar in axes.patches] == [None, None, None, "////"]
    assert axes.yaxis_inverted()  # the first row on top
    monkeypatch.undo()
    assert 'alt="two &quot;rows&quot;"' in plots.strips(rows, x="tokens", alt='two "rows"').html


def test_frames_hold_every_page_and_show_one():
    pages = {f"{n} <merges>": plots.spans(["x"] * n, alt=f"{n} tokens") for n in (1, 2, 3)}
    picture = plots.frames(pages, label='the "number"', alt='pages "1" to 3', start=2)
    assert picture.text == "\n\n".join(f'the "number": {name}\n{page.text}' for name, page in pages.items())
    root = parsed(picture).div
    assert (root["aria-label"], root.output.get_text()) == ('pages "1" to 3', "3 <merges>")
    assert [template["data-name"] for template in root("template")] == list(pages)
    assert (root.input["max"], root.input["value"], root.input.has_attr("hidden")) == ("2", "2", True)
    assert len(root.find("div")("span")) == 3
    assert picture.html.count("http") == 0
    again, other = (plots.frames(pages, label=label, alt="x") for label in ('the "number"', "another"))
    assert parsed(again).div["id"] == root["id"] != parsed(other).div["id"]
