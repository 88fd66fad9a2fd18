"""Frames, parameters, MACs and feasibility of each combination of a grid, found without training.

All stages are built on the meta device, where weights take no memory and a forward pass takes no time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from operator import index
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from decoderbench.config.cell import ResolvedComponent
from decoderbench.config.mistakes import Location
from decoderbench.errors import DecoderBenchError, InfeasibleError
from decoderbench.exception_text import describe_error, text_of
from decoderbench.labels import Labels
from decoderbench.model.complexity import count_gmacs, count_parameters
from decoderbench.model.memory import Memory
from decoderbench.model.meta_recurrences import RecurrencesAtOnce
from decoderbench.model.recognizer import as_memory, encode_to_memory
from decoderbench.model.regular_width import PROJECT_MEMORY, REGULAR_WIDTH
from decoderbench.model.stages import Bridge, Decoder, Encoder, Rectifier
from decoderbench.options import ComponentConfig
from decoderbench.registry.global_state import preserving_global_state
from decoderbench.specs import ImageSpec, LabelSpec, SequenceSpec

Module = TypeVar("Module", bound=nn.Module)


class Bucket(NamedTuple):
    """Images of one width, if widths vary: the width in pixels, and the most frames that CTC needs for one of them."""

    width: int
    frames_needed: int


@dataclass(frozen=True)
class Part:
    """A variant of one axis: its description in the plan, and the class and config to build it."""

    kind: str
    resolved: ResolvedComponent
    component: type[Any]
    config: ComponentConfig


@dataclass(frozen=True)
class Size:
    """The findings about one combination; a field is None if it is not known."""

    frames: int | None = None
    num_parameters: int | None = None
    num_training_only_parameters: int = 0
    frames_per_character: tuple[float, float, float] | None = None
    gmacs: float | None = None
    infeasible: str | None = None


@dataclass(frozen=True)
class Trunk:
    """The stages before the decoder, on the meta device, and their output for one image of each width."""

    rectifier: Rectifier
    encoder: Encoder
    bridge: Bridge
    frames: int
    gmacs: float | None
    memories: dict[int, Memory | str]
    """By width: the memory of one image, or the error that the stages raised."""


class MetaProbe:
    """Measures the combinations of a grid; stages that several combinations share are built and counted once.

    Args:
        image: the image size that recognizers are built for.
        labels: the labels to read.
        batch_size: images per training step; every batch is full, whatever the size of the split or of a bucket.
        beam_size: of the evaluation.
        buckets: if widths vary, the images by width; frames and MACs are then those of the widest bucket.
    """

    def __init__(
        self,
        image: ImageSpec,
        labels: LabelSpec,
        *,
        batch_size: int,
        beam_size: int = 1,
        buckets: Sequence[Bucket] = (),
    ) -> None:
        self.image, self.labels, self.buckets = image, labels, buckets
        self.batch_size, self.beam_size = batch_size, beam_size
        self.mistakes: list[tuple[Location, str]] = []
        """Errors of components that are mistakes in the experiment, each with its place."""
        self._encoders: dict[tuple[str, str], tuple[Rectifier, Encoder] | Size] = {}
        self._trunks: dict[tuple[str, str, str], Trunk | Size] = {}
        self._sizes: dict[tuple[str, ...], Size] = {}

    def measure(self, rectifier: Part, encoder: Part, bridge: Part, decoder: Part) -> Size:
        """Build a combination; return its size, or why it is infeasible; nothing is known of one that raises."""
        labels = tuple(part.resolved.label for part in (rectifier, encoder, bridge, decoder))
        if labels not in self._sizes:
            self._sizes[labels] = self._measure_or_nothing(rectifier, encoder, bridge, decoder)
        return self._sizes[labels]

    def _measure_or_nothing(self, rectifier: Part, encoder: Part, bridge: Part, decoder: Part) -> Size:
        try:
            with preserving_global_state():
                return self._measure(rectifier, encoder, bridge, decoder)
        except KeyboardInterrupt:
            raise
        except BaseException:  # noqa: BLE001 - a plugin may raise anything, or have specs of another type
            return Size()

    def _measure(self, rectifier: Part, encoder: Part, bridge: Part, decoder: Part) -> Size:
        labels = rectifier.resolved.label, encoder.resolved.label, bridge.resolved.label
        if labels not in self._trunks:
            self._trunks[labels] = self._build_trunk(rectifier, encoder, bridge)
        trunk = self._trunks[labels]
        if isinstance(trunk, Size):
            return trunk
        memory = trunk.bridge.memory
        try:
            built = _build_decoder(decoder, memory, self.labels)
        except InfeasibleError as error:
            return Size(frames=trunk.frames, infeasible=text_of(error))
        except Exception as error:  # noqa: BLE001 - a plugin may raise anything; its cells fail with it, the others run
            if not _works_at_regular_width(decoder, memory, self.labels):
                return Size()
            reason = f"{decoder.kind} {decoder.resolved.use!r} cannot be built for D = {memory.dim}: {text_of(error)}"
            return Size(frames=trunk.frames, infeasible=f"{reason}; {PROJECT_MEMORY}")
        frames = torch.empty(1, trunk.frames, memory.dim, device="meta")
        gmacs = count_gmacs(lambda: built.transcribe(as_memory(frames, memory, self.image.width)))
        training_only = count_parameters(nn.ModuleList(built.training_only()))
        total = sum(map(count_parameters, (trunk.rectifier, trunk.encoder, trunk.bridge, built)))
        return Size(
            frames=trunk.frames,
            num_parameters=total - training_only,
            num_training_only_parameters=training_only,
            frames_per_character=self.labels.frames_per_character(memory),
            gmacs=None if trunk.gmacs is None or gmacs is None else trunk.gmacs + gmacs,
            infeasible=self._find_large_beam(decoder, built)
            or self._find_infeasible_width(trunk, decoder, built, known_to_read=None if gmacs is None else trunk.frames)
            or self._find_single_values(trunk, built),
        )

    def _find_large_beam(self, decoder: Part, built: Decoder) -> str | None:
        """Return that the decoder cannot search with this beam size; None if it can."""
        largest = built.largest_beam
        if largest is None or self.beam_size <= largest:
            return None
        with_these = " with these options" if decoder.resolved.options else ""
        return (
            f"{built.name} reads with a beam size of at most {largest}{with_these}, given {self.beam_size}; lower "
            f"evaluation.beam_size"
        )

    def _build_trunk(self, rectifier: Part, encoder: Part, bridge: Part) -> Trunk | Size:
        """Build the stages before the decoder; return a Size if one of them cannot be built."""
        labels = rectifier.resolved.label, encoder.resolved.label
        if labels not in self._encoders:
            self._encoders[labels] = self._build_encoder(rectifier, encoder)
        stages = self._encoders[labels]
        if isinstance(stages, Size):
            return stages
        built_rectifier, built_encoder = stages
        try:
            built: Bridge = _build_on_meta(lambda: bridge.component(bridge.config, built_encoder.features))
        except InfeasibleError as error:
            return Size(infeasible=text_of(error))
        except Exception:  # noqa: BLE001 - as above
            return Size()
        trunk = built_rectifier, built_encoder, built
        widest = max((width for width, _ in self.buckets), default=self.image.width)
        gmacs = count_gmacs(lambda images: encode_to_memory(*trunk, images), self._empty_image(widest))
        memories: dict[int, Memory | str] = {}
        for width, _ in self.buckets:
            try:
                with torch.inference_mode(), RecurrencesAtOnce():
                    frames_of_width = encode_to_memory(*trunk, self._empty_image(width))
                    memories[width] = as_memory(frames_of_width, built.memory, width)
            except Exception as error:  # noqa: BLE001 - a stage that works for one width only may raise anything
                memories[width] = describe_error(error)
        widest_memory = memories.get(widest)
        frames = widest_memory.length if isinstance(widest_memory, Memory) else built.memory.length
        return Trunk(*trunk, index(frames), gmacs, memories)

    def _build_encoder(self, rectifier: Part, encoder: Part) -> tuple[Rectifier, Encoder] | Size:
        part = rectifier
        try:
            built_rectifier: Rectifier = _build_on_meta(lambda: rectifier.component(rectifier.config, self.image))
            part = encoder
            return built_rectifier, _build_on_meta(lambda: encoder.component(encoder.config, built_rectifier.image))
        except InfeasibleError as error:
            return Size(infeasible=text_of(error))
        except DecoderBenchError as error:
            self.mistakes.append((("grid", part.kind, part.resolved.label), text_of(error)))
        except Exception:  # noqa: BLE001 - as above
            pass
        return Size()

    def _empty_image(self, width: int) -> Tensor:
        return torch.empty(1, self.image.channels, self.image.height, width, device="meta")

    def _find_infeasible_width(
        self, trunk: Trunk, decoder: Part, built: Decoder, known_to_read: int | None
    ) -> str | None:
        """Return why the images of some bucket cannot be read, given their own T and labels; None if all can.

        The narrowest and the widest of them are read: a decoder that works for one width only fails at either.
        Memories of `known_to_read` frames have been read.
        """
        widths = [width for width, _ in self.buckets]
        read = {min(widths), max(widths)} if widths else set()
        for width, frames_needed in self.buckets:
            where, memory = f"at images {width} wide", trunk.memories[width]
            if isinstance(memory, str):
                return f"it reads one width only: {where}, {memory}"
            spec = trunk.bridge.memory.of_length(memory.length)
            labels = replace(self.labels, frames_needed=max(1, frames_needed))
            try:
                _build_decoder(decoder, spec, labels)
                if width in read and memory.length != known_to_read:
                    with torch.inference_mode(), RecurrencesAtOnce():
                        built.transcribe(memory)
            except InfeasibleError as error:
                return f"{text_of(error)} ({where})"
            except Exception as error:  # noqa: BLE001 - a decoder that works for one width only may raise anything
                return f"it reads one width only: {where}, {describe_error(error)}"
        return None

    def _find_single_values(self, trunk: Trunk, built: Decoder) -> str | None:
        """Return why BatchNorm cannot be trained on batches of one image; None if it can, or batches are larger."""
        if self.batch_size > 1:
            return None  # a channel has a value per image at least
        labels = Labels.from_texts([self.labels.charset.characters[:1]], self.labels.charset, device="meta")
        before = trunk.rectifier, trunk.encoder, trunk.bridge
        stages = nn.ModuleList([*before, built]).train()
        try:
            for width in [width for width, _ in self.buckets] or [self.image.width]:
                # Some operators do not run on the meta device, such as the CTC loss; BatchNorm raises ValueError.
                with suppress(RuntimeError), torch.no_grad(), RecurrencesAtOnce():
                    frames = encode_to_memory(*before, self._empty_image(width))
                    built.loss(as_memory(frames, trunk.bridge.memory, width), labels)
        except Exception as error:  # noqa: BLE001 - a plugin may raise anything; its cells fail with it
            if "more than 1 value per channel" in text_of(error):
                return (
                    f"BatchNorm needs more than one value per channel in training, and a batch of one image {width} "
                    f"wide gives it one; set training.batch_size to 2 or more"
                )
        finally:
            stages.eval()
        return None


def _build_decoder(decoder: Part, memory: SequenceSpec, labels: LabelSpec) -> Decoder:
    built: Decoder = _build_on_meta(lambda: decoder.component(decoder.config, memory, labels))
    return built


def _works_at_regular_width(decoder: Part, memory: SequenceSpec, labels: LabelSpec) -> bool:
    """Return whether a decoder that raised can be built for frames of another width."""
    try:
        _build_decoder(decoder, replace(memory, dim=REGULAR_WIDTH), labels)
    except Exception:  # noqa: BLE001 - as above
        return False
    return True


def _build_on_meta(build: Callable[[], Module]) -> Module:
    """Build on the meta device, in eval mode; if the constructor reads values, build on the CPU and move the module."""
    try:
        with preserving_global_state(), torch.device("meta"):
            return build().eval()
    except DecoderBenchError:
        raise
    except Exception:  # noqa: BLE001 - meta tensors may make a constructor raise anything
        with preserving_global_state():
            return build().to("meta").eval()
