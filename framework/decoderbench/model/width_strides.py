"""Feature map shapes found without computing, and changes to width strides that keep feature maps wide enough for CTC.

A classification network reduces width and height alike, usually by 32: an image of a word that is 128 pixels wide ends
as four columns. CRNN (Shi et al. 2015) uses the stride (2, 1) in its later layers instead. This module does the same to
existing networks.
"""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from math import ceil, log2
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from decoderbench.errors import InfeasibleError
from decoderbench.model.functional_pools import FunctionalPools, pair
from decoderbench.specs import FeatureMapSpec, ImageSpec

_PROBE_WIDTH = 2048  # wide enough that columns lost at the edges cannot be mistaken for a stride
_SHAPE_ERRORS = (RuntimeError, ValueError, TypeError, AssertionError)  # raised by layers whose shapes do not match


def probe_features(network: nn.Module, image: ImageSpec) -> FeatureMapSpec:
    """Return the shape of the feature map (B, C', H', W') that `network` returns for images (B, C, H, W).

    Weights, BatchNorm statistics and random generators are unchanged, and `network` may be on any device.
    """
    images = torch.empty(2, image.channels, image.height, image.width, device="meta")
    _, channels, height, width = _meta_call(network, images).shape
    return FeatureMapSpec(channels=channels, height=height, width=width)


def limit_width_reduction(network: nn.Module, image: ImageSpec, limit: int) -> None:
    """Change `network` in place so that it reduces the width of images by at most `limit`, a power of two.

    A map whose width was reduced by r is then reduced by min(r, limit); heights and weights are unchanged. The width
    strides of convolutions, pools and blurs are lowered, and so are the width factors of `nn.Upsample`. A layer that
    loses its width stride preserves the width of its input exactly, so that parallel branches still match: a pool that
    would lose columns gets a narrower window, a convolution is padded with zeros. If that is not enough, the same is
    done to pools that are called as functions.

    Only shapes are checked. A network with a table of positions for one size of images may pass this check and still
    fail when it computes.

    Raises:
        InfeasibleError: the limit cannot be reached, because something other than the stride of a layer or pool
            reduces the width, such as slicing or space to depth, or because the network accepts images of one size
            only.
    """
    probe = replace(image, width=_PROBE_WIDTH)
    try:
        with _recorded_calls(network) as calls:
            before = probe_features(network, probe)
    except _SHAPE_ERRORS as error:
        probe_features(network, image)  # raises its own error if the network does not accept the images themselves
        raise InfeasibleError(
            f"it accepts images of {image.height}x{image.width}, but not of {image.height}x{_PROBE_WIDTH}, the size "
            f"at which strides are measured: {_describe_failure(error)}"
        ) from error
    promised = replace(before, width=min(_reduction(before.width), limit))  # the width is given as a reduction
    for module, call in calls.items():
        if isinstance(module, nn.Upsample):
            _limit_upsampling(module, call, limit)
        else:
            _limit_stride(module, call, limit)
    _limit_declared_strides(network, calls)
    if _find_mismatch(network, probe, promised) is None:
        return
    # Functional pools are intercepted in every forward, which costs time, so they are the last resort.
    pools = FunctionalPools(network)
    with pools.learning(lambda width: max(1, limit // _reduction(width))):
        mismatch = _find_mismatch(network, probe, promised)
    if mismatch is not None:
        pools.remove()
        raise InfeasibleError(mismatch)


def _find_mismatch(network: nn.Module, probe: ImageSpec, promised: FeatureMapSpec) -> str | None:
    """Return how the feature map of `network` differs from `promised`, or None; `promised.width` is a reduction."""
    try:
        after = probe_features(network, probe)
    except _SHAPE_ERRORS as error:
        return f"its layers then no longer fit together: {_describe_failure(error)}"
    if (after.channels, after.height) != (promised.channels, promised.height):
        return (
            f"more than the width of its feature map then changes: {promised.channels} channels and "
            f"{promised.height} rows become {after.channels} and {after.height}"
        )
    if _reduction(after.width) != promised.width:
        return (
            f"its width is still reduced by {_reduction(after.width)}, not {promised.width}: something other than "
            f"the stride of a layer or pool reduces it"
        )
    return None


def _describe_failure(error: Exception) -> str:
    """Return the first line of `error`, or the code that raised it if its message is empty, and the failing layer."""
    frames = zip(traceback.walk_tb(error.__traceback__), traceback.extract_tb(error.__traceback__), strict=True)
    raised = [
        (type(layer).__name__, line.line)
        for (frame, _), line in frames
        if isinstance(layer := frame.f_locals.get("self"), nn.Module) and not frame.f_code.co_name.startswith("_")
    ]
    layer, line = raised[-1] if raised else ("network", None)
    return f"{str(error).partition(chr(10))[0] or line} (in {layer})"


def _meta_call(module: nn.Module, *inputs: Any) -> Tensor:
    """Return the output of `module` in eval mode for inputs on the meta device; the module itself is unchanged."""
    tensors = dict(module.named_parameters()) | dict(module.named_buffers())
    meta_tensors = {name: tensor.to("meta") for name, tensor in tensors.items()}
    was_training = module.training
    module.eval()
    try:
        with torch.no_grad():
            output: Tensor = functional_call(module, meta_tensors, inputs)
    finally:
        module.train(was_training)
    return output


@dataclass(frozen=True)
class _Call:
    """A call of a layer during the probe, with the reduction of the width before and after it."""

    inputs: tuple[Any, ...]
    reduction_in: int
    reduction_out: int


@contextmanager
def _recorded_calls(network: nn.Module) -> Iterator[dict[nn.Module, _Call]]:
    """Record the calls of layers that can change the width, by layer, while wide images are probed."""
    calls: dict[nn.Module, _Call] = {}

    def record(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        if inputs[0].ndim == output.ndim == 4:
            calls[module] = _Call(inputs, _reduction(inputs[0].shape[-1]), _reduction(output.shape[-1]))

    handles = [
        module.register_forward_hook(record)
        for module in network.modules()
        if (hasattr(module, "stride") or isinstance(module, nn.Upsample)) and not any(module.children())
    ]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def _reduction(width: int) -> int:
    """Return the power of two by which the probe image was reduced to `width`."""
    return int(2 ** round(log2(_PROBE_WIDTH / max(width, 1))))


def _limit_stride(module: Any, call: _Call, limit: int) -> None:
    """Lower the width stride of a convolution or pool, and preserve the width of its input."""
    height_stride, width_stride = pair(module.stride)
    allowed = max(1, limit // call.reduction_in)
    if width_stride <= allowed:
        return
    module.stride = (height_stride, allowed)
    width = call.inputs[0].shape[-1]
    lost = (ceil(width / allowed) - _meta_call(module, *call.inputs).shape[-1]) * allowed
    if lost == 0:
        return
    if isinstance(module, nn.Conv2d):
        module.register_forward_pre_hook(partial(_pad_width, columns=lost))
    else:
        window_height, window_width = pair(module.kernel_size)
        module.kernel_size = (window_height, max(1, window_width - lost))


def _limit_declared_strides(network: nn.Module, calls: dict[nn.Module, _Call]) -> None:
    """Update `patch_size` of modules that divide the width by it, if the stride of their patch convolution changed."""
    for module in network.modules():
        declared = getattr(module, "patch_size", None)
        for layer in module.children():
            if isinstance(declared, tuple) and layer in calls and getattr(layer, "kernel_size", None) == declared:
                module.patch_size = pair(layer.stride)  # type: ignore[assignment]


def _limit_upsampling(module: nn.Upsample, call: _Call, limit: int) -> None:
    """Lower the width factor of an upsampling layer to the ratio of the limited widths around it."""
    if module.scale_factor is not None:
        height_factor, _ = pair(module.scale_factor)
        width_factor = min(call.reduction_in, limit) / min(call.reduction_out, limit)
        module.scale_factor = (height_factor, width_factor)


def _pad_width(_: nn.Module, inputs: tuple[Any, ...], *, columns: int) -> tuple[Any, ...]:
    """Pad images by `columns` columns in all; a forward pre-hook."""
    images, *rest = inputs
    return F.pad(images, (columns // 2, columns - columns // 2)), *rest
