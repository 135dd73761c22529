"""Optimizers, which parameters decay, how many steps a pass has, gradients summed first and divided once."""

import torch
from torch import nn


class TrainingDiverged(RuntimeError):
    """The loss, a gradient or a weight became NaN or infinite."""


def get_grouped_params(model: nn.Module, weight_decay: float) -> list[dict]:
    """Split the trainable parameters into two groups for the optimizer: with `weight_decay`, and without (A14).

    Only tensors with two or more dimensions that are not embeddings decay, so no bias, norm or tied output layer,
    whatever the model calls them. (The tutorials go by the name "LayerNorm.weight", which no norm of GPT-2 bears.)
    """
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    decaying, rest = [], []
    for parameter in model.parameters():  # shared parameters come once
        if parameter.requires_grad:
            (decaying if parameter.ndim >= 2 and id(parameter) not in embeddings else rest).append(parameter)
    return [{"params": decaying, "weight_decay": weight_decay}, {"params": rest, "weight_decay": 0.0}]


class MuonWithAdamW(torch.optim.Optimizer):
    """Muon for the matrices and AdamW for the rest, as one optimizer: they share schedule, clipping and checkpoint."""

    def __init__(self, matrices: dict, rest: dict, matrix_rate: float, rate: float, fused: bool) -> None:
        """Take the groups of `get_grouped_params`, and the learning rate of each."""
        # With this option Muon's steps are as large as AdamW's, so weight decay means the same for both.
        muon = torch.optim.Muon([matrices], lr=matrix_rate, adjust_lr_fn="match_rms_adamw")
        self.parts = (muon, torch.optim.AdamW([rest], lr=rate, fused=fused))
        super().__init__([group for part in self.parts for group in part.param_groups], {})
        self.__setstate__({})

    def __setstate__(self, state: dict) -> None:
        """Take over a restored state; both optimizers read and write the same one."""
        super().__setstate__(state)
        for part, group in zip(self.parts, self.param_groups, strict=True):
            part.state, part.param_groups = self.state, [group]

    def step(self, closure: None = None) -> None:
        """Update all parameters."""
        for part in self.parts:
            part.step()


def scale_gradients(model: nn.Module, factor: torch.Tensor) -> None:
    """Multiply all gradients in place by one number, a tensor on their device."""
    for parameter in model.parameters():
        if parameter.grad is not None:
            parameter.grad.mul_(factor)


def steps_per_pass(rows: int, batch_size: int, processes: int = 1, accumulation_steps: int = 1) -> int:
    """Return the optimizer steps of one pass over the data; a last step with fewer rows counts, too."""
    return -(-rows // (batch_size * processes * accumulation_steps))


def warmup_within(warmup_steps: int, train_steps: int) -> int:
    """Return the warm-up, at most half of the training, so that a short run still reaches its peak and comes down."""
    return min(warmup_steps, train_steps // 2)
