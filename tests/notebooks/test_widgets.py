"""Pictures with a slider, as a browser shows them in an exported page: moved with the keyboard, and without scripts."""

import nbformat
import pytest
from nbconvert import HTMLExporter
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from course_utils import plots

PAGES = {"0 merges": ["p", "l", "t", "\n"], "1 <merge>": ["pl", "t", "\n"], '2 "merges"': ["plt", "\n"]}
BODIES = ["p l t ↵", "pl t ↵", "plt ↵"]


def widget(label):
    pages = {name: plots.spans(pieces, alt=name) for name, pieces in PAGES.items()}
    return plots.frames(pages, label=label, alt=f"{label} of `plt`", start=1)


@pytest.fixture
def page(window, tmp_path):
    """Return the address of an exported notebook with two pictures, in a window that loads nothing from elsewhere."""
    outputs = [
        nbformat.v4.new_output("execute_result", widget(label)._repr_mimebundle_(), execution_count=1)
        for label in ("merges", "the same merges")
    ]
    cells = [nbformat.v4.new_code_cell("plots.frames(…)", outputs=[output]) for output in outputs]
    html, _ = HTMLExporter().from_notebook_node(nbformat.v4.new_notebook(cells=cells))
    (tmp_path / "page.html").write_text(html, encoding="utf-8")
    window.execute_cdp_cmd("Network.enable", {})
    window.execute_cdp_cmd("Network.setBlockedURLs", {"urls": ["http://*", "https://*"]})
    yield (tmp_path / "page.html").as_uri()
    window.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})  # the next test has this window


def shown(window):
    """Return name and body of every picture with a slider, as a reader sees them."""
    found = []
    for root in window.find_elements(By.CSS_SELECTOR, "[id^=frames-]"):
        pieces = [piece.text for piece in root.find_elements(By.CSS_SELECTOR, "div > figure span")]
        found.append((root.find_element(By.TAG_NAME, "output").text, " ".join(pieces)))
    return found


def test_the_keyboard_moves_one_slider_to_another_page(window, page):
    window.get(page)
    first, second = window.find_elements(By.CSS_SELECTOR, "[id^=frames-] input")
    name, body = list(PAGES), BODIES
    assert shown(window) == [(name[1], body[1])] * 2
    for keys, place in ((Keys.ARROW_RIGHT, 2), (Keys.ARROW_RIGHT, 2), (Keys.HOME, 0), (Keys.END, 2)):
        first.send_keys(keys)
        assert shown(window) == [(name[place], body[place]), (name[1], body[1])]
    second.send_keys(Keys.ARROW_LEFT)
    assert shown(window) == [(name[2], body[2]), (name[0], body[0])]
    assert first.accessible_name == "merges:"


def test_without_scripts_the_start_page_is_complete(window, page):
    window.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    window.get(page)
    assert shown(window) == [(list(PAGES)[1], BODIES[1])] * 2
    for slider in window.find_elements(By.CSS_SELECTOR, "[id^=frames-] input"):
        assert not slider.is_displayed()  # nothing to move that would not answer
