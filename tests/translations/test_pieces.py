"""Only text is cut out, and everything else is put back byte by byte."""

from pathlib import Path

import pytest

from translations import sources
from translations.segments import comment_pieces, markdown_pieces, replaced


@pytest.mark.parametrize("path", sources.notebooks().values(), ids=sources.notebooks())
def test_a_translation_that_is_the_english_changes_no_byte(path):
    for cell in sources.read_notebook(path)["cells"]:
        assert replaced(cell["source"], sources.pieces_of(cell), lambda text: text) == cell["source"], cell["id"]


def test_pages_survive_the_round_trip():
    for page in (sources.readme(), Path("CONTRIBUTING.md").read_text(encoding="utf-8")):
        assert replaced(page, markdown_pieces(page), lambda text: text) == page


MARKDOWN = {
    "# A title #\n\nText": ["A title", "Text"],
    "Setext title\n===\n\nMore": ["Setext title", "More"],
    "Two\nlines": ["Two\nlines"],
    "> quoted\n> twice\n\n> - item\n>   more": ["quoted\ntwice", "item\nmore"],
    "1. one thing\n2. two\n   - inner\n\n     second paragraph": ["one thing", "two", "inner", "second paragraph"],
    "| name | what |\n|---|:-:|\n| `x` | one \\| other |\n| | 3 |": ["name", "what", "one \\| other"],
    "| same | same |\n| --- | --- |\n| same | x |": ["same", "same", "same"],
    "```python\n# no text\n```\n\n    indented code": [],
    "$$\nx = \\text{loss}\n$$": [],
    "<details>\n<summary>If you know it</summary>\n\n- a point\n\n</details>": ["If you know it", "a point"],
    "<img src='x.png' alt=\"A curve\">": ["A curve"],
    "![A curve](x.png)": ["![A curve](x.png)"],
    "[![Open in Colab](https://x.org/b.svg)](https://x.org)": [],
    "`only_code`": [],
    "[01_data](01_data.ipynb)": [],
    "Hard  \nbreak\\\nhere": ["Hard  \nbreak\\\nhere"],
    "[ref]: https://x.org\n\nSee [it][ref].": ["See [it][ref]."],
    "- [ ] to do": ["[ ] to do"],
    "***\n\ntext  ": ["text"],
}


@pytest.mark.parametrize(("source", "texts"), MARKDOWN.items())
def test_markdown_is_cut_into_blocks(source, texts):
    pieces = markdown_pieces(source)
    assert [piece.text for piece in pieces] == texts
    assert replaced(source, pieces, lambda text: text) == source
    assert replaced(source, pieces, lambda text: None) == source


CODE = {
    "# one line\nx = 1": ["one line"],
    "# two\n# lines here\nx = 1": ["two\nlines here"],
    "x = 1  # after code\n# alone here": ["after code", "alone here"],
    "x = 1  # fmt: skip\ny = 2  # noqa: E501": [],
    "x = y  # (B, T, C)": [],
    "x = 'no # comment'": [],
    "# trainer.train()": [],
    "%pip install x\n# what follows a magic": ["what follows a magic"],
    "%%bash\n# another language": [],
    "if x:\n    # first line\n    # second one\n    y = 1": ["first line\nsecond one"],
    '"""\n# no comment\n"""': [],
}


@pytest.mark.parametrize(("source", "texts"), CODE.items())
def test_comments_that_are_prose_are_cut_out(source, texts):
    pieces = comment_pieces(source)
    assert [piece.text for piece in pieces] == texts
    assert replaced(source, pieces, lambda text: text) == source


def test_a_translation_may_have_fewer_lines():
    quote = "> quoted\n> text\n\nafter"
    assert replaced(quote, markdown_pieces(quote), {"quoted\ntext": "zitiert"}.get) == "> zitiert\n\nafter"
    code = "if x:\n    # first line\n    # second one\n    y = 1"
    assert replaced(code, comment_pieces(code), {"first line\nsecond one": "a\nb"}.get) == (
        "if x:\n    # a\n    # b\n    y = 1"
    )
