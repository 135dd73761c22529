"""The sizes of the course: three profiles of one code path, which hold names and numbers and nothing else."""

import difflib
import math
import operator
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from numbers import Integral, Real
from typing import Any

from course_utils import language
from course_utils.cache import expanded, home

# Names after COURSE_ of variables that are not profile fields.
OTHER_VARIABLES = ("PROFILE", "HOME", "SOURCE", "SANDBOX", "SOLUTIONS", "CHECKS", "LANGUAGE")
# Values of locations that are words of the course, even where a folder has the same name.
LOCATION_WORDS = ("pinned", "course", "scratch", "course-pairs", "course-sentences")
# Fields that no pretrained model depends on.
_LATER = ("pairs", "sentences", "encoder", "finetune_", "score_", "rung_", "push_to_hub")
_WORDS = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}
_BOUNDS = {"least": operator.ge, "above": operator.gt, "most": operator.le, "below": operator.lt}
_IN_WORDS = {"least": "at least", "above": "greater than", "most": "at most", "below": "less than"}


def setting(default: Any, unit: str, text: str, **bounds: Any) -> Any:
    """Make a dataclass field that carries its unit, a sentence, and `least`, `most`, `above`, `below`, `choices`."""
    return field(default=default, metadata={"unit": unit, "text": text, **bounds})


def check_settings(settings: Any, remedy: str = "") -> None:
    """Raise `ValueError` for a field of another type or out of bounds; `{NAME}` in `remedy` is its name in capitals."""
    for f in fields(settings):
        value, kind = getattr(settings, f.name), type(f.default)
        if allowed := _allowed(value, kind, f.metadata):
            advice = remedy.replace("{NAME}", f.name.upper())
            raise ValueError(f"{f.name} = {value!r} is not allowed; it must be {allowed}. {advice}".rstrip())
        if kind in (int, float) and type(value) not in (int, float):  # a number of numpy, which JSON refuses
            object.__setattr__(settings, f.name, kind(value))


def _allowed(value: Any, kind: type, bounds: Mapping[str, Any]) -> str:
    """Return what the value must be, in words; nothing if it is fine."""
    fits = isinstance(value, {int: Integral, float: Real}.get(kind, kind))
    if not fits or (kind is not bool and isinstance(value, bool)) or (kind is float and not math.isfinite(value)):
        words = {bool: "True or False", int: "a whole number", float: "a finite number"}
        return words.get(kind, f"of type {kind.__name__}")
    if "choices" in bounds and value not in bounds["choices"]:
        return f"one of {', '.join(map(str, bounds['choices']))}"
    limits = [name for name in _BOUNDS if name in bounds]
    if all(_BOUNDS[name](value, bounds[name]) for name in limits):
        return ""
    return " and ".join(f"{_IN_WORDS[name]} {bounds[name]}" for name in limits)


def locations(text: str) -> list[str]:
    """Return the locations that commas separate; a path that exists is one, whatever its name."""
    alone = "," not in text or expanded(text).exists()
    return [text] if alone else [part.strip() for part in text.split(",") if part.strip()]


def absolute(text: str) -> str:
    """Return local paths without `~` and relative parts; Hub ids and words of the course unchanged."""
    if len(parts := locations(text)) > 1:
        return ",".join(map(absolute, parts))
    if text in ("", *LOCATION_WORDS):
        return text
    path = expanded(text)
    return str(path.absolute()) if text.startswith(("~", ".")) or path.exists() else text


@dataclass(frozen=True)
class Profile:
    """One size of the course; every field carries its unit and a sentence in `dataclasses.fields(...)`."""

    name: str = setting("laptop", "-", "Name of the profile.")
    code_corpus: str = setting("pinned", "location", "Raw code: pinned, a folder, a data set, a Hub id, or a list.")
    filtered_corpus: str = setting("", "location", "Already filtered code; empty: notebook 01 builds it.")
    text_column: str = setting("content", "name", "Column with the code, in a data set of your own.")
    small_sources: bool = setting(False, "-", "Fetch only the small source distributions of the manifest.")
    corpus_bytes: int = setting(0, "bytes", "Cap on the raw text; 0 takes everything.", least=0)
    sample_documents: int = setting(1_000_000, "documents", "Most documents that a notebook looks at itself.", least=1)
    library_share: float = setting(1.0, "share", "Library files (not examples) kept for training.", least=0, most=1)
    tests_share: float = setting(0.0, "share", "Tests that use the libraries kept for training.", least=0, most=1)
    vocab_size: int = setting(8192, "tokens", "Size of the tokenizer's vocabulary.", least=260)
    context_length: int = setting(128, "tokens", "Longest input of the model.", least=2)
    model_layers: int = setting(4, "blocks", "Transformer blocks.", least=1)
    model_width: int = setting(256, "dimensions", "Size of a token's vector.", least=1)
    model_heads: int = setting(4, "heads", "Attention heads per block.", least=1)
    batch_size: int = setting(16, "sequences", "Sequences per device and forward pass.", least=1)
    accumulation_steps: int = setting(1, "passes", "Forward passes per optimizer step.", least=1)
    train_steps: int = setting(1000, "optimizer steps", "Length of the training; -1: one pass over the data.", least=-1)
    warmup_steps: int = setting(100, "optimizer steps", "Steps in which the learning rate rises.", least=0)
    learning_rate: float = setting(1e-3, "-", "Peak learning rate.", above=0)
    weight_decay: float = setting(0.1, "-", "Decay of the weight matrices.", least=0)
    eval_steps: int = setting(100, "optimizer steps", "Distance between two evaluations.", least=1)
    save_steps: int = setting(100, "optimizer steps", "Distance between two checkpoints.", least=1)
    eval_sequences: int = setting(500, "sequences", "Held-out sequences per evaluation.", least=1)
    seed: int = setting(1, "-", "Seed of everything that is random.", least=0)
    pairs: str = setting("course-pairs", "location", "Sentence pairs: course-pairs, a folder or a Hub id.")
    sentences: str = setting("course-sentences", "location", "Labelled sentences: as for the pairs.")
    encoder: str = setting("course", "location", "Model to fine-tune: course, scratch, a folder or a Hub id.")
    finetune_epochs: int = setting(5, "epochs", "Passes over the pairs, each in both orders.", least=1)
    finetune_rate: float = setting(1e-4, "-", "Peak learning rate of the fine-tuning.", above=0)
    finetune_batch: int = setting(16, "pairs", "Pairs per device and step of the fine-tuning.", least=1)
    finetune_dropout: float = setting(0.0, "share", "Values set to 0 while fine-tuning.", least=0, most=1)
    finetune_pairs: int = setting(0, "pairs", "Most pairs to train on; 0 takes all.", least=0)
    finetune_seeds: int = setting(3, "runs", "Fine-tunings with different seeds.", least=1)
    score_documents: int = setting(150, "documents", "Held-out documents that notebook 07 measures.", least=1)
    score_problems: int = setting(0, "problems", "Most programming problems; 0 takes all.", least=0)
    score_candidates: int = setting(20, "candidates", "Programs that the model writes for each problem.", least=1)
    score_files: int = setting(60, "files", "Files that bugs are planted into.", least=1)
    rung_seconds: float = setting(60.0, "seconds", "Training time of each rung in notebook 10.", above=0)
    push_to_hub: bool = setting(False, "-", "Push models to the Hub (needs a login).")

    def __post_init__(self) -> None:
        """Refuse impossible values early, each with its remedy; make local paths absolute."""
        check_settings(self, "Change COURSE_{NAME}, or unset it to get the profile's own value.")
        rules = {
            "train_steps must be at least 1, or -1 for one pass over the data": self.train_steps != 0,
            "save_steps must be a multiple of eval_steps": self.save_steps % self.eval_steps == 0,
            "model_width must be a multiple of model_heads": self.model_width % self.model_heads == 0,
        }
        for rule, kept in rules.items():
            if not kept:
                raise ValueError(f"profile {self.name!r}: {rule}. Change the COURSE_ variable that sets it.")
        for name in LOCATIONS:
            object.__setattr__(self, name, absolute(getattr(self, name)))

    @property
    def pretraining(self) -> dict[str, Any]:
        """The values that a pretrained model depends on: all but those of fine-tuning and of the Hub."""
        return {f.name: getattr(self, f.name) for f in fields(self) if not f.name.startswith(_LATER)}

    @property
    def tokens_per_step(self) -> int:
        """Tokens that one optimizer step on one device sees."""
        return self.batch_size * self.accumulation_steps * self.context_length


LOCATIONS = tuple(f.name for f in fields(Profile) if f.metadata["unit"] == "location")

# fmt: off
PROFILES: Mapping[str, Profile] = {
    # CI and a first look: every step runs, no step learns much.
    "tiny": Profile(
        name="tiny", small_sources=True, corpus_bytes=4_000_000, tests_share=0.4,
        vocab_size=2048, model_layers=2, model_width=128,
        train_steps=160, warmup_steps=80, learning_rate=3e-3, eval_steps=20, save_steps=40, eval_sequences=120,
        finetune_epochs=1, finetune_pairs=64, finetune_seeds=2,
        score_documents=40, score_problems=13, score_candidates=4, score_files=10, rung_seconds=2.0,
    ),
    # A model that visibly learns in about ten minutes on two cores. With a quarter of the library code, user-style text
    # costs 0.09 bits per byte more; from 0.15 to 0.4 of the tests, it hardly matters (tools.reference_runs mixing).
    "laptop": Profile(
        name="laptop", library_share=0.05, tests_share=0.25,
        train_steps=1800, warmup_steps=300, learning_rate=3e-3, eval_steps=150, save_steps=300, eval_sequences=300,
    ),
    # The tutorials' own setting: Hub data, 124 M parameters, effective batch of 256 sequences.
    "full": Profile(
        name="full", sample_documents=20_000,
        code_corpus="transformersbook/codeparrot-{split}", filtered_corpus="huggingface-course/codeparrot-ds-{split}",
        vocab_size=50_000, model_layers=12, model_width=768, model_heads=12,
        batch_size=32, accumulation_steps=8, train_steps=-1, warmup_steps=1000, learning_rate=5e-4,
        eval_steps=5000, save_steps=5000, eval_sequences=5000,
        pairs="nyu-mll/glue:mrpc", sentences="nyu-mll/glue:sst2", encoder="bert-base-uncased",
        finetune_epochs=3, finetune_rate=5e-5, finetune_batch=8, finetune_dropout=0.1,
    ),
}
# fmt: on


def get_profile(name: str | None = None, **overrides: Any) -> Profile:
    """Return a profile by name (or COURSE_PROFILE, or `laptop`) with single values replaced as in `with_variables`."""
    name = name or os.environ.get("COURSE_PROFILE") or "laptop"
    language.chosen()  # a language that is not there is refused before anything is made
    if name not in PROFILES:
        raise ValueError(
            f"unknown profile {name!r}; there are {', '.join(PROFILES)}. Set COURSE_PROFILE to one of them."
        )
    return with_variables(PROFILES[name], **overrides)


def with_variables(profile: Profile, **overrides: Any) -> Profile:
    """Return `profile` with single values replaced by `COURSE_<FIELD>` variables and then by `overrides`.

    Raises `ValueError` for a misspelled variable, and for a value that does not fit.
    """
    types = {f.name: type(f.default) for f in fields(Profile) if f.name != "name"}
    values = {}
    for variable, text in os.environ.items():
        name = variable.removeprefix("COURSE_")
        if name == variable or name in OTHER_VARIABLES or not text:
            continue
        if name.lower() in types:
            values[name.lower()] = _parse(text, types[name.lower()])
        # Only near misses of our names: other names that begin with COURSE_ may be somebody else's.
        elif near := difflib.get_close_matches(name, [*map(str.upper, types), *OTHER_VARIABLES], n=1, cutoff=0.75):
            raise ValueError(f"unknown variable {variable}. Did you mean COURSE_{near[0]}? Rename or unset it.")
    values |= overrides
    if "code_corpus" in values:  # what a profile has filtered already belongs to its own code
        values.setdefault("filtered_corpus", "")
    if {values.get("code_corpus", ""), values.get("filtered_corpus", "")} - {"", "pinned"}:  # your code is no library
        values.setdefault("library_share", 1.0)
    return replace(profile, **values)


def _parse(text: str, kind: type) -> Any:
    """Convert a variable's text; what cannot be converted stays text, which `check_settings` refuses."""
    try:
        return _WORDS[text.lower()] if kind is bool else kind(text)
    except (KeyError, ValueError):
        return text


def make_variables_absolute() -> None:
    """Let relative folders mean the same here and in kernels, which start in the notebooks' folder."""
    for variable in (f"COURSE_{name.upper()}" for name in LOCATIONS):
        if text := os.environ.get(variable):
            os.environ[variable] = absolute(text)
    if os.environ.get("COURSE_HOME"):
        os.environ["COURSE_HOME"] = str(home())  # need not exist yet
