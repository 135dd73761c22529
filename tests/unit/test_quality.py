"""Held-out code as a table of tokens: nothing is lost, kinds are Python's own, and the sums are the model's loss."""

import math

import pytest
import torch

from course_utils.evaluation.quality import character_kinds, score_documents
from course_utils.evaluation.surprise import token_surprise
from course_utils.models.causal import build_causal_lm
from course_utils.profiles import get_profile

SOURCE = 'import numpy as np  # arrays\n\nx = 12.5 if np.any([1]) and not None else "é"\n'


@pytest.fixture(scope="module")
def model(session_tokenizer):
    return build_causal_lm(get_profile("tiny"), session_tokenizer).eval()


def kind_of(source, part):
    kinds = character_kinds(source)
    start = source.index(part)
    return set(kinds[start : start + len(part)])


@pytest.mark.parametrize(
    ("part", "kind"),
    [
        ("import", "keyword"),
        ("and", "keyword"),
        ("None", "keyword"),
        ("numpy", "name"),
        ("12.5", "number"),
        ('"é"', "string"),
        ("# arrays", "comment"),
        ("=", "operator"),
        ("([", "operator"),
        ("  #", "white space"),
    ],
)
def test_kinds_are_those_of_python(part, kind):
    if part == "  #":
        assert character_kinds(SOURCE)[SOURCE.index(part)] == kind
    else:
        assert kind_of(SOURCE, part) == {kind}


@pytest.mark.parametrize("source", ["", "def f(:\n  '''open", "x\r\ny", "\t\0 'é"])
def test_every_character_has_a_kind_in_broken_code_too(source):
    assert len(character_kinds(source)) == len(source)


def test_what_is_no_python_is_no_white_space():
    assert character_kinds("$ ?\n“x") == ["no Python", "white space", "no Python", "white space", "no Python", "name"]


def test_sums_are_the_loss_and_the_length_of_the_text(model, session_tokenizer):
    documents = [{"repo_name": "a", "content": SOURCE}, {"repo_name": "b", "content": SOURCE * 3}]
    table = score_documents(model, session_tokenizer, documents, show_progress=False)
    first = table[table["project"] == "a"]
    assert first["num_bytes"].sum() == len(SOURCE.encode())
    ids = torch.tensor([[session_tokenizer.eos_token_id, *session_tokenizer(SOURCE)["input_ids"]]])
    with torch.inference_mode():
        loss = model(input_ids=ids, labels=ids).loss.item()  # nats per predicted token
    assert first["bits"].sum() * math.log(2) == pytest.approx(loss * (ids.shape[1] - 1), rel=1e-4)
    assert set(table["project"]) == {"a", "b"}


def test_hits_and_confidence_are_those_of_the_first_guess(model, session_tokenizer):
    table = score_documents(model, session_tokenizer, [{"repo_name": "a", "content": SOURCE}], show_progress=False)
    tokens = token_surprise(model, session_tokenizer, SOURCE)
    assert table["hit"].tolist() == [token.text == token.expected for token in tokens]
    assert (table["confidence"] >= 2 ** -table["bits"] - 1e-6).all()  # no token is likelier than the first guess


def test_leading_spaces_do_not_decide_the_kind(model, session_tokenizer):
    table = score_documents(model, session_tokenizer, [{"repo_name": "a", "content": SOURCE}], show_progress=False)
    kinds = dict(zip(table["text"], table["kind"], strict=True))
    assert kinds[" as"] == "keyword"
    assert kinds[" np"] == "name"


def test_documents_are_cut_and_empty_ones_left_out(model, session_tokenizer):
    documents = [{"repo_name": "a", "content": ""}, {"repo_name": "b", "content": "x = 1\n" * 100}]
    table = score_documents(model, session_tokenizer, documents, max_characters=60, show_progress=False)
    assert set(table["project"]) == {"b"}
    assert table["num_bytes"].sum() == 60
    with pytest.raises(ValueError, match="documents are empty"):
        score_documents(model, session_tokenizer, documents[:1], show_progress=False)
