"""AdamW with a warm-up and a cosine: the optimizer and the learning-rate schedule of the built-in trainer."""

from __future__ import annotations

import math
from typing import get_args

import torch
from torch import nn

from decoderbench.options import Stage, TrainingOptions


def build_optimizer(module: nn.Module, options: TrainingOptions) -> torch.optim.Optimizer:
    """Return AdamW. Only weights of two or more dimensions decay; biases and norms do not.

    Stages with a factor of their own have groups of their own, whose `factor` `set_learning_rate` applies.
    """
    factors = {stage: options.learning_rate_factors.of(stage) for stage in get_args(Stage)}
    by_factor: dict[float, list[nn.Parameter]] = {1.0: []}
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            by_factor.setdefault(factors.get(name.partition(".")[0], 1.0), []).append(parameter)
    groups = [
        {"params": own, "weight_decay": decay, "factor": factor}
        for factor, parameters in by_factor.items()
        for own, decay in (
            ([p for p in parameters if p.ndim >= 2], options.weight_decay),
            ([p for p in parameters if p.ndim < 2], 0.0),
        )
    ]
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=options.learning_rate, fused=True)


def freeze(module: nn.Module, options: TrainingOptions) -> None:
    """Put the frozen stages of a recognizer in eval mode, so that their statistics stay, and train none of them.

    Recurrent layers stay in training mode: cuDNN has no backward pass of others, which earlier stages need.
    """
    for stage in options.freeze:
        part = getattr(module, stage)
        part.requires_grad_(False)
        part.eval()
        for layer in part.modules():
            if isinstance(layer, nn.RNNBase):
                layer.train()


def learning_rate(step: int, options: TrainingOptions) -> float:
    """Return the learning rate of a step, counted from 1: a linear warm-up, then half a cosine down to zero."""
    if step <= options.warmup_steps:
        return options.learning_rate * step / (options.warmup_steps + 1)
    done = (step - options.warmup_steps - 1) / max(1, options.steps - options.warmup_steps)
    return options.learning_rate * 0.5 * (1 + math.cos(math.pi * done))


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of every parameter group."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["factor"]
