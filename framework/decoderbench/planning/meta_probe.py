"""What a combination is, found without training: frames, parameters, MACs, and whether it can work at all.

Each part is built on the meta device, where weights take no memory and a forward pass no time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from decoderbench.config.cell import ResolvedComponent
from decoderbench.errors import DecoderBenchError, InfeasibleError
from decoderbench.model.complexity import count_gmacs, count_parameters
from decoderbench.model.recognizer import encode_to_memory
from decoderbench.model.stages import Bridge, Decoder, Encoder, Rectifier
from decoderbench.options import ComponentConfig
from decoderbench.registry.global_state import preserving_global_state
from decoderbench.specs import ImageSpec, LabelSpec

Module = TypeVar("Module", bound=nn.Module)


class Bucket(NamedTuple):
    """Images of one width, where widths vary: their columns, and the most frames that CTC needs for one of them."""

    width: int
    frames_needed: int


@dataclass(frozen=True)
class Part:
    """A variant of one axis: how the plan names it, and how to build it."""

    kind: str
    resolved: ResolvedComponent
    component: type[Any]
    config: ComponentConfig


@dataclass(frozen=True)
class Size:
    """What the plan finds out about one combination."""

    frames: int | None = None
    num_parameters: int | None = None
    gmacs: float | None = None
    infeasible: str | None = None


@dataclass(frozen=True)
class Seen:
    """All that comes before the decoder, and what it makes of one image of each width, on the meta device."""

    rectifier: Rectifier
    encoder: Encoder
    bridge: Bridge
    frames: int
    gmacs: float | None
    memories: dict[int, Tensor | str]
    """By width: the memory (1, T, D), or why there is none."""


class Sizes:
    """The sizes of all combinations of a grid; what they share is built and counted once.

    Args:
        image: the size that recognizers are built for.
        labels: what is to be read.
        buckets: where widths vary, the images by width; frames and MACs are then those of the widest.
    """

    def __init__(self, image: ImageSpec, labels: LabelSpec, buckets: Sequence[Bucket] = ()) -> None:
        self.image, self.labels, self.buckets = image, labels, buckets
        self.problems: list[str] = []
        self._features: dict[tuple[str, str], tuple[Rectifier, Encoder] | Size] = {}
        self._seen: dict[tuple[str, str, str], Seen | Size] = {}

    def of(self, rectifier: Part, encoder: Part, bridge: Part, decoder: Part) -> Size:
        names = rectifier.resolved.label, encoder.resolved.label, bridge.resolved.label
        if names not in self._seen:
            self._seen[names] = self._see(rectifier, encoder, bridge)
        seen = self._seen[names]
        if isinstance(seen, Size):
            return seen
        memory = seen.bridge.memory
        try:
            reason = decoder.component.infeasible(decoder.config, memory, self.labels)
            built: Decoder = _on_meta(lambda: decoder.component(decoder.config, memory, self.labels))
        except InfeasibleError as error:
            return Size(infeasible=str(error))
        except Exception:  # noqa: BLE001 - a plugin may raise anything; its cells fail with it and the others run
            return Size()
        reading = count_gmacs(built.transcribe, torch.empty(1, seen.frames, memory.dim, device="meta"))
        return Size(
            frames=seen.frames,
            num_parameters=sum(map(count_parameters, (seen.rectifier, seen.encoder, seen.bridge, built))),
            gmacs=None if seen.gmacs is None or reading is None else seen.gmacs + reading,
            infeasible=reason or self._width_that_fails(seen, decoder, built),
        )

    def _see(self, rectifier: Part, encoder: Part, bridge: Part) -> Seen | Size:
        """Return what comes before the decoder, or what is known of it where it cannot be built."""
        names = rectifier.resolved.label, encoder.resolved.label
        if names not in self._features:
            self._features[names] = self._features_of(rectifier, encoder)
        features = self._features[names]
        if isinstance(features, Size):
            return features
        rectified, encoded = features
        try:
            built: Bridge = _on_meta(lambda: bridge.component(bridge.config, encoded.features))
        except InfeasibleError as error:
            return Size(infeasible=str(error))
        except Exception:  # noqa: BLE001 - as above
            return Size()
        stages = rectified, encoded, built
        widest = max((width for width, _ in self.buckets), default=self.image.width)
        gmacs = count_gmacs(lambda images: encode_to_memory(*stages, images), self._image_of(widest))
        memories: dict[int, Tensor | str] = {}
        for width, _ in self.buckets:
            try:
                with torch.inference_mode():
                    memories[width] = encode_to_memory(*stages, self._image_of(width))
            except Exception as error:  # noqa: BLE001 - whatever a part that is tied to one width raises
                memories[width] = f"{type(error).__name__}: {error}"
        widest_memory = memories.get(widest)
        frames = widest_memory.shape[1] if isinstance(widest_memory, Tensor) else built.memory.length
        return Seen(*stages, frames, gmacs, memories)

    def _features_of(self, rectifier: Part, encoder: Part) -> tuple[Rectifier, Encoder] | Size:
        part = rectifier
        try:
            built_rectifier: Rectifier = _on_meta(lambda: rectifier.component(rectifier.config, self.image))
            part = encoder
            return built_rectifier, _on_meta(lambda: encoder.component(encoder.config, built_rectifier.image))
        except InfeasibleError as error:
            return Size(infeasible=str(error))
        except DecoderBenchError as error:
            self.problems.append(f"grid.{part.kind}.{part.resolved.label}: {error}")
        except Exception:  # noqa: BLE001 - as above
            pass
        return Size()

    def _image_of(self, width: int) -> Tensor:
        return torch.empty(1, self.image.channels, self.image.height, width, device="meta")

    def _width_that_fails(self, seen: Seen, decoder: Part, built: Decoder) -> str | None:
        """Return why the images of some bucket cannot be read: each is held against its own T."""
        for width, frames_needed in self.buckets:
            where, memory = f"at images {width} wide", seen.memories[width]
            if isinstance(memory, str):
                return f"it reads one width only: {where}, {memory}"
            spec = replace(seen.bridge.memory, length=memory.shape[1])
            labels = replace(self.labels, frames_needed=max(1, frames_needed))
            try:
                if reason := decoder.component.infeasible(decoder.config, spec, labels):
                    return f"{reason} ({where})"
                if width != self.image.width:
                    with torch.inference_mode():
                        built.transcribe(memory)
            except Exception as error:  # noqa: BLE001 - whatever a part that is tied to one width raises
                return f"it reads one width only: {where}, {type(error).__name__}: {error}"
        return None


def _on_meta(build: Callable[[], Module]) -> Module:
    """Build, in eval mode, on the meta device, or, for a constructor that looks at values, on the CPU and move it."""
    try:
        with preserving_global_state(), torch.device("meta"):
            return build().eval()
    except DecoderBenchError:
        raise
    except Exception:  # noqa: BLE001 - whatever meta tensors made it raise
        with preserving_global_state():
            return build().to("meta").eval()
