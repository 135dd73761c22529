"""Weights of GPT-2 that others published, in and out of the hand-written model.

Only safetensors are read: a pickle (pytorch_model.bin) can run any program while it is opened.
"""

import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers import GPT2Config

from course_utils.models.causal import gpt2_config
from course_utils.models.gpt import GPTModel, LayerNorm

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
_PREFIX = "transformer."  # of all names but the head's, where a checkpoint was saved with its head
_TANH = ("gelu_new", "gelu_pytorch_tanh", "gelu_python_tanh", "gelu_fast", "gelu_accurate")  # names of one function
_NUMBERS = ("F64", "F32", "F16", "BF16")  # any other format needs a scale, or is no weight
_MASKS = (".attn.bias", ".attn.masked_bias")  # old checkpoints store the causal mask, which is no weight
# (name here, name there, stored transposed): the library's Conv1D keeps its weights as (in, out), Linear as (out, in).
_OUTER = (("tok_emb.weight", "wte.weight"), ("pos_emb.weight", "wpe.weight"))
_LINEAR = (
    ("att.qkv", "attn.c_attn"),
    ("att.out_proj", "attn.c_proj"),
    ("ff.0", "mlp.c_fc"),
    ("ff.2", "mlp.c_proj"),
)


def config_from_gpt2(location: str | Path) -> dict[str, Any]:
    """Return the configuration for `GPTModel` that fits a GPT-2 checkpoint: a folder or a Hub id.

    Raises `ValueError` if it is no GPT-2, or one with parts that the hand-written model does not have.
    """
    folder = _folder(location)
    config = _read_config(folder)
    dropouts = {name: getattr(config, name) for name in ("resid_pdrop", "embd_pdrop", "attn_pdrop")}
    if len(set(dropouts.values())) > 1:
        raise ValueError(
            f"{folder / 'config.json'} has {dropouts}, the hand-written model one drop_rate; make them equal there, "
            "they do not change the logits."
        )
    return _ours(config)


def load_gpt2_weights(model: GPTModel, location: str | Path) -> None:
    """Copy the weights of a GPT-2 checkpoint, a folder or a Hub id, into `model`, in the model's number format.

    Nothing is changed unless everything fits. Raises `ValueError` with every tensor that is missing, left over or has
    another shape, and the key of the configuration to change; and if there are no safetensors.
    """
    folder = _folder(location)
    config = _read_config(folder)
    _check_invisible(model.cfg, _ours(config))
    wanted = _targets(model)
    if any(target.is_meta for target in wanted.values()):
        raise ValueError('the model has no memory for weights; build it outside of torch.device("meta").')
    with ExitStack() as stack:
        files = [stack.enter_context(_opened(path)) for path in _weight_files(folder)]
        found = _by_name(folder, files)
        if "lm_head.weight" not in wanted:  # a tied head may be stored once more
            _check_same_as_table(folder, found, found.pop("lm_head.weight", None))
        elif config.tie_word_embeddings and "wte.weight" in found:
            found.setdefault("lm_head.weight", found["wte.weight"])
        _check_tensors(folder, wanted, {name: file.get_slice(key) for name, (file, key) in found.items()})
        with torch.no_grad():
            for name, target in wanted.items():
                file, key = found[name]
                target.copy_(file.get_tensor(key))


def save_gpt2(model: GPTModel, folder: str | Path, eos_token_id: int | None = None) -> None:
    """Write config.json and model.safetensors as the library does, for `GPT2LMHeadModel.from_pretrained(folder)`.

    A model without bias at queries, keys and values gets one of zeros there: the same logits. At `eos_token_id` the
    library's `generate` will stop; the hand-written model itself knows no such token.
    """
    cfg, folder = model.cfg, Path(folder)
    config = gpt2_config(
        *(cfg[key] for key in ("vocab_size", "context_length", "n_layers", "emb_dim", "n_heads", "drop_rate")),
        scale_attn_by_inverse_layer_idx=cfg["scale_attn_by_inverse_layer_idx"],
        tie_word_embeddings=cfg["tie_weights"],
        eos_token_id=eos_token_id,
    )
    config.architectures = ["GPT2LMHeadModel"]
    tensors = {name if name.startswith("lm_head") else _PREFIX + name: t for name, t in _targets(model).items()}
    if not cfg["qkv_bias"]:
        for i in range(cfg["n_layers"]):
            tensors[f"{_PREFIX}h.{i}.attn.c_attn.bias"] = model.final_norm.shift.new_zeros(3 * cfg["emb_dim"])
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".tmp-") as temporary:
        config.save_pretrained(temporary)
        save_file({name: t.contiguous() for name, t in tensors.items()}, Path(temporary, SINGLE), {"format": "pt"})
        for path in Path(temporary).iterdir():
            path.replace(folder / path.name)


def _targets(model: GPTModel) -> dict[str, Tensor]:
    """Every tensor of the model under its name in a checkpoint, turned as it is stored there (a view)."""
    parts = dict(model.named_parameters(remove_duplicate=False))
    names = {theirs: parts[ours] for ours, theirs in _OUTER}
    norms = [("final_norm", "ln_f")]
    for i in range(model.cfg["n_layers"]):
        ours, theirs = f"trf_blocks.{i}", f"h.{i}"
        norms += [(f"{ours}.norm1", f"{theirs}.ln_1"), (f"{ours}.norm2", f"{theirs}.ln_2")]
        for here, there in _LINEAR:
            names[f"{theirs}.{there}.weight"] = parts[f"{ours}.{here}.weight"].T
            if f"{ours}.{here}.bias" in parts:
                names[f"{theirs}.{there}.bias"] = parts[f"{ours}.{here}.bias"]
    for here, there in norms:
        names |= {f"{there}.weight": parts[f"{here}.scale"], f"{there}.bias": parts[f"{here}.shift"]}
    if not model.cfg["tie_weights"]:
        names["lm_head.weight"] = parts["out_head.weight"]
    return {name: tensor.detach() for name, tensor in names.items()}


def _by_name(folder: Path, files: list[Any]) -> dict[str, tuple[Any, str]]:
    """Where every tensor is, by its name without the prefix: (open file, its name there); masks are left out."""
    found: dict[str, tuple[Any, str]] = {}
    for file in files:
        for stored in file.keys():  # noqa: SIM118
            name = stored.removeprefix(_PREFIX)
            if name in found:
                raise ValueError(f"{folder} holds {name} twice, as {found[name][1]} and {stored}; save it again.")
            if not name.endswith(_MASKS):
                found[name] = file, stored
    return found


def _check_same_as_table(folder: Path, found: Mapping[str, tuple[Any, str]], head: tuple[Any, str] | None) -> None:
    if head is None or "wte.weight" not in found:
        return
    head, table = (file.get_tensor(stored) for file, stored in (head, found["wte.weight"]))
    if not torch.equal(head, table):
        raise ValueError(f"{folder} has an output layer of its own, not the token vectors; set tie_weights False.")


def _folder(location: str | Path) -> Path:
    path = Path(location).expanduser()
    if path.is_dir():
        return path
    try:
        return Path(snapshot_download(str(location), allow_patterns=["config.json", "model*.safetensors", INDEX]))
    except (OSError, ValueError) as error:
        raise ConnectionError(
            f"{location} is no folder here, and the Hub does not give it ({type(error).__name__}). "
            "Check spelling and network, or give the folder of a checkpoint."
        ) from error


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(values, dict):
            return values
        problem = f"it holds a {type(values).__name__}"
    except ValueError as error:  # no JSON, or no UTF-8
        problem = str(error)
    raise ValueError(f"{path} is damaged ({problem}); get it again.")


def _read_config(folder: Path) -> GPT2Config:
    path = folder / "config.json"
    if not path.is_file():
        raise ValueError(f"{folder} has no config.json; give the folder that save_pretrained wrote.")
    values = _read_json(path)
    if values.get("model_type") != "gpt2":
        raise ValueError(f"{folder} holds a model of type {values.get('model_type')!r}; only 'gpt2' can be read.")
    config = GPT2Config.from_dict(values)
    checks = {
        "activation_function": (config.activation_function, _TANH),
        "n_inner": (config.n_inner, (None, 4 * config.n_embd)),
        "layer_norm_epsilon": (config.layer_norm_epsilon, (LayerNorm.eps,)),
        "scale_attn_weights": (config.scale_attn_weights, (True,)),
        "add_cross_attention": (config.add_cross_attention, (False,)),
    }
    for name, (value, allowed) in checks.items():
        if value not in allowed:
            choice = " or ".join(map(repr, allowed))
            raise ValueError(
                f"{path}: {name} is {value!r}; the hand-written model can only have {choice}. Take another checkpoint."
            )
    return config


def _ours(config: GPT2Config) -> dict[str, Any]:
    return {
        "vocab_size": config.vocab_size,
        "context_length": config.n_positions,
        "emb_dim": config.n_embd,
        "n_heads": config.n_head,
        "n_layers": config.n_layer,
        "drop_rate": config.resid_pdrop,
        "qkv_bias": True,
        "tie_weights": config.tie_word_embeddings,
        "scale_attn_by_inverse_layer_idx": config.scale_attn_by_inverse_layer_idx,
    }


def _check_invisible(cfg: Mapping[str, Any], theirs: Mapping[str, Any]) -> None:
    """Refuse what no shape would show, and what would give other logits without an error."""
    keys = ["n_heads", "scale_attn_by_inverse_layer_idx"] + ["tie_weights"] * (not theirs["tie_weights"])
    for key in keys:
        if cfg[key] != theirs[key]:
            raise ValueError(f"the checkpoint has {key} {theirs[key]}, the model {cfg[key]}; {_advice(key)}.")


def _weight_files(folder: Path) -> list[Path]:
    if (folder / INDEX).is_file() and not (folder / SINGLE).is_file():
        shards = set(_read_json(folder / INDEX).get("weight_map", {SINGLE: SINGLE}).values())
        files = [folder / Path(shard).name for shard in sorted(shards)]
    else:
        files = [folder / SINGLE]
    missing = [file.name for file in files if not file.is_file()]
    if missing and any(folder.glob("*.bin")):
        raise ValueError(
            f"{folder} has its weights in a pickle only, which can run any program while it is opened. If you trust "
            "its origin, convert it: GPT2LMHeadModel.from_pretrained(folder).save_pretrained(folder)."
        )
    if missing:
        raise ValueError(
            f"{folder} lacks {', '.join(missing)}; is the download complete? A repository may hold its weights as a "
            "pickle only (pytorch_model.bin), which is not read."
        )
    return files


def _opened(path: Path) -> Any:
    try:
        return safe_open(path, "pt")
    except SafetensorError as error:
        raise ValueError(f"{path} is no safetensors file, or damaged ({error}); get it again.") from error


def _check_tensors(folder: Path, wanted: Mapping[str, Tensor], stored: Mapping[str, Any]) -> None:
    problems = list(_differences(wanted, {name: part.get_shape() for name, part in stored.items()}))
    formats = {name: part.get_dtype() for name, part in stored.items()}
    strange = [f"{name}: {kind}" for name, kind in sorted(formats.items()) if kind not in _NUMBERS]
    if strange:
        problems.append(f"numbers of another kind than {', '.join(_NUMBERS)}: {', '.join(strange)}")
    if problems:
        raise ValueError(f"{folder} does not fit the model:\n" + "\n".join(problems))


def _differences(wanted: Mapping[str, Tensor], shapes: Mapping[str, list[int]]) -> Iterator[str]:
    for verb, these, those in (("missing", wanted, shapes), ("left over", shapes, wanted)):
        names = sorted(these.keys() - those.keys())
        if names:
            keys = sorted({_key(name, those) for name in names} - {""})
            yield f"{verb}: {', '.join(names)}" + "".join(f"; {_advice(key)}" for key in keys)
    for name in sorted(wanted.keys() & shapes.keys()):
        got, expected = tuple(shapes[name]), tuple(wanted[name].shape)
        if got != expected:
            rows = {"wte.weight": "vocab_size", "lm_head.weight": "vocab_size", "wpe.weight": "context_length"}
            key = rows.get(name, "emb_dim") if got[-1:] == expected[-1:] else "emb_dim"
            yield f"{name}: shape {got}, expected {expected}; {_advice(key)}"


def _key(name: str, others: Iterable[str]) -> str:
    """Return the key of the configuration that decides whether a tensor exists, as far as the other names tell."""
    block = ".".join(name.split(".")[:2]) + "."
    if name.startswith("h.") and not any(other.startswith(block) for other in others):
        return "n_layers"
    return "qkv_bias" if name.endswith("attn.c_attn.bias") else "tie_weights" if name == "lm_head.weight" else ""


def _advice(key: str) -> str:
    return f"change {key} (config_from_gpt2 gives the values that fit)"
