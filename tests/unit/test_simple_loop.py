"""The simple training loop: losses that count every token once, true places, exact continuation (PITFALLS D7, D9)."""

import functools
import math
import pickle

import pytest
import torch
from torch.utils.data import DataLoader, RandomSampler

from course_utils import plots
from course_utils.data.sliding_windows import create_dataloader_v1
from course_utils.models.gpt import GPTModel
from course_utils.training import simple_loop

CFG = {"vocab_size": 128, "context_length": 16, "emb_dim": 16, "n_heads": 2, "n_layers": 2, "drop_rate": 0.1}
TEXT = "the sea is grey, the harbour sleeps; " * 12


class Characters:
    """The smallest tokenizer: one token per character."""

    def encode(self, text, **_):
        return list(map(ord, text))

    def decode(self, ids, **_):
        return "".join(map(chr, ids))


def loader(length=330, batch_size=3, drop_last=True, shuffle=True):
    return create_dataloader_v1(TEXT[:length], batch_size, 8, 8, shuffle, drop_last, tokenizer=Characters())


def model_of(**changes):
    torch.manual_seed(0)
    return GPTModel(CFG | {"qkv_bias": True} | changes)


def train(model, epochs=2, optimizer=None, data=None, **options):
    optimizer = optimizer or torch.optim.AdamW(model.parameters(), lr=3e-3)
    places = (model, data or loader(), loader(90), optimizer, "cpu", epochs)
    options = {"eval_freq": 5, "eval_iter": 2, "start_context": None, "show_progress": False} | options
    return simple_loop.train_model_simple(*places, tokenizer=Characters(), **options)


def same_weights(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


@torch.no_grad()
def test_loader_loss_is_the_mean_over_all_tokens_of_unequal_batches():
    model = model_of().train()  # measured without dropout all the same
    data = loader(length=81, batch_size=4, drop_last=False, shuffle=False)
    batches = [(inputs, targets.masked_fill(targets == ord("e"), -100)) for inputs, targets in data]
    assert [len(inputs) for inputs, _ in batches] == [4, 4, 2]
    inputs, targets = (torch.cat(parts) for parts in zip(*batches, strict=True))
    got = simple_loop.calc_loss_loader(batches, model, "cpu")
    assert model.training
    log_probs = model.eval()(inputs).log_softmax(-1).gather(2, targets.clamp(min=0)[:, :, None])[:, :, 0]
    assert got == pytest.approx(-log_probs[targets != -100].mean().item(), rel=1e-5)
    singly = [simple_loop.calc_loss_batch(*batch, model, "cpu").item() for batch in batches]
    assert abs(sum(singly) / 3 - got) > 1e-4  # the mean of means, which the tutorial's function returns
    assert simple_loop.calc_loss_loader(batches, model, "cpu", num_batches=1) == pytest.approx(singly[0])
    assert simple_loop.evaluate_model(model, batches, batches[:1], "cpu", 99) == pytest.approx((got, singly[0]))


@pytest.mark.parametrize("drop_last", [True, False])
def test_training_learns_and_measures_at_true_places(drop_last):
    data = loader(drop_last=drop_last)  # 41 windows of 8 tokens in batches of 3
    history = train(model_of(drop_rate=0.0), 4, data=data)
    per_epoch = 39 * 8 if drop_last else 41 * 8
    assert history.epochs_seen == pytest.approx([tokens / per_epoch for tokens in history.track_tokens_seen])
    steps = range(1, 4 * len(data) + 1)
    assert history.step == len(steps)
    assert len(history.epochs_seen) == 1 + sum(step % 5 == 0 or step % len(data) == 0 for step in steps)
    assert {0, 1, 2, 3, 4} <= set(history.epochs_seen)
    train_losses, val_losses, _ = history  # as in the tutorial
    assert train_losses[0] == pytest.approx(math.log(128), abs=0.2)
    assert max(train_losses[-1] / train_losses[0], val_losses[-1] / val_losses[0]) < 0.7


def test_a_sampler_of_fewer_rows_ends_its_epoch_with_a_measurement():
    rows = loader().dataset
    few = DataLoader(rows, 3, sampler=RandomSampler(rows, num_samples=8, generator=torch.Generator()))
    history = train(model_of(), 2, data=few, eval_freq=99)
    assert (history.epochs_seen, history.track_tokens_seen) == ([0, 1, 2], [0, 64, 128])


def test_tokens_are_drawn_exactly_above_their_epochs():
    history = train(model_of(), 2, data=loader(drop_last=False))
    figure = plots._losses_figure(history.epochs_seen, history.track_tokens_seen, *list(history)[:2])
    figure.draw_without_rendering()
    (axes,) = figure.axes
    (above,) = axes.child_axes
    for line, losses in zip(axes.lines, (history.train_losses, history.val_losses), strict=True):
        assert (list(line.get_xdata()), list(line.get_ydata())) == (history.epochs_seen, losses)
    for epochs, tokens in zip(history.epochs_seen, history.track_tokens_seen, strict=True):
        places = [a.transData.transform((x, 0))[0] for a, x in ((axes, epochs), (above, tokens))]
        assert places[0] == pytest.approx(places[1], abs=1e-6)


def test_the_loop_is_the_one_of_the_book_and_measuring_changes_no_weight(capsys):
    model, often, by_hand = model_of(), model_of(), model_of()
    history = train(model, 2, seed=7, eval_freq=1000, eval_iter=1, start_context="the sea\n")
    samples = capsys.readouterr().out.splitlines()
    assert [len(text) for text in samples] == [58, 58]
    assert all(text.startswith("the sea ") for text in samples)
    train(often, 2, seed=7, eval_freq=1, show_progress=True)
    data, optimizer = loader(), torch.optim.AdamW(by_hand.parameters(), lr=3e-3)
    for epoch in range(2):
        torch.manual_seed(7 + epoch)
        data.generator.manual_seed(7 + epoch)
        for inputs, targets in data:
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(by_hand(inputs).flatten(0, 1), targets.flatten()).backward()
            optimizer.step()
    assert same_weights(model, by_hand)
    assert same_weights(often, by_hand)
    assert history.learning_rates == [3e-3] * 26


def test_clipping_limits_the_gradient_and_the_schedule_sets_every_step():
    schedule = functools.partial(simple_loop.warmup_cosine, warmup_steps=4, total_steps=13, peak=0.5)
    model, before = model_of(), model_of()
    history = train(model, 1, torch.optim.SGD(model.parameters(), lr=9.0), max_norm=1e-3, learning_rate=schedule)
    assert history.learning_rates == [schedule(step) for step in range(13)]
    moved = sum((a - b).square().sum() for a, b in zip(model.parameters(), before.parameters(), strict=True)).sqrt()
    assert 0 < moved.item() <= 1e-3 * sum(history.learning_rates)


def test_warm_up_and_cosine_are_the_formula():
    rates = [simple_loop.warmup_cosine(step, 10, 101, 2.0) for step in range(101)]
    assert rates[:11] == pytest.approx([step / 5 for step in range(11)])
    assert (max(rates), rates[55], rates[100]) == (rates[10], pytest.approx(1.0), pytest.approx(0.0))
    assert sorted(rates[10:], reverse=True) == rates[10:]
    assert simple_loop.warmup_cosine(0, 0, 1, 1.0) == 1.0


SCHEDULE = functools.partial(simple_loop.warmup_cosine, warmup_steps=5, total_steps=39, peak=3e-3)


@pytest.mark.parametrize("schedule", [None, SCHEDULE])
def test_a_training_continues_as_if_there_had_been_no_break(schedule, tmp_path):
    """Dropout and order included; the learning rate of the new optimizer has no effect (D9), the schedule has."""
    options = {"learning_rate": schedule, "max_norm": 1.0}
    whole, first, path = model_of(), model_of(), tmp_path / "runs" / "model_and_optimizer.pth"
    expected = train(whole, 3, **options)
    optimizer = torch.optim.AdamW(first.parameters(), lr=3e-3)
    simple_loop.save_checkpoint(path, first, optimizer, train(first, 2, optimizer, **options))
    torch.manual_seed(99)
    checkpoint = simple_loop.load_checkpoint(path)
    second = GPTModel(checkpoint["config"])
    second.load_state_dict(checkpoint["model_state_dict"])
    optimizer = torch.optim.AdamW(second.parameters(), lr=0.7)
    optimizer.load_state_dict(checkpoint["optimizer_state_dict"])
    history = train(second, 3, optimizer, history=checkpoint["history"], **options)
    assert history == expected
    assert same_weights(whole, second)
    assert not same_weights(whole, first)
    if schedule is None:
        assert optimizer.param_groups[0]["lr"] == 3e-3  # not 0.7: until it is set
        optimizer.param_groups[0]["lr"] = 5e-5
        assert train(second, 4, optimizer, history=history).learning_rates[38:40] == [3e-3, 5e-5]


def test_a_checkpoint_from_elsewhere_runs_nothing(tmp_path):
    class Payload:
        def __reduce__(self):
            return (tmp_path.joinpath("executed").touch, ())

    torch.save({"model_state_dict": Payload()}, tmp_path / "code.pth")
    with pytest.raises(pickle.UnpicklingError):
        simple_loop.load_checkpoint(tmp_path / "code.pth")
    assert [path.name for path in tmp_path.iterdir()] == ["code.pth"]


def test_an_interrupted_save_leaves_the_last_checkpoint(tmp_path, monkeypatch):
    model, path = model_of(), tmp_path / "c.pth"
    optimizer = torch.optim.AdamW(model.parameters())
    simple_loop.save_checkpoint(path, model, optimizer, simple_loop.History(epoch=3))
    monkeypatch.setattr(torch, "save", lambda content, file: file.write_bytes(b"half") / 0)
    with pytest.raises(ZeroDivisionError):
        simple_loop.save_checkpoint(path, model, optimizer, simple_loop.History(epoch=4))
    assert simple_loop.load_checkpoint(path)["history"].epoch == 3
    assert list(tmp_path.iterdir()) == [path]
