"""What each notebook hands to the next: corpus, tokenizer, packed tokens, model; made if missing, kept if made.

The mechanism is in `cache`, the work in `data`, `models` and `training`. Here stands only what is built from what, and
what an artifact's key must name so that a changed profile, input, library or line of code gives a new one.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from datasets import Dataset, concatenate_datasets
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from course_utils import cache
from course_utils.data import (
    cleaning,
    corpus,
    deduplication,
    doctests,
    documents,
    encoding,
    filtering,
    packing,
    paraphrases,
    sources,
    tokenization,
)
from course_utils.data.corpus import Location
from course_utils.environment import choose_device, choose_precision
from course_utils.models import causal, encoder
from course_utils.profiles import PROFILES, Profile
from course_utils.training import checkpoints, heldout, loaders, loop, losses, optimization, pretraining

REPORT = "report.json"
PACKED = "sequences.arrow"
REPORT_FIELDS = ("documents", "tokens", "tokens_lost", "text_bytes")
REFERENCES = Path(__file__).parent / "training" / "references"


def code_corpus(profile: Profile) -> Location:
    """Raw code with train and validation splits: pinned sources, the learner's own folder, a data set or a Hub id.

    Without network and without saved archives the installed packages serve instead, and that is said. Raises
    `ValueError` for a corpus that does not exist or has no column `content`.
    """
    kind = corpus.corpus_kind(profile.code_corpus)
    if kind == "pinned":
        try:
            return Location(str(_pinned_corpus(profile).path))
        except sources.SourcesUnavailable as error:
            print(f"{error}\nUntil then, the Python packages installed on this machine serve as the code corpus.")
            return Location(str(_environment_corpus(profile).path))
    if kind == "folder":
        return Location(str(_folder_corpus(Path(profile.code_corpus).expanduser(), profile.corpus_bytes).path))
    if kind == "dataset":
        location = Location(str(Path(profile.code_corpus).expanduser()))
        corpus.check_columns(location)
        return location
    return Location(profile.code_corpus)


def _pinned_corpus(profile: Profile) -> cache.Artifact:
    manifest = sources.load_manifest(tiny=profile.small_sources)

    def build(folder: Path) -> None:
        archives = sources.fetch_sources(manifest, cache.home() / "archives")
        corpus.build_from_sources(folder, manifest, archives, profile.corpus_bytes or None)

    digests = [f"{source.name} {source.version} {source.sha256}" for source in manifest]
    return cache.build_once("code_corpus", _corpus_key(sources=digests, max_bytes=profile.corpus_bytes), build)


def _environment_corpus(profile: Profile) -> cache.Artifact:
    packages = cache.installed_versions(name for names in corpus.INSTALLED.values() for name in names)
    return cache.build_once(
        "code_corpus",
        _corpus_key(environment=packages, max_bytes=profile.corpus_bytes),
        lambda folder: corpus.build_from_environment(folder, profile.corpus_bytes or None),
    )


def _folder_corpus(folder: Path, max_bytes: int) -> cache.Artifact:
    key = _corpus_key(folder=str(folder.resolve()), state=_folder_state(folder, "*.py"), max_bytes=max_bytes)
    return cache.build_once(
        "code_corpus", key, lambda target: corpus.build_from_folder(target, folder, max_bytes or None)
    )


def _corpus_key(**inputs: Any) -> dict[str, Any]:
    code = cache.code_fingerprint(corpus, documents, doctests, sources)
    return inputs | {"code": code} | cache.library_versions("pyarrow")


def filtered_corpus(profile: Profile) -> Location:
    """Documents that name one of the four libraries (A2, A3): the profile's own, or filtered from the raw code.

    Raises `ValueError` for a filtered corpus that is neither a folder nor a Hub id.
    """
    if profile.filtered_corpus:
        place = Path(profile.filtered_corpus).expanduser()
        if not place.is_dir() and not corpus.HUB_ID.fullmatch(profile.filtered_corpus):
            raise ValueError(
                f"the filtered corpus {profile.filtered_corpus!r} is no folder here and no Hub id. Set "
                "COURSE_FILTERED_CORPUS to a folder with a data set, or to an id like owner/name or owner/name-{split}."
            )
        return Location(str(place) if place.is_dir() else profile.filtered_corpus)
    raw = code_corpus(profile)

    def build(folder: Path) -> None:
        for split in ("train", "validation"):
            kept = filtering.filter_streaming_dataset(raw.load(split, streaming=True), filtering.KEYWORDS)
            _write_split(kept, folder, split)

    key = {"from": _identity(raw), "code": cache.code_fingerprint(filtering), **cache.library_versions("datasets")}
    return Location(str(cache.build_once("filtered_corpus", key, build).path))


def clean_corpus(profile: Profile) -> Location:
    """Filtered documents, each once, cleaned by the rules, mixed for training (E1, E2).

    Of a near-duplicate pair across the splits the validation document stays, so that nothing leaks.
    """
    filtered = filtered_corpus(profile)

    def build(folder: Path) -> None:
        held_out, train = (_cleaned(filtered.load(split)) for split in ("validation", "train"))
        if profile.library_share < 1 and "path" not in train.column_names:  # it tells examples from library code
            corpus.check_columns(train)
        train = cleaning.sample_library(train, profile.library_share)
        together = concatenate_datasets([held_out, train])
        row = max(together.column_names, key=len) + "_row"  # a name that no column has
        unique, _ = deduplication.deduplicate(together.add_column(row, range(len(together))))
        rows = unique[row][:]
        border = sum(number < len(held_out) for number in rows)
        unique = unique.remove_columns(row)
        _write_split(unique.select(range(border)), folder, "validation")
        _write_split(unique.select(range(border, len(unique))), folder, "train")

    key = {
        "from": _identity(filtered),
        "library_share": profile.library_share,
        "code": cache.code_fingerprint(cleaning, deduplication, documents),
        **cache.library_versions("datasets"),
    }
    return Location(str(cache.build_once("clean_corpus", key, build).path))


def _cleaned(dataset: Dataset) -> Dataset:
    unique, _ = deduplication.deduplicate(dataset)
    return cleaning.clean_dataset(unique, cleaning.TRAINING_RULES)[0]


def code_tokenizer(profile: Profile) -> PreTrainedTokenizerBase:
    """Return the byte-level BPE tokenizer trained on the training split of the clean corpus (E3)."""
    return tokenization.load_tokenizer(_tokenizer(profile).path)


def _tokenizer(profile: Profile) -> cache.Artifact:
    clean = clean_corpus(profile)

    def build(folder: Path) -> None:
        texts = tokenization.batch_iterator(clean.load("train"))
        tokenization.train_code_tokenizer(texts, profile.vocab_size).save_pretrained(folder)

    key = {
        "from": _identity(clean),
        "vocab_size": profile.vocab_size,
        "code": cache.code_fingerprint(tokenization),
        **cache.library_versions("tokenizers", "transformers"),
    }
    return cache.build_once("code_tokenizer", key, build)


def packed_data(profile: Profile) -> pretraining.PackedData:
    """Rows of `context_length` tokens for training and validation, end of text between documents (A6, C4).

    The validation rows are at most `eval_sequences`, taken evenly from all held-out projects.
    """
    packed = _packed(profile, "train")
    train = Dataset.from_file(str(packed.path / PACKED)).with_format("torch")
    return pretraining.PackedData(train, **_held_out(profile), digest=packed.digest)


def streamed_data(profile: Profile) -> pretraining.PackedData:
    """Like `packed_data`, but `train` is a stream of documents, to be tokenized and packed while training (C4)."""
    documents = clean_corpus(profile).load("train", streaming=True)
    return pretraining.PackedData(documents, **_held_out(profile), digest=_packed(profile, "validation").digest)


def _held_out(profile: Profile) -> dict[str, Any]:
    folder = _packed(profile, "validation").path
    report = json.loads((folder / REPORT).read_text(encoding="utf-8"))
    validation = Dataset.from_file(str(folder / PACKED))
    count = min(profile.eval_sequences, len(validation))
    rows = [i * len(validation) // count for i in range(count)]
    return {
        "validation": validation.select(rows).with_format("torch"),
        "validation_tokens": report["tokens"],
        "validation_bytes": report["text_bytes"],
    }


def _packed(profile: Profile, split: str) -> cache.Artifact:
    clean, tokenizer = clean_corpus(profile), _tokenizer(profile)

    def build(folder: Path) -> None:
        loaded = tokenization.load_tokenizer(tokenizer.path)
        packed = packing.pack_dataset(clean.load(split), loaded, profile.context_length, folder / PACKED)
        _write_json(folder / REPORT, {name: getattr(packed, name) for name in REPORT_FIELDS})

    key = {
        "from": _identity(clean),
        "split": split,
        "tokenizer": tokenizer.digest,
        "context_length": profile.context_length,
        "code": cache.code_fingerprint(packing, encoding),
        **cache.library_versions("datasets", "pyarrow"),
    }
    return cache.build_once("packed_data", key, build)


def run_folder(profile: Profile) -> Path:
    """Where the checkpoints of this profile's training live until the model is finished."""
    key = json.dumps(_model_key(profile), sort_keys=True)
    return cache.home() / "runs" / hashlib.sha256(key.encode()).hexdigest()[:16]


def loop_folder(profile: Profile, settings: Mapping[str, Any]) -> Path:
    """Where a run of the Accelerate loop with these settings lives: named after them, the data, the code, versions."""
    code = cache.code_fingerprint(loop, losses, optimization, loaders, heldout, checkpoints)
    key = _model_key(profile) | {"settings": settings, "loop": code}
    return cache.home() / "runs" / hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]


def pretrain(profile: Profile, stop_at: int) -> None:
    """Train up to `stop_at` optimizer steps and leave a checkpoint; does nothing if the model is finished."""
    with cache.locked(run_folder(profile), "pretrained_model"):
        if cache.exists("pretrained_model", _model_key(profile)):
            print("This model is already trained; it is loaded from the disk in the next step.")
            return
        pretraining.train(_trainer_factory(profile), run_folder(profile), stop_at)
    print(f"interrupted after {stop_at} optimizer steps")


def pretrained_model(profile: Profile) -> Path:
    """Folder of the model trained on the packed data, with tokenizer and log; goes on from a checkpoint if any (A9).

    Raises `TrainingDiverged`, and keeps nothing, if a loss or a weight is no finite number.
    """

    def build(folder: Path) -> None:
        with cache.locked(run_folder(profile), "pretrained_model"):
            model, history = pretraining.train(_trainer_factory(profile), run_folder(profile))
        model.save_pretrained(folder)
        code_tokenizer(profile).save_pretrained(folder)
        _write_json(folder / pretraining.HISTORY, history)

    path = cache.build_once("pretrained_model", _model_key(profile), build).path
    if run_folder(profile).exists():  # the checkpoints have done their work, but only now that the model is safe
        with cache.locked(run_folder(profile), "pretrained_model"):
            shutil.rmtree(run_folder(profile), ignore_errors=True)
    return path


def find_pretrained(profile: Profile) -> Path | None:
    """Return the newest intact model trained with this profile, whatever the versions then; builds nothing."""
    seals = (cache.home() / "pretrained_model").glob(f"*/{cache.SEAL}")
    for seal in sorted(seals, key=lambda path: -path.stat().st_mtime):
        if cache.damage(seal.parent) is None:
            key = json.loads(seal.read_text(encoding="utf-8"))["key"]
            if key.get("profile") == profile.pretraining:
                return seal.parent
    return None


def _trainer_factory(profile: Profile):
    return partial(pretraining.make_trainer, profile, code_tokenizer(profile), packed_data(profile))


def _model_key(profile: Profile) -> dict[str, Any]:
    return {
        "data": [_packed(profile, split).digest for split in ("train", "validation")],
        "profile": profile.pretraining,
        "device": choose_device().type,
        "precision": choose_precision().name,
        "code": cache.code_fingerprint(causal, pretraining),
        **cache.library_versions("torch", "transformers", "accelerate"),
    }


def load_model(folder: Path) -> PreTrainedModel:
    """Load a model that was saved by `pretrained_model`, ready to generate.

    Raises `ValueError` if weights are missing: the library would fill them with random numbers.
    """
    model, found = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    if missing := sorted(found["missing_keys"]):
        raise ValueError(
            f"{folder} lacks {len(missing)} of the model's tensors, such as {missing[0]}. Save the whole model there "
            "with model.save_pretrained(folder)."
        )
    return causal.with_causal_loss(model.to(choose_device())).eval()


def training_history(profile: Profile) -> list[dict[str, float]]:
    """Return the Trainer's log of the finished training."""
    path = pretrained_model(profile) / pretraining.HISTORY
    return json.loads(path.read_text(encoding="utf-8"))


def encoder_folder(name: str, pairs: str) -> str:
    """Where an encoder for fine-tuning is: `course` is the installed package, `scratch` a small BERT made here.

    Without the package, `course` is `scratch`, too, and that is said. Anything else is a folder or a Hub id, and is
    returned as it is. Raises `ValueError` for packaged weights that are not the published ones.
    """
    packaged = encoder.packaged_encoder() if name == "course" else None
    if packaged is not None:
        return str(packaged)
    if name not in ("course", "scratch"):
        return name
    if name == "course":
        print(
            f"The package {encoder.PACKAGE} is not installed, so a small BERT with random weights takes its place. It "
            f"shows the mechanics only; its results mean nothing. For real results: {encoder.INSTALL}"
        )
    train = paraphrases.load_pairs(pairs)["train"]
    texts = [text for column in paraphrases.text_columns(train.column_names) for text in train[column]]
    key = {
        "texts": hashlib.sha256("\n".join(texts).encode()).hexdigest(),
        "code": cache.code_fingerprint(encoder),
        **cache.library_versions("tokenizers", "transformers"),
    }
    made = cache.build_once("scratch_encoder", key, lambda folder: encoder.save_scratch_encoder(folder, texts))
    return str(made.path)


@dataclass(frozen=True)
class Reference:
    """Curves of reference runs: a band (tokens, low, high, name) or None, and further named curves."""

    band: tuple[list[float], list[float], list[float], str] | None
    curves: Mapping[str, tuple[list[float], list[float]]]


def reference_runs(profile: Profile, data: pretraining.PackedData) -> Reference:
    """Return the committed reference of a profile, or an empty one, with a word, where it would not be comparable."""
    path = REFERENCES / f"{profile.name}.json"
    saved = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
    held_out = [data.validation_tokens, data.validation_bytes]
    changed = profile.pretraining != PROFILES[profile.name].pretraining if profile.name in PROFILES else True
    if saved is None or changed or saved["held_out"] != held_out:
        print("No reference curve: this run has another profile, other data or another tokenizer than the saved ones.")
        return Reference(None, {})
    band = (saved["tokens"], saved["low"], saved["high"], f"reference runs ({len(saved['seeds'])} seeds)")
    tutorial = {"tutorial's settings": (saved["tutorial"]["tokens"], saved["tutorial"]["bits_per_byte"])}
    return Reference(band, tutorial)


def _identity(location: Location) -> str:
    """Digest of a local artifact, name and state of another folder, or the name of a Hub data set."""
    path = Path(location.path)
    if not path.is_dir():
        return location.path
    return path.name if (path / cache.SEAL).is_file() else f"{path.resolve()} {_folder_state(path, '*')}"


def _folder_state(folder: Path, pattern: str) -> str:
    """Digest that changes when a file of the folder does; names, sizes and times stand for the contents."""
    state = hashlib.sha256()
    for path in sorted(folder.rglob(pattern)):
        status = path.lstat()  # of a link itself: it may lead nowhere
        state.update(f"{path}\n{status.st_size}\n{status.st_mtime_ns}\n".encode())
    return state.hexdigest()


def _write_split(dataset: Dataset, folder: Path, split: str) -> None:
    if len(dataset) == 0:
        raise ValueError(
            f"no document of the {split} split is left. The corpus is too small, or none of it is about "
            f"{', '.join(filtering.KEYWORDS)}; choose another one with COURSE_CODE_CORPUS."
        )
    (folder / "data").mkdir(exist_ok=True)
    dataset.to_parquet(str(folder / "data" / f"{split}-00000-of-00001.parquet"))


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8", newline="\n")
