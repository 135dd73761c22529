"""Fixtures: a small course, the same in Esperanto, and a copy of this course."""

import shutil
from pathlib import Path

import pytest
from small_course import CELLS, README, RULES, Course

ROOT = Path(__file__).parents[2]


@pytest.fixture
def course(tmp_path):
    root = tmp_path / "course"
    for folder in ("notebooks", "translations", "course_utils/exercises"):
        (root / folder).mkdir(parents=True)
    made = Course(root)
    for name, cells in CELLS.items():
        made.write(name, cells)
    (root / "README.md").write_text(README, encoding="utf-8")
    (root / "translations/README.md").write_text(RULES, encoding="utf-8")
    (root / "translations/released.txt").write_text("", encoding="utf-8")
    (root / "course_utils/exercises/x.py").write_text('HINT = "Look at the end of the list."\n', encoding="utf-8")
    return made


@pytest.fixture
def translated(course):
    """The small course, translated into Esperanto with accents."""
    assert course("new", "eo") == 0
    course.translate()
    assert course("build") == 0
    return course


@pytest.fixture
def whole_course(tmp_path):
    """A copy of this course without its translations."""
    made = Course(tmp_path / "whole")
    for folder in ("notebooks", "course_utils"):
        shutil.copytree(ROOT / folder, made.root / folder, ignore=shutil.ignore_patterns("*.safetensors", "locale"))
    (made.root / "translations").mkdir()
    for name in ("README.md", "translations/README.md", "translations/released.txt"):
        shutil.copy(ROOT / name, made.root / name)
    return made
