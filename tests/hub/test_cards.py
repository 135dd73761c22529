"""Cards: what they say, what they keep to themselves, and that the Hub takes them."""

import tomllib
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from runs import small_config

from course_utils.cards import model_card
from local_hub.storage import metadata, metadata_errors

CURVE = [
    {"step": n, "eval_loss": 9 - n / 10, "eval_perplexity": 1.0, "eval_bits_per_byte": 4 - n / 20} for n in range(41)
]


def card(settings=None, history=CURVE) -> str:
    run = {"settings": small_config().as_dict() | (settings or {}), "history": [{"step": 1, "loss": 2.0}, *history]}
    return str(model_card("ada/code", "first", run, {"MIT": 3, "BSD-3-Clause": 9}))


def test_a_model_card_has_all_that_a_stranger_asks(hub):
    text = card()
    assert metadata_errors("models", text) == []
    found = ModelCard(text).data
    assert (found.library_name, found.pipeline_tag, found.license) == ("transformers", "text-generation", "other")
    results = {(r.dataset_name, r.metric_name or r.metric_type): r.metric_value for r in found.eval_results}
    assert results["held-out code", "bits_per_byte"] == 2.0
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


def test_the_text_of_the_card_is_packaged(repository):
    project = tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = project["tool"]["setuptools"]["package-data"]["course_utils"]
    packaged = {path.name for pattern in patterns for path in (repository / "course_utils").glob(pattern)}
    assert "model_card.md" in packaged
