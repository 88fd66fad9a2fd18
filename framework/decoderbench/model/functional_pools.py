"""Width strides of pools that a network calls as functions, which changes to its layers cannot reach."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import ceil
from typing import Any

from torch import nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

_POOLS = (F.max_pool2d, F.avg_pool2d)


class FunctionalPools(TorchFunctionMode):
    """Lowers the width strides of `F.max_pool2d` and `F.avg_pool2d` within the forward of one network.

    Such a call has no layer to store a new stride in, so it is identified by its index among the pool calls of a
    forward. During `learning`, the width of its input shows how far the image was reduced before the call. The changes
    learned then apply to images of every size. A pool that loses its width stride gets a narrower window that preserves
    the width of its input exactly, as for pools that are layers.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self._changes: list[dict[str, Any]] = []
        self._calls = 0
        self._allowed_stride: Callable[[int], int] | None = None
        self._network = network
        self._forward = network.forward
        network.forward = self  # an attribute, so copies and pickles of the network include it

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        """Call the original forward of the network, with the changed strides."""
        self._calls = 0
        if self._allowed_stride is not None:
            self._changes = []
        with self:
            return self._forward(*inputs, **options)

    @contextmanager
    def learning(self, allowed_stride: Callable[[int], int]) -> Iterator[None]:
        """Learn the changes from forwards in the block; `allowed_stride` maps the input width of a pool to a stride."""
        self._allowed_stride = allowed_stride
        try:
            yield
        finally:
            self._allowed_stride = None

    def remove(self) -> None:
        """Restore the original forward of the network."""
        del self._network.forward

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if function not in _POOLS:
            return function(*args, **kwargs)
        # Both functions start with these parameters, positional or named. The others differ and are passed through.
        call = dict(zip(("input", "kernel_size", "stride"), args, strict=False)) | kwargs
        if self._allowed_stride is not None:
            allowed = self._allowed_stride(call["input"].shape[-1])
            self._changes.append(_limited_arguments(function, call, args[3:], allowed))
        call |= self._changes[self._calls]
        self._calls += 1
        return _call_pool(function, call, args[3:])


def _limited_arguments(function: Any, call: dict[str, Any], rest: tuple[Any, ...], allowed: int) -> dict[str, Any]:
    """Return the arguments of a pool call that have to be replaced; empty if its stride is allowed."""
    window_height, window_width = pair(call["kernel_size"])
    height_stride, width_stride = pair(call.get("stride") or call["kernel_size"])
    if width_stride <= allowed:
        return {}
    changed = {"stride": (height_stride, allowed)}
    lost = (ceil(call["input"].shape[-1] / allowed) - _call_pool(function, call | changed, rest).shape[-1]) * allowed
    return changed | {"kernel_size": (window_height, max(1, window_width - lost))}


def _call_pool(function: Any, call: dict[str, Any], rest: tuple[Any, ...]) -> Any:
    named = {name: value for name, value in call.items() if name not in ("input", "kernel_size", "stride")}
    return function(call["input"], call["kernel_size"], call.get("stride"), *rest, **named)


def pair(value: Any) -> tuple[Any, Any]:
    """Return `value`, one number or two, as (height, width)."""
    height, width = value if isinstance(value, (tuple, list)) else (value, value)
    return height, width
