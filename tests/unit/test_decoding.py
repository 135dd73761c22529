"""The next token, and texts: against plain-Python references, exhaustive search and the library (PITFALLS D4)."""

import itertools
import math
import statistics

import pytest
import tiktoken
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import GPT2LMHeadModel

from course_utils.models.causal import gpt2_config
from course_utils.models.decoding import generate_text, next_token_probabilities, text_to_token_ids, token_ids_to_text
from course_utils.models.gpt import GPTModel

CONTEXT, VOCAB = 10, 17
CFG = {"vocab_size": VOCAB, "context_length": CONTEXT, "emb_dim": 16, "n_heads": 2, "n_layers": 2, "drop_rate": 0.3,
       "qkv_bias": True}  # fmt: skip
LOGITS = st.lists(st.lists(st.integers(-4, 4), min_size=6, max_size=6), min_size=1, max_size=3)  # with many ties


def drawn(model):
    torch.manual_seed(0)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return model


def model_of():
    return drawn(GPTModel(CFG))


def prompts(length=4):
    return torch.randint(VOCAB, (3, length), generator=torch.Generator().manual_seed(1))


def reference_probabilities(row, temperature, top_k, top_p):
    """One row, in the plainest way: sort, cut, normalise."""
    order = sorted(range(len(row)), key=lambda i: (-row[i], i))[:top_k]
    weights = [math.exp((row[i] - max(row)) / temperature) for i in order]
    probs = [weight / sum(weights) for weight in weights]
    kept = 1
    while kept < len(probs) and (top_p is None or sum(probs[:kept]) < top_p):
        kept += 1
    shares = dict(zip(order[:kept], probs[:kept], strict=True))
    return [shares.get(i, 0.0) / sum(shares.values()) for i in range(len(row))]


TOP_P = st.none() | st.sampled_from([0.013, 0.11, 0.37, 0.503, 0.71, 0.9037, 0.991])


@given(LOGITS, st.floats(0.2, 3), st.none() | st.integers(1, 6), TOP_P)
def test_every_row_has_the_probabilities_of_the_plain_reference(rows, temperature, top_k, top_p):
    got = next_token_probabilities(torch.tensor(rows).float(), temperature, top_k, top_p)
    expected = torch.tensor([reference_probabilities(row, temperature, top_k, top_p) for row in rows])
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-6)


def test_extreme_settings_take_the_best_token():
    logits = torch.tensor([[1.0, 5.0, 2.0]])
    for settings in ((0.0,), (1.0, 1), (1.0, None, 1e-9), (1e-30,)):
        assert torch.equal(next_token_probabilities(logits, *settings), torch.tensor([[0.0, 1.0, 0.0]]))
    torch.testing.assert_close(next_token_probabilities(logits, 1.0, 3, 1.0), logits.softmax(-1))


def test_values_out_of_range_are_refused():
    for bad in ((-0.1,), (math.nan,), (1.0, 0), (1.0, None, 0.0), (1.0, None, 1.1)):
        with pytest.raises(ValueError, match="Allowed are a temperature of 0"):
            next_token_probabilities(torch.zeros(1, 3), *bad)


SETTINGS = [
    {},
    {"temperature": 0.9, "top_k": 4, "generator": 6},
    {"temperature": 1.0, "top_p": 0.8, "generator": 7},
    {"num_beams": 4},
    {"num_beams": 3, "eos_id": 2},
    {"temperature": 2.0, "eos_id": 2, "generator": 8},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize(("context", "length"), [(CONTEXT, 4), (CONTEXT, 13), (6, 1)])
def test_cache_changes_no_token_even_beyond_the_context(settings, context, length):
    model, ids = model_of(), prompts(length)
    cached = generate_text(model, ids, 14, context, **settings)
    assert torch.equal(cached, generate_text(model, ids, 14, context, use_cache=False, **settings))
    assert torch.equal(cached[:, :length], ids)
    assert "eos_id" in settings or cached.shape == (3, length + 14)


def test_a_seed_decides_the_text_and_touches_no_other_randomness():
    model, ids = model_of(), prompts()
    state = torch.get_rng_state()
    first, again, other = (generate_text(model, ids, 8, CONTEXT, 1.5, generator=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_samples_follow_the_probabilities():
    logits = torch.tensor([0.0, 1.0, 2.0, -1.0])
    ids = generate_text(lambda x: logits.expand(*x.shape, 4), torch.zeros(20_000, 1).long(), 1, 5, 0.7, 3, generator=0)
    shares = torch.bincount(ids[:, 1], minlength=4) / 20_000
    assert (shares - next_token_probabilities(logits[None], 0.7, 3)[0]).abs().max() < 0.015
    assert shares[3] == 0


def test_each_row_stops_at_its_own_end():
    def count_up(x):
        return torch.nn.functional.one_hot((x + 1) % 12, 12).float()

    got = generate_text(count_up, torch.tensor([[5], [7], [2]]), 20, 4, eos_id=9)
    assert got.tolist() == [[5, 6, 7, 8, 9, 9, 9, 9], [7, 8, 9, 9, 9, 9, 9, 9], [2, 3, 4, 5, 6, 7, 8, 9]]
    assert generate_text(count_up, torch.tensor([[9]]), 2, 4, eos_id=9).tolist() == [[9, 10, 11]]  # the prompt's own


def all_means(table, first, eos_id):
    """Exhaustive search: every text of up to 4 of 4 tokens, and its mean log probability per token."""
    log_probs, means = table.log_softmax(-1).tolist(), {}
    for text in itertools.product(range(4), repeat=4):
        text = text[: text.index(eos_id) + 1] if eos_id in text else text
        means[text] = statistics.mean(log_probs[a][b] for a, b in itertools.pairwise((first, *text)))
    return means


@pytest.mark.parametrize("eos_id", [None, 0])
def test_beam_search_with_room_for_all_texts_is_exhaustive_search(eos_id):
    """Tables of random transitions, where the best text ends now early, now late, now not at all."""
    lengths = set()
    for seed in range(40):
        table = torch.randn(4, 4, generator=torch.Generator().manual_seed(seed)) * 1.5
        got = generate_text(table.__getitem__, torch.tensor([[1], [2]]), 4, 9, num_beams=4**4, eos_id=eos_id)
        for row in got.tolist():
            means = all_means(table, row[0], eos_id)
            text = tuple(row[1 : row.index(0, 1) + 1] if eos_id in row[1:] else row[1:])
            assert means[text] == pytest.approx(max(means.values()), abs=1e-6)  # the same steps in another order tie
            lengths.add(len(text))
    assert lengths >= ({4} if eos_id is None else {1, 2, 3, 4})


def test_beam_search_is_the_librarys_where_no_text_ends():
    library, ids = drawn(GPT2LMHeadModel(gpt2_config(VOCAB, 40, 2, 16, 2))).eval(), prompts()
    options = {"max_new_tokens": 8, "num_beams": 3, "do_sample": False, "pad_token_id": 0}
    theirs = library.generate(ids, attention_mask=torch.ones_like(ids), **options)
    assert torch.equal(generate_text(library, ids, 8, 40, num_beams=3), theirs)


@pytest.mark.parametrize("num_beams", [1, 2])
def test_the_model_comes_back_in_its_mode_and_the_text_can_be_trained_on(num_beams):
    model, ids = model_of().train(), prompts()
    model.trf_blocks[0].eval()  # frozen by its owner
    first, again = (generate_text(model, ids, 5, CONTEXT, num_beams=num_beams) for _ in range(2))
    assert torch.equal(first, again)  # dropout is off
    model(first).sum().backward()
    with pytest.raises(ValueError, match="11 tokens do not fit"):
        generate_text(model, ids, 8, CONTEXT + 1)
    assert [block.training for block in model.trf_blocks] == [False, True]
    assert torch.equal(generate_text(model, ids, 0, CONTEXT, num_beams=num_beams), ids)


def test_a_beam_search_that_draws_and_a_tokenizer_of_another_model_are_refused():
    for options in ({"temperature": 1.0}, {"top_k": 3}, {"top_p": 0.5}):
        with pytest.raises(ValueError, match="a beam search draws nothing"):
            generate_text(model_of(), prompts(), 3, CONTEXT, num_beams=2, **options)
    with pytest.raises(ValueError, match="made the id 17, but the model knows only 17 tokens"):
        generate_text(model_of(), torch.tensor([[1, 17]]), 3, CONTEXT)


def test_text_and_ids_with_both_kinds_of_tokenizer(session_tokenizer):
    bytes_only = tiktoken.Encoding("bytes", pat_str=r"(?s).", mergeable_ranks={bytes([i]): i for i in range(256)},
                                   special_tokens={"<|endoftext|>": 256})  # fmt: skip
    text = "import numpy as np\n<|endoftext|>x = 'ä'"
    for tokenizer in (session_tokenizer, bytes_only):
        ids = text_to_token_ids(text, tokenizer)
        assert token_ids_to_text(ids, tokenizer) == token_ids_to_text(ids[0], tokenizer) == text
        with pytest.raises(ValueError, match="one row at a time"):
            token_ids_to_text(ids.repeat(2, 1), tokenizer)
