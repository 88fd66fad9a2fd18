"""Assertions that the rules share, and the errors for a rule that fails or cannot be checked."""

from collections.abc import Sequence

import torch
from torch import Tensor

TOLERANCE = 1e-4  # for float32 sums in another order: absolute below 1, relative above


class ConformanceError(AssertionError):
    """A component breaks a rule; the message names the rule, what the component did and how to fix it."""

    def __init__(self, message: str, *, got: str, do: str) -> None:
        super().__init__(message)
        self.got, self.do = got, do


class RuleSkipped(Exception):  # noqa: N818 - a verdict, not an error
    """A rule cannot be checked for a component; the message is the reason."""


def expect(condition: bool, *, got: str, do: str) -> None:
    """Raise `ConformanceError` unless `condition` holds.

    Args:
        condition: what the rule demands.
        got: what the component did instead.
        do: how to fix it.
    """
    if not condition:
        raise ConformanceError(f"got {got}; {do}", got=got, do=do)


def expect_close(what: str, actual: Tensor, expected: Tensor, *, do: str) -> None:
    """Raise `ConformanceError` unless both tensors are equal up to rounding."""
    expect(
        actual.shape == expected.shape,
        got=f"{what} of shape {tuple(actual.shape)}, not {tuple(expected.shape)}",
        do=do,
    )
    difference = (actual - expected).abs().nan_to_num(nan=float("inf"))
    worst = difference.argmax()
    expect(
        difference.max().item() <= TOLERANCE * max(1.0, expected.abs().max().item()),
        got=f"{what} {actual.flatten()[worst].item():.6g}, not {expected.flatten()[worst].item():.6g}",
        do=do,
    )


def expect_identical(what: str, actual: Sequence[Tensor], expected: Sequence[Tensor], *, do: str) -> None:
    """Raise `ConformanceError` unless all tensors are bitwise equal."""
    for one, other in zip(actual, expected, strict=True):
        if one.shape != other.shape:
            expect(False, got=f"{what} of shape {tuple(one.shape)}, not {tuple(other.shape)}", do=do)
        both_nan = one.isnan() & other.isnan() if one.is_floating_point() else torch.zeros_like(one, dtype=torch.bool)
        differing = (one != other) & ~both_nan
        if differing.any():
            where = differing.flatten().nonzero()[0, 0]
            value, wanted = one.flatten()[where].item(), other.flatten()[where].item()
            expect(False, got=f"{what} {value!r}, not {wanted!r}", do=do)
