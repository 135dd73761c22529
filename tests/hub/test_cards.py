"""Cards: what they say, what they keep to themselves, and that the Hub takes them."""

import tomllib
from pathlib import Path

import pytest
from datasets import Dataset, DatasetDict, load_dataset
from huggingface_hub import DatasetCard, ModelCard
from runs import small_config

from course_utils.cards import dataset_card, model_card
from local_hub.storage import metadata, metadata_errors

CURVE = [
    {"step": n, "eval_loss": 9 - n / 10, "eval_perplexity": 1.0, "eval_bits_per_byte": 4 - n / 20} for n in range(41)
]


def card(settings=None, history=CURVE, **more) -> str:
    run = {"settings": small_config().as_dict() | (settings or {}), "history": [{"step": 1, "loss": 2.0}, *history]}
    return str(model_card("ada/code", "first", run, {"MIT": 3, "BSD-3-Clause": 9}, **more))


def test_a_model_card_has_all_that_a_stranger_asks(hub):
    text = card(tasks={"right function": 0.24, "right arguments": 0.04})
    assert metadata_errors("models", text) == []
    found = ModelCard(text).data
    assert (found.library_name, found.pipeline_tag, found.license) == ("transformers", "text-generation", "other")
    results = {(r.dataset_name, r.metric_name or r.metric_type): r.metric_value for r in found.eval_results}
    assert results["held-out code", "bits_per_byte"] == 2.0
    assert results["the course's tasks", "right arguments"] == 0.04
    assert "right function: 24.0%" in text
    lines = text.splitlines()
    assert lines.index("| BSD-3-Clause | 9 |") < lines.index("| MIT | 3 |")
    steps = [int(line.split("|")[1]) for line in lines if line.count("|") == 5 and line[2].isdigit()]
    assert steps[0] == 0
    assert steps[-1] == 40
    assert 8 <= len(steps) <= 12
    assert 'from_pretrained("ada/code", revision="first")' in text
    for heading in ("Evaluation", "Training text", "Limits", "Settings"):
        assert f"## {heading}" in text
    ModelCard(text).validate()


def test_a_card_of_one_evaluation_is_enough():
    assert "| 0 | 4 | 9 | 1 |" in card(history=CURVE[:1])


@pytest.mark.parametrize(
    ("place", "ids"),
    [
        (str(Path("secret").absolute()), None),
        ("lab/data", ["lab/data"]),
        ("lab/code-{split}", ["lab/code-train", "lab/code-valid"]),
        ("lab/one,lab/two", ["lab/one", "lab/two"]),
        ("pinned", None),
    ],
)
def test_data_sets_of_the_hub_are_named_and_own_folders_are_not(place, ids):
    text = card({"profile.code_corpus": place})
    assert metadata(text).get("datasets") == ids
    assert metadata_errors("models", text) == []
    assert "secret" not in text


def test_a_data_set_is_published_with_its_card(hub):
    rows = {"content": ["a = 1", "b = 2", "c = 3"], "license": ["MIT", "MIT", "BSD-3-Clause"]}
    splits = DatasetDict(train=Dataset.from_dict(rows), validation=Dataset.from_dict(rows).select([0]))
    splits.push_to_hub("ada/rows")
    made = dataset_card("ada/rows", splits, "Three rows, written for a test.", license="mit")
    assert metadata_errors("datasets", str(made)) == []
    for part in ("| train | 3 |", "| content | string |", "| MIT | 3 |", 'load_dataset("ada/rows")', "Three rows"):
        assert part in str(made)
    assert made.data.size_categories == "n<1K"
    made.push_to_hub("ada/rows")
    assert DatasetCard.load("ada/rows").data.license == "mit"
    assert load_dataset("ada/rows")["train"]["content"][:] == rows["content"]


def test_the_texts_of_the_cards_are_packaged(repository):
    project = tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = project["tool"]["setuptools"]["package-data"]["course_utils"]
    packaged = {path.name for pattern in patterns for path in (repository / "course_utils").glob(pattern)}
    assert {"model_card.md", "dataset_card.md"} <= packaged


@pytest.mark.parametrize(("rows", "size"), [(999, "n<1K"), (1_000, "1K<n<10K"), (120_000, "100K<n<1M")])
def test_sizes_are_the_hubs_words(rows, size):
    splits = DatasetDict(train=Dataset.from_dict({"n": range(rows)}))
    assert dataset_card("a/b", splits, "Numbers.").data.size_categories == size
