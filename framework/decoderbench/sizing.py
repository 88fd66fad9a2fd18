"""What a combination is, found without training: frames, parameters, MACs, and whether it can work at all.

Each part is built on the meta device, where weights take no memory and a forward pass no time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeVar

import torch
from torch import nn

from decoderbench.cell import ResolvedComponent
from decoderbench.contracts import Bridge, Decoder, Encoder, Rectifier
from decoderbench.cost import count_gmacs, count_parameters
from decoderbench.devices import torch_state_kept
from decoderbench.errors import DecoderBenchError, InfeasibleError
from decoderbench.options import ComponentConfig
from decoderbench.recognizer import Recognizer
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
    param_count: float | None = None
    gmacs: float | None = None
    infeasible: str | None = None


class Sizes:
    """The sizes of all combinations of a grid; what they share is built once.

    Args:
        image: the size of the images, or the largest where widths vary.
        labels: what is to be read.
        buckets: where widths vary, the images by width.
    """

    def __init__(self, image: ImageSpec, labels: LabelSpec, buckets: Sequence[Bucket] = ()) -> None:
        self.image, self.labels, self.buckets = image, labels, buckets
        self.problems: list[str] = []
        self._seeing: dict[tuple[str, str], tuple[Rectifier, Encoder] | str | None] = {}

    def of(self, rectifier: Part, encoder: Part, bridge: Part, decoder: Part) -> Size:
        labels = rectifier.resolved.label, encoder.resolved.label
        if labels not in self._seeing:
            self._seeing[labels] = self._see(rectifier, encoder)
        seeing = self._seeing[labels]
        if isinstance(seeing, str):
            return Size(infeasible=seeing)
        if seeing is None:
            return Size()
        return self._rest(*seeing, bridge, decoder)

    def _see(self, rectifier: Part, encoder: Part) -> tuple[Rectifier, Encoder] | str | None:
        """Return what comes before the bridge, or why it is infeasible, or None where only training will tell."""
        part = rectifier
        try:
            built_rectifier: Rectifier = _on_meta(lambda: rectifier.component(rectifier.config, self.image))
            part = encoder
            built: Encoder = _on_meta(lambda: encoder.component(encoder.config, built_rectifier.image))
        except InfeasibleError as error:
            return str(error)
        except DecoderBenchError as error:
            self.problems.append(f"grid.{part.kind}.{part.resolved.label}: {error}")
            return None
        except Exception:  # noqa: BLE001 - a plugin may raise anything; its cells fail with it and the others run
            return None
        return built_rectifier, built

    def _rest(self, rectifier: Rectifier, encoder: Encoder, bridge: Part, decoder: Part) -> Size:
        try:
            built_bridge: Bridge = _on_meta(lambda: bridge.component(bridge.config, encoder.features))
            memory = built_bridge.memory
            reason = decoder.component.infeasible(decoder.config, memory, self.labels)
            built: Decoder = _on_meta(lambda: decoder.component(decoder.config, memory, self.labels))
        except InfeasibleError as error:
            return Size(infeasible=str(error))
        except Exception:  # noqa: BLE001 - as above
            return Size()
        recognizer = Recognizer(rectifier, encoder, built_bridge, built)
        return Size(
            frames=memory.length,
            param_count=count_parameters(recognizer),
            gmacs=count_gmacs(recognizer, self.image),
            infeasible=reason or self._width_that_fails(recognizer, decoder),
        )

    def _width_that_fails(self, recognizer: Recognizer, decoder: Part) -> str | None:
        """Return why the images of some bucket cannot be read: each is held against its own T."""
        for width, frames_needed in self.buckets:
            where = f"at images {width} wide"
            images = torch.empty(1, self.image.channels, self.image.height, width, device="meta")
            try:
                with torch.inference_mode():
                    memory = recognizer.memory(images)
                    spec = replace(recognizer.bridge.memory, length=memory.shape[1])
                    labels = replace(self.labels, frames_needed=max(1, frames_needed))
                    if reason := decoder.component.infeasible(decoder.config, spec, labels):
                        return f"{reason} ({where})"
                    if width != self.image.width:
                        recognizer.decoder.transcribe(memory)
            except Exception as error:  # noqa: BLE001 - whatever a part that is tied to one width raises
                return f"it reads one width only: {where}, {type(error).__name__}: {error}"
        return None


def _on_meta(build: Callable[[], Module]) -> Module:
    """Build on the meta device, or, for a constructor that looks at values, on the CPU and move it."""
    try:
        with torch_state_kept(), torch.device("meta"):
            return build()
    except DecoderBenchError:
        raise
    except Exception:  # noqa: BLE001 - whatever meta tensors made it raise
        with torch_state_kept():
            return build().to("meta")
