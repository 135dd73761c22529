"""Held-out code as a table of tokens: nothing is lost, kinds are Python's own, and the sums are the model's loss."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from course_utils.evaluation.quality import character_kinds, score_documents
from course_utils.models.causal import build_causal_lm
from course_utils.profiles import get_profile

SOURCE = 'import numpy as np  # arrays\n\nx = 12.5 if np.any([1]) and not None else "é"\n'


def test_kinds_are_those_of_python():
    kinds = character_kinds(SOURCE)
    for part, kind in {
        "import": "keyword", "and": "keyword", "None": "keyword", "numpy": "name", "12.5": "number", '"é"': "string",
        "# arrays": "comment", "=": "operator", "([": "operator", "  ": "white space",
    }.items():  # fmt: skip
        start = SOURCE.index(part)
        assert set(kinds[start : start + len(part)]) == {kind}, part
    strange = ["not Python", "white space", "not Python", "white space", "not Python", "name"]
    assert character_kinds("$ ?\n“x") == strange


@given(st.text(alphabet="f(:'\"\r\n\t\0 é$1#=", max_size=30))
def test_every_character_has_a_kind_in_broken_code_too(source):
    assert len(character_kinds(source)) == len(source)


def test_the_table_adds_up_to_the_models_loss_and_the_length_of_the_text(session_tokenizer):
    model = build_causal_lm(get_profile("tiny"), session_tokenizer).eval()
    documents = [{"repo_name": name, "content": text} for name, text in (("a", SOURCE), ("b", ""), ("c", SOURCE * 20))]
    whole = score_documents(model, session_tokenizer, documents, max_characters=90)
    assert whole.groupby("project")["num_bytes"].sum().to_dict() == {
        name: len(text[:90].encode()) for name, text in (("a", SOURCE), ("c", SOURCE * 20))
    }
    table = whole[whole["project"] == "a"]
    assert whole.groupby("project")["document"].unique().map(list).to_dict() == {"a": [0], "c": [2]}
    ids = torch.tensor([[session_tokenizer.eos_token_id, *session_tokenizer(SOURCE)["input_ids"]]])
    with torch.inference_mode():
        output = model(input_ids=ids, labels=ids)  # the loss in nats per predicted token
    assert table["bits"].sum() * math.log(2) == pytest.approx(output.loss.item() * (ids.shape[1] - 1), rel=1e-4)
    guesses = output.logits[0, :-1].softmax(-1).max(-1)
    assert len(guesses.indices) - len(table) in (0, 1)  # é may be two tokens, and is one row
    first = table.index[:20]
    assert table["hit"][first].tolist() == (guesses.indices[:20] == ids[0, 1:21]).tolist()
    assert table["confidence"][first].tolist() == pytest.approx(guesses.values[:20].tolist(), rel=1e-4)
    kinds = dict(zip(table["text"], table["kind"], strict=True))
    assert (kinds[" as"], kinds[" np"]) == ("keyword", "name")  # whatever their leading space is
