"""Exercises of notebook 11: who may read, what a card leaves out, a data set, the best run, what a name stands for."""

import re
from collections.abc import Mapping, Set
from typing import Any

from course_utils.exercises.comparing import shown
from course_utils.exercises.exercise import NOT_TRIED, exercise

_GIVEN = {
    "how to load it": "There is a call that loads the model, so this part is not missing.",
    "license": "The first lines name a license, so this part is not missing.",
    "settings": "The rate and the passes are there. One can want more settings, but not call them missing.",
}
_MISSING = {"training text", "test text", "limits"}


def _filled(answer: Any, names: Mapping[str, Any], values: tuple) -> str:
    """Return what is wrong with the form of a prediction: a value for each name."""
    if not isinstance(answer, Mapping) or answer.keys() != names.keys():
        return f"Give a dictionary with these names: {', '.join(names)}. This is {shown(answer)}."
    if all(value in (None, ...) for value in answer.values()):
        return NOT_TRIED
    other = [name for name, value in answer.items() if not any(value is v or value == v for v in values)]
    return f"{other[0]} has {shown(answer[other[0]])}, which is none of {', '.join(map(str, values))}." if other else ""


def _access(answer: Any, measured: Mapping[str, bool]) -> str:
    """Judge which requests succeed by those that did."""
    if fault := _filled(answer, measured, (True, False)):
        return fault
    for name, done in measured.items():
        if bool(answer[name]) is not done:
            why = "Everybody may read what is public." if done else "Private repositories are hidden."
            why = "A wrong token is refused, even where none is needed." if "mistyped" in name else why
            return f"{name}: it was {'answered' if done else 'refused'}. {why}"
    return ""


@exercise(
    "11.access",
    "Private means: nobody else learns that it exists.",
    "A token is looked at before anything else. Is this one known?",
    examine=_access,
)
def may_read():
    return {
        "no token, private": False,
        "no token, public": True,
        "mistyped token, public": False,
        "your token, private": True,
    }


def _card(answer: Any) -> str:
    """Judge which of six parts a card leaves out."""
    if isinstance(answer, Set | list | tuple) and not answer:
        return NOT_TRIED
    if not isinstance(answer, Set | list | tuple):
        return f"Give a set, such as {{'license', 'limits'}}; this is {shown(answer)}."
    if other := [part for part in answer if part not in _GIVEN.keys() | _MISSING]:
        return f"{shown(other[0])} is none of {', '.join(sorted(_GIVEN.keys() | _MISSING))}."
    if extra := [part for part in _GIVEN if part in answer]:
        return _GIVEN[extra[0]]
    if left := _MISSING - {*answer}:
        return f"You found {len({*answer})} of {len({*answer} | left)}. What would you ask before you use this model?"
    return ""


@exercise(
    "11.card",
    "Could you train this model again, from this page? What would you have to ask?",
    "Could you check the number? On which text?",
    examine=_card,
)
def missing():
    return {"training text", "test text", "limits"}


def _dataset(answer: Any) -> str:
    """Judge a published data set by opening it, and its card, as anybody would."""
    from datasets import load_dataset
    from huggingface_hub import DatasetCard

    from course_utils import hub

    if not isinstance(answer, str) or answer.count("/") != 1:
        return f'Give its name, such as "{hub.login()[0] or "you"}/first-rows"; this is {shown(answer)}.'
    try:
        columns = next(iter(load_dataset(answer).values())).column_names
    except Exception as error:
        return f"{answer} does not open as a data set: {hub.explain(error)[0]}."
    card = DatasetCard.load(answer)
    if not card.data.license:
        return "The card names no license; set card.data.license, such as mit, or other if you do not know."
    text = re.sub(r"```.*?```", "", card.text, flags=re.DOTALL)
    words = len(re.findall(r"[\u3040-\u30ff\u4e00-\u9fff]|\w+", text))  # in Chinese and Japanese, a letter is one
    if words < 20:
        return f"The card has {words} words. Say in at least 20 where the rows come from, and what they are."
    if unnamed := [name for name in columns if name not in card.text]:
        return f"The card does not say what is in the column {unnamed[0]}."
    return ""


@exercise(
    "11.dataset",
    "`Dataset.from_dict(rows).push_to_hub(name, private=True)` publishes rows. It also begins a card.",
    "`card = DatasetCard.load(name)`, then change `card.data.license` and `card.text`, then `card.push_to_hub(name)`.",
    "Did you give the name to `my_dataset`?",
    examine=_dataset,
)
def publish(name, rows):
    from datasets import Dataset
    from huggingface_hub import DatasetCard

    Dataset.from_dict(rows).push_to_hub(name, private=True)
    card = DatasetCard.load(name)
    card.data.license = "mit"
    card.text = (
        f"# {name}\n\nTypos that I made in Python, and what I meant. I collected them by hand for a course, "
        f"so they are few, and all are from one person. Columns: {', '.join(rows)}."
    )
    card.push_to_hub(name)
    return name


def _first_evaluation(histories):
    return min(histories, key=lambda name: histories[name][-1][1])


@exercise(
    "11.best",
    "The Hub lists the newest commit first. Which one does `[-1]` take?",
    "You compare the best commit of each run. A branch stands for its newest one, whatever was before.",
    "Fewer bits per byte are better.",
    examples=[({"a": [(40, 3.1), (10, 4.9)], "b": [(40, 3.6), (10, 4.2)]},), ({"a": [(20, 3.5)]},)],
    random_inputs=lambda rng: (
        {name: [(10 * n, rng.randint(100, 99_999) / 100) for n in (2, 1)] for name in rng.sample("abcdef", 3)},
    ),
    bug=_first_evaluation,
    mistakes={
        1: lambda histories: min(histories, key=lambda name: min(bits for _, bits in histories[name])),
        2: lambda histories: max(histories, key=lambda name: histories[name][0][1]),
    },
)
def best_run(histories):
    return min(histories, key=lambda name: histories[name][0][1])


def _revision(answer: Any, measured: Mapping[str, str]) -> str:
    """Judge which run a name stands for, by the weights that the Hub has under it."""
    if fault := _filled(answer, measured, tuple(dict.fromkeys(measured.values()))):
        return fault
    for name, run in measured.items():
        if answer[name] != run:
            why = {"v1": "a tag stays where it was set", "main": "main is what was merged last"}
            return f"{name} is {run} now: {why.get(name, 'only a push to a branch moves it')}."
    return ""


@exercise(
    "11.revision",
    "A branch moves with each commit to it. A tag does not move.",
    "Which run was in main when the tag was set?",
    examine=_revision,
)
def stands_for(measured):
    return dict(measured)
