"""Pretraining with the Trainer: settings, exact resume, an evaluation that is right, a model that can stop."""

import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st
from transformers import DataCollatorForLanguageModeling, GPT2LMHeadModel, Trainer

from course_utils.environment import choose_precision
from course_utils.models.causal import gpt2_config
from course_utils.profiles import PROFILES, get_profile
from course_utils.training import heldout, pretraining
from course_utils.training.loop import TrainingDiverged
from tools import reference_runs

CONTEXT = 16


@pytest.fixture
def profile():
    return get_profile(
        "tiny",
        context_length=CONTEXT,
        model_layers=1,
        model_width=32,
        model_heads=2,
        batch_size=4,
        train_steps=12,
        warmup_steps=2,
        eval_steps=3,
        save_steps=3,
    )


@pytest.fixture
def data(session_tokenizer):
    ids = np.random.default_rng(0).integers(300, size=(90, CONTEXT))
    ids[-2:] = 7  # the last, incomplete batch of an evaluation is easy
    return pretraining.PackedData(
        Dataset.from_dict({"input_ids": ids[:80]}), Dataset.from_dict({"input_ids": ids[80:]}), 160, 500
    )


@pytest.fixture
def make(profile, session_tokenizer, data):
    return partial(pretraining.make_trainer, profile, session_tokenizer, data, dropout=0.1)


def test_interrupted_and_resumed_gives_the_very_same_weights(make, tmp_path, caplog):
    whole, whole_log = pretraining.train(make, tmp_path / "whole")
    pretraining.train(make, tmp_path / "parts", stop_at=5)
    torch.rand(7)  # a learner's other cells draw random numbers, too
    resumed, resumed_log = pretraining.train(make, tmp_path / "parts")
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))
    assert "missing keys" not in caplog.text  # of a tied layer, which would frighten a learner
    losses = [[entry["eval_loss"] for entry in log if "eval_loss" in entry] for log in (whole_log, resumed_log)]
    assert losses[0] == losses[1]
    for log in (whole_log, resumed_log):
        assert [entry["step"] for entry in log if "eval_loss" in entry] == [0, 3, 6, 9, 12]


@pytest.mark.parametrize(
    "file", ["model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json"]
)
def test_a_torn_checkpoint_is_skipped_and_the_one_before_is_used(make, tmp_path, capsys, file):
    pretraining.train(make, tmp_path / "run", stop_at=6)
    newest = tmp_path / "run" / "checkpoint-6"
    (newest / file).write_bytes((newest / file).read_bytes()[:50])
    assert pretraining.last_checkpoint(tmp_path / "run").endswith("checkpoint-3")
    assert "checkpoint-6 is damaged" in capsys.readouterr().out
    model, _ = pretraining.train(make, tmp_path / "run")
    whole, _ = pretraining.train(make, tmp_path / "whole")
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), model.parameters(), strict=True))


@pytest.mark.parametrize(
    "changes",
    [{"learning_rate": 1e-2}, {"batch_size": 2}, {"train_steps": 9}, {"warmup_steps": 1}, {"model_layers": 2}],
    ids=lambda changes: next(iter(changes)),
)
def test_a_run_does_not_go_on_with_other_settings(profile, session_tokenizer, data, make, tmp_path, changes):
    pretraining.train(make, tmp_path, stop_at=3)
    other = partial(pretraining.make_trainer, replace(profile, **changes), session_tokenizer, data, dropout=0.1)
    with pytest.raises(ValueError, match=r"checkpoint-3 .* was made with other settings \(.* -> .*\)"):
        pretraining.train(other, tmp_path)
    assert (tmp_path / "checkpoint-3").is_dir()


def spoil_fifth_step(trainer):
    """Make weights infinite after a step, when every loss was finite."""

    def step(optimizer, arguments, keywords):
        if trainer.state.global_step == 4:
            next(trainer.model.parameters()).data.fill_(math.inf)

    trainer.create_optimizer()
    trainer.optimizer.register_step_post_hook(step)
    return trainer


@pytest.mark.parametrize(
    ("rate", "steps", "stop_at", "spoil", "message"),
    [
        (1e9, 12, None, lambda trainer: trainer, r"step 3 of 12: (eval_)?loss is (nan|inf)\. .*learning rate 1e\+09"),
        (1e9, 2, None, lambda trainer: trainer, "step 2 of 2: "),  # between two evaluations
        (1e-3, 12, 5, spoil_fifth_step, "step 5 of 12: some weights are not finite"),
    ],
)
def test_a_loss_that_is_no_number_stops_the_training(
    profile, session_tokenizer, data, tmp_path, rate, steps, stop_at, spoil, message
):
    profile = replace(profile, learning_rate=rate, train_steps=steps, warmup_steps=0)
    make = partial(pretraining.make_trainer, profile, session_tokenizer, data)
    with pytest.raises(TrainingDiverged, match=message):
        pretraining.train(lambda folder: spoil(make(folder)), tmp_path, stop_at)
    assert not (tmp_path / "checkpoint-6").exists()


def test_no_checkpoint_means_start_from_the_beginning(tmp_path):
    assert pretraining.last_checkpoint(tmp_path / "nothing") is None


def test_trainer_loss_equals_the_mean_over_all_tokens_for_an_incomplete_last_batch(make, data, tmp_path):
    trainer = make(tmp_path)
    trainer.args.per_device_eval_batch_size = 4  # 10 sequences: batches of 4, 4 and 2
    model = trainer.model.eval()
    model.transformer.wte.weight.data.mul_(20)  # losses that differ between the sequences
    reported = trainer.evaluate()["eval_loss"]
    ids = torch.tensor(data.validation["input_ids"][:])
    with torch.inference_mode():
        logits = model(ids).logits[:, :-1].float()
    losses = torch.nn.functional.cross_entropy(logits.transpose(1, 2), ids[:, 1:], reduction="none").mean(1)  # (N,)
    exact, of_batches = losses.mean().item(), torch.stack([part.mean() for part in losses.split(4)]).mean().item()
    tolerance = 1e-2 if choose_precision().name == "bf16" else 1e-5
    assert abs(of_batches / exact - 1) > 2 * tolerance  # what the tutorials print would be noticed
    assert reported == pytest.approx(exact, rel=tolerance)


def test_precision_comes_from_the_device_and_fp16_is_never_asked_of_a_processor(profile, tmp_path):
    args = pretraining.training_arguments(profile, tmp_path)
    if args.device.type == "cpu":
        assert args.fp16 is False
    assert args.bf16 == (choose_precision().name == "bf16")


def test_schedule_ends_at_zero_and_data_seed_is_set(make, tmp_path):
    trainer = make(tmp_path)
    assert trainer.args.data_seed == trainer.args.seed
    trainer.train()
    assert trainer.lr_scheduler.get_last_lr()[0] == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(("steps", "warmup", "expected"), [(8, 80, 4), (12, 2, 2), (-1, 80, 10), (-1, 2, 2), (1, 1, 0)])
def test_the_warm_up_is_at_most_half_of_the_training(
    profile, session_tokenizer, data, tmp_path, steps, warmup, expected
):
    profile = replace(profile, train_steps=steps, warmup_steps=warmup)  # a pass has 80 / 4 = 20 steps
    assert pretraining.make_trainer(profile, session_tokenizer, data, tmp_path).args.warmup_steps == expected


def test_default_profiles_and_the_tutorials_reference_keep_their_warm_up(profile, session_tokenizer, data, tmp_path):
    for preset in PROFILES.values():
        assert pretraining.training_arguments(preset, tmp_path, rows=10**7).warmup_steps == preset.warmup_steps
    trainer = reference_runs._trainer(replace(profile, warmup_steps=1000), session_tokenizer, data, 0.1, tmp_path)
    trainer.create_optimizer_and_scheduler(12)
    assert trainer.lr_scheduler.lr_lambdas[0](12) == pytest.approx(12 / 1000)  # still rising at the end


def test_tutorial_settings_see_the_same_tokens():
    for name in ("tiny", "laptop"):
        ours, theirs = PROFILES[name], pretraining.tutorial_settings(PROFILES[name])
        assert theirs.batch_size * theirs.accumulation_steps == 256
        assert (theirs.learning_rate, theirs.warmup_steps, theirs.weight_decay) == (5e-4, 1000, 0.1)
        seen = [p.train_steps * p.tokens_per_step for p in (ours, theirs)]
        assert seen[1] == pytest.approx(seen[0], rel=0.06)
    full = PROFILES["full"]
    assert pretraining.tutorial_settings(full) == full


def test_too_little_data_and_too_long_sequences_are_refused(profile, session_tokenizer, data, tmp_path):
    few = replace(data, train=data.train.select(range(3)))
    with pytest.raises(ValueError, match="3 training and 10 held-out sequences are too few for batches of 4"):
        pretraining.make_trainer(profile, session_tokenizer, few, tmp_path)
    short = replace(profile, context_length=CONTEXT - 1)
    with pytest.raises(ValueError, match=r"16 tokens do not fit: the model's context is 15"):
        pretraining.make_trainer(short, session_tokenizer, data, tmp_path)


def test_a_tokenizer_that_pads_with_the_end_of_text_is_refused(profile, code_tokenizer, data, tmp_path):
    code_tokenizer.pad_token = code_tokenizer.eos_token
    with pytest.raises(ValueError, match="The padding token is the end-of-text token"):
        pretraining.make_trainer(profile, code_tokenizer, data, tmp_path)


def test_collator_keeps_the_end_of_text_in_the_labels_unless_it_is_the_pad_token(code_tokenizer):
    rows = [{"input_ids": [5, 6, code_tokenizer.eos_token_id]}, {"input_ids": [5, code_tokenizer.eos_token_id]}]
    ours = DataCollatorForLanguageModeling(code_tokenizer, mlm=False)(rows)
    assert (ours["labels"] == code_tokenizer.eos_token_id).sum() == 2
    assert (ours["labels"] == -100).sum() == 1  # the padding
    code_tokenizer.pad_token = code_tokenizer.eos_token
    theirs = DataCollatorForLanguageModeling(code_tokenizer, mlm=False)(rows)
    assert (theirs["labels"] == code_tokenizer.eos_token_id).sum() == 0  # what the tutorials train on


def probability_of_stopping(tokenizer, tmp_path) -> float:
    """Train a small model on one short document, padded; return P(end of text) where the document ends."""
    torch.manual_seed(0)
    document = tokenizer("import pandas as pd\n")["input_ids"]
    rows = [{"input_ids": [*document, tokenizer.eos_token_id]}, {"input_ids": [*document[2:], tokenizer.eos_token_id]}]
    model = GPT2LMHeadModel(gpt2_config(len(tokenizer), 32, 1, 32, 2, 0.0))
    args = pretraining.training_arguments(
        get_profile("tiny", batch_size=2, train_steps=200, warmup_steps=0, learning_rate=1e-2), tmp_path
    )
    args.eval_strategy, args.eval_on_start, args.save_strategy, args.disable_tqdm = "no", False, "no", True
    collator = DataCollatorForLanguageModeling(tokenizer, mlm=False)
    Trainer(model=model, args=args, train_dataset=Dataset.from_list(rows * 4), data_collator=collator).train()
    with torch.inference_mode():
        return model.eval()(torch.tensor([document])).logits[0, -1].softmax(-1)[tokenizer.eos_token_id].item()


def test_a_model_trained_with_a_pad_token_of_its_own_learns_to_stop(code_tokenizer, tmp_path):
    with_own_pad = probability_of_stopping(code_tokenizer, tmp_path / "ours")
    code_tokenizer.pad_token = code_tokenizer.eos_token
    with_eos_as_pad = probability_of_stopping(code_tokenizer, tmp_path / "theirs")
    print(f"P(end of text): {with_own_pad:.4f} with a pad token of its own, {with_eos_as_pad:.4f} without")
    assert with_own_pad > 0.9
    assert with_eos_as_pad < 0.05


@given(st.floats(0.01, 20), st.integers(1, 10**9), st.integers(1, 10**9))
def test_bits_per_byte_does_not_depend_on_how_text_is_cut_into_tokens(loss, tokens, num_bytes):
    nats = loss * tokens
    assert heldout.bits_per_byte(loss, tokens, num_bytes) == pytest.approx(nats / math.log(2) / num_bytes)
    assert heldout.bits_per_byte(loss / 2, 2 * tokens, num_bytes) == pytest.approx(
        heldout.bits_per_byte(loss, tokens, num_bytes)
    )


def test_bits_per_byte_of_a_uniform_byte_model_is_eight():
    assert heldout.bits_per_byte(math.log(256), 1000, 1000) == pytest.approx(8)
    with pytest.raises(ValueError, match="0 tokens and 5 bytes"):
        heldout.bits_per_byte(1.0, 0, 5)


def test_perplexity_is_infinite_rather_than_an_error():
    assert heldout.perplexity(math.log(50_000)) == pytest.approx(50_000)
    assert heldout.perplexity(1e6) == math.inf
    assert heldout.perplexity(math.inf) == math.inf
