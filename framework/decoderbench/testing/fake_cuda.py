"""CUDA without a GPU: mixed devices, waits for the device and number formats of recurrences, on fake CUDA tensors.

PyTorch's fake tensors have a shape, a number format and a device, but no values, and reach the same operators as those
of the device would. Tensors of the host stay real here.

Stand-ins for what has no fake kernel: the fused kernel of nn.GRUCell, that of `F.ctc_loss`, and pinned memory.
nn.LSTM, nn.GRU and nn.RNN run PyTorch's loop over cells, because the kernel of cuDNN needs a driver.

Not covered: backward, which asks for a driver too; waits inside a kernel, as when `F.ctc_loss` uploads its lengths; and
`torch.cuda.synchronize`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from decoderbench.testing.assertions import RuleSkipped, expect

Movable = TypeVar("Movable", Tensor, nn.Module)

# Operations of the dispatcher whose result the host needs before it can go on.
READS = {
    "_local_scalar_dense": "a value (item, bool, int, float or tolist)",
    "equal": "torch.equal",
    "allclose": "torch.allclose",
    "nonzero": "nonzero",
    "masked_select": "masked_select",
    "_unique2": "unique",
    "unique_dim": "unique",
    "unique_consecutive": "unique_consecutive",
    "bincount": "bincount",
    "multinomial": "multinomial, which checks its probabilities",
    "embedding_renorm_": "an embedding with max_norm",
    "_linalg_check_errors": "a function of torch.linalg that checks for errors",
}
COPIES = {"_to_copy", "copy_"}
INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_"}
RECURRENCES = {"lstm", "gru", "rnn_tanh", "rnn_relu"}


@dataclass(frozen=True)
class Wait:
    """A wait of the host for the device, for a value or to have made a copy."""

    operation: str
    place: str
    """File and line of the innermost call that is not PyTorch's."""
    code: CodeType
    """The function around this line."""

    def is_in(self, function: Any) -> bool:
        """Return whether this function itself waits, not one that it calls."""
        return function.__code__ is self.code

    def __str__(self) -> str:
        return f"{self.operation} at {self.place}"


@dataclass(frozen=True)
class Recurrence:
    """A call of nn.LSTM, nn.GRU or nn.RNN."""

    function: str
    dtypes: frozenset[torch.dtype]
    """The number formats of inputs, states and weights on CUDA."""


@dataclass
class Seen:
    """What was seen on the fake device."""

    waits: list[Wait] = field(default_factory=list)
    recurrences: list[Recurrence] = field(default_factory=list)
    _is_moving: bool = False

    def move(self, value: Movable) -> Movable:
        """Return a tensor, or a module that was built on the CPU, on the device; this is no wait."""
        self._is_moving = True
        try:
            return value.to("cuda")
        finally:
            self._is_moving = False

    def record_wait(self, operation: str) -> None:
        """Record a wait of the host, at the innermost line that is not PyTorch's."""
        if not self._is_moving:
            frame = _innermost_frame_outside_torch()
            place = f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"
            self.waits.append(Wait(operation, place, frame.f_code))


@contextmanager
def fake_cuda() -> Iterator[Seen]:
    """Make "cuda" a fake device in the block, and record what happens on it; build modules before, on the CPU.

    Raises:
        ConformanceError: an operation mixes tensors of the host and of the device.
        RuleSkipped: this build of PyTorch has no fake CUDA tensors.
    """
    seen = Seen()
    had_cudnn = torch.backends.cudnn.enabled
    torch.backends.cudnn.enabled = False
    mode = FakeTensorMode(allow_non_fake_inputs=True, allow_fallback_kernels=False)
    try:
        with mode, _Operations(seen), _Functions(seen):
            try:
                _try_out()
            except (RuntimeError, AssertionError) as error:
                raise RuleSkipped(f"this build of PyTorch has no fake CUDA tensors: {error}") from None
            yield seen
    finally:
        torch.backends.cudnn.enabled = had_cudnn


def _try_out() -> None:
    """Raise an error if this build of PyTorch cannot make fake CUDA tensors."""
    torch.ones(1, device="cuda").add(1)


class _Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Runs operations of the host for real, and those of the device as fake ones; refuses to mix both."""

    def __init__(self, seen: Seen) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen = seen

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.ops.prim.device.default:
            return func(*args)
        name, leaves = func.overloadpacket.__name__, tree_leaves((args, kwargs))
        if name == "_pin_memory":
            return args[0]
        with self:  # inference mode leaves composed operations to us
            if (result := func.decompose(*args, **kwargs)) is not NotImplemented:
                return result
        if not any(map(_is_of_device, leaves)):
            with unset_fake_temporarily():
                return func(*args, **kwargs)
        if name in ("_ctc_loss", "_use_cudnn_ctc_loss", "_use_miopen_ctc_loss"):
            return self._ctc_loss(*args) if name == "_ctc_loss" else False
        mixable = [args[0], *args[2:3]] if name in INDEXING and _device_of(args[0]) == "cuda" else leaves
        if name not in COPIES:
            _refuse_to_mix(name, mixable)
        if operation := _find_wait(name, args, kwargs):
            self.seen.record_wait(operation)
        if name == "_local_scalar_dense":
            return _zero(args[0].dtype)
        if name == "equal":
            return False
        if name == "_thnn_fused_gru_cell":
            state = args[2]  # (B, H)
            return torch.empty_like(state), state.new_empty(len(state), 5 * state.shape[1])
        return func(*args, **kwargs)

    def _ctc_loss(self, log_probs: Tensor, targets: Tensor, *options: Any) -> tuple[Tensor, Tensor]:
        """Return the nll (B,) and alpha (B, T, 2L + 1) for log_probs (T, B, V)."""
        _refuse_to_mix("ctc_loss", [log_probs, targets])
        if any(map(_is_of_device, options)):
            self.seen.record_wait("ctc_loss with lengths on the device")
        frames, batch, _ = log_probs.shape
        return log_probs.new_empty(batch), log_probs.new_empty(batch, frames, 2 * targets.shape[-1] + 1)


class _Functions(TorchFunctionMode):
    """Records the number format of each recurrence, and what is printed."""

    def __init__(self, seen: Seen) -> None:
        super().__init__()
        self.seen = seen

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (Tensor.__repr__, Tensor.__format__) and _is_of_device(args[0]):
            self.seen.record_wait("a tensor that is printed")
        if (name := getattr(func, "__name__", "")) in RECURRENCES:
            tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
            dtypes = {tensor.dtype for tensor in tensors if tensor.is_floating_point()}
            if torch.is_autocast_enabled("cuda"):
                dtypes = {torch.float16}  # whatever the dtype of autocast: AutocastRNN.cpp of PyTorch
            self.seen.recurrences.append(Recurrence(name, frozenset(dtypes)))
        return func(*args, **(kwargs or {}))


def _is_of_device(value: object) -> bool:
    """Return whether a value is a fake tensor, including a copy of one on the host, or names the device."""
    return isinstance(value, FakeTensor) or (isinstance(value, torch.device) and value.type == "cuda")


def _device_of(tensor: Tensor) -> str:
    return str((tensor.fake_device if isinstance(tensor, FakeTensor) else tensor.device).type)


def _refuse_to_mix(name: str, leaves: list[Any]) -> None:
    """Raise `ConformanceError` for tensors of two devices; scalars may mix."""
    devices = {_device_of(leaf) for leaf in leaves if isinstance(leaf, Tensor) and leaf.ndim > 0}
    expect(
        len(devices) < 2,
        got=f"{name} of tensors on {' and '.join(sorted(devices))}",
        do="create tensors on the device of the input, x.new_zeros(...) or device=x.device; register all others",
    )


def _find_wait(name: str, args: Any, kwargs: Any) -> str | None:
    """Return a description of the wait for the device that an operation needs, if any."""
    if name in READS:
        return READS[name] if _device_of(args[0]) == "cuda" else None  # on the host, the wait was for the copy to it
    if name == "repeat_interleave" and kwargs.get("output_size") is None:
        return "repeat_interleave without output_size"
    if name in COPIES:
        source, target = (args[1], _device_of(args[0])) if name == "copy_" else (args[0], _target_of(args[0], kwargs))
        blocks = not (kwargs.get("non_blocking") or (name == "copy_" and args[2:] == (True,)))
        if blocks and _device_of(source) != target:
            return f"a copy from {_device_of(source)} to {target}"
    if name in INDEXING:
        indices = [index for index in args[1] if index is not None]
        if any(_device_of(index) != _device_of(args[0]) for index in indices):
            return "an index on the host, which is copied"
        # A mask is as good as masked_fill if one number of the host is put in its place.
        is_fill = name != "index" and args[2].numel() == 1 and _device_of(args[2]) == "cpu" and len(indices) == 1
        if any(index.dtype in (torch.bool, torch.uint8) for index in indices) and not is_fill:
            return "an index that is a mask"
    return None


def _target_of(source: Tensor, kwargs: Any) -> str:
    device = kwargs.get("device")
    return _device_of(source) if device is None else str(torch.device(device).type)


def _zero(dtype: torch.dtype) -> bool | int | float:
    """Return what a read gives, as there are no values: conditions are false, so loops run to their limits."""
    return False if dtype == torch.bool else 0.0 if dtype.is_floating_point else 0


def _innermost_frame_outside_torch() -> FrameType:
    frame = sys._getframe(1)
    while frame.f_globals.get("__name__", "").split(".")[0] == "torch" or frame.f_code.co_filename == __file__:
        assert frame.f_back is not None
        frame = frame.f_back
    return frame
