"""Shapes of an encoder found without computing, and the surgery that keeps its maps wide enough for CTC.

A network for classification shrinks width and height alike, by 32 in the end: four columns are left of a word
image 128 pixels wide. CRNN (Shi et al. 2015) gives its later layers the stride (2, 1) instead; here the same is
done to networks that exist already.
"""

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
from decoderbench.specs import FeatureMapSpec, ImageSpec

_WIDE = 2048  # at this width of the image, columns lost at the edges cannot be taken for a stride


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
    that would lose columns gets a narrower window, a convolution is padded with zeros. Weights stay.

    Raises:
        InfeasibleError: if the result is not what was promised, because something other than the stride of a
            layer shrinks the width: a pool called as a function, slicing, space to depth.
    """
    probe = replace(image, width=_WIDE)
    with _recorded_calls(network) as calls:
        before = probe_features(network, probe)
    for module, call in calls.items():
        if isinstance(module, nn.Upsample):
            _limit_upsampling(module, call, limit)
        else:
            _limit_stride(module, call, limit)
    promised = min(_reduction(before.width), limit)
    try:
        after = probe_features(network, probe)
    except (RuntimeError, ValueError, TypeError, AssertionError) as error:
        reason = str(error).partition("\n")[0]
        raise InfeasibleError(f"its layers no longer fit together then: {reason}") from error
    if (after.channels, after.height) != (before.channels, before.height):
        raise InfeasibleError(f"more than the width of its map changes then: {before} becomes {after}")
    if _reduction(after.width) != promised:
        raise InfeasibleError(
            f"its width is still reduced by {_reduction(after.width)}, not {promised}: "
            f"something other than the stride of a layer shrinks it"
        )


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
        if inputs[0].ndim == 4:
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
    height_stride, width_stride = _pair(module.stride)
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
        window_height, window_width = _pair(module.kernel_size)
        module.kernel_size = (window_height, max(1, window_width - lost))


def _limit_upsampling(module: nn.Upsample, call: _Call, limit: int) -> None:
    if module.scale_factor is not None:
        height_factor, _ = _pair(module.scale_factor)
        width_factor = min(call.reduction_in, limit) / min(call.reduction_out, limit)
        module.scale_factor = (height_factor, width_factor)


def _pad_width(_: nn.Module, inputs: tuple[Any, ...], *, columns: int) -> tuple[Any, ...]:
    images, *rest = inputs
    return F.pad(images, (columns // 2, columns - columns // 2)), *rest


def _pair(value: Any) -> tuple[Any, Any]:
    """Return `value` as (height, width), be it one number or two."""
    height, width = value if isinstance(value, (tuple, list)) else (value, value)
    return height, width
