"""An exponential moving average of weights, which is validated and tested in their place (Polyak & Juditsky 1992)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain

import torch
from torch import Tensor, nn


class WeightAverage:
    """The average of the weights and of the buffers with fractions, such as the statistics of BatchNorm.

    torch's `AveragedModel` pairs tensors by their order, which a buffer that training creates would shift, and copies
    the module, which a plugin's may not allow.

    Attributes:
        values: the average of each tensor, by its name.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        """Start with the tensors as they are.

        Args:
            module: what is averaged.
            decay: share of the average that each step keeps, above 0 and below 1; smaller in the first steps.
        """
        self.module, self.decay = module, decay
        self.values = {name: tensor.clone() for name, tensor in self._tensors().items()}

    def update(self, step: int) -> None:
        """Include the tensors after a step, counted from 1.

        The decay grows from 2 / 11 at the first step on, or the first weights would stay in the average for long.
        """
        tensors = self._tensors()
        for name in tensors.keys() - self.values.keys():  # a buffer that training has created
            self.values[name] = tensors[name].clone()
        names = list(tensors)
        share = 1 - min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_([self.values[name] for name in names], [tensors[name] for name in names], share)

    @contextmanager
    def in_place_of_weights(self) -> Iterator[None]:
        """Let the module have the average in the block, and its own tensors again after it."""
        tensors = self._tensors()
        own = {name: tensor.clone() for name, tensor in tensors.items()}
        for name, tensor in tensors.items():
            tensor.copy_(self.values[name])
        try:
            yield
        finally:
            for name, tensor in tensors.items():
                tensor.copy_(own[name])

    def load(self, values: dict[str, Tensor]) -> None:
        """Take over an average that another process has saved."""
        tensors = self._tensors()
        self.values = {name: value.to(tensors[name].device) for name, value in values.items() if name in tensors}

    def _tensors(self) -> dict[str, Tensor]:
        named = chain(self.module.named_parameters(), self.module.named_buffers())
        return {name: tensor.detach() for name, tensor in named if tensor.is_floating_point()}
