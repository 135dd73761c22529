"""The weighted loss and its key tokens (PITFALLS A12, A13)."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import CrossEntropyLoss

from course_utils.models.causal import build_causal_lm
from course_utils.profiles import get_profile
from course_utils.training import losses
from course_utils.training.memory import peak_bytes

VOCAB = 50


def example(rows=4, length=9, seed=0):
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randint(VOCAB, (rows, length), generator=generator)
    return inputs, torch.randn(rows, length, VOCAB, generator=generator).requires_grad_()


def formula_of_the_tutorial(inputs, logits, keys, alpha):
    """A13 as its formula reads: mean over rows of (mean loss of the row) x alpha x (1 + key tokens of the row)."""
    predictions, following = logits[:, :-1].contiguous(), inputs[:, 1:].contiguous()
    token = CrossEntropyLoss(reduction="none")(predictions.view(-1, predictions.size(-1)), following.view(-1))
    hits = sum((inputs == key).float() for key in keys).sum(1)
    return (token.view(len(inputs), -1).mean(1) * (alpha * (1.0 + hits))).mean()


@pytest.mark.parametrize(("rows", "length", "alpha"), [(1, 2, 0.3), (4, 9, 7.0), (16, 128, 1.0)])
def test_the_tutorials_form_is_equal_to_the_last_bit(rows, length, alpha):
    inputs, logits = example(rows, length)
    ours = losses.keytoken_weighted_loss(inputs, logits, [3, 7, 11], alpha, normalize=False)
    theirs = formula_of_the_tutorial(inputs, logits, [3, 7, 11], alpha)
    assert torch.equal(ours, theirs)
    assert torch.equal(*(torch.autograd.grad(loss, logits)[0] for loss in (ours, theirs)))


@pytest.mark.parametrize("alpha", [0.0, 1.0, 5.0])
def test_normalised_weights_sum_to_one_and_alpha_matters(alpha):
    inputs, logits = example()
    rows = torch.stack([losses.token_losses(inputs, logits)[i, :-1].mean() for i in range(4)])
    keys = [int(inputs[0, 0]), int(inputs[0, 3])]
    weights = 1 + alpha * torch.tensor([[int(t) in keys for t in row] for row in inputs]).sum(1)
    ours = losses.keytoken_weighted_loss(inputs, logits, keys, alpha)
    torch.testing.assert_close(ours, (rows * weights).sum() / weights.sum())
    assert (abs(ours - rows.mean()) < 1e-6) == (alpha == 0)


def test_of_an_untrained_model_only_the_normalised_loss_is_ln_of_the_vocabulary():
    inputs, logits = torch.arange(64).reshape(4, 16) % VOCAB, torch.zeros(4, 16, VOCAB)  # every token equally likely
    ours, theirs = (losses.keytoken_weighted_loss(inputs, logits, [1, 2, 3, 4, 5], 1.0, form) for form in (True, False))
    assert ours.item() == pytest.approx(math.log(VOCAB))
    assert theirs > 1.3 * math.log(VOCAB)


def test_padding_counts_nowhere():
    inputs, logits = example(3, 6)
    padded, wide = torch.full((5, 10), losses.IGNORED), torch.randn(5, 10, VOCAB)
    padded[:3, :6], wide[:3, :6] = inputs, logits.detach()
    expected = losses.keytoken_weighted_loss(inputs, logits, [4, 5], 2.0)
    torch.testing.assert_close(losses.keytoken_weighted_loss(padded, wide, [4, 5], 2.0), expected)
    logits = torch.randn(2, 5, VOCAB, requires_grad=True)  # a batch of padding only
    losses.keytoken_weighted_loss(torch.full((2, 5), losses.IGNORED), logits, [1]).backward()
    assert not logits.grad.any()


@given(st.integers(1, 6), st.integers(2, 12), st.integers(0, 2**30), st.floats(0, 10))
def test_sums_of_parts_are_the_sums_of_the_whole(rows, length, seed, alpha):
    inputs, logits = example(2 * rows, length, seed)
    for sums in (losses.causal_loss_sums, losses.choose_loss([1, 2, 3], alpha)):
        whole = torch.stack(sums(inputs, logits))
        parts = torch.stack(sums(inputs[:rows], logits[:rows])) + torch.stack(sums(inputs[rows:], logits[rows:]))
        torch.testing.assert_close(whole, parts, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("rows", [1, 40])  # one part, and many
def test_logits_of_16_bits_lose_nothing_and_need_no_copy_in_fp32(rows):
    inputs, _ = example(rows, 64)
    inputs[0, 5:] = losses.IGNORED
    upstream, got = torch.rand(rows, 64), []
    values = torch.randn(rows, 64, 2**12, dtype=torch.bfloat16)
    for kind in (torch.bfloat16, torch.float32):
        logits = values.clone().requires_grad_()

        def step(logits=logits, kind=kind):
            found = losses.token_losses(inputs, logits.to(kind))
            (found * upstream).sum().backward()
            return got.append((found, logits.grad))

        got.append(peak_bytes(step, torch.device("cpu")))
    small, (found, gradient), large, (expected, expected_gradient) = got[1], got[0], got[3], got[2]
    assert torch.equal(found, expected)
    torch.testing.assert_close(gradient, expected_gradient, rtol=2**-7, atol=1e-9)
    assert small < large / 2 or rows == 1


def test_causal_loss_is_the_models_own(session_tokenizer):
    ids = torch.randint(300, (3, 20))
    output = build_causal_lm(get_profile("tiny", model_layers=1), session_tokenizer)(ids, labels=ids)
    total, count = losses.causal_loss_sums(ids, output.logits)
    torch.testing.assert_close(total / count, output.loss)
    assert count == 3 * 19


def test_key_tokens_are_single_tokens_with_and_without_a_space(session_tokenizer):
    said = []
    found = losses.keytoken_ids(session_tokenizer, ["self", "import", "testtest"], said.append)
    texts = {session_tokenizer.decode([i]) for i in found}
    assert {"self", " self", "import", " import"} & texts
    assert said == ["Not a single token, so left out: 'testtest', ' testtest'"]
    assert len(found) == len(set(found))


@pytest.mark.parametrize("keywords", [["testtest"], [], "plt", "", ["plt", ""]])
def test_keywords_without_a_single_token_are_refused(session_tokenizer, keywords):
    with pytest.raises(ValueError, match=r"is a single token|no keywords|is not allowed; give a list of words"):
        losses.keytoken_ids(session_tokenizer, keywords)
