"""A rectifier, an encoder or a bridge under check, and the inputs that it is built for."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor

from decoderbench.errors import InfeasibleError
from decoderbench.model.regular_width import PROJECT_FEATURES, REGULAR_WIDTH
from decoderbench.model.stages import Bridge, Encoder, Rectifier
from decoderbench.registry.global_state import preserving_global_state
from decoderbench.specs import FeatureMapSpec, ImageSpec
from decoderbench.testing.assertions import expect
from decoderbench.testing.subjects.base import ModuleSubject, build_seeded, works

InputSpec = ImageSpec | FeatureMapSpec
Stage = Rectifier | Encoder | Bridge

IMAGES = [(1, 32, 128), (3, 32, 128), (1, 32, 96), (3, 48, 160)]  # channels, height, width
FEATURES = [(7, 3, 5), (8, 1, 9), (5, 4, 1), (6, 1, 1), (12, 4, 32)]


@dataclass
class StageSubject(ModuleSubject):
    """A rectifier, encoder or bridge class and its options."""

    @property
    def needs_input_gradient(self) -> bool:  # type: ignore[override]
        """True for a bridge, because the encoder before it is trained through it."""
        return issubclass(self.cls, Bridge)

    @cached_property
    def offered(self) -> Sequence[InputSpec]:
        """The inputs to build the stage for."""
        if issubclass(self.cls, Bridge):
            return [
                FeatureMapSpec(channels=channels, height=height, width=width) for channels, height, width in FEATURES
            ]
        return [ImageSpec(channels=channels, height=height, width=width) for channels, height, width in IMAGES]

    @cached_property
    def accepted(self) -> list[InputSpec]:
        """The offered inputs that are feasible, at least one; expensive rules use the first."""
        reasons, accepted = [], []
        with preserving_global_state():  # rules check the effects of construction themselves
            for spec in self.offered:
                try:
                    self.build_for(spec)
                    accepted.append(spec)
                except InfeasibleError as error:
                    reasons.append(str(error))
        expect(bool(accepted), got="; ".join(reasons), do=f"accept at least one of {list(self.offered)}")
        return accepted

    @cached_property
    def advice(self) -> str | None:
        if not issubclass(self.cls, Bridge):
            return None
        failing = [spec for spec in self.offered if not works(partial(self._use, spec))]
        if not failing or not works(partial(self._use, replace(failing[0], channels=REGULAR_WIDTH))):
            return None
        return f"it works for {REGULAR_WIDTH} channels, not for {failing[0].channels}; {PROJECT_FEATURES}"

    def _use(self, spec: InputSpec) -> None:
        self.loss(self.build_for(spec), draw_inputs_for(spec, 2))

    def build_for(self, spec: InputSpec) -> Stage:
        """Build the stage for an input from seed 0, in training mode."""
        stage: Stage = build_seeded(partial(self.cls, self.config, spec))
        return stage

    def build(self) -> Stage:
        stage: Stage = self.cls(self.config, self.accepted[0])
        return stage

    def draw_inputs(self, batch: int) -> Tensor:
        return draw_inputs_for(self.accepted[0], batch)

    def loss(self, module: Any, inputs: Tensor) -> Tensor:
        output: Tensor = module(inputs)
        return output.square().sum()

    def infer(self, module: Any, inputs: Tensor) -> tuple[Tensor, ...]:
        with torch.inference_mode():
            return (module(inputs),)


def draw_inputs_for(spec: InputSpec, batch: int) -> Tensor:
    """Draw values in [-1, 1], in the memory format that a recognizer uses."""
    drawn = 2 * torch.rand(batch, spec.channels, spec.height, spec.width) - 1
    return drawn.contiguous(memory_format=torch.channels_last)


def declared_shape(stage: Stage) -> tuple[int, ...]:
    """Return the shape of one image's output that the stage declares."""
    if isinstance(stage, Bridge):
        return stage.memory.length, stage.memory.dim
    spec = stage.image if isinstance(stage, Rectifier) else stage.features
    return spec.channels, spec.height, spec.width
