"""What arrives in the kernels of nn.LSTM and nn.GRU: the number format of the input, and whether autocast is on."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any
from unittest import mock

import torch
from torch import Tensor


@contextmanager
def recording_recurrences(device: torch.device) -> Iterator[list[str]]:
    """Yield a list that receives the format of each call in the block, such as `float32` or `float16 in autocast`."""
    formats: list[str] = []

    def spy(kernel: Any, inputs: Tensor, *others: Any) -> Any:
        autocast = " in autocast" * torch.is_autocast_enabled(device.type)
        formats.append(str(inputs.dtype).removeprefix("torch.") + autocast)
        return kernel(inputs, *others)

    with ExitStack() as stack:
        for name in ("lstm", "gru"):
            stack.enter_context(mock.patch.object(torch._VF, name, partial(spy, getattr(torch._VF, name))))
        yield formats
