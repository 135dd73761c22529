"""Cards of models and data sets, written from what made them, with metadata that the Hub accepts."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets import DatasetDict
from huggingface_hub import DatasetCard, DatasetCardData, EvalResult, ModelCard, ModelCardData

from course_utils.profiles import LOCATIONS, locations

_SIZES = {1_000: "n<1K", 10_000: "1K<n<10K", 100_000: "10K<n<100K", 1_000_000: "100K<n<1M", 10_000_000: "1M<n<10M"}
_SCORES = {"bits_per_byte": "bits per byte", "loss": "loss", "perplexity": "perplexity"}


def model_card(
    repo_id: str, branch: str, run: Mapping[str, Any], licenses: Mapping[str, int], tasks: Mapping | None = None
) -> ModelCard:  # fmt: skip
    """Return the card of a run: its `settings` and `history`; `tasks` are shares from 0 to 1, by the tasks' name."""
    settings, tasks = run["settings"], tasks or {}
    curve = [entry for entry in run["history"] if "eval_loss" in entry]
    corpus = settings.get("profile.filtered_corpus") or settings.get("profile.code_corpus", "pinned")
    places = locations(corpus) if "/" in corpus and not _is_local(corpus) else ()
    ids = [p.format(split=s) for p in places for s in (("train", "valid") if "{" in p else ("",))]
    task = {"task_type": "text-generation"}
    held_out = task | {"dataset_type": ids[-1] if ids else "code", "dataset_name": "held-out code"}
    own = task | {"dataset_type": "comment-to-code", "dataset_name": "the course's tasks", "metric_type": "accuracy"}
    results = [EvalResult(**held_out, metric_type=n, metric_value=round(curve[-1][f"eval_{n}"], 4)) for n in _SCORES]
    results += [EvalResult(**own, metric_name=name, metric_value=round(share, 4)) for name, share in tasks.items()]
    data = ModelCardData(
        model_name=repo_id.split("/")[-1], eval_results=results, datasets=ids or None, library_name="transformers",
        pipeline_tag="text-generation", license="other", license_name="licences-of-the-training-text", tags=["code"],
    )  # fmt: skip
    points = dict.fromkeys((*range(0, len(curve), -(-len(curve) // 10)), len(curve) - 1))
    rows = ([curve[i]["step"], *(f"{curve[i][f'eval_{name}']:.4g}" for name in _SCORES)] for i in points)
    local = {f"profile.{name}" for name in LOCATIONS if _is_local(settings.get(f"profile.{name}", ""))}
    shown = ((name, "local" if name in local else value) for name, value in settings.items())
    text = Path(__file__).with_name("model_card.md").read_text(encoding="utf-8").format(
        repo_id=repo_id, branch=branch, step=curve[-1]["step"], bits=curve[-1]["eval_bits_per_byte"],
        tasks="".join(f" {name}: {share:.1%}." for name, share in tasks.items()),
        data=", ".join(ids) or ("folders of the author" if _is_local(corpus) else "the sources that the course names"),
        licenses=_table(("licence", "documents"), Counter(licenses).most_common()),
        curve=_table(("step", *_SCORES.values()), rows), settings=_table(("setting", "value"), shown),
    )  # fmt: skip
    return ModelCard(f"---\n{data.to_yaml()}\n---\n{text}")


def dataset_card(repo_id: str, splits: DatasetDict, origin: str, license: str = "other") -> DatasetCard:
    """Return the card of a data set; `origin` is a paragraph: where the rows come from, and what was done to them."""
    rows, first = sum(map(len, splits.values())), next(iter(splits.values()))
    size = next((name for limit, name in _SIZES.items() if rows < limit), "10M<n<100M")
    data = DatasetCardData(pretty_name=repo_id.split("/")[-1], license=license, size_categories=size)
    named = Counter(name for part in splits.values() if "license" in part.column_names for name in part["license"])
    text = Path(__file__).with_name("dataset_card.md").read_text(encoding="utf-8").format(
        repo_id=repo_id, origin=origin, licenses=_table(("licence", "rows"), named.most_common() or [(license, rows)]),
        splits=_table(("split", "rows"), ((name, len(part)) for name, part in splits.items())),
        columns=_table(("column", "type"), ((n, getattr(f, "dtype", f)) for n, f in first.features.items())),
    )  # fmt: skip
    return DatasetCard(f"---\n{data.to_yaml()}\n---\n{text}")


def _is_local(location: str) -> bool:
    """Return whether it names a path, which is nobody's business."""
    return any(Path(part).is_absolute() for part in locations(location))


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    return "\n".join(f"| {' | '.join(map(str, row))} |" for row in (head, ["---"] * len(head), *rows))
