"""Figures: shown as images with alternative text, labelled axes."""

import base64
import struct

import pytest
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output

from course_utils import plots

DRAW = {
    "lines": lambda alt: plots.lines(
        {"a": ([1, 2], [3, 4]), "b": ([1, 2], [4, 3])}, x="x", y="y", alt=alt, band=([1, 2], [2, 3], [4, 5], "r")
    ),
    "log": lambda alt: plots.lines({"a": ([1, 10], [3, 4])}, x="tokens", y="loss", alt=alt, log_x=True, log_y=True),
    "losses": lambda alt: plots.plot_losses([0, 0.5, 1], [0, 50, 100], [3, 2, 1], [3, 2.5, 2], alt=alt),
    "bars": lambda alt: plots.bars({"128": 2.1, "256": 4.2}, x="context (tokens)", y="lost (%)", alt=alt),
    "groups": lambda alt: plots.bars({"128": {"a": 2, "b": 1}, "256": {"a": 3, "b": 1}}, x="x", y="y", alt=alt),
    "ranking": lambda alt: plots.ranking({"MIT": 10, "BSD-3-Clause": 20}, x="files", alt=alt),
    "histogram": lambda alt: plots.histogram([1, 2, 3, 100, 0], x="tokens", y="files", alt=alt, log_x=True),
    "heatmap": lambda alt: plots.heatmap([[1.0, 0.0], [0.3, 0.7]], x="seen", y="seeing", alt=alt),
    "flow": lambda alt: plots.flow(["code", "tokens", "model"], highlight=["tokens"], alt=alt),
}


@pytest.fixture(autouse=True)
def _shell():
    """Display needs a shell, as a notebook has."""
    InteractiveShell.instance()
    yield
    InteractiveShell.clear_instance()


@pytest.mark.parametrize("draw", DRAW.values(), ids=DRAW)
def test_figure_is_a_real_picture_with_alternative_text(draw):
    with capture_output() as captured:
        draw('rises "steeply" & falls')
    (output,) = captured.outputs
    assert 'alt="rises &quot;steeply&quot; &amp; falls"' in output.data["text/html"]
    png = base64.b64decode(output.data["text/html"].split("base64,")[1].split('"')[0])
    width, height = struct.unpack(">II", png[16:24])
    assert png.startswith(b"\x89PNG")
    assert width > 300
    assert height > 60
    assert "steeply" in output.data["text/plain"]


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: plots.lines({str(i): ([1], [2]) for i in range(8)}, x="x", y="y", alt="a"), "8 series, .* 7 colours"),
        (lambda: plots.bars({"a": {str(i): 1 for i in range(8)}}, x="x", y="y", alt="a"), "8 series, .* 7 colours"),
        (lambda: plots.bars({}, x="x", y="y", alt="a"), "no values"),
        (lambda: plots.bars({"a": {}}, x="x", y="y", alt="a"), "no values"),
    ],
)
def test_no_series_is_left_out(draw, message):
    with pytest.raises(ValueError, match=message):
        draw()


@pytest.mark.parametrize("draw", DRAW.values(), ids=DRAW)
def test_no_figure_without_alternative_text(draw):
    with pytest.raises(ValueError, match="alternative text"):
        draw(" ")
