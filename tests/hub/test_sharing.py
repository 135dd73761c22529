"""Notebook 11's open exercise: a data set that is published, opened and read by its name."""

import pytest
from datasets import Dataset
from huggingface_hub import DatasetCard

from course_utils import exercises
from course_utils.exercises import all_exercises

ROWS = {"typo": ["pritn(1)", "improt re"], "meant": ["print(1)", "import re"]}
WORDS = "Rows that were written for a test, with a typo in one column and what was meant in the other one of the two."


def judged(answer, capsys) -> str:
    exercises._given.clear()
    exercises.check("11.dataset", answer)
    return capsys.readouterr().out


def test_the_solution_is_a_data_set_that_opens_with_its_card(hub, capsys):
    name = all_exercises()["11.dataset"].solution("ada/typos", ROWS)
    assert judged(name, capsys).startswith("11.dataset: right")
    assert DatasetCard.load(name).data.license == "mit"


@pytest.mark.parametrize(
    ("license", "text", "finding"),
    [
        (None, WORDS, "names no license"),
        ("mit", "Rows of mine.", "has 3 words"),
        ("mit", "Rows. ```" + WORDS + "```", "has 1 words"),
        ("mit", WORDS.replace("meant", "wanted"), "what is in the column meant"),
    ],
)
def test_what_a_card_lacks_is_named(license, text, finding, hub, capsys):
    Dataset.from_dict(ROWS).push_to_hub("ada/typos", private=True)
    card = DatasetCard.load("ada/typos")
    card.data.license, card.text = license, text
    card.push_to_hub("ada/typos")
    assert finding in judged("ada/typos", capsys)


def test_a_name_that_does_not_open_is_no_answer(hub, capsys):
    assert "ada/nothing does not open as a data set: " in judged("ada/nothing", capsys)
    assert 'such as "ada/first-rows"' in judged("nothing", capsys)
