"""Completions: the right length, the first block, an honest score."""

from concurrent.futures import ThreadPoolExecutor

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


def test_dropout_changes_nothing_and_the_model_stays_in_training(session_tokenizer):
    model = build_causal_lm(get_profile("tiny", context_length=64), session_tokenizer)
    for part in model.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.5
    pipe, prompt, idioms = (
        pipeline("text-generation", model=model, tokenizer=session_tokenizer),
        "import",
        [("", "x", "y")],
    )

    def texts():
        return [
            generation.complete_code(pipe, prompt, max_length=8, num_completions=2),
            generation.complete_greedily(model, session_tokenizer, prompt, 8),
            generation.sample_candidates(model, session_tokenizer, prompt, 2, 8),
            streamed(model, session_tokenizer, prompt, new_tokens=8),
            generation.score_idioms(model, session_tokenizer, idioms),
        ]

    model.eval()
    certain = texts()
    model.train()
    assert texts() == certain
    assert model.training
    assert all(part.training for part in model.modules())


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
    for count in (0, -1):
        with pytest.raises(ValueError, match=f"candidates is {count}; at least 1 is needed"):
            generation.complete_code(pipe, "x =", num_completions=count)
    with pytest.raises(ValueError, match="new_tokens is 0"):
        generation.complete_code(pipe, "x =", max_length=0)
    with pytest.raises(ValueError, match="new_tokens is 64; allowed are 1 to 63"):
        generation.sample_candidates(model, session_tokenizer, "x =", 2, 64)
    with pytest.raises(ValueError, match="candidates is 0; at least 1 is needed"):
        generation.sample_candidates(model, session_tokenizer, "x =", 0, 4)
    pipe.tokenizer = None
    with pytest.raises(ValueError, match="has no tokenizer"):
        generation.complete_code(pipe, "x =")


def streamed(model, tokenizer, prompt="import numpy as", **options):
    return list(generation.stream_completions(model, tokenizer, prompt, **({"one_block": False} | options)))


def test_a_stream_without_chance_writes_what_the_library_does(model, session_tokenizer):
    steps = streamed(model, session_tokenizer, new_tokens=20, temperature=0, candidates=2)
    expected = generation.complete_greedily(model, session_tokenizer, "import numpy as", 20)
    assert [step.tokens for step in steps] == list(range(1, 21))
    assert steps[-1].texts == [expected.rstrip("\ufffd")] * 2
    for certain in ({"temperature": 3, "top_k": 1}, {"temperature": 3.0, "top_p": 1e-6}, {"temperature": 1e-30}):
        (*_, last) = streamed(model, session_tokenizer, new_tokens=20, **certain)
        assert last.texts == steps[-1].texts[:1]


def test_a_stream_follows_the_probabilities(model, session_tokenizer):
    with torch.inference_mode():
        ids = session_tokenizer("import", return_tensors="pt")["input_ids"]
        likely = (model(ids).logits[0, -1] / 0.02).softmax(-1)
    texts = streamed(model, session_tokenizer, "import", new_tokens=1, candidates=2000, temperature=0.02, top_p=1.0)[-1]
    best = likely.argmax().item()
    share = texts.texts.count(session_tokenizer.decode([best]).rstrip("\ufffd")) / 2000
    assert 0.05 < likely[best] < 0.95
    assert share == pytest.approx(likely[best].item(), abs=0.05)


def test_threads_do_not_disturb_each_others_seeds(model, session_tokenizer):
    alone = [streamed(model, session_tokenizer, seed=seed)[-1] for seed in range(4)]
    assert len({step.texts[0] for step in alone}) == 4
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda seed: streamed(model, session_tokenizer, seed=seed)[-1], range(4)))
    assert together == alone


def test_a_prompt_too_long_for_a_stream_is_cut_on_its_left(model, session_tokenizer):
    prompt = "x = 1\n" * 100
    ids = session_tokenizer(prompt)["input_ids"]
    (*_, last) = streamed(model, session_tokenizer, prompt, new_tokens=24, temperature=0)
    assert last.tokens_cut == len(ids) - (64 - 24)
    with torch.inference_mode():
        expected = model.generate(torch.tensor([ids[-40:]]), max_new_tokens=24, do_sample=False)[0, 40:]
    assert last.texts == [session_tokenizer.decode(expected).rstrip("\ufffd")]


def test_a_stream_ends_at_the_end_of_text_and_at_the_next_block(session_tokenizer):
    def scripted(text):
        """A model of which every next token is known."""
        ids = [*session_tokenizer("x" + text)["input_ids"], session_tokenizer.eos_token_id, 0, 0]
        model = build_causal_lm(get_profile("tiny", context_length=64), session_tokenizer).eval()
        place = iter(range(1, len(ids)))

        def force(module, arguments, output):
            output.logits[:] = -100.0
            output.logits[:, -1, ids[next(place)]] = 100.0
            return output

        model.register_forward_hook(force)
        return model

    text = " = 1\ny = 2\n"
    (*_, last) = streamed(scripted(text), session_tokenizer, "x", candidates=2)
    assert last.texts == [text] * 2
    (*_, last) = streamed(scripted(text + "def f():\n    pass\n"), session_tokenizer, "x", one_block=True)
    assert last.texts == [text.rstrip()]
    assert last.tokens < len(session_tokenizer(text + "def f():\n    pass\n")["input_ids"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prompt": ""}, "prompt is empty"),
        ({"prompt": ["x", "y"]}, "prompt is list; give one text"),
        ({"prompt": "x\ud800"}, r"prompt holds '\\ud800', half a character"),
        ({"new_tokens": 0}, "new_tokens is 0; allowed are 1 to 63"),
        ({"new_tokens": 64}, "context 64"),
        ({"candidates": 0}, "at least 1"),
        ({"temperature": -0.1}, "cannot be negative"),
        ({"top_p": 0.0}, "above 0"),
        ({"top_p": 1.1}, "at most 1"),
        ({"top_k": -1}, "0 allows every token"),
    ],
)
def test_a_stream_refuses_values_out_of_range(model, session_tokenizer, options, message):
    with pytest.raises(ValueError, match=message):
        streamed(model, session_tokenizer, **options)


def test_candidates_for_a_long_prompt_see_its_end(model, session_tokenizer):
    ids = session_tokenizer("import numpy as np\n" * 50 + "def f(x):\n    return")["input_ids"]
    end = session_tokenizer.decode(ids[4 - 64 :])
    assert session_tokenizer(end)["input_ids"] == ids[4 - 64 :]
    whole = generation.sample_candidates(model, session_tokenizer, session_tokenizer.decode(ids), 3, 4)
    assert whole == generation.sample_candidates(model, session_tokenizer, end, 3, 4)


@pytest.mark.parametrize(
    ("completion", "beginning"),
    [
        (" a + b", " a + b"),
        (" a + b\n\n    def __init__(self", " a + b"),
        (" a +\n    b", " a +\n    b"),  # never Python: nothing is hidden
        (" (a +\n    b)\n    return (", " (a +\n    b)"),
        ("", ""),
        (" a\0", " a\0"),
    ],
)
def test_runnable_beginning(completion, beginning):
    assert generation.runnable_beginning("def f(a, b):\n    return", completion) == beginning
