"""Fine-tuning a classifier on labelled sentences: one set of functions for the notebook, the script and launchers."""

import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DataLoaderConfiguration, set_seed
from datasets import DatasetDict, concatenate_datasets
from torch.utils.data import DataLoader
from tqdm.auto import tqdm
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    get_scheduler,
)

from course_utils.data.paraphrases import HIDDEN, load_pairs, text_columns
from course_utils.environment import choose_device, choose_precision
from course_utils.evaluation.metrics import pair_metric
from course_utils.training.optimization import get_grouped_params
from course_utils.training.tracking import dropped_messages

EXCHANGED = "exchanged"  # marks the splits whose sentences stand in the other order


@dataclass(frozen=True)
class FinetuneConfig:
    """Settings of one fine-tuning; raises `ValueError` for a value that is not allowed.

    A share `warmup` of the steps raises the learning rate; then it falls linearly to 0.
    """

    epochs: int = 3
    learning_rate: float = 5e-5
    batch_size: int = 8
    seed: int = 1
    warmup: float = 0.1
    weight_decay: float = 0.01
    head_factor: float = 10.0  # the fresh head learns this much faster than the pretrained layers
    dropout: float = 0.1  # share of values set to 0 while training
    both_orders: bool = True  # train and answer in both orders: whether texts agree does not depend on the order
    max_pairs: int = 0  # most training pairs; 0 takes all

    def __post_init__(self) -> None:
        """Refuse impossible values early."""
        lowest = {"epochs": 1, "batch_size": 1}
        for f in fields(self):
            value = getattr(self, f.name)
            whole = isinstance(f.default, int)
            if not isinstance(value, int if whole else int | float) or not math.isfinite(value):
                kind = "whole" if whole else "finite"
                raise ValueError(f"{f.name} = {value!r} is not allowed; it must be a {kind} number.")
            if f.name in ("learning_rate", "head_factor"):
                if not value > 0:
                    raise ValueError(f"{f.name} = {value!r} is not allowed; it must be greater than 0.")
            elif value < lowest.get(f.name, 0):
                raise ValueError(f"{f.name} = {value!r} is not allowed; it must be at least {lowest.get(f.name, 0)}.")
        for name in ("warmup", "dropout"):
            if getattr(self, name) >= 1:
                raise ValueError(f"{name} = {getattr(self, name)!r} is not allowed; it is a share, below 1.")

    def with_seed(self, seed: int) -> "FinetuneConfig":
        """Return the same settings with another seed."""
        return replace(self, seed=seed)


@dataclass
class Result:
    """What a fine-tuning gave: metrics of each split at the end, of validation after each epoch, and the answers.

    `predictions` and `probabilities` (of label 1) are those of the validation split, in the order of its rows.
    """

    metrics: dict[str, dict[str, float] | None]
    curve: list[dict[str, float]]
    predictions: list[int]
    probabilities: list[float]
    seconds: float
    processes: int
    model: PreTrainedModel | None = field(default=None, repr=False)


def load_classifier(location: str, dropout: float | None = None) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load an encoder with a fresh head for two labels; its warning that the head is fresh is dropped.

    `dropout` replaces the encoder's own, where its configuration has BERT's names for it. A head of another size is
    replaced, too. Raises `ValueError` for a folder without tokenizer files, which would encode everything to nothing,
    and for one that lacks weights of the encoder itself.
    """
    tokenizer = AutoTokenizer.from_pretrained(location)
    if set(tokenizer("The town council met.")["input_ids"]) <= set(tokenizer.all_special_ids):
        raise ValueError(f"{location} holds no usable tokenizer; save one with tokenizer.save_pretrained(folder).")
    with dropped_messages("transformers.modeling_utils", "classifier"):
        config = AutoConfig.from_pretrained(location, num_labels=2)
        for name in ("hidden_dropout_prob", "attention_probs_dropout_prob"):
            if dropout is not None and hasattr(config, name):
                setattr(config, name, dropout)
        model, found = AutoModelForSequenceClassification.from_pretrained(
            location, config=config, output_loading_info=True, ignore_mismatched_sizes=True
        )
    _check_encoder(location, model, found)
    tokenizer.model_max_length = min(
        tokenizer.model_max_length, getattr(config, "max_position_embeddings", tokenizer.model_max_length)
    )
    return model, tokenizer


def _check_encoder(location: str, model: PreTrainedModel, found: Mapping[str, Any]) -> None:
    """Refuse weights that left a part of the encoder random; the head is new, and the layer under it may be."""
    names = [*found["missing_keys"], *(name for name, *_ in found["mismatched_keys"])]
    lost = sorted(n for n in names if n.startswith(f"{model.base_model_prefix}.") and "pooler" not in n)
    if lost:
        raise ValueError(
            f"{location} does not have {len(lost)} of the encoder's weights, or in another shape, such as {lost[0]}. "
            "Are its names those that save_pretrained gives, and is config.json the one of these weights?"
        )


def training_pairs(location: str, config: FinetuneConfig) -> DatasetDict:
    """Load the labelled set as the settings want it trained on: at most `max_pairs`, in both orders."""
    pairs = load_pairs(location)
    if config.max_pairs:
        pairs["train"] = pairs["train"].select(range(min(config.max_pairs, len(pairs["train"]))))
    return in_both_orders(pairs) if config.both_orders else pairs


def in_both_orders(pairs: DatasetDict) -> DatasetDict:
    """Add each training pair with its sentences exchanged, and the held-out pairs as splits of their own.

    These splits are named like `validation exchanged`. Single sentences stay as they are.
    """
    columns = text_columns(pairs["train"].column_names)
    if len(columns) == 1:
        return pairs
    first, second = columns
    exchanged = pairs.map(lambda row: {first: row[second], second: row[first]})
    both = {"train": concatenate_datasets([pairs["train"], exchanged.pop("train")])}
    return DatasetDict({**pairs, **both, **{f"{split} {EXCHANGED}": rows for split, rows in exchanged.items()}})


def tokenize_function(
    example: Mapping[str, Any],
    tokenizer: PreTrainedTokenizerBase,
    columns: Sequence[str] = ("sentence1", "sentence2"),
    max_length: int | None = None,
) -> Mapping[str, list]:
    """Encode the sentences of one example, or of a batch, without padding; cut at `max_length` if one is given."""
    return tokenizer(
        *(example[column] for column in columns),
        truncation=max_length is not None,
        max_length=max_length,
        verbose=False,  # what is too long is counted, and said once
    )


def tokenize_pairs(
    pairs: DatasetDict, tokenizer: PreTrainedTokenizerBase, say: Callable[[str], None] = print
) -> DatasetDict:
    """Encode sentences without padding, drop the text, rename label to labels: ready for a data loader.

    A pair longer than the tokenizer's limit is cut, and `say` tells how many were.
    """
    columns = text_columns(pairs["train"].column_names)
    limit = min(tokenizer.model_max_length, 512)
    options = {"tokenizer": tokenizer, "columns": columns}
    encoded = pairs.map(tokenize_function, batched=True, fn_kwargs=options)
    long = sum(len(ids) > limit for split in encoded.values() for ids in split["input_ids"])
    if long:
        rows = sum(map(len, encoded.values()))
        say(f"{long} of {rows} rows are longer than the model's limit of {limit} tokens and are cut.")
        encoded = pairs.map(tokenize_function, batched=True, fn_kwargs=options | {"max_length": limit})
    kept = {*tokenizer.model_input_names, "label"}
    encoded = encoded.remove_columns([name for name in encoded["train"].column_names if name not in kept])
    return encoded.rename_column("label", "labels").with_format("torch")


def make_loaders(
    encoded: DatasetDict, tokenizer: PreTrainedTokenizerBase, config: FinetuneConfig
) -> dict[str, DataLoader]:
    """Make a loader for each split; a batch is padded to its own longest row, the training rows are shuffled."""
    collate = DataCollatorWithPadding(tokenizer)
    loaders = {}
    for split, rows in encoded.items():
        training = split == "train"
        loaders[split] = DataLoader(
            rows,
            batch_size=config.batch_size if training else 32,
            shuffle=training,
            collate_fn=collate,
            generator=torch.Generator().manual_seed(config.seed),
        )
    return loaders


def make_optimizer(
    model: PreTrainedModel, config: FinetuneConfig, steps: int, fused: bool = True
) -> tuple[torch.optim.Optimizer, Any]:
    """Make AdamW and a learning rate that rises over the warm-up and falls linearly to 0 at `steps`.

    `fused` is fastest, but hides from Accelerate which steps the gradient scaler of fp16 skipped.
    """
    head = {id(p) for name, p in model.named_parameters() if "classifier" in name.partition(".")[0]}
    groups = []
    for group in get_grouped_params(model, config.weight_decay):
        for fresh in (False, True):
            chosen = [p for p in group["params"] if (id(p) in head) == fresh]
            rate = config.learning_rate * (config.head_factor if fresh else 1)
            groups.append(group | {"params": chosen, "lr": rate})
    optimizer = torch.optim.AdamW(groups, lr=config.learning_rate, fused=fused)
    return optimizer, get_scheduler("linear", optimizer, int(config.warmup * steps), steps)


def _held_out(loaders: Mapping[str, Any], split: str, accelerator: Accelerator) -> tuple[Any, ...]:
    return loaders[split], accelerator, loaders.get(f"{split} {EXCHANGED}")


@torch.no_grad()
def classify(
    model: torch.nn.Module, loader: DataLoader, accelerator: Accelerator, exchanged: DataLoader | None = None
) -> tuple[dict[str, float] | None, list[int], list[float]]:
    """Return metrics, predictions and probabilities of label 1, each row once, on every process.

    With `exchanged`, the same rows with their sentences in the other order, the answer is the mean of both
    probabilities. The metrics are None where the labels are hidden.
    """
    model.eval()
    probability, labels = _probabilities(model, loader, accelerator)
    if exchanged is not None:
        probability = (probability + _probabilities(model, exchanged, accelerator)[0]) / 2
    predictions = (probability > 0.5).long().tolist()
    metric = pair_metric()
    metric.add_batch(predictions=predictions, references=labels.tolist())
    metrics = None if (labels == HIDDEN).any() else metric.compute()
    return metrics, predictions, probability.tolist()


def _probabilities(
    model: torch.nn.Module, loader: DataLoader, accelerator: Accelerator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the probability of label 1, and the label, of every row of all processes, each once; (N,) both."""
    found = []
    for batch in loader:
        logits = model(**{name: value for name, value in batch.items() if name != "labels"}).logits.float()
        gathered = accelerator.gather_for_metrics((logits.softmax(-1)[:, 1], batch["labels"]))
        found.append([tensor.cpu() for tensor in gathered])  # without the rows that only fill up the last batch
    probability, labels = (torch.cat(column) for column in zip(*found, strict=True))
    return probability, labels


def finetune(pairs_location: str, encoder_location: str, config: FinetuneConfig, show_progress: bool = True) -> Result:
    """Fine-tune the encoder on the pairs, on as many processes as were launched, and measure it.

    Batch size is per process. Raises `ValueError` for data that cannot be trained on.
    """
    device = choose_device()
    precision = choose_precision(device)
    if device.type == "cpu" and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        torch.set_num_threads(1)  # a process that a notebook forked cannot use the notebook's threads
    accelerator = Accelerator(
        cpu=device.type == "cpu",
        mixed_precision=precision.mixed_precision,
        dataloader_config=DataLoaderConfiguration(use_seedable_sampler=True, data_seed=config.seed),
    )
    set_seed(config.seed)
    model, tokenizer = load_classifier(encoder_location, config.dropout)
    with accelerator.main_process_first():
        encoded = tokenize_pairs(training_pairs(pairs_location, config), tokenizer, accelerator.print)
    loaders = make_loaders(encoded, tokenizer, config)
    loaders = dict(zip(loaders, accelerator.prepare(*loaders.values()), strict=True))
    steps = config.epochs * len(loaders["train"])  # of this process: as many as optimizer steps
    optimizer, scheduler = make_optimizer(model, config, steps, fused=accelerator.scaler is None)
    model, optimizer = accelerator.prepare(model, optimizer)
    start, curve = time.perf_counter(), []
    with tqdm(total=steps, unit=" steps", disable=not (show_progress and accelerator.is_main_process)) as bar:
        for epoch in range(config.epochs):
            model.train()
            for batch in loaders["train"]:
                loss = model(**batch).loss
                accelerator.backward(loss)
                accelerator.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                if not accelerator.optimizer_step_was_skipped:
                    scheduler.step()  # not prepared: Accelerate would advance it once per process
                optimizer.zero_grad()
                bar.update()
            measured, predictions, probabilities = classify(model, *_held_out(loaders, "validation", accelerator))
            curve.append({"epoch": epoch + 1, "loss": loss.item(), **measured})
    metrics = {"validation": measured}
    if "test" in loaders:
        metrics["test"] = classify(model, *_held_out(loaders, "test", accelerator))[0]
    trained = accelerator.unwrap_model(model)
    seconds = time.perf_counter() - start
    return Result(metrics, curve, predictions, probabilities, seconds, accelerator.num_processes, trained)
