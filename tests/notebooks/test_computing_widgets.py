"""The widgets that compute in the browser give the numbers that Python gives, and are pictures without a script."""

import math
import re

import pytest
import torch
from bs4 import BeautifulSoup
from selenium.webdriver.common.by import By

from course_utils import plots
from course_utils.evaluation.code_eval import estimate_pass_at_k
from course_utils.models.decoding import next_token_probabilities

LOGITS = [round(3 - 0.15 * i - 0.4 * (i % 3), 3) for i in range(30)]
STILL = plots.Picture('<img src="data:," alt="still">', "still")


@pytest.fixture
def page(window, tmp_path):
    """Return a function that opens a widget, and one that moves sliders by their names and reads what is shown."""

    def open_page(picture):
        (tmp_path / "page.html").write_text(f'<meta charset="utf-8">{picture.html}', encoding="utf-8")
        window.get((tmp_path / "page.html").as_uri())
        assert not window.find_elements(By.TAG_NAME, "img"), "the still picture is replaced"

    def move(**values):
        for name, value in values.items():
            script = "const input = document.getElementsByName(arguments[0])[0]; input.value = arguments[1];"
            window.execute_script(f"{script} input.oninput()", name, value)

    def read(name):
        return window.find_element(By.CSS_SELECTOR, f"[data-part={name}]").text

    return open_page, move, read


def decoding(logits):
    best = sorted(logits, reverse=True)
    data = {"logits": best, "names": [f"<{i}>" for i in range(5)]}
    return best, plots.widget("decoding", data, still=STILL, alt="Sliders & bars")


# What a slider stands at, and what it stands for.
SETTINGS = [
    ({}, {}),
    ({"temperature": 0.4}, {"temperature": 0.4}),
    ({"temperature": 0}, {"temperature": 0.0}),
    ({"temperature": 2, "top_k": 5}, {"temperature": 2.0, "top_k": 8}),
    ({"top_p": 0.9}, {"top_p": 0.9}),
    ({"temperature": 1.5, "top_k": 6, "top_p": 0.55}, {"temperature": 1.5, "top_k": 12, "top_p": 0.55}),
]


@pytest.mark.parametrize(("sliders", "options"), SETTINGS)
def test_every_slider_of_decoding_gives_the_probabilities_of_python(page, sliders, options):
    open_page, move, read = page
    best, picture = decoding(LOGITS)
    open_page(picture)
    before = read("bars")
    move(**sliders)
    (expected,) = next_token_probabilities(torch.tensor([best]), **options)
    assert int(read("left")) == expected.count_nonzero()
    assert float(read("entropy")) == pytest.approx(torch.special.entr(expected).sum().item() / math.log(2), abs=0.006)
    shown = list(map(float, re.findall(r"([\d.]+) %", read("bars"))))
    assert shown == pytest.approx([*(100 * expected[:5]).tolist(), 100 * expected[5:].sum().item()], abs=0.06)
    assert (read("bars") != before) is bool(sliders)


COUNTS = [(10, 3, 5), (10, 0, 5), (10, 10, 1), (100, 7, 20), (20, 15, 6), (1, 1, 1)]


@pytest.mark.parametrize(("n", "c", "k"), COUNTS)
def test_every_slider_of_pass_at_k_gives_the_estimate_of_python(page, n, c, k):
    open_page, move, read = page
    open_page(plots.widget("pass_at_k", {"n": 12, "c": 4, "k": 2}, still=STILL, alt="Curves"))
    assert float(read("unbiased")) == pytest.approx(estimate_pass_at_k(12, 4, 2), abs=6e-4)
    move(n=n, c=c, k=k)
    assert float(read("unbiased")) == pytest.approx(estimate_pass_at_k(n, c, k), abs=6e-4)
    assert float(read("simple")) == pytest.approx(1 - (1 - c / n) ** k, abs=6e-4)
    move(n=1)  # neither more right ones nor more tries than drawn
    assert read("unbiased") == ("1.000" if c else "0.000")


def test_without_scripts_the_still_picture_and_its_text_are_there():
    logits, picture = decoding([1.0, 0.5])
    page = BeautifulSoup(picture.html, "html.parser")
    assert page.div["aria-label"] == "Sliders & bars"
    assert page.find("img")["alt"] == "still"
    assert page.find(attrs={"data-part": "live"}).has_attr("hidden")
    assert "http" not in picture.html
    assert picture.text == "Sliders & bars\nstill"
    hostile = plots.widget("decoding", {"logits": logits, "names": ["</script><i>"]}, still=STILL, alt="x").html
    assert not BeautifulSoup(hostile, "html.parser").find("i")
