"""Recognizer: the composition of rectifier, encoder, bridge and decoder, and the number format that each runs in."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from decoderbench.labels import Labels
from decoderbench.model.memory import Memory
from decoderbench.model.stages import Bridge, Decoder, Encoder, Hypotheses, Rectifier
from decoderbench.specs import SequenceSpec


class Recognizer(nn.Module):
    """decoder(bridge(encoder(rectifier(images)))).

    All stages but the decoder run under autocast in `dtype` (None: float32). The decoder receives the memory in float32
    and runs in float32, so that the nll is exact for every decoder. On CUDA, every nn.LSTM, nn.GRU and nn.RNN runs in
    float32 too. Images narrower than the size that the stages were built for give fewer columns and frames; all other
    sizes are as declared by the stages.
    """

    def __init__(
        self,
        rectifier: Rectifier,
        encoder: Encoder,
        bridge: Bridge,
        decoder: Decoder,
        *,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.rectifier = rectifier.to(memory_format=torch.channels_last)
        self.encoder = encoder.to(memory_format=torch.channels_last)
        self.bridge = bridge
        self.decoder = decoder
        self.dtype = dtype
        for module in self.modules():
            if isinstance(module, nn.RNNBase):
                _Float32OnCuda().attach(module)

    def memory(self, images: Tensor, columns: Tensor | None = None) -> Memory:
        """Return the memory, in float32, of images (B, C, H, W) in [-1, 1].

        Args:
            images: of one width.
            columns: (B,) int64, the columns of each image before it was padded on the right; None for all. Frames that
                show later columns alone are not valid.
        """
        images = images.contiguous(memory_format=torch.channels_last)
        autocast = torch.autocast(images.device.type, dtype=self.dtype) if self.dtype else nullcontext()
        with autocast:
            frames = encode_to_memory(self.rectifier, self.encoder, self.bridge, images).float()
        known = columns if self.rectifier.keeps_columns else None
        return as_memory(frames, self.bridge.memory, images.shape[-1], known)

    def loss(self, images: Tensor, labels: Labels, columns: Tensor | None = None) -> Tensor:
        """Return what training minimizes, (B,), of labels given images, as `memory` takes them."""
        return self.decoder.loss(self.memory(images, columns), labels)

    def nll(self, images: Tensor, labels: Labels, columns: Tensor | None = None) -> Tensor:
        """Return -log p(text | image) in nats, (B,), of labels given images, as `memory` takes them."""
        return self.decoder.nll(self.memory(images, columns), labels)

    def transcribe(self, images: Tensor, columns: Tensor | None = None, *, beam_size: int = 1) -> Hypotheses:
        """Return the transcriptions of images, as `memory` takes them."""
        return self.decoder.transcribe(self.memory(images, columns), beam_size=beam_size)


class _Float32OnCuda:
    """The hooks of a recurrent layer that run it in float32, outside autocast, where autocast is on for CUDA.

    Autocast would run it in float16, whatever its own dtype: PyTorch's wrapper of the cuDNN kernel knows no other
    (AutocastRNN.cpp). Most gradients of a recurrence are too small for float16 without loss scaling.
    """

    def __init__(self) -> None:
        self._was_enabled: list[bool] = []

    def attach(self, layer: nn.RNNBase) -> None:
        layer.register_forward_pre_hook(self._enter, with_kwargs=True)
        layer.register_forward_hook(self._leave, always_call=True)

    def _enter(self, layer: nn.RNNBase, inputs: Any, options: Any) -> Any:
        enabled = torch.is_autocast_enabled("cuda") and next(layer.parameters()).is_cuda
        self._was_enabled.append(enabled)
        if not enabled:
            return None
        torch.set_autocast_enabled("cuda", False)
        return tree_map(_to_float32, (inputs, options))

    def _leave(self, layer: nn.RNNBase, inputs: Any, output: Any) -> None:
        if self._was_enabled.pop():
            torch.set_autocast_enabled("cuda", True)


def _to_float32(value: Any) -> Any:
    return value.float() if isinstance(value, Tensor) and value.is_floating_point() else value


def weights_of(module: nn.Module) -> dict[str, Tensor]:
    """Return a copy of a module's weights and buffers on the host, in a form that safetensors can save.

    safetensors refuses tensors that share memory, so tied weights are copied once per name.

    Raises:
        ValueError: the extra state of a part is no tensor.
    """
    state = module.state_dict().items()
    for name, value in state:
        if not isinstance(value, Tensor):
            raise ValueError(f"{name} is of type {type(value).__name__}; let get_extra_state return a tensor")
    return {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in state}


def as_memory(frames: Tensor, spec: SequenceSpec, image_width: int, columns: Tensor | None = None) -> Memory:
    """Return frames (B, T, D) of images of a width as a memory.

    Frames side by side share the width of an image alike: one is valid if its part begins before the image ends. All
    are valid where their place in the image is not known, because they are neither in reading order nor a map.

    Args:
        frames: the output of a bridge.
        spec: what the bridge declares; a map keeps its height, and its width follows T.
        image_width: columns of the images, padding included.
        columns: (B,) int64, as `Recognizer.memory` takes them.
    """
    batch, length, _ = frames.shape
    shape = (spec.shape[0], length // spec.shape[0]) if spec.shape else None
    if columns is None or not (shape or spec.left_to_right):
        return Memory(frames, torch.ones(batch, length, dtype=torch.bool, device=frames.device), shape)
    height, width = shape or (1, length)
    begins = torch.arange(width, device=frames.device) * image_width  # in units of 1 / width columns
    valid = begins < columns.clamp(min=1)[:, None] * width  # (B, W)
    return Memory(frames, valid.repeat(1, height), shape)


def encode_to_memory(rectifier: Rectifier, encoder: Encoder, bridge: Bridge, images: Tensor) -> Tensor:
    """Return the frames (B, T, D) of images (B, C, H, W).

    Raises:
        ValueError: the output of a stage does not have the declared shape, which the plan and the next stage rely on.
    """
    rectified = rectifier(images)
    features = encoder(rectified)
    memory: Tensor = bridge(features)
    image, declared, spec = rectifier.image, encoder.features, bridge.memory
    narrower = rectified.shape[-1] != image.width
    _check_shape("rectifier", rectified, (image.channels, image.height, None if narrower else image.width))
    _check_shape("encoder", features, (declared.channels, declared.height, None if narrower else declared.width))
    _check_shape("bridge", memory, (None if narrower else spec.length, spec.dim))
    return memory


def _check_shape(stage: str, output: Tensor, declared: tuple[int | None, ...]) -> None:
    """Raise `ValueError` if the shape of each image's output is not the declared one; None stands for any size."""
    given = tuple(output.shape[1:])
    if len(given) != len(declared) or any(want not in (None, got) for want, got in zip(declared, given, strict=True)):
        sizes = ", ".join("any" if size is None else str(size) for size in declared)
        raise ValueError(f"the {stage} declares ({sizes}) per image and returns {given}; make them agree")
