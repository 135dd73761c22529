"""Completions: the right length, the first block, an honest score."""

import pytest
import torch
from transformers import pipeline

from course_utils.models import generation
from course_utils.models.causal import build_causal_lm
from course_utils.models.prompts import IDIOMS, UNSEEN_IDIOMS
from course_utils.profiles import get_profile

CUTS = {
    generation.first_block: [
        *[
            (f"    x = 1\n\n{line}\n", "    x = 1")
            for line in ("class A:", "def f():", "# y", "@y", "print(x)", "if x:")
        ],
        ("x = 1\n    if x:\n        y = 2\n", "x = 1\n    if x:\n        y = 2"),
        ("x = 1\nprinter = 2", "x = 1\nprinter = 2"),
    ],
    generation.function_body: [
        (" a + b\n\nprint(1)", " a + b"),
        ("\n    x = 1\n\n    return x\n# next", "\n    x = 1\n\n    return x"),
        ("\n\treturn 1\nx = 2", "\n\treturn 1"),
    ],
    lambda text: generation.runnable_beginning("def f(a, b):\n    return", text): [
        (" a + b\n\n    def __init__(self", " a + b"),
        (" a +\n    b", " a +\n    b"),  # never Python: nothing is hidden
        (" (a +\n    b)\n    return (", " (a +\n    b)"),
        (" a\0", " a\0"),
    ],
}


@pytest.mark.parametrize("cut", CUTS)
def test_completions_are_cut_at_the_right_place(cut):
    for text, expected in [*CUTS[cut], ("", "")]:
        assert cut(text) == expected


@pytest.fixture(scope="module")
def model(session_tokenizer):
    # Dropout, if it worked, would change every text.
    return build_causal_lm(get_profile("tiny", context_length=64), session_tokenizer, dropout=0.5).train()


def streamed(model, tokenizer, prompt="import numpy as", **options):
    return list(generation.stream_completions(model, tokenizer, prompt, **({"new_tokens": 20} | options)))


def test_samples_are_the_librarys_of_new_tokens_only(model, session_tokenizer):
    pipe, prompt = pipeline("text-generation", model=model.eval(), tokenizer=session_tokenizer), "def f(x):\n" * 3
    options = {"max_new_tokens": 12, "num_return_sequences": 3, "do_sample": True, "temperature": 0.4, "top_p": 0.95}
    torch.manual_seed(1)
    theirs = [result["generated_text"] for result in pipe(prompt, top_k=0, return_full_text=False, **options)]
    model.train()
    state = torch.get_rng_state()
    ours = generation.complete_code(pipe, prompt, max_length=12, num_completions=3, seed=1)
    bodies = generation.sample_candidates(model, session_tokenizer, prompt, count=3, new_tokens=12, seed=1)
    assert ours == [generation.first_block(text) for text in theirs]
    assert bodies == [generation.runnable_beginning(prompt, generation.function_body(text)) for text in theirs]
    assert ours != generation.complete_code(pipe, prompt, max_length=12, num_completions=3, seed=2)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(part.training for part in model.modules())


def test_an_idiom_is_hit_if_the_greedy_completion_begins_with_it(model, session_tokenizer):
    prompt = "import pandas as"
    got = generation.complete_greedily(model, session_tokenizer, prompt, 3)
    rows = [("alias", prompt, got), ("alias", prompt, got + " pd")]
    assert generation.score_idioms(model, session_tokenizer, rows) == [True, False]


def test_every_idiom_splits_between_tokens(session_tokenizer):
    for _, prompt, wanted in IDIOMS + UNSEEN_IDIOMS:
        apart = session_tokenizer(prompt)["input_ids"] + session_tokenizer(wanted)["input_ids"]
        assert apart == session_tokenizer(prompt + wanted)["input_ids"], (prompt, wanted)


@pytest.mark.parametrize("penalty", [1.0, 1.3])
@pytest.mark.parametrize("prompt", ["import numpy as", "".join(f"x{i} = {i}\n" for i in range(100))])
def test_a_stream_without_chance_writes_what_the_library_does(model, session_tokenizer, prompt, penalty):
    ids = torch.tensor([session_tokenizer(prompt)["input_ids"][-44:]])  # cut on its left to fit into the 64
    options = {"do_sample": False, "repetition_penalty": penalty, "attention_mask": torch.ones_like(ids)}
    theirs = model.eval().generate(ids, max_new_tokens=20, **options)
    model.train()
    text = session_tokenizer.decode(theirs[0, ids.shape[1] :]).rstrip("\ufffd")
    for certain in ({"temperature": 0}, {"temperature": 3.0, "top_k": 1}, {"temperature": 3.0, "top_p": 1e-6}):
        certain |= {"candidates": 2, "repetition_penalty": penalty}
        assert streamed(model, session_tokenizer, prompt, **certain)[-1] == [text] * 2
    assert generation.complete_greedily(model, session_tokenizer, prompt, 20, repetition_penalty=penalty) == text


def test_a_stream_ends_at_the_end_of_text_and_at_the_next_block(session_tokenizer):
    def scripted(*parts):
        """A model of which every next token is known."""
        model = build_causal_lm(get_profile("tiny"), session_tokenizer)
        ids = [token for part in parts for token in session_tokenizer(part)["input_ids"]]
        ids = iter([*ids, session_tokenizer.eos_token_id, 0, 0])

        def force(module, arguments, output):
            output.logits[:] = -100.0
            output.logits[:, -1, next(ids)] = 100.0

        model.register_forward_hook(force)
        return model

    text, block = "(a):\n    return 1\ny = 2\n", "def f():\n    pass\n"
    assert streamed(scripted(text), session_tokenizer, "x", candidates=2, new_tokens=60)[-1] == [text] * 2
    # "def" alone is no block yet: "default" begins with it, and the tokens may end between them.
    steps = streamed(scripted(text, "def", "ault = 3\n", block), session_tokenizer, "x", one_block=True, new_tokens=60)
    assert steps[-1] == [text + "default = 3"]
    assert len(steps) < len(session_tokenizer(text + "def ault = 3\n" + block)["input_ids"])


def test_impossible_requests_are_refused(model, session_tokenizer, code_tokenizer):
    code_tokenizer.add_tokens("pandas")
    message = f"the id {len(session_tokenizer)}, but the model knows only {len(session_tokenizer)} tokens"
    with pytest.raises(ValueError, match=message):
        generation.complete_greedily(model, code_tokenizer, "import pandas", 4)
    with pytest.raises(ValueError, match="prompt is empty"):
        streamed(model, session_tokenizer, "")
    for count in (0, 64):
        with pytest.raises(ValueError, match=f"{count} new tokens are not possible; give 1 to 63"):
            streamed(model, session_tokenizer, new_tokens=count)
