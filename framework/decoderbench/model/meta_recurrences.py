"""Recurrent layers and cells on the meta device at once: outputs of the right shape, and a count of their MACs.

There, PyTorch takes a recurrent layer apart into some ten operations per step, each of which only computes shapes. For
a line of text these are seconds per layer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

LAYERS = (torch.lstm, torch.gru, torch.rnn_tanh, torch.rnn_relu)
CELLS = (torch.lstm_cell, torch.gru_cell, torch.rnn_tanh_cell, torch.rnn_relu_cell)


class RecurrencesAtOnce(TorchFunctionMode):
    """Within it, recurrent layers and cells return empty tensors if all that they read is on the meta device.

    Packed sequences, and shapes that do not fit, are left to PyTorch, which then raises what it always does.

    Attributes:
        macs: multiply-accumulates of the layers and cells that ran, those of their matrix products.
    """

    macs: int = 0

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        if not given and func in LAYERS:
            return self._run_layer(func, args)
        if not given and func in CELLS:
            return self._run_cell(func, args)
        return func(*args, **given)

    def _run_layer(self, layer: Callable[..., Any], args: Sequence[Any]) -> Any:
        source = args[0]
        if source.dim() != 3:  # packed: the steps of all sequences in one dimension
            return layer(*args)
        _, given, weights, _, _, _, _, both_directions, _ = args
        states = (given,) if isinstance(given, Tensor) else tuple(given)
        matrices = [weight for weight in weights if weight.dim() == 2]
        if not _on_meta(source, *states, *weights) or source.shape[2] != matrices[0].shape[1]:
            return layer(*args)
        self.macs += source.shape[0] * source.shape[1] * sum(map(Tensor.numel, matrices))
        width = states[0].shape[2] * (2 if both_directions else 1)
        return source.new_empty(*source.shape[:2], width), *map(torch.empty_like, states)

    def _run_cell(self, cell: Callable[..., Any], args: Sequence[Any]) -> Any:
        source, states, of_source, of_state, *biases = args
        several = not isinstance(states, Tensor)
        states = tuple(states) if several else (states,)
        fit = source.shape[-1] == of_source.shape[1] and states[0].shape[-1] == of_state.shape[1]
        biases = [bias for bias in biases if bias is not None]
        if not fit or not _on_meta(source, *states, of_source, of_state, *biases):
            return cell(*args)
        self.macs += prod(source.shape[:-1]) * (of_source.numel() + of_state.numel())
        after = tuple(map(torch.empty_like, states))
        return after if several else after[0]


def _on_meta(*tensors: Tensor) -> bool:
    return all(tensor.is_meta for tensor in tensors)
