"""The levels of protection: which work here, and that every promise has its attack."""

from pathlib import Path

import pytest
from attack import LINUX, attack, promising

from course_utils.sandbox import levels
from course_utils.sandbox.levels import Level
from course_utils.sandbox.running import Result, probe

pytestmark = pytest.mark.usefixtures("whatever_the_environment")


@pytest.mark.parametrize("level", list(Level))
def test_which_levels_are_tested_here(level, record_property):
    missing = probe()[level]
    record_property(f"level {level}", missing or "tested")
    if missing:
        pytest.skip(f"nothing is tested at the level {level}: {missing}")


@pytest.mark.skipif(not LINUX, reason="other systems have resource limits only, and the table says so")
def test_on_linux_one_level_confines():
    assert any(problem is None for level, problem in probe().items() if level != Level.LIMITS), probe()


def test_every_promise_is_tested():
    attacks = Path(__file__).parent.glob("test_attacks_*.py")
    text = "".join(path.read_text(encoding="utf-8") for path in attacks)
    assert [promise for promise in levels.PROMISES if f'@under("{promise}")' not in text] == []


def test_the_table_lists_every_level_and_promise():
    lines = levels.promise_table().splitlines()
    assert len(lines) == 2 + len(levels.PROMISES)
    assert all(line.count("|") == 2 + len(Level) for line in lines)
    assert set(promising("network")) == {Level.BUBBLEWRAP, Level.LANDLOCK}
    assert isinstance(attack("def attempt(_): return []", Level.LIMITS), Result)
