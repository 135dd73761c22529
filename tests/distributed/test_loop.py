"""The loop's promises: accumulation, schedule, every token once, exact resume, errors (PITFALLS A15, A16, C, E)."""

import contextlib
import itertools
import json
import math
from dataclasses import replace

import pytest
import torch
from accelerate import Accelerator
from accelerate.data_loader import prepare_data_loader
from accelerate.state import AcceleratorState
from datasets import Dataset
from runs import SMALL, small_config, weights

from course_utils import artifacts
from course_utils.profiles import PROFILES
from course_utils.train import run_training
from course_utils.training import checkpoints, loop, losses
from course_utils.training.config import modern
from course_utils.training.loaders import FilledRows, FilledStream, packed_stream


def less(data):
    """Return a part of real data that is soon seen whole: 333 sequences, or 12 documents of a stream."""
    train = data.train
    return replace(data, train=train.select(range(333)) if hasattr(train, "__len__") else train.take(12))


@pytest.fixture
def little_data(monkeypatch):
    whole = artifacts.packed_data
    monkeypatch.setattr(artifacts, "packed_data", lambda profile: less(whole(profile)))


def prepared(config, folder):
    accelerator, _ = loop.make_accelerator(config, folder)
    tokenizer = artifacts.code_tokenizer(config.profile)
    data = (artifacts.streamed_data if config.stream else artifacts.packed_data)(config.profile)
    return loop.prepare(config, tokenizer, data, accelerator)


def record_gradients(run):
    """Return a list that gets a copy of all gradients before each optimizer step, as float64."""
    recorded = []

    def keep(optimizer, *_):
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"]]
        recorded.append(torch.cat([g.flatten() for g in gradients]).double().clone())

    run.optimizer.optimizer.register_step_pre_hook(keep)
    return recorded


@pytest.mark.parametrize("keywords", [(), ("plt", "pd", "fit")], ids=["plain", "weighted"])
@pytest.mark.parametrize(("batch_size", "accumulation"), [(4, 4), (1, 16), (8, 2)])
def test_accumulated_micro_batches_give_the_gradients_of_one_large_batch(tmp_path, keywords, batch_size, accumulation):
    gradients, losses_, tokens = [], [], []
    for size, steps in ((16, 1), (batch_size, accumulation)):
        profile = {"batch_size": size, "accumulation_steps": steps, "train_steps": 5, "warmup_steps": 0}
        run = prepared(small_config(profile, keywords=keywords, alpha=3.0, max_grad_norm=1e9), tmp_path)
        gradients.append(record_gradients(run))
        results = list(itertools.islice(loop.optimizer_steps(run), 5))
        losses_.append([result.loss for result in results])
        tokens.append([result.tokens for result in results])
    assert tokens[0] == tokens[1]
    assert len(gradients[0]) == 5
    assert losses_[0] == pytest.approx(losses_[1], rel=1e-5)
    for theirs, ours in zip(*gradients, strict=True):
        # fp32 sums in another order; later steps start from weights that differ by as much
        assert torch.linalg.norm(ours - theirs) < 2e-4 * torch.linalg.norm(theirs)


def test_another_accelerator_does_not_change_the_accumulation_of_a_run(tmp_path):
    run = prepared(small_config({"accumulation_steps": 4}), tmp_path)
    steps = loop.optimizer_steps(run)
    for number in (1, 3):
        Accelerator(cpu=True, gradient_accumulation_steps=number)
        assert next(steps).tokens == 4 * 4 * 32


def test_too_few_rows_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"rows are too few for steps of 80000 rows"):
        prepared(small_config({"batch_size": 8, "accumulation_steps": 10_000}), tmp_path)


def test_labels_and_padding_of_the_rows_are_kept_and_the_rows_end():
    columns = {"input_ids": [[1, 2, 3, 0]] * 3, "labels": [[1, 2, 3, -100]] * 3, "attention_mask": [[1, 1, 0, 0]] * 3}
    labels = {"labels": [1, 2, 3, -100], "attention_mask": [1, 2, -100, -100], "input_ids": [1, 2, 3, 0]}
    for used, expected in labels.items():
        rows = Dataset.from_dict({name: columns[name] for name in {"input_ids", used}})
        filled = FilledRows(rows, 4).__getitems__(range(4))["labels"].tolist()
        assert filled == [expected] * 3 + [[-100] * 4]
        stream = FilledStream(rows.with_format("torch").to_iterable_dataset(), 4)
        assert [row["labels"].tolist() for row in stream] == filled


def test_an_incomplete_last_window_of_unequal_padded_batches_is_one_large_batch_too(tmp_path):
    run = prepared(small_config({"accumulation_steps": 4}, infinite=False, max_grad_norm=1e9), tmp_path)
    rows = artifacts.packed_data(SMALL).train[:30]["input_ids"]
    sizes = [4, 4, 4, 4, 4, 4, 2, 1, 3]  # 9 micro-batches: two windows of 4, and one of 1
    parts = [{"input_ids": part, "labels": part.clone()} for part in rows.split(sizes)]
    for number, part in enumerate(parts):
        part["labels"][:, len(part["labels"][0]) - 3 * number :] = losses.IGNORED
    run.train_loader = run.accelerator.prepare(torch.utils.data.DataLoader(parts, batch_size=None))
    recorded, expected = record_gradients(run), []
    wanted = [p for group in run.optimizer.param_groups for p in group["params"]]
    for window in (parts[:4], parts[4:8], parts[8:]):
        # before any step, by hand: the gradient of the mean over all tokens of the window
        sums = [losses.causal_loss_sums(part["labels"], run.model(part["input_ids"]).logits) for part in window]
        loss = sum(total for total, _ in sums) / sum(count for _, count in sums)
        gradient = torch.cat([g.flatten() for g in torch.autograd.grad(loss, wanted)]).double()
        expected.append((gradient, loss.item(), sum((total / count).item() for total, count in sums) / len(sums)))
    for group in run.optimizer.param_groups:
        group["lr"] = 0.0  # so that the weights stay those of the calculation by hand
    run.scheduler.step = lambda: None
    results = list(loop.optimizer_steps(run))
    assert len(results) == 3  # the tutorial's loop makes 2 of 9 micro-batches
    for ours, result, (gradient, loss, _) in zip(recorded, results, expected, strict=True):
        assert result.loss == pytest.approx(loss, rel=1e-5)
        assert torch.linalg.norm(ours - gradient) < 1e-5 * torch.linalg.norm(gradient)
    assert abs(expected[1][1] - expected[1][2]) > 1e-3  # the mean of the batch means would be noticed


@pytest.mark.parametrize(("accumulation", "schedule"), [(1, "linear"), (4, "linear"), (4, "cosine")])
def test_the_learning_rate_counts_optimizer_steps_and_ends_at_zero(tmp_path, accumulation, schedule):
    config = small_config({"accumulation_steps": accumulation, "train_steps": 20}, schedule=schedule)
    run = prepared(config, tmp_path)
    rates = [result.learning_rate for result in itertools.islice(loop.optimizer_steps(run), 20)]
    assert max(rates) == pytest.approx(config.profile.learning_rate)
    assert rates[config.warmup_steps(20)] == max(rates)
    assert run.scheduler.get_last_lr()[0] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("processes", [1, 2, 3])
def test_every_row_is_seen_once_per_pass_for_workers_times_processes(stream, workers, processes):
    """All processes of a run one after the other: what each of them is handed, by Accelerate's own sharding."""
    config = small_config({"batch_size": 5}, stream=stream, num_workers=workers, buffer_sequences=64)
    tokenizer, shards = artifacts.code_tokenizer(SMALL), max(1, workers)
    data = less((artifacts.streamed_data if stream else artifacts.packed_data)(SMALL))
    Accelerator(cpu=True)
    orders = []
    for epoch in (0, 1):
        seen, empty, filled = [], 0, []
        for process in range(processes):
            train = packed_stream(config, tokenizer, data.train) if stream else data.train
            options = {"processes": processes, "num_workers": workers, "seed": 1}
            loader, _ = loop.create_dataloaders(train, data.validation, 5, **options)
            share = {"num_processes": processes, "process_index": process, "dispatch_batches": False}
            mine = prepare_data_loader(loader, torch.device("cpu"), **share)
            mine.set_epoch(epoch)
            batches = list(mine)
            filled.append([bool((batch["labels"] != losses.IGNORED).any()) for batch in batches])
            ids, labels = (torch.cat([batch[name] for batch in batches]) for name in ("input_ids", "labels"))
            real = (labels != losses.IGNORED).all(1)
            assert torch.equal(ids[real], labels[real])
            empty += int((~real).sum())
            seen += ids[real].tolist()
        # all processes have as many batches, or one would wait forever; and together no empty one
        assert all(any(batch) for batch in zip(*filled, strict=True))
        assert empty < 5 * processes * shards
        if stream:
            single = packed_stream(config, tokenizer, data.train)
            single.set_epoch(epoch)
            expected = [row["input_ids"].tolist() for n in range(shards) for row in single.read_shard(n, shards)]
            tokens = sum(len(ids) + 1 for ids in tokenizer([row["content"] for row in data.train])["input_ids"])
            assert len(expected) * 32 >= tokens - 32 * shards
        else:
            expected = data.train["input_ids"][:].tolist()
        assert sorted(seen) == sorted(expected)
        orders.append(seen)
    assert orders[0] != orders[1]


def timeless(history):
    return [{k: v for k, v in entry.items() if "second" not in k and "memory" not in k} for entry in history]


def test_resume_in_the_second_pass_and_on_its_border_is_exact(tmp_path, little_data):
    rows = len(artifacts.packed_data(SMALL).train)
    per_pass, half = math.ceil(rows / 64), math.ceil(rows / 64) // 2
    profile = {"batch_size": 64, "eval_steps": half, "save_steps": half, "train_steps": 3 * per_pass}
    config = small_config(profile, dropout=0.1, keep_checkpoints=9, log_steps=4)  # lines that checkpoints cut
    whole = run_training(config, tmp_path / "a")
    assert whole.tokens == 3 * rows * 32
    for step, batch in ((per_pass, per_pass), (per_pass + half, half), (2 * per_pass, per_pass)):
        folder = tmp_path / "a" / "checkpoints" / f"step-{step:08d}"
        assert json.loads((folder / "run.json").read_text())["position"]["batch"] == batch
        resumed = run_training(config, tmp_path / f"b{step}", resume=str(folder))
        assert weights(tmp_path / "a") == weights(tmp_path / f"b{step}")
        assert timeless(resumed.history) == timeless(whole.history)
    # another distance of checkpoints changes nothing
    rarely = replace(config, profile=replace(config.profile, eval_steps=per_pass, save_steps=per_pass))
    run_training(rarely, tmp_path / "c")
    assert weights(tmp_path / "a") == weights(tmp_path / "c")


def logits_of(run):
    with run.accelerator.autocast(), torch.no_grad():
        return run.model.eval()(input_ids=torch.zeros(4, 32, dtype=torch.long)).logits


SWITCHES = {  # setting: (another value than usual, what shows it in a run)
    "architecture": ("qwen3", lambda run: run.model.config.model_type == "qwen3"),
    "optimizer": ("muon", lambda run: "momentum" in run.optimizer.param_groups[0]),
    "schedule": ("warmup_stable_decay", lambda run: {*map(run.scheduler.lr_lambdas[0], range(10, 25))} == {1.0}),
    "float32_logits": (False, lambda run: logits_of(run).dtype == torch.bfloat16),
    "precision": ("fp32", lambda run: run.accelerator.mixed_precision == "no"),
    "compile": (True, lambda run: run.model._compiled_call_impl is not None),
}


@pytest.mark.parametrize("setting", SWITCHES)
def test_each_switch_changes_what_it_says_and_nothing_else(tmp_path, capsys, setting):
    value = SWITCHES[setting][0]
    config, steps = small_config({"train_steps": 50}, precision="bf16"), []
    for each in (config, replace(config, **{setting: value})):
        AcceleratorState._reset_state(reset_partial_state=True)
        run = prepared(each, tmp_path)
        assert {name for name, (_, check) in SWITCHES.items() if check(run)} == ({setting} if each != config else set())
        steps.append(list(itertools.islice(loop.optimizer_steps(run), 50)))
    assert "Not compiled" not in capsys.readouterr().out
    assert [step.tokens for step in steps[0]] == [step.tokens for step in steps[1]]
    if setting != "architecture":  # the same weights and rows
        assert steps[0][0].loss == pytest.approx(steps[1][0].loss, rel=1e-3)
    assert all(some[-1].loss < some[0].loss - 0.5 for some in steps)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_modern_recipe_resumes_exactly_and_one_step_is_enough(tmp_path, precision):
    shape = {name: getattr(SMALL, name) for name in ("context_length", "batch_size", "eval_sequences")}
    recipe = replace(modern(1, PROFILES["tiny"]), tracker="none", precision=precision, compile=False)
    schedule = {"train_steps": 30, "warmup_steps": 5, "eval_steps": 10, "save_steps": 10}
    config = replace(recipe, profile=replace(recipe.profile, **shape, **schedule), dropout=0.1, keep_checkpoints=9)
    whole = run_training(config, tmp_path / "a")
    for step in (10, 20):  # while the rate is stable, and while it decays
        folder = tmp_path / "a" / "checkpoints" / f"step-{step:08d}"
        resumed = run_training(config, tmp_path / f"b{step}", resume=str(folder))
        assert weights(tmp_path / "a") == weights(tmp_path / f"b{step}")
        assert timeless(resumed.history) == timeless(whole.history)
    single = replace(config, profile=replace(config.profile, train_steps=1))
    assert run_training(single, tmp_path / "c").steps == 1


def test_a_finite_run_ends_with_the_data(tmp_path, little_data):
    rows = len(artifacts.packed_data(SMALL).train)
    profile = {"batch_size": 64, "train_steps": 10_000, "eval_steps": 500, "save_steps": 500}
    config = small_config(profile, infinite=False)
    summary = run_training(config, tmp_path)
    assert (summary.steps, summary.tokens) == (math.ceil(rows / 64), rows * 32)
    again = run_training(config, tmp_path, resume="auto")
    assert (again.steps, again.tokens) == (summary.steps, summary.tokens)  # no second pass
    one_pass = small_config(profile | {"train_steps": -1})
    assert run_training(one_pass, tmp_path / "one").steps == summary.steps


def test_gradient_checkpointing_changes_no_gradient(tmp_path):
    recorded = []
    for switch in (False, True):
        run = prepared(small_config(gradient_checkpointing=switch, dropout=0.1), tmp_path)
        recorded.append(record_gradients(run))
        torch.manual_seed(3)
        next(loop.optimizer_steps(run))
        assert run.model.transformer.h[0].gradient_checkpointing == switch
    assert torch.allclose(recorded[0][0], recorded[1][0], rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("option", ["scale_attn_by_inverse_layer_idx", "reorder_and_upcast_attn"])
def test_the_options_of_e4_do_something(option):
    tokenizer = artifacts.code_tokenizer(SMALL)
    configs = (small_config({"model_layers": 3}, **{option: switch}) for switch in (False, True))
    plain, changed = (loop.build_model(config, tokenizer).eval() for config in configs)
    ids = torch.randint(300, (2, 32))
    with torch.autocast("cpu", torch.bfloat16):
        difference = (plain(ids).logits - changed(ids).logits).abs().max().item()
    assert difference > 0  # with the tutorial's name, scale_attn_by_layer_idx, it is 0.0
    if option.startswith("reorder"):  # only the order of the calculation changes
        assert difference < 0.05


def test_training_learns_and_the_final_model_is_the_evaluated_one(tmp_path, capsys):
    summary = run_training(small_config({"train_steps": 120}), tmp_path)
    evaluations = [entry["eval_loss"] for entry in summary.history if "eval_loss" in entry]
    assert evaluations[0] == pytest.approx(math.log(2048), abs=0.1)
    assert evaluations[-1] < evaluations[0] - 1
    last, data = json.loads(capsys.readouterr().out.splitlines()[-1]), artifacts.packed_data(SMALL)
    assert (last["steps"], last["loss"]) == (120, summary.evaluation.loss)
    assert last["perplexity"] == pytest.approx(math.exp(last["loss"]))
    assert last["bits_per_byte"] == pytest.approx(data.bits_per_byte(last["loss"]))
    model = artifacts.load_model(tmp_path / "final")
    assert model.lm_head.weight is model.transformer.wte.weight
    ids = data.validation["input_ids"][:].long().to(model.device)
    with torch.inference_mode():
        assert model(ids, labels=ids).loss.item() == pytest.approx(evaluations[-1], rel=1e-5)


@pytest.mark.parametrize(
    ("changes", "message", "kept"),
    [
        ({"loss": math.nan}, "step 25 of 60 .*the loss is nan", 20),
        ({}, "step 20 of 60 .*held-out loss is nan", 10),  # spoiled weights
        ({"gradient_norm": math.inf}, "step 25 of 60 .*length of the gradient inf", 20),
        ({"gradient_norm": math.inf, "skipped": True}, None, 60),  # what fp16 does with one, which is harmless
    ],
)
def test_a_nan_stops_the_run_and_is_not_saved(tmp_path, monkeypatch, changes, message, kept):
    run = prepared(small_config({"train_steps": 60, "save_steps": 10, "eval_steps": 10}), tmp_path)
    steps = loop.optimizer_steps

    def spoiled_steps(run):
        for number, result in enumerate(steps(run), start=1):
            if not changes and number == 20:
                run.model.transformer.wte.weight.data.fill_(math.nan)
            yield result._replace(**changes) if number == 25 else result

    monkeypatch.setattr(loop, "optimizer_steps", spoiled_steps)
    with pytest.raises(loop.TrainingDiverged, match=message) if message else contextlib.nullcontext():
        loop.train(run, tmp_path)
    assert checkpoints.find_last(tmp_path / "checkpoints").name == f"step-{kept:08d}"
