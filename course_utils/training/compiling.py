"""Compiling a model and its loss, with a trial run first: where compiling fails, the training goes on without it."""

from collections.abc import Callable

import torch
from accelerate import Accelerator
from torch import Tensor
from transformers import PreTrainedModel

from course_utils.training.losses import LossSums


def compile_or_explain(
    model: PreTrainedModel, loss_sums: LossSums, ids: Tensor, accelerator: Accelerator, say: Callable[[str], None]
) -> LossSums:
    """Compile the model in place, and return the compiled loss; if a trial fails, undo it, and `say` why.

    ids (B, T) has the shape of all batches to come. Errors of a compiler appear only in the first runs, forwards and
    backwards, so that is what is tried. torch keeps what it compiled: the next run begins sooner.
    """
    compiled = torch.compile(loss_sums)
    model.compile()
    try:
        for training in (False, True):
            model.train(training)
            with torch.set_grad_enabled(training), accelerator.autocast():
                logits = model(input_ids=ids).logits
        compiled(ids, logits)[0].backward()
        return compiled
    except Exception as error:  # compilers differ in theirs
        model._compiled_call_impl = None  # how torch marks a module that is not compiled
        reason = next(filter(None, map(str.strip, str(error).splitlines())), type(error).__name__)
        say(f"not compiled, the training goes on more slowly without: {reason}")
        return loss_sums
    finally:
        model.zero_grad()
