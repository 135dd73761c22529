"""Completions: the right length, the first block, an honest score."""

import pytest
import torch
from transformers import pipeline

from course_utils.models import generation
from course_utils.models.causal import build_causal_lm
from course_utils.profiles import get_profile


@pytest.fixture(scope="module")
def model(session_tokenizer):
    return build_causal_lm(get_profile("tiny", context_length=64), session_tokenizer)


@pytest.mark.parametrize(
    ("text", "block"),
    [
        ("    return a\n\ndef g():\n    pass", "    return a"),
        ("x = 1\nclass A:\n    pass", "x = 1"),
        ("x = 1\n# next\ny = 2", "x = 1"),
        ("x = 1\n@cache\ndef f(): ...", "x = 1"),
        ("x = 1\nprint(x)", "x = 1"),
        ("x = 1\nif x:\n    y = 2", "x = 1"),
        ("x = 1\n    if x:\n        y = 2\n", "x = 1\n    if x:\n        y = 2"),
        ("x = 1\nprinter = 2", "x = 1\nprinter = 2"),
        ("", ""),
    ],
)
def test_first_block(text, block):
    assert generation.first_block(text) == block


def test_complete_code_counts_new_tokens_only_and_repeats_with_the_seed(model, session_tokenizer):
    pipe = pipeline("text-generation", model=model, tokenizer=session_tokenizer)
    prompt = "import numpy as np\n" * 3
    first = generation.complete_code(pipe, prompt, max_length=8, num_completions=3)
    assert len(first) == 3
    assert first == generation.complete_code(pipe, prompt, max_length=8, num_completions=3)
    assert first != generation.complete_code(pipe, prompt, max_length=8, num_completions=3, seed=2)
    assert not any(text.startswith(prompt) for text in first)
    # Counted with the prompt, as the tutorials do, 8 tokens would leave no room for a completion.
    assert len(session_tokenizer(prompt)["input_ids"]) > 8
    assert any(first)


def test_probability_is_the_product_over_the_expected_tokens(model, session_tokenizer):
    prompt, expected = "import pandas as", " pd"
    score = generation.score_idioms(model, session_tokenizer, [("alias", prompt, expected)])[0]
    ids = session_tokenizer(prompt)["input_ids"]
    product = 1.0
    for token in session_tokenizer(expected)["input_ids"]:
        with torch.inference_mode():
            product *= model(torch.tensor([ids])).logits[0, -1].softmax(-1)[token].item()
        ids.append(token)
    assert score.probability == pytest.approx(product, rel=1e-3)
    assert score.hit == score.got.startswith(expected)


def test_every_idiom_splits_between_tokens(session_tokenizer):
    """Prompt and continuation must not share a token, or the expected one could never be predicted."""
    for _, prompt, expected in generation.IDIOMS:
        apart = session_tokenizer(prompt)["input_ids"] + session_tokenizer(expected)["input_ids"]
        together = session_tokenizer(prompt + expected)["input_ids"]
        assert apart == together, (prompt, expected)


def test_empty_and_overlong_prompts_are_refused(model, session_tokenizer):
    with pytest.raises(ValueError, match="prompt is empty"):
        generation.complete_greedily(model, session_tokenizer, "", 4)
    with pytest.raises(ValueError, match=r"context is 64; shorten the prompt"):
        generation.complete_greedily(model, session_tokenizer, "x = 1\n" * 100, 4)


def test_completion_is_shortened_to_what_the_context_leaves(model, session_tokenizer):
    prompt = "a" + " b" * 59
    room = 64 - len(session_tokenizer(prompt)["input_ids"])
    completion = generation.complete_greedily(model, session_tokenizer, prompt, new_tokens=50)
    assert 0 < room < 50
    assert len(session_tokenizer(completion)["input_ids"]) <= room


@pytest.mark.parametrize(
    ("text", "body"),
    [
        (" a + b\n\nprint(1)", " a + b"),
        ("\n    x = 1\n\n    return x\n# next", "\n    x = 1\n\n    return x"),
        ("\n\treturn 1\nx = 2", "\n\treturn 1"),
        ("", ""),
    ],
)
def test_function_body(text, body):
    assert generation.function_body(text) == body


def test_candidates_repeat_with_the_seed_and_end_with_the_function(model, session_tokenizer):
    def draw(seed=1):
        return generation.sample_candidates(model, session_tokenizer, "def f(x):\n    return", 4, 12, seed=seed)

    assert len(draw()) == 4
    assert draw() == draw() != draw(seed=2)
    assert len(set(draw())) > 1
    assert not any("\nd" in text or "\nx" in text for text in draw())


def test_completing_needs_a_prompt_that_fits_and_a_tokenizer(model, session_tokenizer):
    pipe = pipeline("text-generation", model=model, tokenizer=session_tokenizer)
    with pytest.raises(ValueError, match="prompt is empty"):
        generation.complete_code(pipe, "")
    with pytest.raises(ValueError, match="context is 64; shorten the prompt"):
        generation.sample_candidates(model, session_tokenizer, "x = 1\n" * 100, 2, 4)
    pipe.tokenizer = None
    with pytest.raises(ValueError, match="has no tokenizer"):
        generation.complete_code(pipe, "x =")
