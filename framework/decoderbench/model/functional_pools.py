"""Width strides of pools that a network calls as functions, out of the reach of any change to its layers."""

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

    Such a call has no layer that could carry a new stride, so it is known by its place among the pool calls of a
    forward. While `learning`, the width of its input tells how far the image was reduced before it; from then on
    what was learned holds for images of every size. A pool that loses its stride gets the narrower window that keeps
    the width of its input exactly, as pools that are layers do.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self._changes: list[dict[str, Any]] = []
        self._calls = 0
        self._allowed_stride: Callable[[int], int] | None = None
        self._network = network
        self._forward = network.forward
        network.forward = self  # a copy of the network, or a pickled one, takes it along

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        """Return what the forward of the network returns."""
        self._calls = 0
        if self._allowed_stride is not None:
            self._changes = []
        with self:
            return self._forward(*inputs, **options)

    @contextmanager
    def learning(self, allowed_stride: Callable[[int], int]) -> Iterator[None]:
        """Learn from the forwards within; `allowed_stride` is given the width of a pool's input in columns."""
        self._allowed_stride = allowed_stride
        try:
            yield
        finally:
            self._allowed_stride = None

    def remove(self) -> None:
        """Leave the network as it was."""
        del self._network.forward

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if function not in _POOLS:
            return function(*args, **kwargs)
        # Both take these first, be it by place or by name; what follows differs, and passes through.
        call = dict(zip(("input", "kernel_size", "stride"), args, strict=False)) | kwargs
        if self._allowed_stride is not None:
            self._changes.append(_change(function, call, args[3:], self._allowed_stride(call["input"].shape[-1])))
        call |= self._changes[self._calls]
        self._calls += 1
        return _pool(function, call, args[3:])


def _change(function: Any, call: dict[str, Any], rest: tuple[Any, ...], allowed: int) -> dict[str, Any]:
    """Return the arguments of a pool call that are to be replaced: none if its stride may stay."""
    window_height, window_width = pair(call["kernel_size"])
    height_stride, width_stride = pair(call.get("stride") or call["kernel_size"])
    if width_stride <= allowed:
        return {}
    changed = {"stride": (height_stride, allowed)}
    lost = (ceil(call["input"].shape[-1] / allowed) - _pool(function, call | changed, rest).shape[-1]) * allowed
    return changed | {"kernel_size": (window_height, max(1, window_width - lost))}


def _pool(function: Any, call: dict[str, Any], rest: tuple[Any, ...]) -> Any:
    named = {name: value for name, value in call.items() if name not in ("input", "kernel_size", "stride")}
    return function(call["input"], call["kernel_size"], call.get("stride"), *rest, **named)


def pair(value: Any) -> tuple[Any, Any]:
    """Return `value` as (height, width), be it one number or two."""
    height, width = value if isinstance(value, (tuple, list)) else (value, value)
    return height, width
