"""Detection of a loss or gradient that is not finite, without waiting for the device at every step."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from decoderbench.errors import DivergedError

CHECK_EVERY = {"cpu": 1, "cuda": 50}
"""Steps between finiteness checks; each check synchronizes CUDA."""


class FiniteGuard:
    """Records, on the device, the first step whose loss or gradient was not finite, and checks it at intervals."""

    def __init__(self, device: torch.device) -> None:
        self.interval = CHECK_EVERY[device.type]
        self._first_bad = torch.zeros((), dtype=torch.int64, device=device)
        self._value = torch.zeros((), device=device)

    def record(self, step: int, loss: Tensor, norm: Tensor) -> None:
        """Record the loss and the gradient norm of a step, counted from 1; check if the interval has passed."""
        value = loss + 0.0 * norm  # not finite if either is not
        newly_bad = ~torch.isfinite(value) & (self._first_bad == 0)
        self._value = torch.where(newly_bad, loss, self._value)
        self._first_bad = torch.where(newly_bad, step, self._first_bad)
        if step % self.interval == 0:
            self.check()

    def check(self) -> None:
        """Raise `DivergedError` if a recorded step was not finite. Waits for the device."""
        if bad := int(self._first_bad):
            value = float(self._value)
            what = f"loss is {value}" if not math.isfinite(value) else "the gradient is not finite"
            raise DivergedError(f"{what} at step {bad}; lower learning_rate or clip_norm, or set precision = 'float32'")
