"""Runs that tests start: in this process, or in one that is killed."""

import multiprocessing
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch

from course_utils.profiles import PROFILES
from course_utils.training.config import TrainConfig

SMALL = replace(
    PROFILES["tiny"], context_length=32, model_layers=1, model_width=32, model_heads=2, batch_size=4, train_steps=60,
    warmup_steps=10, eval_steps=30, save_steps=30, eval_sequences=40,
)  # fmt: skip


def small_config(profile=None, **settings) -> TrainConfig:
    """Return settings of a run of a second; `profile` changes the profile's values."""
    return TrainConfig(replace(SMALL, **(profile or {})), **{"tracker": "none", "precision": "fp32"} | settings)


def start(run: Callable, *arguments) -> BaseProcess:
    """Start one of the two runs below in a fresh process that has the libraries loaded already."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "course_utils.train", "transformers.models.gpt2.modeling_gpt2", "runs"])
    child = context.Process(target=run, args=arguments)
    child.start()
    return child


def train_in_child(config: TrainConfig, folder: Path) -> None:
    """Run a training that the parent may kill at any moment."""
    from course_utils.train import run_training

    torch.set_num_threads(1)
    run_training(config, folder, resume="auto")


def push_in_child(config: TrainConfig, folder: Path, token: str) -> None:
    """Run a training that pushes to the Hub of the parent, who may kill it at any moment."""
    import os

    from huggingface_hub import constants

    from course_utils import hub

    os.environ["HF_TOKEN"], constants.HF_HUB_OFFLINE, hub.PAUSES = token, False, (0.1,)
    train_in_child(config, folder)


def weights(folder: Path) -> bytes:
    return (folder / "final" / "model.safetensors").read_bytes()
