"""Shapes of an encoder found without computing, and the surgery that keeps its maps wide enough for CTC.

A network for classification shrinks width and height alike, by 32 in the end: four columns are left of a word
image 128 pixels wide. CRNN (Shi et al. 2015) gives its later layers the stride (2, 1) instead; here the same is
done to networks that exist already.
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

_WIDE = 2048  # at this width of the image, columns lost at the edges cannot be taken for a stride
_MISFIT = (RuntimeError, ValueError, TypeError, AssertionError)  # what layers that do not fit together raise


def probe_features(network: nn.Module, image: ImageSpec) -> FeatureMapSpec:
    """Return the shape of the feature map (B, C', H', W') that `network` yields for images (B, C, H, W).

    Leaves weights, BatchNorm statistics and random generators as they are, on whatever device `network` is.
    """
    images = torch.empty(2, image.channels, image.height, image.width, device="meta")
    _, channels, height, width = _meta_call(network, images).shape
    return FeatureMapSpec(channels=channels, height=height, width=width)


def limit_width_reduction(network: nn.Module, image: ImageSpec, limit: int) -> None:
    """Change `network` in place so that it reduces the width of images by at most `limit`, a power of two.

    A map that was reduced by r in width is then reduced by min(r, limit); heights stay. To that end the width
    strides of convolutions, pools and blurs are lowered, and the width factors of `nn.Upsample`. A layer that
    loses its width stride keeps the width of its input exactly, so that parallel branches still meet: a pool
    that would lose columns gets a narrower window, a convolution is padded with zeros. Where that is not enough,
    the same is done to pools that are called as functions. Weights stay.

    What is checked are shapes: a network that looks positions up in a table made for one size of images may pass,
    and yet fail when it computes.

    Raises:
        InfeasibleError: if the result is not what was promised, because something other than the stride of a
            layer or pool shrinks the width, as slicing and space to depth do, or because the network reads images
            of one size only.
    """
    probe = replace(image, width=_WIDE)
    try:
        with _recorded_calls(network) as calls:
            before = probe_features(network, probe)
    except _MISFIT as error:
        probe_features(network, image)  # if the images themselves cannot be read, that is what to say
        raise InfeasibleError(
            f"it reads images of {image.height}x{image.width}, but not the {_WIDE} columns at which strides are "
            f"told from lost edges: {_reason(error)}"
        ) from error
    promised = replace(before, width=min(_reduction(before.width), limit))
    for module, call in calls.items():
        if isinstance(module, nn.Upsample):
            _limit_upsampling(module, call, limit)
        else:
            _limit_stride(module, call, limit)
    _limit_declared_strides(network, calls)
    if _broken_promise(network, probe, promised) is None:
        return
    # They cost time in every forward, so this comes last.
    pools = FunctionalPools(network)
    with pools.learning(lambda width: max(1, limit // _reduction(width))):
        broken = _broken_promise(network, probe, promised)
    if broken is not None:
        pools.remove()
        raise InfeasibleError(broken)


def _broken_promise(network: nn.Module, probe: ImageSpec, promised: FeatureMapSpec) -> str | None:
    """Return what is wrong with the map of `network`, whose promised width is given as a reduction, or None."""
    try:
        after = probe_features(network, probe)
    except _MISFIT as error:
        return f"its layers no longer fit together then: {_reason(error)}"
    if (after.channels, after.height) != (promised.channels, promised.height):
        return (
            f"more than the width of its map changes then: {promised.channels} channels and {promised.height} rows "
            f"become {after.channels} and {after.height}"
        )
    if _reduction(after.width) != promised.width:
        return (
            f"its width is still reduced by {_reduction(after.width)}, not {promised.width}: something other than "
            f"the stride of a layer or pool shrinks it"
        )
    return None


def _reason(error: Exception) -> str:
    """Return the first line of `error`, or the code that raised it if it has no words, and the layer it arose in."""
    frames = zip(traceback.walk_tb(error.__traceback__), traceback.extract_tb(error.__traceback__), strict=True)
    raised = [
        (type(layer).__name__, line.line)
        for (frame, _), line in frames
        if isinstance(layer := frame.f_locals.get("self"), nn.Module) and not frame.f_code.co_name.startswith("_")
    ]
    layer, line = raised[-1] if raised else ("network", None)
    return f"{str(error).partition(chr(10))[0] or line} (in {layer})"


def _meta_call(module: nn.Module, *inputs: Any) -> Tensor:
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
    """A call of a layer during the probe."""

    inputs: tuple[Any, ...]
    reduction_in: int
    reduction_out: int


@contextmanager
def _recorded_calls(network: nn.Module) -> Iterator[dict[nn.Module, _Call]]:
    """Collect the calls, on wide images, of the layers that can change the width."""
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
    """Return the power of two by which the wide image was reduced to `width`."""
    return int(2 ** round(log2(_WIDE / max(width, 1))))


def _limit_stride(module: Any, call: _Call, limit: int) -> None:
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
    """Let modules that divide the width by `patch_size` know the new stride of the convolution that cuts patches."""
    for module in network.modules():
        declared = getattr(module, "patch_size", None)
        for layer in module.children():
            if isinstance(declared, tuple) and layer in calls and getattr(layer, "kernel_size", None) == declared:
                module.patch_size = pair(layer.stride)  # type: ignore[assignment]


def _limit_upsampling(module: nn.Upsample, call: _Call, limit: int) -> None:
    if module.scale_factor is not None:
        height_factor, _ = pair(module.scale_factor)
        width_factor = min(call.reduction_in, limit) / min(call.reduction_out, limit)
        module.scale_factor = (height_factor, width_factor)


def _pad_width(_: nn.Module, inputs: tuple[Any, ...], *, columns: int) -> tuple[Any, ...]:
    images, *rest = inputs
    return F.pad(images, (columns // 2, columns - columns // 2)), *rest
