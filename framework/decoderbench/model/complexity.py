"""The size of a recognizer: parameters and multiply-accumulates (MACs), counted without running it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from decoderbench.model.meta_recurrences import RecurrencesAtOnce


def count_parameters(module: nn.Module) -> int:
    """Return the number of parameters of `module`."""
    return sum(parameter.numel() for parameter in module.parameters())


def count_gmacs(call: Callable[..., object], *inputs: Tensor) -> float | None:
    """Return the multiply-accumulates of `call(*inputs)` on the meta device, in units of 10^9.

    Recurrent layers and cells are counted as `RecurrencesAtOnce` says.
    An autoregressive decoder is charged for `max_length` characters and the end symbol. Only convolutions and matrix
    products count: elementwise products, such as those of the gates of an LSTM, do not.

    Args:
        call: a method of a module on the meta device in eval mode, such as `recognizer.transcribe`.
        inputs: tensors on the meta device, for one image.

    Returns:
        The count, or None if the call reads values of tensors, which do not exist on the meta device.
    """
    recurrences = RecurrencesAtOnce()
    try:
        with torch.inference_mode(), recurrences, FlopCounterMode(display=False) as counter:
            call(*inputs)
    except KeyboardInterrupt:
        raise
    except BaseException:  # noqa: BLE001 - a plugin may raise anything when it reads values that do not exist
        return None
    flops: int = counter.get_total_flops()
    return (flops / 2 + recurrences.macs) / 1e9  # a multiply and an add are two operations
