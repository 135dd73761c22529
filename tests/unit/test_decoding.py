"""The next token, and texts: against plain-Python references, exhaustive search and the library (PITFALLS D4)."""

import itertools
import math

import pytest
import tiktoken
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import GPT2LMHeadModel

from course_utils.models import generation
from course_utils.models.causal import gpt2_config
from course_utils.models.decoding import (
    generate_text,
    next_token_probabilities,
    text_to_token_ids,
    token_ids_to_text,
)
from course_utils.models.gpt import GPTModel

CONTEXT, VOCAB = 10, 17
CFG = {
    "vocab_size": VOCAB,
    "context_length": CONTEXT,
    "emb_dim": 16,
    "n_heads": 2,
    "n_layers": 2,
    "drop_rate": 0.3,
    "qkv_bias": True,
}
LOGITS = st.lists(st.lists(st.integers(-4, 4), min_size=6, max_size=6), min_size=1, max_size=3)  # with many ties


def model_of(seed=0, **changes):
    torch.manual_seed(seed)
    model = GPTModel(CFG | changes)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return model


def prompts(rows=3, length=4, vocab=VOCAB):
    return torch.randint(vocab, (rows, length), generator=torch.Generator().manual_seed(1))


def reference_probabilities(row, temperature, top_k, top_p):
    """One row, in the plainest way: sort, cut, normalise."""
    order = sorted(range(len(row)), key=lambda i: (-row[i], i))[:top_k]
    weights = [math.exp((row[i] - max(row)) / temperature) for i in order]
    probs = [weight / sum(weights) for weight in weights]
    kept = 1
    while top_p is not None and kept < len(probs) and sum(probs[:kept]) < top_p:
        kept += 1
    kept = len(probs) if top_p is None else kept
    result = [0.0] * len(row)
    for i, p in zip(order[:kept], probs, strict=False):
        result[i] = p / sum(probs[:kept])
    return result


@given(
    LOGITS,
    st.floats(0.2, 3),
    st.none() | st.integers(1, 6),
    st.none() | st.sampled_from([0.013, 0.11, 0.37, 0.503, 0.71, 0.9037, 0.991]),
)
def test_probabilities_are_those_of_the_plain_reference(rows, temperature, top_k, top_p):
    got = next_token_probabilities(torch.tensor(rows).float(), temperature, top_k, top_p)
    expected = torch.tensor([reference_probabilities(row, temperature, top_k, top_p) for row in rows])
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-6)


def test_every_row_has_its_own_top_k():
    logits = torch.tensor([[9.0, 8.0, 1.0, 0.0], [0.0, 1.0, 2.0, 3.0]])
    kept = next_token_probabilities(logits, 1.0, top_k=2) > 0
    assert kept.tolist() == [[True, True, False, False], [False, False, True, True]]


def test_extreme_settings_take_the_best_token():
    logits = torch.tensor([[1.0, 5.0, 2.0]])
    best = torch.tensor([[0.0, 1.0, 0.0]])
    for settings in ((0.0,), (1.0, 1), (1.0, None, 1e-9), (1e-30,)):
        assert torch.equal(next_token_probabilities(logits, *settings), best)
    torch.testing.assert_close(next_token_probabilities(logits, 1.0, 3, 1.0), logits.softmax(-1))


SETTINGS = {
    "greedy": {},
    "temperature": {"temperature": 1.3, "generator": 5},
    "top-k": {"temperature": 0.9, "top_k": 4, "generator": 6},
    "top-p": {"temperature": 1.0, "top_p": 0.8, "generator": 7},
    "beams": {"num_beams": 4},
    "beams with an end": {"num_beams": 3, "eos_id": 2},
    "sampling with an end": {"temperature": 2.0, "eos_id": 2, "generator": 8},
}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize(("context", "length"), [(CONTEXT, 4), (CONTEXT, 13), (6, 1)])
def test_cache_changes_no_token_even_beyond_the_context(settings, context, length):
    model, ids = model_of(), prompts(3, length)
    cached = generate_text(model, ids, 14, context, **settings)
    plain = generate_text(model, ids, 14, context, use_cache=False, **settings)
    assert torch.equal(cached, plain)
    assert torch.equal(cached[:, :length], ids)
    if "eos_id" not in settings:
        assert cached.shape == (3, length + 14)


def test_greedy_is_the_best_token_each_time():
    model, ids = model_of().eval(), prompts()
    expected = ids
    for _ in range(12):
        best = model(expected[:, -CONTEXT:])[:, -1].argmax(-1)
        expected = torch.cat([expected, best[:, None]], 1)
    assert torch.equal(generate_text(model, ids, 12, CONTEXT), expected)


def test_a_seed_decides_the_text_and_touches_no_other_randomness():
    model, ids = model_of(), prompts()
    state = torch.get_rng_state()
    first = generate_text(model, ids, 8, CONTEXT, 1.5, generator=1)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first, generate_text(model, ids, 8, CONTEXT, 1.5, generator=1))
    again = generate_text(model, ids, 8, CONTEXT, 1.5, generator=torch.Generator().manual_seed(1))
    assert torch.equal(first, again)
    assert not torch.equal(first, generate_text(model, ids, 8, CONTEXT, 1.5, generator=2))


def test_samples_follow_the_probabilities():
    logits = torch.tensor([0.0, 1.0, 2.0, -1.0])
    rows = 20_000
    ids = generate_text(lambda x: logits.expand(*x.shape, 4), torch.zeros(rows, 1).long(), 1, 5, 0.7, 3, generator=0)
    shares = torch.bincount(ids[:, 1], minlength=4) / rows
    expected = next_token_probabilities(logits[None], 0.7, 3)[0]
    assert (shares - expected).abs().max() < 0.015
    assert shares[3] == 0


def test_each_row_stops_at_its_own_end():
    """A model that counts up: row r reaches the end token 9 after 9 - r steps."""

    def count_up(x):
        return torch.nn.functional.one_hot((x + 1) % 12, 12).float()

    ids = torch.tensor([[5], [7], [2]])
    got = generate_text(count_up, ids, 20, 4, eos_id=9)
    assert got.tolist() == [[5, 6, 7, 8, 9, 9, 9, 9], [7, 8, 9, 9, 9, 9, 9, 9], [2, 3, 4, 5, 6, 7, 8, 9]]
    assert generate_text(count_up, torch.tensor([[9]]), 2, 4, eos_id=9).tolist() == [[9, 10, 11]]  # the prompt's own


@pytest.mark.parametrize("num_beams", [1, 3])
@pytest.mark.parametrize("eos_id", [None, 3])
def test_rows_do_not_influence_each_other(num_beams, eos_id):
    model, ids = model_of(3), prompts(4)
    together = generate_text(model, ids, 9, CONTEXT, num_beams=num_beams, eos_id=eos_id)
    for row, text in zip(ids, together, strict=True):
        alone = generate_text(model, row[None], 9, CONTEXT, num_beams=num_beams, eos_id=eos_id)[0]
        assert torch.equal(alone, text[: len(alone)])
        assert set(text[len(alone) :].tolist()) <= {eos_id}


@torch.no_grad()
def all_means(model, prompt, depth, vocab, eos_id):
    """Exhaustive search: every text, cut at its first end, and its mean log probability per token."""
    texts = list(itertools.product(range(vocab), repeat=depth))
    ids = torch.cat([prompt.repeat(len(texts), 1), torch.tensor(texts)], dim=1)
    log_probs = model(ids).log_softmax(-1)[:, len(prompt) - 1 : -1]  # (N, depth, V)
    steps = log_probs.gather(2, torch.tensor(texts)[:, :, None])[:, :, 0].tolist()
    means = {}
    for text, values in zip(texts, steps, strict=True):
        cut = text.index(eos_id) + 1 if eos_id in text else depth
        means[text[:cut]] = sum(values[:cut]) / cut
    return means


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("eos_id", [None, 0])
def test_beam_search_with_room_for_all_texts_is_exhaustive_search(seed, eos_id):
    model = model_of(seed, vocab_size=4).eval()
    ids = prompts(2, 3, 4)
    got = generate_text(model, ids, 4, CONTEXT, num_beams=4**4, eos_id=eos_id)
    expected = []
    for row in ids:
        means = all_means(model, row, 4, 4, eos_id)
        expected.append(max(means, key=means.get))
    longest = max(map(len, expected))
    padded = [[*text, *[eos_id] * (longest - len(text))] for text in expected]
    assert got[:, 3:].tolist() == padded


def test_beam_search_compares_means_and_stops_no_earlier_than_it_may():
    """Tables of random transitions, where the best text ends now early, now late, now not at all."""
    lengths = set()
    for seed in range(40):
        table = torch.randn(4, 4, generator=torch.Generator().manual_seed(seed)) * 1.5
        start = torch.tensor([1])
        means = all_means(lambda x, table=table: table[x], start, 4, 4, eos_id=0)
        got = generate_text(lambda x, table=table: table[x], start[None], 4, 9, num_beams=4**4, eos_id=0)
        text = tuple(got[0, 1:].tolist())
        assert means[text] == pytest.approx(max(means.values()), abs=1e-6)  # the same steps in another order tie
        lengths.add(len(text) if text[-1] == 0 else "open")
    assert lengths >= {1, 2, 3, "open"}


def test_beam_search_finds_what_greedy_misses():
    """The best first token leads to poor second ones."""
    table = torch.tensor([[0.0, 0.6, 0.4, 0.0], [0.34, 0.33, 0.33, 0.0], [0.0, 0.0, 0.05, 0.95], [1.0, 0.0, 0.0, 0.0]])

    def model(x):
        return table.clamp(min=1e-9).log()[x]

    start = torch.zeros(1, 1).long()
    assert generate_text(model, start, 2, 5).tolist() == [[0, 1, 0]]
    assert generate_text(model, start, 2, 5, num_beams=2).tolist() == [[0, 2, 3]]


def test_beam_search_is_the_librarys_where_no_text_ends():
    torch.manual_seed(0)
    library = GPT2LMHeadModel(gpt2_config(VOCAB, 40, 2, 16, 2, 0.0)).eval()
    for parameter in library.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    ids = prompts()
    theirs = library.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=8, num_beams=3, do_sample=False, pad_token_id=0
    )
    assert torch.equal(generate_text(library, ids, 8, 40, num_beams=3), theirs)


def test_the_model_comes_back_in_its_mode_and_dropout_is_off():
    model, ids = model_of(), prompts()
    for mode in (True, False):
        model.train(mode)
        assert torch.equal(generate_text(model, ids, 5, CONTEXT), generate_text(model, ids, 5, CONTEXT))
        assert model.training is mode
    model.train()
    model.trf_blocks[0].eval()  # frozen by its owner
    generate_text(model, ids, 1, CONTEXT)
    assert [block.training for block in model.trf_blocks] == [False] + [True] * (len(model.trf_blocks) - 1)
    with pytest.raises(IndexError):
        generate_text(model, ids + VOCAB, 5, CONTEXT)
    assert model.training


@pytest.mark.parametrize("num_beams", [1, 2])
def test_written_text_can_be_trained_on(num_beams):
    model = model_of().train()
    ids = generate_text(model, prompts(), 3, CONTEXT, num_beams=num_beams)
    model(ids).sum().backward()
    assert not ids.is_inference()


def test_nothing_to_add_gives_the_prompt():
    for beams in (1, 2):
        assert torch.equal(generate_text(model_of(), prompts(), 0, CONTEXT, num_beams=beams), prompts())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"temperature": -0.1}, "temperature is -0.1"),
        ({"temperature": math.nan}, "temperature is nan"),
        ({"top_k": 0}, "top_k is 0; keep at least 1"),
        ({"top_k": 18, "temperature": 1.0}, "top_k is 18, but the vocabulary has 17"),
        ({"top_p": 0.0}, "top_p is 0.0"),
        ({"top_p": 1.1}, "top_p is 1.1"),
        ({"num_beams": 0}, "num_beams is 0"),
        ({"num_beams": 2, "temperature": 1.0}, "num_beams is 2: .*temperature 0"),
        ({"num_beams": 2, "top_k": 3}, "num_beams is 2: .*without top_k"),
        ({"num_beams": 2, "top_p": 0.5}, "num_beams is 2: .*without top_k and top_p"),
        ({"top_k": 18, "max_new_tokens": 0}, "top_k is 18, but the vocabulary has 17"),
        ({"top_k": 2.5}, "top_k is 2.5; .*a whole number"),
        ({"eos_id": -1}, "eos_id is -1"),
        ({"eos_id": 17, "num_beams": 2}, "eos_id is 17"),
        ({"idx": torch.zeros(1, 0).long()}, r"the prompt has the shape \(1, 0\)"),
        ({"idx": torch.zeros(3).long()}, r"the prompt has the shape \(3,\)"),
        ({"idx": torch.zeros(1, 3)}, "type torch.float32"),
        ({"max_new_tokens": -1}, "max_new_tokens is -1"),
        ({"context_size": 0}, "context_size 0"),
        ({"context_size": 11}, "context_size is 11, but the model's context is 10"),
    ],
)
def test_bad_requests_are_refused(change, message):
    arguments = {"idx": prompts(), "max_new_tokens": 3, "context_size": CONTEXT} | change
    with pytest.raises(ValueError, match=message):
        generate_text(model_of(), **arguments)


def test_text_and_ids_with_both_kinds_of_tokenizer(session_tokenizer):
    bytes_only = tiktoken.Encoding("bytes", pat_str=r"(?s).", mergeable_ranks={bytes([i]): i for i in range(256)},
                                   special_tokens={"<|endoftext|>": 256})  # fmt: skip
    for tokenizer in (session_tokenizer, bytes_only):
        text = "import numpy as np\n<|endoftext|>x = 'ä'"
        ids = text_to_token_ids(text, tokenizer)
        assert ids.shape[0] == 1
        assert token_ids_to_text(ids, tokenizer) == token_ids_to_text(ids[0], tokenizer) == text
        with pytest.raises(ValueError, match="one row at a time"):
            token_ids_to_text(ids.repeat(2, 1), tokenizer)
    assert 256 in text_to_token_ids("a<|endoftext|>", bytes_only)
    same = session_tokenizer.backend_tokenizer  # of the tokenizers library: its encode returns an object
    assert torch.equal(text_to_token_ids("x = 1", same), text_to_token_ids("x = 1", session_tokenizer))


def test_functions_have_both_names():
    assert generation.generate_text is generate_text
    assert generation.next_token_probabilities is next_token_probabilities
