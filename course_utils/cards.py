"""The card of a run, written from what made it, with metadata that the Hub accepts."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from course_utils.profiles import LOCATIONS, locations

_SCORES = {"bits_per_byte": "bits per byte", "loss": "loss", "perplexity": "perplexity"}


def model_card(repo_id: str, branch: str, run: Mapping[str, Any], licenses: Mapping[str, int]) -> ModelCard:
    """Return the card of a run, from its `settings` and `history`."""
    settings = run["settings"]
    curve = [entry for entry in run["history"] if "eval_loss" in entry]
    corpus = settings.get("profile.filtered_corpus") or settings.get("profile.code_corpus", "pinned")
    places = locations(corpus) if "/" in corpus and not _is_local(corpus) else ()
    ids = [p.format(split=s) for p in places for s in (("train", "valid") if "{" in p else ("",))]
    held_out = {"dataset_type": ids[-1] if ids else "code", "dataset_name": "held-out code"}
    held_out |= {"task_type": "text-generation"}
    results = [EvalResult(**held_out, metric_type=n, metric_value=round(curve[-1][f"eval_{n}"], 4)) for n in _SCORES]
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
        data=", ".join(ids) or ("folders of the author" if _is_local(corpus) else "the sources that the course names"),
        licenses=_table(("licence", "documents"), Counter(licenses).most_common()),
        curve=_table(("step", *_SCORES.values()), rows), settings=_table(("setting", "value"), shown),
    )  # fmt: skip
    return ModelCard(f"---\n{data.to_yaml()}\n---\n{text}")


def _is_local(location: str) -> bool:
    """Return whether it names a path, which is nobody's business."""
    return any(Path(part).is_absolute() for part in locations(location))


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    return "\n".join(f"| {' | '.join(map(str, row))} |" for row in (head, ["---"] * len(head), *rows))
