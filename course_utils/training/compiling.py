"""A model and its loss compiled after a trial run, or left as they are, with the reason why."""

from collections.abc import Callable

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from course_utils.training.losses import LossSums


def compile_or_explain(
    model: nn.Module, loss_sums: LossSums, ids: Tensor, accelerator: Accelerator, say: Callable[[str], None] = print
) -> LossSums:
    """Compile a model in place, and return its loss compiled; where that fails, undo it and `say` why.

    Compilers fail in the first run only, so each kind of run is tried with `ids` (B, T), shaped like all to come. torch
    keeps what it compiled on the disk: the next training begins sooner.
    """
    model.compile()
    try:
        for training in (False, True):
            with torch.set_grad_enabled(training), accelerator.autocast():
                logits = model.train(training)(input_ids=ids).logits
        compiled = torch.compile(loss_sums)
        compiled(ids, logits)[0].backward()
        return compiled
    except Exception as error:  # each compiler has its own
        model._compiled_call_impl = None  # as torch marks a module that is not compiled
        reason = " ".join(str(error).split("\n\n")[0].split()) or type(error).__name__
        say(f"Not compiled, so the training is slower: {reason}")
        return loss_sums
    finally:
        model.zero_grad()
