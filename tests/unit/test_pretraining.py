"""Pretraining with the Trainer: settings, exact resume, an evaluation that is right, a model that can stop."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import DataCollatorForLanguageModeling, GPT2LMHeadModel, TrainerCallback

from course_utils.environment import choose_precision
from course_utils.models.causal import gpt2_config
from course_utils.profiles import get_profile
from course_utils.training import pretraining
from course_utils.training.checkpoints import find_last
from course_utils.training.optimization import TrainingDiverged

CONTEXT = 16


@pytest.fixture
def profile():
    shape = {"context_length": CONTEXT, "model_layers": 1, "model_width": 32, "model_heads": 2, "batch_size": 4}
    return get_profile("tiny", train_steps=12, warmup_steps=2, eval_steps=3, save_steps=3, **shape)


@pytest.fixture
def data():
    ids = np.random.default_rng(0).integers(300, size=(90, CONTEXT))
    ids[-2:] = 7  # the last, incomplete batch of an evaluation is easy
    train, held_out = (Dataset.from_dict({"input_ids": part}) for part in (ids[:80], ids[80:]))
    return pretraining.PackedData(train, held_out, 160, 500)


@pytest.fixture
def make(profile, session_tokenizer, data):
    return partial(pretraining.make_trainer, profile, session_tokenizer, data, dropout=0.1)


class StopAt(TrainerCallback):
    """Stop as if the laptop had been closed, as in notebook 04."""

    def __init__(self, step):
        self.step = step

    def added(self, trainer):
        trainer.add_callback(self)
        return trainer

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            control.should_save = control.should_training_stop = True


@pytest.mark.parametrize("torn", [None, "optimizer.pt", "rng_state.pth", "run.json"])
def test_interrupted_and_resumed_gives_the_very_same_weights(make, tmp_path, caplog, capsys, torn):
    whole, whole_log = pretraining.train(make, tmp_path / "whole")
    stop = StopAt(6 if torn else 5)
    pretraining.train(lambda folder: stop.added(make(folder)), tmp_path / "parts")
    if torn:
        newest = tmp_path / "parts" / "checkpoint-6"
        (newest / torn).write_bytes((newest / torn).read_bytes()[:50])
        assert find_last(tmp_path / "parts").name == "checkpoint-3"
        assert "checkpoint-6 is damaged" in capsys.readouterr().out
    torch.rand(7)  # a learner's other cells draw random numbers, too
    resumed, resumed_log = pretraining.train(make, tmp_path / "parts")
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))
    assert "missing keys" not in caplog.text  # of a tied layer, which would frighten a learner
    logs = [{e["step"]: e["eval_loss"] for e in log if "eval_loss" in e} for log in (whole_log, resumed_log)]
    assert logs[0] == logs[1]
    assert list(logs[1]) == [0, 3, 6, 9, 12]
    again, again_log = pretraining.train(make, tmp_path / "parts")  # a finished run is read, not trained further
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), again.parameters(), strict=True))
    assert again_log[-1]["step"] == 12
    assert pretraining.last_checkpoint(tmp_path / "parts")[1] == 12


@pytest.mark.parametrize(
    ("steps", "message"),
    [(12, r"step 3 of 12: (eval_)?loss is (nan|inf)\. .*learning rate 1e\+09"), (2, "step 2 of 2: ")],
    ids=["at an evaluation", "before one"],
)
def test_a_loss_that_became_nan_stops_the_training(profile, session_tokenizer, data, tmp_path, steps, message):
    profile = replace(profile, learning_rate=1e9, train_steps=steps, warmup_steps=0)
    with pytest.raises(TrainingDiverged, match=message):
        pretraining.train(partial(pretraining.make_trainer, profile, session_tokenizer, data), tmp_path)
    assert find_last(tmp_path) is None


def test_trainer_loss_equals_the_mean_over_all_tokens_for_an_incomplete_last_batch(make, data, tmp_path):
    trainer = make(tmp_path)  # 10 sequences: batches of 4, 4 and 2
    model = trainer.model.eval()
    model.transformer.wte.weight.data.mul_(20)  # losses that differ between the sequences
    reported = trainer.evaluate()["eval_loss"]
    ids = torch.tensor(data.validation["input_ids"][:])
    with torch.inference_mode():
        logits = model(ids).logits[:, :-1].float()
    losses = torch.nn.functional.cross_entropy(logits.transpose(1, 2), ids[:, 1:], reduction="none").mean(1)  # (N,)
    exact, of_batches = losses.mean().item(), sum(part.mean().item() for part in losses.split(4)) / 3
    tolerance = 1e-2 if choose_precision().name == "bf16" else 1e-5
    assert abs(of_batches / exact - 1) > 2 * tolerance  # what the tutorials print would be noticed
    assert reported == pytest.approx(exact, rel=tolerance)


def test_arguments_precision_of_the_device_and_schedule_to_zero(make, tmp_path):
    trainer = make(tmp_path)
    assert {"bf16": trainer.args.bf16, "fp16": trainer.args.fp16} == choose_precision().trainer_flags
    assert not (trainer.args.fp16 and trainer.args.device.type == "cpu")  # silently ignored there
    assert trainer.args.data_seed == trainer.args.seed
    trainer.train()
    assert trainer.lr_scheduler.get_last_lr()[0] == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(("steps", "warmup", "expected"), [(8, 80, 4), (12, 2, 2), (-1, 80, 10), (-1, 2, 2), (1, 1, 0)])
def test_the_warm_up_is_at_most_half_of_the_training(profile, tmp_path, steps, warmup, expected):
    profile = replace(profile, train_steps=steps, warmup_steps=warmup)  # a pass has 80 / 4 = 20 steps
    assert pretraining.training_arguments(profile, tmp_path, rows=80).warmup_steps == expected


def test_too_few_rows_and_end_of_text_as_padding_are_refused(profile, code_tokenizer, data, tmp_path):
    few = replace(data, train=data.train.select(range(3)))
    with pytest.raises(ValueError, match="3 training and 10 held-out rows are too few for steps of 4 rows"):
        pretraining.make_trainer(profile, code_tokenizer, few, tmp_path)
    code_tokenizer.pad_token = code_tokenizer.eos_token
    with pytest.raises(ValueError, match="The padding token is the end-of-text token"):
        pretraining.make_trainer(profile, code_tokenizer, data, tmp_path)


def probability_of_stopping(tokenizer):
    """Train a small model on one short document, padded; return P(end of text) where the document ends."""
    torch.manual_seed(0)
    document, end = tokenizer("import pandas as pd\n")["input_ids"], tokenizer.eos_token_id
    rows = [{"input_ids": [*document, end]}, {"input_ids": [*document[2:], end]}]
    batch = DataCollatorForLanguageModeling(tokenizer, mlm=False)(rows)
    model = GPT2LMHeadModel(gpt2_config(len(tokenizer), 32, 1, 32, 2, 0.0))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(200):
        model(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    with torch.inference_mode():
        return model.eval()(torch.tensor([document])).logits[0, -1].softmax(-1)[end].item()


def test_a_model_trained_with_a_pad_token_of_its_own_learns_to_stop(code_tokenizer):
    assert probability_of_stopping(code_tokenizer) > 0.9
    code_tokenizer.pad_token = code_tokenizer.eos_token
    assert probability_of_stopping(code_tokenizer) < 0.05
