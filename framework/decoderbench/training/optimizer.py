"""AdamW with a warm-up and a cosine: the optimizer and the learning-rate schedule of the built-in trainer."""

from __future__ import annotations

import math

import torch
from torch import nn

from decoderbench.options import TrainingOptions


def build_optimizer(module: nn.Module, options: TrainingOptions) -> torch.optim.Optimizer:
    """Return AdamW. Only weights of two or more dimensions decay; biases and norms do not."""
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": options.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=options.learning_rate, fused=True)


def learning_rate(step: int, options: TrainingOptions) -> float:
    """Return the learning rate of a step, counted from 1: a linear warm-up, then half a cosine down to zero."""
    if step <= options.warmup_steps:
        return options.learning_rate * step / (options.warmup_steps + 1)
    done = (step - options.warmup_steps - 1) / max(1, options.steps - options.warmup_steps)
    return options.learning_rate * 0.5 * (1 + math.cos(math.pi * done))


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of every parameter group."""
    for group in optimizer.param_groups:
        group["lr"] = rate
