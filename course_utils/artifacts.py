"""What each notebook hands to the next: corpus, tokenizer, packed tokens, model; made if missing, kept if made.

The mechanism is in `cache`, the work in `data`, `models` and `training`. Here stands only what is built from what, and
what an artifact's key must name so that a changed profile, input, library or line of code gives a new one.
"""

import contextlib
import hashlib
import importlib.metadata
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from datasets import Dataset, concatenate_datasets
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from course_utils import cache
from course_utils.data import cleaning, corpus, deduplication, filtering, packing, paraphrases, sources, tokenization
from course_utils.data.corpus import Location
from course_utils.data.documents import SPLITS
from course_utils.environment import choose_device, choose_precision
from course_utils.models import causal, encoder
from course_utils.profiles import PROFILES, Profile, locations
from course_utils.training import checkpoints, pretraining

REPORT = "report.json"
PACKED = "sequences.arrow"
REFERENCES = Path(__file__).parent / "training" / "references"
REFERENCE_MODEL = Path(__file__).parent / "models" / "reference"
LIBRARIES = ("accelerate", "datasets", "pyarrow", "tokenizers", "torch", "transformers")


def _key(**inputs: Any) -> dict[str, Any]:
    """Return what makes an artifact: its inputs, the code and the libraries."""
    return inputs | {"code": cache.code_fingerprint()} | {name: importlib.metadata.version(name) for name in LIBRARIES}


def remove_outdated() -> tuple[int, int]:
    """Remove what other code or libraries made; return how many artifacts, and their bytes."""
    return cache.remove_others(_key())


def _corpus(name: str, build: Callable[[Path], Any], **inputs: Any) -> Location:
    return Location(str(cache.build_once(name, _key(**inputs), build)))


def code_corpus(profile: Profile, name: str = "") -> Location:
    """Return raw code, split, of the profile or `name`: pinned sources (or installed packages), own, or on the Hub."""
    name, limit = name or profile.code_corpus, profile.corpus_bytes
    location, kind = Location(name, profile.text_column), corpus.corpus_kind(name)
    if kind == "hub" or (kind == "dataset" and location.is_whole()):
        return location
    if kind != corpus.PINNED:
        inputs = {"places": locations(name), "text": profile.text_column, "max_bytes": limit}
        build = partial(corpus.build_from_own, **inputs)
        return _corpus("code_corpus", build, state=corpus.own_state(inputs["places"]), **inputs)
    try:
        return _pinned_corpus(profile)
    except ConnectionError as error:
        print(f"{error}\nUntil then, the Python packages installed on this machine serve as the code corpus.")
    wanted = {package for packages in corpus.INSTALLED.values() for package in packages}
    installed = {d.name: d.version for d in importlib.metadata.distributions() if d.name in wanted}
    build = partial(corpus.build_from_environment, max_bytes=limit)
    return _corpus("code_corpus", build, environment=installed, max_bytes=limit)


def _pinned_corpus(profile: Profile) -> Location:
    manifest = sources.load_manifest(tiny=profile.small_sources)

    def build(folder: Path) -> None:
        archives = sources.fetch_sources(manifest, cache.home() / "archives")
        corpus.build_from_sources(folder, manifest, archives, profile.corpus_bytes)

    digests = [f"{source.name} {source.version} {source.sha256}" for source in manifest]
    return _corpus("code_corpus", build, sources=digests, max_bytes=profile.corpus_bytes)


def filtered_corpus(profile: Profile) -> Location:
    """Return documents that name one of the four libraries (A2, A3); all, where a split would be lost; or your own."""
    if profile.filtered_corpus:
        return code_corpus(profile, profile.filtered_corpus)
    raw = code_corpus(profile)

    def build(folder: Path) -> None:
        streams = [raw.load(split, streaming=True) for split in SPLITS]
        kept = [filtering.filter_streaming_dataset(stream, filtering.KEYWORDS) for stream in streams]
        if not all(any(cleaning.can_be_held_out(r["content"], r["path"]) for r in s) for s in kept):
            print(f"What names {', '.join(filtering.KEYWORDS)} is too little to train on, so all documents stay.")
            kept = map(raw.load, SPLITS)
        for rows, split in zip(kept, SPLITS, strict=True):
            _write_split(rows, folder, split)

    return _corpus("filtered_corpus", build, raw=_identity(raw))


def clean_corpus(profile: Profile) -> Location:
    """Return filtered documents, each once, cleaned by the rules, mixed for training (E1, E2)."""
    filtered = filtered_corpus(profile)

    def build(folder: Path) -> None:
        cleaned, dropped = {}, {}
        for split in SPLITS:
            unique, copies = deduplication.deduplicate(filtered.load(split))
            cleaned[split], dropped[split] = cleaning.clean_dataset(unique, cleaning.TRAINING_RULES)
            dropped[split]["copies"] = copies.exact + copies.near
        held_out = cleaning.sample_kinds(cleaned["validation"], tests=0)
        shares = {"library": profile.library_share, "tests": profile.tests_share}
        train = cleaning.sample_kinds(cleaned["train"], **shares)
        together = concatenate_datasets([held_out, train])  # of two near duplicates the first stays: nothing leaks
        row = max(together.column_names, key=len) + "_row"  # a name that no column has
        unique, copies = deduplication.deduplicate(together.add_column(row, range(len(together))))
        dropped["train"]["copies"] += copies.exact + copies.near
        is_train = [number >= len(held_out) for number in unique[row]]
        for split in SPLITS:
            rows = unique.select([n for n, train in enumerate(is_train) if train == (split == "train")])
            _write_split(rows.remove_columns(row), folder, split, dropped[split])

    shares = {"library_share": profile.library_share, "tests_share": profile.tests_share}
    return _corpus("clean_corpus", build, filtered=_identity(filtered), **shares)


def code_tokenizer(profile: Profile) -> PreTrainedTokenizerBase:
    """Return the byte-level BPE tokenizer trained on the training split of the clean corpus (E3)."""
    return tokenization.load_tokenizer(_tokenizer_folder(profile))


def _tokenizer_folder(profile: Profile) -> Path:
    clean = clean_corpus(profile)

    def build(folder: Path) -> None:
        texts = tokenization.batch_iterator(clean.load("train"))
        tokenization.train_code_tokenizer(texts, profile.vocab_size).save_pretrained(folder)

    return cache.build_once("code_tokenizer", _key(clean=_identity(clean), vocab_size=profile.vocab_size), build)


def packed_data(profile: Profile) -> pretraining.PackedData:
    """Return rows of `context_length` tokens for training and validation, end of text between documents (A6, C4)."""
    folder = _packed_folder(profile, "train")
    train = Dataset.from_file(str(folder / PACKED)).with_format("torch")
    return pretraining.PackedData(train, **_held_out(profile), digest=folder.name)


def streamed_data(profile: Profile) -> pretraining.PackedData:
    """Like `packed_data`, but `train` is a stream of documents, to be tokenized and packed while training (C4)."""
    documents = clean_corpus(profile).load("train", streaming=True)
    return pretraining.PackedData(documents, **_held_out(profile), digest=_packed_folder(profile, "validation").name)


def _held_out(profile: Profile) -> dict[str, Any]:
    folder = _packed_folder(profile, "validation")
    report = json.loads((folder / REPORT).read_text())
    rows = Dataset.from_file(str(folder / PACKED))
    count = min(profile.eval_sequences, len(rows))  # evenly from all held-out projects
    rows = rows.select([i * len(rows) // count for i in range(count)]).with_format("torch")
    return {"validation": rows, "validation_tokens": report["tokens"], "validation_bytes": report["text_bytes"]}


def _packed_folder(profile: Profile, split: str) -> Path:
    clean, tokenizer, length = clean_corpus(profile), _tokenizer_folder(profile), profile.context_length

    def build(folder: Path) -> None:
        loaded = tokenization.load_tokenizer(tokenizer)
        packed = packing.pack_dataset(clean.load(split), loaded, length, folder / PACKED)
        (folder / REPORT).write_text(json.dumps({"tokens": packed.tokens, "text_bytes": packed.text_bytes}))

    key = _key(clean=_identity(clean), split=split, tokenizer=tokenizer.name, context_length=length)
    return cache.build_once("packed_data", key, build)


def _model_key(profile: Profile) -> dict[str, Any]:
    data = [_packed_folder(profile, split).name for split in ("train", "validation")]
    machine = {"device": choose_device().type, "precision": choose_precision().name}
    return _key(data=data, profile=profile.pretraining, **machine)


def run_folder(profile: Profile, **more: Any) -> Path:
    """Return where the checkpoints of this profile's training live; `more` are further settings, as of the loop."""
    return cache.artifact_folder("runs", _model_key(profile) | more)


@contextlib.contextmanager
def own_run(profile: Profile) -> Iterator[Path]:
    """Lend the folder in which notebook 04 trains, to one process at a time; a finished one may be read-only."""
    folder = run_folder(profile, notebook="04")
    lock = contextlib.nullcontext() if _finished(profile, folder) else cache.locked(folder, "training of notebook 04")
    with lock, pretraining.without_tied_layer():
        _announce(profile, folder)
        yield folder


def _finished(profile: Profile, run: Path) -> bool:
    steps = pretraining.optimizer_steps(profile, len(packed_data(profile).train))
    return pretraining.last_checkpoint(run)[1] == steps


def pretrained_model(profile: Profile) -> Path:
    """Return the folder of the model with tokenizer and log (A9): of notebook 04's finished run, or one made here."""

    def build(folder: Path) -> None:
        tokenizer, data = code_tokenizer(profile), packed_data(profile)
        own = run_folder(profile, notebook="04")
        run = own if _finished(profile, own) else run_folder(profile)
        with cache.locked(run, "pretrained_model"):
            _announce(profile, run)
            model, history = pretraining.train(partial(pretraining.make_trainer, profile, tokenizer, data), run)
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        (folder / pretraining.HISTORY).write_text(json.dumps(history, indent=1), encoding="utf-8")

    folder = cache.build_once("pretrained_model", _model_key(profile), build)
    shutil.rmtree(run_folder(profile), ignore_errors=True)  # only now that the model is safe
    return folder


def _announce(profile: Profile, run: Path) -> None:
    """Say so if a training is about to be repeated only because the course's code has changed."""
    older, by_code = find_pretrained(profile), {"code": "", "data": []}  # the data's names contain the code, too
    key = _model_key(profile)
    begun = any(run.glob("checkpoint-*"))
    if older and not begun and cache.read_key(older) != key and cache.read_key(older) | by_code == key | by_code:
        print("The course's code has changed since this profile's model was trained, so it is trained again.")
        print(f"The old model stays in {older}; `python -m course_utils demo --model` takes that folder.")


def find_pretrained(profile: Profile) -> Path | None:
    """Return the newest model trained with this profile, even if built with other versions; builds nothing."""
    keys = (cache.home() / "pretrained_model").glob(f"*/{cache.KEY_FILE}")
    newest_first = (path.parent for path in sorted(keys, key=lambda path: -path.stat().st_mtime))
    return next((f for f in newest_first if cache.read_key(f)["profile"] == profile.pretraining), None)


def reference_model() -> Path:
    """Return the folder of the model that ships with the course; raise `ValueError` for a missing or altered one."""
    if not REFERENCE_MODEL.is_dir():
        remedy = "take a release that has one, or make it in a clone: python -m tools.reference_model --minutes 90"
        raise ValueError(f"this copy of the course has no reference model ({REFERENCE_MODEL} is missing); {remedy}")
    if (damage := checkpoints.damage(REFERENCE_MODEL)) is None:
        return REFERENCE_MODEL
    remedy = "run git checkout -- . there, in a clone, or install the course again"
    pointers = (path for path in REFERENCE_MODEL.iterdir() if path.read_bytes()[:8] == b"version ")
    if any(pointers):  # Git LFS, as in some mirrors
        remedy = "Git LFS left a pointer in place of the file: run git lfs pull"
    raise ValueError(f"the reference model in {REFERENCE_MODEL} cannot be used ({damage}); {remedy}.")


def load_model(folder: Path) -> PreTrainedModel:
    """Load a saved model, ready to generate; refuse missing weights, which the library would fill with random ones."""
    model, found = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    if missing := sorted(found["missing_keys"]):
        raise ValueError(f"{folder} lacks {len(missing)} of the model's tensors, such as {missing[0]}. Save it whole.")
    return causal.with_causal_loss(model.to(choose_device())).eval()


def encoder_folder(name: str, pairs: str) -> str:
    """Return where an encoder is: `course` is an installed package, or the Hub's copy, or a small BERT; others stay."""
    if name not in ("course", "scratch"):
        return name
    if name == "course":
        if (found := encoder.packaged_encoder() or encoder.downloaded_encoder()) is not None:
            return str(found)
        print(f"Neither the package {encoder.PACKAGE} nor the Hub is there: a small BERT with random weights serves.")
        print(f"It shows the mechanics only; its results mean nothing. For real results: {encoder.INSTALL}")
    train = paraphrases.load_pairs(pairs)["train"]
    texts = [text for column in paraphrases.text_columns(train.column_names) for text in train[column]]
    key = _key(texts=hashlib.sha256("\n".join(texts).encode()).hexdigest())
    return str(cache.build_once("scratch_encoder", key, partial(encoder.save_scratch_encoder, texts=texts)))


def reference_band(profile: Profile, data: pretraining.PackedData) -> tuple[list, list, list, str] | None:
    """Return the committed band of a profile's curve (tokens, low, high, name); None, and say so, if not comparable."""
    path = REFERENCES / f"{profile.name}.json"
    saved = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {"held_out": None}
    same_profile = profile.pretraining == PROFILES[profile.name].pretraining
    if not same_profile or saved["held_out"] != [data.validation_tokens, data.validation_bytes]:
        print("No reference curve: this run has another profile, other data or another tokenizer than the saved ones.")
        return None
    return saved["tokens"], saved["low"], saved["high"], f"reference runs ({len(saved['seeds'])} seeds)"


def _identity(location: Location) -> str:
    """Return the name of an artifact; of a data set where it is, or on the Hub, its location and column, and state."""
    path = Path(location.path)
    if (path / cache.KEY_FILE).is_file():
        return path.name
    return f"{location.path} {location.text} {corpus.own_state([location.path]) if path.exists() else ''}"


def _write_split(dataset: Dataset, folder: Path, split: str, dropped: Mapping[str, int] | None = None) -> None:
    if len(dataset) == 0:
        reasons = ", ".join(f"{count} {reason}" for reason, count in (dropped or {}).items() if count) or "none"
        raise ValueError(f"no {split} document is left (dropped: {reasons}); set COURSE_CODE_CORPUS to more, or other.")
    (folder / "data").mkdir(exist_ok=True)
    dataset.to_parquet(str(folder / "data" / f"{split}-00000-of-00001.parquet"))
