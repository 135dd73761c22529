"""The translations of this course are in step, complete where they are released, and right."""

import json
import time
from pathlib import Path

import nbformat
import pytest
from small_course import pseudo

from translations import sources
from translations.__main__ import check, status
from translations.codes import folders

ROOT = Path(__file__).parents[2]
LANGUAGES = folders(ROOT)


def test_everything_is_in_step_and_right_in_twenty_seconds():
    start = time.process_time()
    assert check(ROOT, LANGUAGES) == []  # this syncs and builds, too, and compares with what is there
    assert time.process_time() - start < 20


def test_released_languages_are_complete():
    assert {*sources.released()} <= {*LANGUAGES}
    assert status(ROOT, LANGUAGES, False, 97) == 0


def test_the_texts_in_tables_and_data_are_there():
    levels = (ROOT / "course_utils/data/programming_problems/test.jsonl").read_text(encoding="utf-8")
    for place, texts in sources.VALUES.items():
        name, cell = place.split("#")
        cells = {c["id"]: c["source"] for c in sources.read_notebook(sources.notebooks()[name])["cells"]}
        for text in texts:
            _, _, rest = text.partition(" ")  # a name such as "4 compiled" is put together
            assert any(f'"{part}"' in cells[cell] + levels + cells.get("solve", "") for part in (text, rest)), text


@pytest.mark.parametrize("code", LANGUAGES)
def test_built_notebooks_are_valid(code):
    for path in (ROOT / "translations" / code / "notebooks").glob("*.ipynb"):
        nbformat.validate(nbformat.read(path, as_version=4))


@pytest.mark.parametrize("code", ["eo", "ar"])
def test_a_language_with_accents_builds_and_leaves_no_english(whole_course, code):
    assert whole_course("new", code) == 0
    whole_course.translate(code)
    assert [whole_course("build"), whole_course("sync")] == [0, 0]
    assert check(whole_course.root, [code]) == []
    english = {m.text for messages in sources.catalogs(whole_course.root).values() for m in messages}
    english = {text for text in english if pseudo(text) != text}
    for name, path in sources.notebooks(whole_course.root).items():
        kinds = {cell["id"]: cell["cell_type"] for cell in sources.read_notebook(path)["cells"]}
        for cell, source in whole_course.built(name, code).items():
            pieces = sources.pieces_of({"cell_type": kinds.get(cell, "raw"), "source": source})
            assert [piece.text for piece in pieces if piece.text in english] == []
        assert ('<div dir="rtl">' in whole_course.built(name, code)["languages"]) is (code == "ar")
    texts = json.loads((whole_course.root / f"course_utils/locale/{code}.json").read_text(encoding="utf-8"))
    assert not {*texts} & {*texts.values()} & english
