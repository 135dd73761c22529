"""Exercises of notebook 06: padding, F1, a report of several processes, single sentences."""

import statistics
from collections.abc import Sequence
from typing import Any

from course_utils.exercises.comparing import plain, shown
from course_utils.exercises.exercise import exercise


def _batches(lengths, batch_size):
    return [lengths[i : i + batch_size] for i in range(0, len(lengths), batch_size)]


@exercise(
    "06.share_padded",
    "Each batch has a longest row of its own. Cut the list into batches: `lengths[i : i + batch_size]`.",
    "Add up the positions of all batches, then divide once. A mean of shares counts a short batch as much as a long.",
    "The last batch may be smaller: 7 rows in batches of 3 leave 1. A batch takes `max(batch) * len(batch)` positions.",
    examples=[([10, 20, 30, 40], 2), ([50, 10, 10], 2), ([7], 3)],
    random_inputs=lambda rng: (rng.choices(range(1, 10), k=rng.randint(1, 6)), rng.randint(1, 3)),
    mistakes={
        0: lambda lengths, batch_size: 1 - sum(lengths) / (max(lengths) * len(lengths)),
        1: lambda lengths, batch_size: statistics.fmean(
            1 - sum(batch) / (max(batch) * len(batch)) for batch in _batches(lengths, batch_size)
        ),
        2: lambda lengths, batch_size: (
            1 - sum(lengths) / sum(max(batch) * batch_size for batch in _batches(lengths, batch_size))
        ),
    },
)
def share_padded(lengths, batch_size):
    batches = [lengths[i : i + batch_size] for i in range(0, len(lengths), batch_size)]
    positions = sum(max(batch) * len(batch) for batch in batches)
    return 1 - sum(lengths) / positions


def _hits(predictions, references):
    return sum(p == r == 1 for p, r in zip(predictions, references, strict=True))


@exercise(
    "06.f1",
    "This is the accuracy. For F1, pairs where both are 0 do not count: a hit is a pair of two ones.",
    "An error is a missed 1 or a false 1. F1 is 2 · hits / (2 · hits + errors).",
    "If there are neither hits nor errors, nothing can be divided: return 0.",
    examples=[([1, 1, 1], [1, 0, 0]), ([1, 0, 0], [1, 1, 0]), ([0, 0], [0, 0])],
    random_inputs=lambda rng: (rng.choices([0, 1], k=(count := rng.randint(1, 5))), rng.choices([0, 1], k=count)),
    mistakes={
        0: lambda p, r: sum(map(int.__eq__, p, r)) / len(p),
        2: lambda p, r: 2 * _hits(p, r) / (sum(p) + sum(r)),
    },
)
def f1(predictions, references):
    hits = sum(p == r == 1 for p, r in zip(predictions, references, strict=True))
    errors = sum(p != r for p, r in zip(predictions, references, strict=True))
    if hits + errors == 0:
        return 0.0
    return 2 * hits / (2 * hits + errors)


def _dealt(hits, processes):
    """Deal rows in turn, and fill up the last round with rows from the start, as Accelerate does."""
    filled = [*hits, *(hits * processes)[: -len(hits) % processes]]
    return [filled[process::processes] for process in range(processes)], len(hits)


@exercise(
    "06.report",
    "Some rows at the end only fill up the last round, so they would count twice. Drop them: there are `rows` rows.",
    "Row 0 is with process 0, row 1 with process 1, and so on in turn. Bring them into this order before you cut.",
    "`zip(*hits)` gives the rounds, each with one row of every process.",
    examples=[_dealt([1, 0, 1], 2), _dealt([1, 0, 0, 0], 3), _dealt([1, 1, 0, 1], 2)],
    random_inputs=lambda rng: _dealt(rng.choices([0, 1], k=rng.randint(1, 7)), rng.randint(1, 3)),
    bug=lambda hits, rows: sum(hits[0]) / len(hits[0]),
    mistakes={
        0: lambda hits, rows: sum(map(sum, hits)) / sum(map(len, hits)),
        1: lambda hits, rows: sum([hit for own in hits for hit in own][:rows]) / rows,
    },
)
def report(hits, rows):
    in_turn = [hit for one_round in zip(*hits, strict=True) for hit in one_round]
    return sum(in_turn[:rows]) / rows


def _sentences(value: Any, labels: Sequence[int]) -> str:
    """Return what is wrong with answers to the validation rows: their form, number or order, or a coin toss."""
    answers = plain(value)
    answers = [plain(answer) for answer in answers] if isinstance(answers, list | tuple) else [None]
    if any(answer not in (0, 1) for answer in answers):
        return f"Give a list with 0 or 1 for each validation row; this is {shown(value)[:80]}."
    if len(answers) != len(labels):
        return (
            f"These are {len(answers)} answers, and the validation split of the sentences has {len(labels)} rows. "
            "Go through it once, and collect the answers of all batches."
        )
    if len(set(answers)) == 1:
        return "All answers are alike: too few steps, or too small a learning rate. Try five epochs with 1e-4."
    if (right := statistics.fmean(map(int.__eq__, map(int, answers), labels))) < 0.6:
        return (
            f"{right:.2f} of the answers are right, hardly more than of a coin toss. If your training loss fell: are "
            "the answers in the order of the rows? The validation loader must not shuffle."
        )
    return ""


@exercise(
    "06.sentences",
    'The rows have one text column: `tokenizer(example["sentence"], truncation=True)`. The rest stays.',
    "Five epochs with 1e-4 and batches of 16 take less than a minute on two cores.",
    "Collect `model(**batch).logits.argmax(-1).tolist()` of a validation loader that does not shuffle.",
    examine=_sentences,
)
def my_predictions():
    import torch
    from torch.utils.data import DataLoader
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, DataCollatorWithPadding, get_scheduler

    from course_utils import artifacts
    from course_utils.data.paraphrases import load_pairs
    from course_utils.profiles import get_profile

    profile = get_profile()
    location = artifacts.encoder_folder(profile.encoder, profile.pairs)
    tokenizer = AutoTokenizer.from_pretrained(location)
    rows = load_pairs(profile.sentences)
    rows = rows.map(lambda example: tokenizer(example["sentence"], truncation=True), batched=True)
    rows = rows.select_columns([*tokenizer.model_input_names, "label"]).rename_column("label", "labels")
    rows, collator = rows.with_format("torch"), DataCollatorWithPadding(tokenizer)
    train_loader = DataLoader(rows["train"], batch_size=16, shuffle=True, collate_fn=collator)
    valid_loader = DataLoader(rows["validation"], batch_size=32, collate_fn=collator)
    device = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    torch.manual_seed(profile.seed)
    model = AutoModelForSequenceClassification.from_pretrained(location, num_labels=2).to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    scheduler = get_scheduler("linear", optimizer, 0, 5 * len(train_loader))
    for _ in range(5):
        for batch in train_loader:
            model(**batch.to(device)).loss.backward()
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
    model.eval()
    with torch.no_grad():
        return [answer for batch in valid_loader for answer in model(**batch.to(device)).logits.argmax(-1).tolist()]
