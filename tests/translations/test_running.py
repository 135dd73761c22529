"""Translated notebooks run: one in every language, or all of them where TEST_TRANSLATED is `all` (nightly)."""

import json
import os
from pathlib import Path

import nbformat
import pytest

from course_utils import runner
from translations.codes import folders

ROOT = Path(__file__).parents[2]
CHOSEN = "*" if os.environ.get("TEST_TRANSLATED") == "all" else "01_*"
NOTEBOOKS = [path for code in folders(ROOT) for path in sorted((ROOT / f"translations/{code}/notebooks").glob(CHOSEN))]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: f"{path.parts[-3]}-{path.stem}")
def test_a_translated_notebook_runs_and_answers_in_its_language(path, tmp_path):
    (outcome,) = runner.run([path], tmp_path)
    assert outcome.status == "passed", outcome.error
    cells = nbformat.read(tmp_path / "notebooks" / path.name, as_version=4).cells
    shown = "".join(part.get("text", "") for cell in cells for part in cell.get("outputs", []))
    texts = json.loads((ROOT / f"course_utils/locale/{path.parts[-3]}.json").read_text(encoding="utf-8"))
    untried = "{id}: not tried yet"
    assert texts.get(untried, untried).replace("{id}", "") in shown
