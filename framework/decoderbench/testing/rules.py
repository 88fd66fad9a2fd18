"""What the rules share: how a breach is told, and what is required of every module.

A rule is a function of a subject, and its docstring states it: that is what a person reads when it is broken. Its name
is what expected failures are listed by.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

TOLERANCE = 1e-4  # float32 summed in another order: absolute below 1, relative above

Module = TypeVar("Module", bound=nn.Module)


class ConformanceError(AssertionError):
    """A component breaks a rule; the message says which, what came instead and what to do."""

    def __init__(self, message: str, *, got: str, do: str) -> None:
        super().__init__(message)
        self.got, self.do = got, do


class NotAskedError(Exception):
    """A rule cannot be asked of a component, and why; that is no breach."""


def require(holds: bool, *, got: str, do: str) -> None:
    """Raise a breach unless `holds`."""
    if not holds:
        raise ConformanceError(f"got {got}; {do}", got=got, do=do)


def seeded(build: Callable[[], Module], seed: int = 0) -> Module:
    """Build from a seed, as training does."""
    torch.manual_seed(seed)
    return build()


def require_close(what: str, actual: Tensor, expected: Tensor, *, do: str) -> None:
    """Require equal values, but for rounding."""
    require(
        actual.shape == expected.shape,
        got=f"{what} of shape {tuple(actual.shape)}, not {tuple(expected.shape)}",
        do=do,
    )
    difference = (actual - expected).abs().nan_to_num(nan=float("inf"))
    worst = difference.argmax()
    require(
        difference.max().item() <= TOLERANCE * max(1.0, expected.abs().max().item()),
        got=f"{what} {actual.flatten()[worst].item():.6g}, not {expected.flatten()[worst].item():.6g}",
        do=do,
    )


def require_same_bits(what: str, actual: Sequence[Tensor], expected: Sequence[Tensor], *, do: str) -> None:
    """Require values that are equal to the last bit."""
    for one, other in zip(actual, expected, strict=True):
        if one.shape != other.shape:
            require(False, got=f"{what} of shape {tuple(one.shape)}, not {tuple(other.shape)}", do=do)
        differing = (one != other) & ~(one.isnan() & other.isnan() if one.is_floating_point() else one != one)
        if differing.any():
            where = differing.flatten().nonzero()[0, 0]
            before, after = other.flatten()[where].item(), one.flatten()[where].item()
            require(False, got=f"{what} {after!r}, not {before!r}", do=do)
