"""What is trained on: all user-style documents, and the same share of library documents on every machine."""

import pytest
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st

from course_utils.data import cleaning
from course_utils.data.cleaning import TRAINING_RULES, sample_library

PATHS = [f"lib/module_{i}.py" for i in range(200)] + [f"examples/plot_{i}.py" for i in range(20)]
DATA = Dataset.from_dict({"path": PATHS, "content": [f"x = {path!r}\n" for path in PATHS]})


@given(st.lists(st.floats(0, 1), min_size=2, max_size=2).map(sorted))
def test_examples_stay_and_a_larger_share_only_adds(shares):
    small, large = (sample_library(DATA, share)["path"][:] for share in shares)
    assert set(PATHS[200:]) <= set(small) <= set(large)
    assert small == [path for path in PATHS if path in set(small)]


def test_share_is_about_what_was_asked_for():
    kept = len(sample_library(DATA, 0.25)) - 20
    assert 30 <= kept <= 70
    assert len(sample_library(DATA, 0.0)) == 20
    assert len(sample_library(DATA, 1.0)) == len(DATA)


def test_choice_does_not_depend_on_the_order():
    shuffled = DATA.shuffle(seed=3)
    assert set(sample_library(DATA, 0.5)["path"]) == set(sample_library(shuffled, 0.5)["path"])


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_impossible_shares_are_refused(share):
    with pytest.raises(ValueError, match="between 0 and 1"):
        sample_library(DATA, share)


def test_a_short_plotting_script_passes_the_rules_of_the_course_but_not_the_rule_on_structure():
    lines = [
        "import matplotlib.pyplot as plt",
        "x = [1, 2]",
        "y = [3, 4]",
        "fig, ax = plt.subplots()",
        "s = 3",
        "c = 'k'",
    ]
    script = "\n".join([*lines, "ax.plot(x, y, c, linewidth=s)", ""])
    assert cleaning.clean(script, "examples/plot.py", TRAINING_RULES).keep
    assert cleaning.clean(script, "examples/plot.py").reason == "no structure"
