"""The simple training loop: losses that count every token once, true places, exact continuation (PITFALLS D7, D9)."""

import math
import pickle

import pytest
import torch

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
    options = {"eval_freq": 5, "eval_iter": 2, "start_context": "the sea\n"} | options
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
def test_training_learns_and_measures_at_every_distance_and_epoch(drop_last):
    data = loader(drop_last=drop_last)  # 41 windows of 8 tokens in batches of 3
    train_losses, val_losses, tokens = train(model_of(drop_rate=0.0), 4, data=data)
    per_epoch, steps = (39 if drop_last else 41) * 8, range(1, 4 * len(data) + 1)
    assert len(tokens) == 1 + sum(step % 5 == 0 or step % len(data) == 0 for step in steps)
    assert {epoch * per_epoch for epoch in range(5)} <= set(tokens)
    assert train_losses[0] == pytest.approx(math.log(128), abs=0.2)
    assert max(train_losses[-1] / train_losses[0], val_losses[-1] / val_losses[0]) < 0.7


def test_tokens_are_drawn_exactly_above_their_epochs(monkeypatch):
    figures, places, tokens, losses = (
        [],
        [0, 0.37, 0.95, 2],
        [0, 74, 190, 400],
        ([4.0, 3.0, 2.5, 2.0], [4.1, 3.2, 2.9, 3]),
    )
    monkeypatch.setattr(plots, "_image", lambda figure, alt: figures.append(figure) or alt)
    plots.plot_losses(places, tokens, *losses)
    (figure,) = figures
    figure.draw_without_rendering()
    (axes,) = figure.axes
    (above,) = axes.child_axes
    for line, values in zip(axes.lines, losses, strict=True):
        assert (list(line.get_xdata()), list(line.get_ydata())) == (places, values)
    for epochs, seen in zip(places, tokens, strict=True):
        one, other = (a.transData.transform((x, 0))[0] for a, x in ((axes, epochs), (above, seen)))
        assert one == pytest.approx(other, abs=1e-6)


def test_the_loop_is_the_one_of_the_book_and_measuring_changes_no_weight(capsys):
    model, often, by_hand = model_of(), model_of(), model_of()
    train(model, 2, seed=7, eval_freq=1000, eval_iter=1)
    samples = capsys.readouterr().out.splitlines()
    assert [text[:7] for text in samples] == ["the sea"] * 2
    train(often, 2, seed=7, eval_freq=1)
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


def test_clipping_limits_the_gradient_and_the_schedule_sets_every_step():
    rates = [simple_loop.warmup_cosine(step, warmup_steps=4, total_steps=13, peak=0.5) for step in range(14)]
    model, before = model_of(), model_of()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rates[step])
    train(model, 1, optimizer, max_norm=1e-3, scheduler=scheduler)
    assert scheduler.last_epoch == 13
    moved = sum((a - b).square().sum() for a, b in zip(model.parameters(), before.parameters(), strict=True)).sqrt()
    assert 0 < moved.item() <= 1e-3 * sum(rates[:13])


def test_warm_up_and_cosine_are_the_formula():
    rates = [simple_loop.warmup_cosine(step, 10, 101, 2.0) for step in range(101)]
    assert rates[:11] == pytest.approx([step / 5 for step in range(11)])
    assert (max(rates), rates[55], rates[100]) == (rates[10], pytest.approx(1.0), pytest.approx(0.0))
    assert sorted(rates[10:], reverse=True) == rates[10:]
    assert simple_loop.warmup_cosine(0, 0, 1, 1.0) == 1.0


def test_a_training_goes_on_with_the_old_learning_rate_until_it_is_set(tmp_path):
    """As if there had been no break; the rate that the new optimizer was made with has no effect (D9)."""
    whole, path = model_of(), tmp_path / "runs" / "model_and_optimizer.pth"
    optimizer = torch.optim.AdamW(whole.parameters(), lr=3e-3)
    train(whole, 2, optimizer)
    simple_loop.save_checkpoint(path, whole, optimizer, epoch=2)
    checkpoint = simple_loop.load_checkpoint(path)
    second = GPTModel(checkpoint["config"])
    second.load_state_dict(checkpoint["model_state_dict"])
    restored = torch.optim.AdamW(second.parameters(), lr=0.7)
    restored.load_state_dict(checkpoint["optimizer_state_dict"])
    assert (checkpoint["epoch"], restored.param_groups[0]["lr"]) == (2, 3e-3)  # not 0.7: until it is set
    for model, used in ((whole, optimizer), (second, restored)):
        train(model, 1, used, seed=2)
    assert same_weights(whole, second)
    restored.param_groups[0]["lr"] = 5e-5
    for model, used in ((whole, optimizer), (second, restored)):
        train(model, 1, used, seed=3)
    assert not same_weights(whole, second)


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
    simple_loop.save_checkpoint(path, model, optimizer, epoch=3)
    monkeypatch.setattr(torch, "save", lambda content, file: file.write_bytes(b"half") / 0)
    with pytest.raises(ZeroDivisionError):
        simple_loop.save_checkpoint(path, model, optimizer, epoch=4)
    assert simple_loop.load_checkpoint(path)["epoch"] == 3
    assert list(tmp_path.iterdir()) == [path]
