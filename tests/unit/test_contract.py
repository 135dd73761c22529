"""The contract: the tutorials' names, the command lines and variables, and the shape of the package."""

import ast
import graphlib
import importlib
import json
import re
from dataclasses import fields
from pathlib import Path

import pytest

from course_utils import profiles

PACKAGE = Path(profiles.__file__).parent
MODULES = {
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in PACKAGE.rglob("*.py")
}

# The tutorials' own names, and those that one would look for, by the module that has them.
NAMES = {
    "data.filtering": "any_keyword_in_string filter_streaming_dataset",
    "data.tokenization": "batch_iterator",
    "data.packing": "ConstantLengthDataset",
    "data.sliding_windows": "GPTDatasetV1 create_dataloader_v1",
    "models.causal": "model_size",
    "models.decoding": "text_to_token_ids token_ids_to_text generate_text",
    "models.generation": "first_block complete_code",
    "models.gpt2_weights": "config_from_gpt2 load_gpt2_weights",
    "models.gpt": "MultiHeadAttention LayerNorm GELU FeedForward TransformerBlock GPTModel GPT_CONFIG_124M",
    "training.finetuning": "tokenize_function",
    "training.heldout": "evaluate",
    "training.loaders": "create_dataloaders",
    "training.losses": "keytoken_ids keytoken_weighted_loss",
    "training.optimization": "get_grouped_params",
    "training.simple_loop": "calc_loss_batch calc_loss_loader train_model_simple evaluate_model "
    "generate_and_print_sample",
    "training.tracking": "setup_logging log_metrics",
    "evaluation.metrics": "code_eval",
    "exercises": "check reveal solution",
    "say": "say",
    "plots": "plot_losses",
}
OPTIONS = {
    "__main__ doctor": "--report",
    "__main__ fetch": "--profile --clean",
    "__main__ run": "--profile --notebooks --output --timeout --keep-going",
    "__main__ demo": "--profile --model --host --port --no-browser",
    "__main__ hub": "--branch --public",
    "train": "--profile --preset --output --max-steps --seed --resume --stream --no-stream --infinite --no-infinite "
    "--shuffle-buffer --buffer-sequences --num-workers --dropout --scale-attn-by-inverse-layer-idx "
    "--reorder-and-upcast-attn --gradient-checkpointing --schedule --max-grad-norm --keywords --alpha --precision "
    "--log-steps --keep-checkpoints --tracker --push-to",
    "finetune": "--pairs --encoder --epochs --learning-rate --batch-size --seed --dropout --output",
}
VARIABLES = (
    "CODE_CORPUS FILTERED_CORPUS TEXT_COLUMN SMALL_SOURCES CORPUS_BYTES SAMPLE_DOCUMENTS LIBRARY_SHARE TESTS_SHARE "
    "VOCAB_SIZE "
    "CONTEXT_LENGTH MODEL_LAYERS MODEL_WIDTH MODEL_HEADS BATCH_SIZE ACCUMULATION_STEPS TRAIN_STEPS WARMUP_STEPS "
    "LEARNING_RATE WEIGHT_DECAY EVAL_STEPS SAVE_STEPS EVAL_SEQUENCES SEED PAIRS SENTENCES ENCODER FINETUNE_EPOCHS "
    "FINETUNE_RATE FINETUNE_BATCH FINETUNE_DROPOUT FINETUNE_PAIRS FINETUNE_SEEDS SCORE_DOCUMENTS SCORE_PROBLEMS "
    "SCORE_CANDIDATES SCORE_FILES PUSH_TO_HUB PROFILE HOME SOURCE SANDBOX SOLUTIONS CHECKS LANGUAGE"
)
# A module imports from its own row and from those above.
LAYERS = (
    {"cache", "fonts", "language", "limits", "profiles", "say", "plots", "pictures"},
    {"data"},
    {"sandbox", "models"},
    {"evaluation"},
    {"environment", "training"},
    {"artifacts", "hub", "cards"},
    {"exercises"},
    {"train", "finetune", "demo", "runner", "__main__"},
)


@pytest.mark.parametrize("module", NAMES)
def test_the_tutorials_names_are_there(module):
    found = importlib.import_module(f"course_utils.{module}")
    assert [name for name in NAMES[module].split() if not hasattr(found, name)] == []


@pytest.mark.parametrize("command", OPTIONS)
def test_the_command_lines_have_their_options(command, capsys):
    module, *arguments = command.split()
    with pytest.raises(SystemExit) as stop:
        importlib.import_module(f"course_utils.{module}").main([*arguments, "--help"])
    assert not stop.value.code
    words = capsys.readouterr().out.replace(",", " ").replace("[", " ").replace("]", " ").split()
    assert set(OPTIONS[command].split()) <= set(words)


def test_the_variables_are_known():
    known = {f.name.upper() for f in fields(profiles.Profile)} - {"NAME"} | set(profiles.OTHER_VARIABLES)
    assert set(VARIABLES.split()) <= known


def imports(module: str) -> set[str]:
    """Return the modules of the package that a module imports, also inside its functions."""
    found = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    within = {name for name in found if name in MODULES and name != "course_utils"}
    packages = {name for name in within if any(other.startswith(f"{name}.") for other in within)}
    assert not {name.split(".")[0] for name in found} & {"translations", "tools", "benchmarks", "tests"}
    return within - packages - {module}


def test_imports_have_no_cycle_and_point_down():
    graph = {module: imports(module) for module in MODULES}
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError
    rank = {name: number for number, row in enumerate(LAYERS) for name in row}
    rank_of = {module: rank[module.split(".")[1]] for module in MODULES if "." in module}
    upward = [(user, used) for user in rank_of for used in graph[user] if rank_of[used] > rank_of[user]]
    assert upward == []


@pytest.mark.parametrize("module", sorted(MODULES))
def test_files_and_functions_are_short(module):
    text = MODULES[module].read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 300
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno - node.lineno < 50, node.name


def test_every_module_is_in_the_map():
    text = (PACKAGE / "README.md").read_text(encoding="utf-8")
    named = {name.split("/")[-1] for name in re.findall(r"`([\w/]+)`", text)}
    modules = {path.stem for path in MODULES.values() if path.parent.name != "exercises"} - {"__init__"}
    assert modules - named == set()


@pytest.mark.parametrize("path", sorted((PACKAGE.parent / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem)
def test_a_notebook_imports_at_most_eight_course_modules(path):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    code = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "code" and c["id"] != "colab")
    used = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == "course_utils":
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            used |= {name if name in MODULES else node.module for name in names}
    assert 1 <= len(used) <= 8, sorted(used)
