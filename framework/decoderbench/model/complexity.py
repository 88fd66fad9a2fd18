"""How large a recognizer is: parameters and MACs, counted without running it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode


def count_parameters(module: nn.Module) -> float:
    """Return the number of parameters, in millions."""
    return sum(parameter.numel() for parameter in module.parameters()) / 1e6


def count_gmacs(call: Callable[..., object], *inputs: Tensor) -> float | None:
    """Return the multiply-accumulates of a call on the meta device, in units of 10^9.

    There nn.LSTM is taken apart into the matrix products that it is; on CPU and CUDA the counter calls it free. An
    autoregressive decoder is charged for `max_length` characters and the end. Only convolutions and matrix products
    count: elementwise products, such as an attention's weighted sum, do not.

    Args:
        call: a method of a module on the meta device in eval mode, such as `recognizer.transcribe`.
        inputs: on the meta device, for one image.

    Returns: None if the call looks at values, which the meta device does not have.
    """
    try:
        with torch.inference_mode(), FlopCounterMode(display=False) as counter:
            call(*inputs)
    except Exception:  # noqa: BLE001 - a plugin may do anything; without values there is no count
        return None
    flops: int = counter.get_total_flops()
    return flops / 2 / 1e9  # a multiply and an add are two operations
