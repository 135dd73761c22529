"""Evaluation counts every predicted token once, whatever the batches (PITFALLS A15)."""

import math

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from course_utils.models.causal import build_causal_lm
from course_utils.profiles import get_profile
from course_utils.training.heldout import bits_per_byte, evaluate, perplexity
from course_utils.training.losses import IGNORED


@pytest.fixture
def accelerator():
    yield Accelerator(cpu=True)
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


@pytest.fixture
def model():
    torch.manual_seed(0)
    model = build_causal_lm(get_profile("tiny", vocab_size=300, model_layers=1, context_length=32))
    model.transformer.wte.weight.data.mul_(20)  # losses that differ between the rows
    return model


def exact_loss(model, rows):
    with torch.no_grad():
        each = [F.cross_entropy(model.eval()(ids[None]).logits[0, :-1], ids[1:], reduction="sum") for ids in rows]
    return (sum(each) / sum(len(ids) - 1 for ids in rows)).item()


def batches_of(rows, sizes):
    batches, start = [], 0
    for size in sizes:
        part, start = rows[start : start + size], start + size
        labels = torch.nn.utils.rnn.pad_sequence(part, batch_first=True, padding_value=IGNORED)
        batches.append({"input_ids": labels.clamp(min=0), "attention_mask": (labels >= 0).long(), "labels": labels})
    return batches


@pytest.mark.parametrize(("sizes", "training"), [((10,), True), ((4, 4, 2), False), ((1, 9), True)])
def test_unequal_batches_and_padding_change_nothing(accelerator, model, sizes, training):
    rows = [torch.randint(300, (length,)) for length in (32, 5, 17, 2, 32, 9, 30, 4, 3, 25)]
    batches, exact = batches_of(rows, sizes), exact_loss(model, rows)
    model.train(training)
    result = evaluate(model, batches, accelerator, tokens_per_byte=0.4)
    assert model.training == training
    assert result == pytest.approx((exact, math.exp(exact), exact / math.log(2) * 0.4), rel=1e-4)
    without_labels = [{k: v for k, v in batch.items() if k != "labels"} for batch in batches]
    assert evaluate(model, without_labels, accelerator).loss == pytest.approx(exact, rel=1e-5)
    if len(sizes) > 1:
        with torch.no_grad():
            of_batches = sum(model(**batch).loss.item() for batch in batches) / len(batches)
        assert abs(of_batches - exact) > 0.01  # what the tutorials print


def test_another_loader_that_is_being_read_cuts_no_batch(accelerator, model):
    rows = [torch.randint(300, (32,)) for _ in range(8)]
    plain = torch.utils.data.DataLoader([{"input_ids": ids} for ids in rows], batch_size=4)
    expected = exact_loss(model, rows)
    outer, prepared = accelerator.prepare(torch.utils.data.DataLoader(range(7), batch_size=4), plain)
    for _ in outer:  # its last batch is short
        for loader in (plain, prepared):
            assert evaluate(model, loader, accelerator).loss == pytest.approx(expected, rel=1e-5)


@given(st.floats(0.01, 20), st.integers(1, 10**9), st.integers(1, 10**9))
def test_bits_per_byte_does_not_depend_on_how_text_is_cut_into_tokens(loss, tokens, num_bytes):
    bits = bits_per_byte(loss, tokens, num_bytes)
    assert bits == pytest.approx(loss * tokens / math.log(2) / num_bytes)
    assert bits_per_byte(loss / 2, 2 * tokens, num_bytes) == pytest.approx(bits)
    assert bits_per_byte(math.log(256), tokens, tokens) == pytest.approx(8)  # a uniform model of bytes


def test_perplexity_is_infinite_rather_than_an_error():
    assert perplexity(1e6) == perplexity(math.inf) == math.inf
