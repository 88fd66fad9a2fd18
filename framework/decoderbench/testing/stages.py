"""The rules of the stages before the decoder, images to images, to a feature map, to a memory."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn

from decoderbench.errors import InfeasibleError
from decoderbench.model.stages import Bridge, Encoder, Rectifier
from decoderbench.registry.global_state import process_state_kept
from decoderbench.specs import FeatureMapSpec, ImageSpec
from decoderbench.testing import modules
from decoderbench.testing.checks import Rule
from decoderbench.testing.modules import ModuleSubject
from decoderbench.testing.processes import agrees_between_processes
from decoderbench.testing.rules import require, require_close, seeded

Map = ImageSpec | FeatureMapSpec
Stage = Rectifier | Encoder | Bridge

IMAGES = [(1, 32, 128), (3, 32, 128), (1, 32, 96), (3, 48, 160)]  # channels, height, width
FEATURES = [(7, 3, 5), (8, 1, 9), (5, 4, 1), (6, 1, 1), (12, 4, 32)]


@dataclass
class StageUnderCheck(ModuleSubject):
    """A rectifier, an encoder or a bridge under check, to be built for each of several maps."""

    @property
    def needs_input_gradient(self) -> bool:  # type: ignore[override]
        """What comes before a bridge is to learn too."""
        return issubclass(self.cls, Bridge)

    @cached_property
    def offered(self) -> Sequence[Map]:
        """The maps to build it for."""
        if issubclass(self.cls, Bridge):
            return [
                FeatureMapSpec(channels=channels, height=height, width=width) for channels, height, width in FEATURES
            ]
        return [ImageSpec(channels=channels, height=height, width=width) for channels, height, width in IMAGES]

    @cached_property
    def accepted(self) -> list[Map]:
        """Those that it does not refuse; costly rules use the first."""
        reasons, accepted = [], []
        with process_state_kept():  # the rules ask what building does to it
            for spec in self.offered:
                try:
                    self.build_for(spec)
                    accepted.append(spec)
                except InfeasibleError as error:
                    reasons.append(str(error))
        require(bool(accepted), got="; ".join(reasons), do=f"accept one of these at least: {list(self.offered)}")
        return accepted

    def build_for(self, spec: Map) -> Stage:
        """Build it for a map, in training mode, with the weights of one seed."""
        stage: Stage = seeded(partial(self.cls, self.config, spec))
        return stage

    def build(self) -> Stage:
        stage: Stage = self.cls(self.config, self.accepted[0])
        return stage

    def draw(self, batch: int) -> Tensor:
        return _draw(self.accepted[0], batch)

    def learn(self, module: Any, inputs: Tensor) -> None:
        output = module(inputs)
        if output.requires_grad:  # a stage need not have weights
            torch.autograd.backward(output.square().sum())

    def read(self, module: Any, inputs: Tensor) -> tuple[Tensor, ...]:
        with torch.inference_mode():
            return (module(inputs),)


def rules_of_stages(subject: StageUnderCheck) -> list[Rule]:
    """Return the rules for a rectifier, an encoder or a bridge."""
    is_counted: list[Rule] = [modules.is_counted] if issubclass(subject.cls, Encoder) else []
    return [
        starts_with_fresh_statistics,
        yields_what_it_declares,
        reads_each_image_alone,
        modules.depends_on_its_own_image_alone,
        modules.leaves_its_inputs_alone,
        modules.opens_nothing,
        modules.trains_every_parameter,
        modules.starts_from_the_seed,
        modules.comes_back_from_a_file,
        modules.changes_nothing_by_reading,
        modules.leaves_the_process_alone,
        modules.builds_on_meta,
        declares_the_same_on_meta,
        modules.stays_on_its_device,
        *is_counted,
        *modules.rules_of_exports(subject),
        agrees_between_processes,
    ]


def _draw(spec: Map, batch: int) -> Tensor:
    """Draw values in [-1, 1], in the memory format that a recognizer uses."""
    drawn = 2 * torch.rand(batch, spec.channels, spec.height, spec.width) - 1
    return drawn.contiguous(memory_format=torch.channels_last)


def _declared(stage: Stage) -> tuple[int, ...]:
    """Return the shape of one image's output, as the stage declares it."""
    if isinstance(stage, Bridge):
        return stage.memory.length, stage.memory.dim
    spec = stage.image if isinstance(stage, Rectifier) else stage.features
    return spec.channels, spec.height, spec.width


def starts_with_fresh_statistics(subject: StageUnderCheck) -> None:
    """Building it leaves BatchNorm as it starts: mean 0, variance 1, no batch counted."""
    for name, norm in subject.build().named_modules():
        if isinstance(norm, nn.modules.batchnorm._BatchNorm) and norm.running_mean is not None:
            buffers = dict(norm.named_buffers())
            fresh = buffers["running_mean"].eq(0).all() and buffers["running_var"].eq(1).all()
            require(
                bool(fresh) and buffers["num_batches_tracked"].item() == 0,
                got=f"changed statistics in {name}",
                do="find shapes with probe_features, which touches nothing; load no trained weights in a check",
            )


def yields_what_it_declares(subject: StageUnderCheck) -> None:
    """What forward yields has the shape that `image`, `features` or `memory` declares, in float32, and is finite."""
    for spec in subject.accepted:
        built = subject.build_for(spec).eval()
        (output,) = subject.read(built, _draw(spec, 2))
        require(
            output.shape == (2, *_declared(built)),
            got=f"{tuple(output.shape)} where (2, {', '.join(map(str, _declared(built)))}) is declared, for {spec}",
            do="declare what comes; an encoder can ask probe_features",
        )
        require(output.dtype == torch.float32, got=f"{output.dtype}", do="leave number formats to the recognizer")
        require(
            bool(output.isfinite().all()),
            got=f"values that are not finite, for {spec}",
            do="stay away from 0/0, log 0 and tensors that nobody filled",
        )


def reads_each_image_alone(subject: StageUnderCheck) -> None:
    """In eval mode a batch gives what its single images give."""
    for spec in subject.accepted:
        built, inputs = subject.build_for(spec).eval(), _draw(spec, 3)
        (together,) = subject.read(built, inputs)
        singles = torch.cat([subject.read(built, single[None])[0] for single in inputs])
        require_close("in a batch a value of", together, singles, do="mix nothing across the batch in eval mode")


def declares_the_same_on_meta(subject: StageUnderCheck) -> None:
    """On the meta device, where the plan asks, it declares what it declares on the CPU."""
    for spec in subject.accepted:
        on_cpu = _declared(subject.build_for(spec))
        with torch.device("meta"):
            on_meta = _declared(subject.build_for(spec))
        require(
            on_meta == on_cpu,
            got=f"{on_meta} there and {on_cpu} on the CPU, for {spec}",
            do="derive the declaration from shapes, not from values",
        )
