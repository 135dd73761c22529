"""What notebook 00 shows of the reference model is no accident: the right token is twice as likely as any other."""

import ast
from pathlib import Path

import nbformat
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from course_utils import artifacts
from course_utils.profiles import PROFILES

README = Path(__file__).parents[2] / "README.md"
NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "00_start_here.ipynb"
MARGIN = 2
pytestmark = pytest.mark.skipif(not artifacts.REFERENCE_MODEL.is_dir(), reason="this copy has no reference model")


def assigned(cell_id, name):
    """Return the literal that a cell of the notebook assigns to a name."""
    cell = next(cell for cell in nbformat.read(NOTEBOOK, as_version=4).cells if cell.id == cell_id)
    assigns = [node for node in ast.parse(cell.source).body if isinstance(node, ast.Assign)]
    return ast.literal_eval(next(node.value for node in assigns if ast.unparse(node.targets[0]) == name))


@pytest.fixture(scope="module")
def reference():
    location = artifacts.reference_model()
    return AutoModelForCausalLM.from_pretrained(location, dtype=torch.float32), AutoTokenizer.from_pretrained(location)


def assert_likely(reference, prompt, wanted):
    model, tokenizer = reference
    head, tail = tokenizer.encode(prompt), tokenizer.encode(wanted)
    with torch.no_grad():
        logits = model(torch.tensor([head + tail])).logits[0, len(head) - 1 : -1]  # (tail, V)
    for token, expected in zip(tail, logits.softmax(-1), strict=True):
        best = expected.topk(2)
        others = [(p, i) for p, i in zip(best.values.tolist(), best.indices.tolist(), strict=True) if i != token]
        assert expected[token] >= MARGIN * others[0][0], f"{tokenizer.decode([others[0][1]])!r} in place of {wanted!r}"


SNIPPET = assigned("setup", "snippet")
PROMPTS = assigned("three", "prompts") | {
    SNIPPET.partition(" plt.subplots")[0]: " plt.subplots",
    "import matplotlib.pyplot as": " plt",
    "import pandas as": " pd",
}


@pytest.mark.parametrize(("prompt", "wanted"), PROMPTS.items(), ids=[wanted.strip() for wanted in PROMPTS.values()])
def test_prompts_of_the_notebook_are_continued_as_its_text_says(reference, prompt, wanted):
    assert_likely(reference, prompt, wanted)


@pytest.mark.parametrize("name", ["scores", "values"])
def test_the_network_copies_the_argument_which_is_one_token(reference, name):
    assert len(reference[1].encode(name)) == 1
    assert_likely(reference, SNIPPET.replace("losses", name).rpartition(name)[0], name)
    last_tokens = [reference[1].decode([i]) for i in reference[1].encode(SNIPPET.rpartition("losses")[0])[-4:]]
    assert last_tokens == [" ax", ".", "plot", "("]


def test_the_comment_is_out_of_reach_of_four_tokens(reference):
    prompt = list(assigned("three", "prompts"))[-1]
    assert [reference[1].decode([i]) for i in reference[1].encode(prompt)[-4:]] == ["df", " =", " pd", "."]
    assert [reference[1].decode([i]) for i in reference[1].encode("losses")] == ["loss", "es"]


def test_readme_shows_what_the_model_writes(reference):
    shown = next(block for block in README.read_text(encoding="utf-8").split("```python\n") if "np.sin" in block)
    code = shown.partition("\n```")[0]
    prompt = code.partition("linspace")[0]
    ids = reference[1](prompt, return_tensors="pt")
    length = len(reference[1].encode(code))
    written = reference[0].generate(**ids, max_length=length, do_sample=False, pad_token_id=0)[0]
    assert reference[1].decode(written) == code


@pytest.mark.parametrize("split", ["train", "validation"])
def test_no_document_of_the_corpus_holds_the_snippet(split):
    documents = artifacts.code_corpus(PROFILES["tiny"]).load(split)
    assert not [row["path"] for row in documents if SNIPPET.strip() in row["content"]]
