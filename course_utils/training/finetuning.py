"""Fine-tuning a classifier on labelled sentences: one set of functions for the notebook, the script and launchers."""

import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import torch
from accelerate import Accelerator
from accelerate.utils import DataLoaderConfiguration, set_seed
from datasets import Dataset, DatasetDict, concatenate_datasets
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
from course_utils.profiles import check_settings, setting
from course_utils.training.optimization import get_grouped_params
from course_utils.training.tracking import dropped_messages

EXCHANGED = "exchanged"  # marks the splits whose sentences stand in the other order


@dataclass(frozen=True)
class FinetuneConfig:
    """Settings of one fine-tuning; raises `ValueError` for a value that is not allowed."""

    epochs: int = setting(3, "epochs", "Passes over the training rows.", least=1)
    learning_rate: float = setting(5e-5, "-", "Peak learning rate; it falls linearly to 0.", above=0)
    batch_size: int = setting(8, "rows", "Rows per process and step.", least=1)
    seed: int = setting(1, "-", "Seed of everything that is random.", least=0)
    warmup: float = setting(0.1, "share", "Share of the steps in which the learning rate rises.", least=0, below=1)
    weight_decay: float = setting(0.01, "-", "Decay of the weight matrices.", least=0)
    head_factor: float = setting(10.0, "-", "How much faster the fresh head learns than the encoder.", above=0)
    dropout: float = setting(0.1, "share", "Share of values set to 0 in training.", least=0, below=1)
    max_pairs: int = setting(0, "rows", "Most training rows, before they are doubled; 0 takes all.", least=0)

    __post_init__ = check_settings


@dataclass
class FinetuneResult:
    """Metrics of each split, those of validation after each epoch, and the answers to validation rows."""

    metrics: dict[str, dict[str, float] | None]
    curve: list[dict[str, float]]
    predictions: list[int]
    probabilities: list[float]  # of label 1
    seconds: float
    processes: int
    model: PreTrainedModel = field(repr=False)


def load_classifier(location: str, dropout: float | None = None) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load an encoder with a fresh head for two labels, and its tokenizer, limited to what the encoder can read.

    `dropout` replaces the encoder's own, where its configuration has BERT's names for it.
    """
    tokenizer = AutoTokenizer.from_pretrained(location)
    if set(tokenizer("The town council met.")["input_ids"]) <= set(tokenizer.all_special_ids):
        raise ValueError(f"{location} holds no usable tokenizer; save one with tokenizer.save_pretrained(folder).")
    config = AutoConfig.from_pretrained(location, num_labels=2)
    if tokenizer.pad_token_id is None or config.pad_token_id is None:
        raise ValueError(f"{location} has no padding token, which batches need; choose another encoder, such as BERT.")
    for name in ("hidden_dropout_prob", "attention_probs_dropout_prob"):
        if dropout is not None and hasattr(config, name):
            setattr(config, name, dropout)
    with dropped_messages("transformers.modeling_utils", "classifier"):  # the head is meant to be fresh
        model, found = AutoModelForSequenceClassification.from_pretrained(
            location, config=config, output_loading_info=True, ignore_mismatched_sizes=True
        )
    names = [*found["missing_keys"], *(name for name, *_ in found["mismatched_keys"])]
    if lost := [name for name in names if name.startswith(f"{model.base_model_prefix}.") and "pooler" not in name]:
        raise ValueError(f"{location} lacks {len(lost)} of the encoder's weights, or has other shapes: {min(lost)} …")
    tokenizer.model_max_length = min(tokenizer.model_max_length, _positions(model), 512)
    return model, tokenizer


def _positions(model: PreTrainedModel) -> int:
    """Return how many tokens the model can read: RoBERTa and its kin leave out positions up to their padding id."""
    tables = [module for name, module in model.named_modules() if name.endswith("position_embeddings")]
    unused = [table.padding_idx + 1 for table in tables if getattr(table, "padding_idx", None) is not None]
    return (getattr(model.config, "max_position_embeddings", None) or sys.maxsize) - max(unused, default=0)


def training_pairs(location: str, config: FinetuneConfig) -> DatasetDict:
    """Load a labelled set as it is trained on: at most `max_pairs` training rows, and pairs in both orders.

    Whether two texts agree does not depend on their order. So each training pair comes with its sentences exchanged,
    too, and the held-out pairs come again as splits like `validation exchanged`.
    """
    pairs = load_pairs(location)
    if config.max_pairs:
        pairs["train"] = _stratified(pairs["train"], config.max_pairs, config.seed)
    labels = set(pairs["train"]["label"])
    if len(labels) < 2:
        raise ValueError(f"all training rows of {location} have the label {labels.pop()}; take more rows, or others.")
    columns = text_columns(pairs["train"].column_names)
    if len(columns) == 1:
        return pairs
    first, second = columns
    exchanged = pairs.map(lambda row: {first: row[second], second: row[first]})
    pairs["train"] = concatenate_datasets([pairs["train"], exchanged.pop("train")])
    return DatasetDict({**pairs, **{f"{split} {EXCHANGED}": rows for split, rows in exchanged.items()}})


def _stratified(rows: Dataset, count: int, seed: int) -> Dataset:
    """Return at most `count` rows, drawn by `seed`, in which the labels have the shares that they have in all rows."""
    labels = pd.Series(rows["label"][:]).sample(frac=1, random_state=seed)
    groups = labels.groupby(labels)
    place = groups.cumcount() / groups.transform("size")  # of a row within its label, from 0 to 1
    return rows.select(sorted(place.nsmallest(count).index))


def tokenize_function(
    example: Mapping[str, Any], tokenizer: Any, columns: Sequence[str] = ("sentence1", "sentence2"), cut: bool = False
) -> Mapping[str, list]:
    """Encode the sentences of one example, or of a batch, without padding; `cut` what is too long for the model."""
    return tokenizer(*(example[column] for column in columns), truncation=cut, verbose=False)


def tokenize_pairs(pairs: DatasetDict, tokenizer: Any, say: Callable[[str], None] = print) -> DatasetDict:
    """Encode sentences without padding, ready for a data loader; `say` reports how many had to be cut."""
    options = {"tokenizer": tokenizer, "columns": text_columns(pairs["train"].column_names)}
    encoded = pairs.map(tokenize_function, batched=True, fn_kwargs=options)
    limit, lengths = tokenizer.model_max_length, [len(ids) for rows in encoded.values() for ids in rows["input_ids"]]
    if max(lengths) > limit:
        long = sum(length > limit for length in lengths)
        say(f"{long} of {len(lengths)} rows are longer than the model's limit of {limit} tokens and are cut.")
        encoded = pairs.map(tokenize_function, batched=True, fn_kwargs=options | {"cut": True})
    encoded = encoded.select_columns([*tokenizer.model_input_names, "label"])
    return encoded.rename_column("label", "labels").with_format("torch")


def make_loaders(encoded: DatasetDict, tokenizer: Any, config: FinetuneConfig) -> dict[str, DataLoader]:
    """Make a loader for each split; a batch is padded to its longest row, the training rows are shuffled."""
    loaders, collate = {}, DataCollatorWithPadding(tokenizer)
    for split, rows in encoded.items():
        size, generator = config.batch_size if split == "train" else 32, torch.Generator().manual_seed(config.seed)
        loaders[split] = DataLoader(rows, size, shuffle=split == "train", collate_fn=collate, generator=generator)
    return loaders


def make_optimizer(model: PreTrainedModel, config: FinetuneConfig, steps: int, fused: bool = True) -> tuple[Any, Any]:
    """Make AdamW and a learning rate that rises over the warm-up and falls linearly to 0 at `steps`.

    `fused` is fastest, but hides from Accelerate which steps the gradient scaler of fp16 skipped.
    """
    head = {id(p) for name, p in model.named_parameters() if "classifier" in name.partition(".")[0]}
    groups = []
    for group in get_grouped_params(model, config.weight_decay):
        for fresh, factor in ((False, 1), (True, config.head_factor)):
            chosen = [p for p in group["params"] if (id(p) in head) == fresh]
            groups.append(group | {"params": chosen, "lr": config.learning_rate * factor})
    optimizer = torch.optim.AdamW(groups, lr=config.learning_rate, fused=fused)
    return optimizer, get_scheduler("linear", optimizer, int(config.warmup * steps), steps)


@torch.no_grad()
def classify(
    model: torch.nn.Module, loaders: Mapping[str, DataLoader], split: str, accelerator: Accelerator
) -> tuple[dict[str, float] | None, list[int], list[float]]:
    """Return metrics, predictions and probabilities of label 1 of a split, each row once, on every process.

    Pairs that are there in both orders get the mean of both probabilities. Hidden labels give no metrics (None).
    """
    model.eval()
    probability, labels = _probabilities(model, loaders[split], accelerator)
    if exchanged := loaders.get(f"{split} {EXCHANGED}"):
        probability = (probability + _probabilities(model, exchanged, accelerator)[0]) / 2
    predictions = (probability > 0.5).long().tolist()
    hidden = (labels == HIDDEN).any()
    metrics = None if hidden else pair_metric().compute(predictions=predictions, references=labels.tolist())
    return metrics, predictions, probability.tolist()


def _probabilities(model: Any, loader: DataLoader, accelerator: Accelerator) -> tuple[torch.Tensor, torch.Tensor]:
    found = []
    for batch in loader:
        logits = model(**{name: value for name, value in batch.items() if name != "labels"}).logits.float()
        gathered = accelerator.gather_for_metrics((logits.softmax(-1)[:, 1], batch["labels"]))
        found.append([tensor.cpu() for tensor in gathered])  # without the rows that only fill up the last batch
    return tuple(torch.cat(column) for column in zip(*found, strict=True))  # (N,) both


def finetune(pairs: str, encoder: str, config: FinetuneConfig) -> FinetuneResult:
    """Fine-tune the encoder on the pairs, on as many processes as were launched, and measure it."""
    device = choose_device()
    if device.type == "cpu" and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        torch.set_num_threads(1)  # a process that a notebook forked cannot use the notebook's threads
    order = DataLoaderConfiguration(use_seedable_sampler=True, data_seed=config.seed)
    precision = choose_precision(device).mixed_precision
    accelerator = Accelerator(cpu=device.type == "cpu", mixed_precision=precision, dataloader_config=order)
    set_seed(config.seed)
    model, tokenizer = load_classifier(encoder, config.dropout)
    with accelerator.main_process_first():
        encoded = tokenize_pairs(training_pairs(pairs, config), tokenizer, accelerator.print)
    loaders = make_loaders(encoded, tokenizer, config)
    loaders = dict(zip(loaders, accelerator.prepare(*loaders.values()), strict=True))
    steps = config.epochs * len(loaders["train"])  # of this process: as many as optimizer steps
    optimizer, scheduler = make_optimizer(model, config, steps, fused=accelerator.scaler is None)
    model, optimizer = accelerator.prepare(model, optimizer)
    start, curve = time.perf_counter(), []
    with tqdm(total=steps, unit=" steps", disable=not accelerator.is_main_process) as bar:
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
            measured, predictions, probabilities = classify(model, loaders, "validation", accelerator)
            curve.append({"epoch": epoch + 1, "loss": loss.item(), **measured})
    metrics = {"validation": measured}
    if "test" in loaders:
        metrics["test"] = classify(model, loaders, "test", accelerator)[0]
    seconds, trained = time.perf_counter() - start, accelerator.unwrap_model(model)
    return FinetuneResult(metrics, curve, predictions, probabilities, seconds, accelerator.num_processes, trained)
