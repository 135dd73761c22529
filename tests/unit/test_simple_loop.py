"""The simple training loop: losses that count every token once, true places, clean breaks (PITFALLS D7, D9)."""

import functools
import json
import math

import pytest
import torch
from safetensors.torch import save_file
from torch.utils.data import DataLoader, RandomSampler

from course_utils import plots
from course_utils.data.sliding_windows import create_dataloader_v1
from course_utils.models.gpt import GPTModel
from course_utils.training import simple_loop

CFG = {
    "vocab_size": 128,
    "context_length": 16,
    "emb_dim": 16,
    "n_heads": 2,
    "n_layers": 2,
    "drop_rate": 0.1,
    "qkv_bias": True,
}
TEXT = "the sea is grey, the harbour sleeps; " * 12


class Characters:
    """The smallest tokenizer: one token per character, with the library's arguments."""

    def encode(self, text, add_special_tokens=True, verbose=True):
        return [ord(character) for character in text]

    def decode(self, ids):
        return "".join(map(chr, ids))


def loader(length=330, batch_size=3, drop_last=True, shuffle=True):
    return create_dataloader_v1(TEXT[:length], batch_size, 8, 8, shuffle, drop_last, tokenizer=Characters())


def model_of(seed=0, **changes):
    torch.manual_seed(seed)
    return GPTModel(CFG | changes)


def train(model, epochs=2, optimizer=None, loaders=None, **options):
    optimizer = optimizer or torch.optim.AdamW(model.parameters(), lr=3e-3)
    options = {"eval_freq": 5, "eval_iter": 2, "start_context": None, "show_progress": False} | options
    train_loader, val_loader = loaders or (loader(), loader(90))
    return simple_loop.train_model_simple(
        model, train_loader, val_loader, optimizer, "cpu", epochs, tokenizer=Characters(), **options
    )


def same_weights(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


@torch.no_grad()
def test_loader_loss_is_the_mean_over_all_tokens_of_unequal_batches():
    model = model_of().eval()
    data = loader(length=81, batch_size=4, drop_last=False, shuffle=False)  # batches of 4, 4 and 2
    assert [len(inputs) for inputs, _ in data] == [4, 4, 2]
    inputs, targets = (torch.cat(parts) for parts in zip(*data, strict=True))
    log_probs = model(inputs).log_softmax(-1)
    by_hand = -log_probs.gather(2, targets[:, :, None]).mean().item()
    got = simple_loop.calc_loss_loader(data, model, "cpu")
    assert got == pytest.approx(by_hand, rel=1e-5)
    mean_of_means = sum(simple_loop.calc_loss_batch(*batch, model, "cpu").item() for batch in data) / 3
    assert abs(mean_of_means - by_hand) > 1e-4  # what the tutorial's function gives
    assert got == simple_loop.calc_loss_loader(data, model, "cpu", num_batches=99)
    first = simple_loop.calc_loss_batch(*next(iter(data)), model, "cpu").item()
    assert simple_loop.calc_loss_loader(data, model, "cpu", num_batches=1) == pytest.approx(first)


def test_ignored_targets_count_nowhere_and_nothing_to_predict_is_an_error():
    model = model_of().eval()
    inputs, targets = torch.randint(128, (2, 8)), torch.randint(128, (2, 8))
    hidden = targets.masked_fill(torch.arange(8) < 5, -100)
    data = [(inputs, hidden), (inputs[:1], hidden[:1])]
    two_rows, one_row = (simple_loop.calc_loss_batch(*batch, model, "cpu").item() for batch in data)
    expected = (two_rows * 6 + one_row * 3) / 9
    assert simple_loop.calc_loss_loader(data, model, "cpu") == pytest.approx(expected, rel=1e-5)
    for data in ([], [(inputs, torch.full_like(targets, -100))]):
        with pytest.raises(ValueError, match="there is no token to predict"):
            simple_loop.calc_loss_loader(data, model, "cpu")
    for count in (0, -1):
        with pytest.raises(ValueError, match=f"num_batches is {count}"):
            simple_loop.calc_loss_loader([(inputs, targets)], model, "cpu", count)


def test_evaluation_is_without_dropout_and_keeps_the_mode():
    model = model_of(drop_rate=0.5).train()
    data = loader(shuffle=False)
    assert simple_loop.evaluate_model(model, data, data, "cpu", 3) == simple_loop.evaluate_model(
        model, data, data, "cpu", 3
    )
    assert model.training


def test_training_learns_and_measures_at_true_places():
    model = model_of(drop_rate=0.0)
    history = train(model, 4)  # 41 windows in batches of 3: 13 steps per epoch
    assert history.step == 4 * 13
    assert history.tokens_seen == 4 * 13 * 3 * 8
    steps = [0, *(s for s in range(1, 53) if s % 5 == 0 or s % 13 == 0)]
    assert history.track_tokens_seen == [step * 24 for step in steps]
    assert history.epochs_seen == pytest.approx([step / 13 for step in steps])
    assert len(history.train_losses) == len(history.val_losses) == len(steps)
    assert history.train_losses[0] == pytest.approx(math.log(128), abs=0.2)
    assert history.train_losses[-1] < 0.7 * history.train_losses[0]
    assert history.val_losses[-1] < 0.7 * history.val_losses[0]


def test_places_are_true_for_a_smaller_last_batch():
    history = train(model_of(), 2, loaders=(loader(drop_last=False), loader(90)), eval_freq=1)
    assert history.epochs_seen == pytest.approx([tokens / (41 * 8) for tokens in history.track_tokens_seen])
    assert history.epochs_seen[-1] == 2


def test_a_sampler_of_fewer_rows_ends_its_epoch_with_a_measurement():
    rows = loader().dataset
    few = DataLoader(rows, 3, sampler=RandomSampler(rows, num_samples=8, generator=torch.Generator()))
    history = train(model_of(), 2, loaders=(few, loader(90)), eval_freq=99)
    assert history.epochs_seen == [0, 1, 2]
    assert history.track_tokens_seen == [0, 64, 128]


def test_workers_that_persist_are_refused():
    few = DataLoader(loader().dataset, 3, num_workers=1, persistent_workers=True)
    with pytest.raises(ValueError, match="persistent_workers"):
        train(model_of(), 2, loaders=(few, loader(90)))


def test_history_unpacks_and_plots_as_in_the_tutorial():
    history = train(model_of(), 1)
    train_losses, val_losses, tokens_seen = history
    assert (train_losses, val_losses) == (history.train_losses, history.val_losses)
    figure = plots._losses_figure(torch.linspace(0, 1, len(train_losses)), tokens_seen, train_losses, val_losses)
    assert len(figure.axes[0].lines) == 2


def test_plain_loop_is_the_one_that_stands_in_the_book():
    model, by_hand = model_of(), model_of()
    history = train(model, 2, seed=7)
    data, optimizer = loader(), torch.optim.AdamW(by_hand.parameters(), lr=3e-3)
    for epoch in range(2):
        torch.manual_seed(7 + epoch)
        data.generator.manual_seed(7 + epoch)
        for inputs, targets in data:
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(by_hand(inputs).flatten(0, 1), targets.flatten()).backward()
            optimizer.step()
    assert same_weights(model, by_hand)
    assert history.learning_rates == [3e-3] * 26


def test_measuring_more_often_changes_no_weight():
    often, seldom = model_of(), model_of()
    train(often, 1, eval_freq=1)
    train(seldom, 1, eval_freq=1000, eval_iter=1, start_context="the", say=lambda text: None)
    assert same_weights(often, seldom)


def test_clipping_limits_the_gradient_and_the_schedule_sets_every_step():
    schedule = functools.partial(simple_loop.warmup_cosine, warmup_steps=4, total_steps=13, peak=0.5, minimum=0.1)
    model, before = model_of(), model_of()
    history = train(model, 1, torch.optim.SGD(model.parameters(), lr=9.0), max_norm=1e-3, learning_rate=schedule)
    assert history.learning_rates == [schedule(step) for step in range(13)]
    moved = sum((a - b).square().sum() for a, b in zip(model.parameters(), before.parameters(), strict=True)).sqrt()
    assert 0 < moved.item() <= 1e-3 * sum(history.learning_rates)


def test_warm_up_and_cosine_are_the_formula():
    rates = [simple_loop.warmup_cosine(step, 10, 101, 1.0, 0.1, 0.02) for step in range(120)]
    assert rates[0] == 0.1
    assert rates[5] == pytest.approx(0.55)
    assert rates[10] == 1.0 == max(rates)
    assert rates[55] == pytest.approx(0.51)  # half-way down
    assert rates[100] == rates[119] == pytest.approx(0.02)
    assert sorted(rates[10:], reverse=True) == rates[10:]
    assert simple_loop.warmup_cosine(0, 0, 1, 1.0) == 1.0
    for warmup in (-1, 5, 6):
        with pytest.raises(ValueError, match=f"warmup_steps is {warmup}"):
            simple_loop.warmup_cosine(0, warmup, 5, 1.0)


def go_on(path, epochs, rate, **options):
    checkpoint = simple_loop.load_checkpoint(path)
    model = GPTModel(checkpoint["config"])
    model.load_state_dict(checkpoint["model_state_dict"])
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
    optimizer.load_state_dict(checkpoint["optimizer_state_dict"])
    return model, train(model, epochs, optimizer, history=checkpoint["history"], **options)


@pytest.mark.parametrize("scheduled", [False, True])
def test_a_training_goes_on_as_if_there_had_been_no_break(scheduled, tmp_path):
    """Dropout and order included; the learning rate of the new optimizer has no effect, the schedule has."""
    schedule = functools.partial(simple_loop.warmup_cosine, warmup_steps=5, total_steps=39, peak=3e-3)
    options = {"learning_rate": schedule if scheduled else None, "max_norm": 1.0}
    whole, first = model_of(), model_of()
    expected = train(whole, 3, **options)
    optimizer = torch.optim.AdamW(first.parameters(), lr=3e-3)

    def save(history):
        simple_loop.save_checkpoint(tmp_path / "runs" / "model_and_optimizer.pth", first, optimizer, history)

    train(first, 2, optimizer, after_epoch=save, **options)
    torch.manual_seed(99)
    second, history = go_on(tmp_path / "runs" / "model_and_optimizer.pth", 3, rate=0.7, **options)
    assert same_weights(whole, second)
    assert not same_weights(whole, first)
    assert history == expected
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["model_and_optimizer.pth"]


def test_a_restored_optimizer_keeps_its_learning_rate_until_it_is_set(tmp_path):
    model = model_of()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    simple_loop.save_checkpoint(tmp_path / "c.pth", model, optimizer, train(model, 1, optimizer))
    checkpoint = simple_loop.load_checkpoint(tmp_path / "c.pth")
    restored = torch.optim.AdamW(model.parameters(), lr=5e-5)
    restored.load_state_dict(checkpoint["optimizer_state_dict"])
    assert restored.param_groups[0]["lr"] == 1e-3  # the trap
    for group in restored.param_groups:
        group["lr"] = 5e-5
    history = train(model, 2, restored, history=checkpoint["history"])
    assert history.learning_rates[12:14] == [1e-3, 5e-5]


def test_files_that_are_no_checkpoints_are_refused(tmp_path):
    (tmp_path / "text.pth").write_text("no checkpoint")
    torch.save({"model": functools.partial(print)}, tmp_path / "code.pth")  # would run code
    torch.save({"weights": torch.zeros(1)}, tmp_path / "other.pth")
    for name in ("text.pth", "code.pth", "other.pth"):
        with pytest.raises(ValueError, match=f"{name} is no checkpoint of save_checkpoint"):
            simple_loop.load_checkpoint(tmp_path / name)
    with pytest.raises(ValueError, match="there is no checkpoint"):
        simple_loop.load_checkpoint(tmp_path / "missing.pth")


def test_an_interrupted_save_leaves_the_last_checkpoint(tmp_path, monkeypatch):
    model = model_of()
    path = tmp_path / "c.pth"
    simple_loop.save_checkpoint(path, model, torch.optim.AdamW(model.parameters()), simple_loop.History(epoch=3))

    def fail(content, file):
        file.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        simple_loop.save_checkpoint(path, model, torch.optim.AdamW(model.parameters()), simple_loop.History(epoch=4))
    assert simple_loop.load_checkpoint(path)["history"].epoch == 3
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("tied", [True, False])
def test_a_model_alone_comes_back_from_safetensors(tied, tmp_path):
    model = model_of(tie_weights=tied)
    simple_loop.save_model(tmp_path / "model.safetensors", model)
    loaded = simple_loop.load_model(tmp_path / "model.safetensors")
    assert loaded.cfg == model.cfg
    assert same_weights(loaded, model)
    assert not loaded.training
    assert (loaded.out_head.weight is loaded.tok_emb.weight) is tied


def test_safetensors_without_configuration_are_refused(tmp_path):
    from safetensors.torch import save_file

    save_file({"x": torch.zeros(1)}, tmp_path / "m.safetensors")
    with pytest.raises(ValueError, match="has no configuration"):
        simple_loop.load_model(tmp_path / "m.safetensors")


def test_a_sample_follows_each_epoch_on_one_line():
    said = []
    train(model_of(), 2, start_context="the sea\n", say=said.append)
    assert len(said) == 2
    assert all(text.startswith("the sea ") and "\n" not in text and len(text) == 58 for text in said)


def test_progress_names_place_and_losses(capsys):
    train(model_of(), 1, show_progress=True, eval_freq=100)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["epoch 0.00 (step 0)", "epoch 1.00 (step 13)"]
    assert all("in validation" in line for line in lines)


@pytest.mark.parametrize("name", ["num_epochs", "eval_freq", "eval_iter"])
def test_counts_below_one_are_refused(name):
    counts = {"num_epochs": 1, "eval_freq": 1, "eval_iter": 1} | {name: 0}
    with pytest.raises(ValueError, match=f"{name} is 0; it must be at least 1"):
        train(model_of(), counts.pop("num_epochs"), **counts)


def test_an_empty_loader_is_refused():
    empty = DataLoader([], batch_size=2)
    with pytest.raises(ValueError, match="train_batches is 0"):
        train(model_of(), loaders=(empty, loader()))


def test_tokens_are_drawn_exactly_above_their_epochs():
    history = train(model_of(), 2, loaders=(loader(drop_last=False), loader(90)))
    figure = plots._losses_figure(
        history.epochs_seen, history.track_tokens_seen, history.train_losses, history.val_losses
    )
    figure.draw_without_rendering()
    (axes,) = figure.axes
    (above,) = axes.child_axes
    for line, losses in zip(axes.lines, (history.train_losses, history.val_losses), strict=True):
        assert list(line.get_xdata()) == history.epochs_seen
        assert list(line.get_ydata()) == losses
    for epochs, tokens in zip(history.epochs_seen, history.track_tokens_seen, strict=True):
        places = [a.transData.transform((x, 0))[0] for a, x in ((axes, epochs), (above, tokens))]
        assert places[0] == pytest.approx(places[1], abs=1e-6)
    assert "tokens" in above.get_xlabel()


def test_losses_of_nothing_are_not_drawn():
    for lists in (([0.0], [0], [1.0], [1.0]), ([0.0, 1.0], [0, 9], [1.0], [1.0, 2.0])):
        with pytest.raises(ValueError, match="give one of each per evaluation"):
            plots.plot_losses(*lists, alt="losses")


@pytest.mark.parametrize("damage", ["pickle", "cut", "lacks a tensor", "no configuration"])
def test_what_is_no_saved_model_is_refused(tmp_path, damage):
    model = GPTModel(CFG)
    path = tmp_path / "model.safetensors"
    if damage == "pickle":
        torch.save(model.state_dict(), path)
    elif damage == "cut":
        simple_loop.save_model(path, model)
        path.write_bytes(path.read_bytes()[:-10])
    else:
        config = json.dumps(model.cfg) if damage == "lacks a tensor" else "{"
        save_file({"pos_emb.weight": model.pos_emb.weight.detach()}, path, {"config": config})
    with pytest.raises(ValueError, match=r"is no file of save_model, or damaged [\s\S]*; write it with save_model"):
        simple_loop.load_model(path)
    with pytest.raises(ValueError, match=r"there is no model .*other"):
        simple_loop.load_model(tmp_path / "other")
