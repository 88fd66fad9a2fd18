"""The rules of encoders and bridges, which both read a map (B, C, H, W)."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn

from decoderbench.contracts import Bridge, Encoder, Rectifier
from decoderbench.errors import InfeasibleError
from decoderbench.specs import FeatureMapSpec, ImageSpec
from decoderbench.testing.rules import (
    ask,
    build_on_meta,
    configure,
    require,
    require_close,
    require_gradients,
    require_input_gradient,
    require_reproducible,
    require_unchanged,
    seeded,
)

Map = ImageSpec | FeatureMapSpec
Stage = Rectifier | Encoder | Bridge

IMAGES = [(1, 32, 128), (3, 32, 128), (1, 32, 96), (3, 48, 160)]  # channels, height, width
FEATURES = [(7, 3, 5), (8, 1, 9), (5, 4, 1), (6, 1, 1), (12, 4, 32)]


def check_rectifier(cls: type[Rectifier], **options: object) -> None:
    """Check a rectifier class with the given options; raise `ConformanceError` at the first rule that it breaks."""
    config = configure("rectifier", Rectifier, cls, options)
    ask(f"rectifier {cls.name!r}", _Stage(lambda image: cls(config, image), _images()), RULES)


def check_encoder(cls: type[Encoder], **options: object) -> None:
    """Check an encoder class with the given options; raise `ConformanceError` at the first rule that it breaks."""
    config = configure("encoder", Encoder, cls, options)
    ask(f"encoder {cls.name!r}", _Stage(lambda image: cls(config, image), _images()), RULES)


def check_bridge(cls: type[Bridge], **options: object) -> None:
    """Check a bridge class with the given options; raise `ConformanceError` at the first rule that it breaks."""
    config = configure("bridge", Bridge, cls, options)
    maps = [FeatureMapSpec(channels=channels, height=height, width=width) for channels, height, width in FEATURES]
    ask(f"bridge {cls.name!r}", _Stage(lambda features: cls(config, features), maps), RULES)


def _images() -> list[ImageSpec]:
    return [ImageSpec(channels=channels, height=height, width=width) for channels, height, width in IMAGES]


@dataclass
class _Stage:
    """A rectifier, an encoder or a bridge under check, to be built for each of several maps."""

    make: Callable[[Any], Stage]
    offered: list[Any]

    @cached_property
    def built(self) -> dict[Map, Stage]:
        """One in eval mode for each map that it does not refuse."""
        accepted: dict[Map, Stage] = {}
        reasons = []
        for spec in self.offered:
            try:
                accepted[spec] = self.build(spec).eval()
            except InfeasibleError as error:
                reasons.append(str(error))
        require(bool(accepted), got="; ".join(reasons), do=f"accept one of these at least: {self.offered}")
        return accepted

    @property
    def first(self) -> Map:
        """The map that costly rules use."""
        return next(iter(self.built))

    def build(self, spec: Map) -> Stage:
        """Build it anew, with the weights of one seed."""
        return seeded(lambda: self.make(spec))


def _draw(spec: Map, batch: int) -> Tensor:
    """Draw values in [-1, 1], in the memory format that a recogniser uses."""
    drawn = 2 * torch.rand(batch, spec.channels, spec.height, spec.width) - 1
    return drawn.contiguous(memory_format=torch.channels_last)


def _declared(stage: Stage) -> tuple[int, ...]:
    """Return the shape of one image's output, as the stage declares it."""
    if isinstance(stage, Bridge):
        return stage.memory.length, stage.memory.dim
    spec = stage.image if isinstance(stage, Rectifier) else stage.features
    return spec.channels, spec.height, spec.width


def _starts_with_fresh_statistics(stage: _Stage) -> None:
    """Building it leaves BatchNorm as it starts: mean 0, variance 1, no batch counted."""
    for name, norm in stage.built[stage.first].named_modules():
        if isinstance(norm, nn.modules.batchnorm._BatchNorm) and norm.running_mean is not None:
            buffers = dict(norm.named_buffers())
            fresh = buffers["running_mean"].eq(0).all() and buffers["running_var"].eq(1).all()
            require(
                bool(fresh) and buffers["num_batches_tracked"].item() == 0,
                got=f"changed statistics in {name}",
                do="find shapes with probe_features, which touches nothing; load no trained weights in a check",
            )


def _yields_what_it_declares(stage: _Stage) -> None:
    """What forward yields has the shape that `image`, `features` or `memory` declares, in float32."""
    for spec, built in stage.built.items():
        with torch.no_grad():
            output = built(_draw(spec, 2))
        require(
            output.shape == (2, *_declared(built)),
            got=f"{tuple(output.shape)} where (2, {', '.join(map(str, _declared(built)))}) is declared, for {spec}",
            do="declare what comes; an encoder can ask probe_features",
        )
        require(output.dtype == torch.float32, got=f"{output.dtype}", do="leave number formats to the recogniser")


def _reads_each_image_alone(stage: _Stage) -> None:
    """In eval mode a batch gives what its single images give, and leaves its input as it is."""
    for spec, built in stage.built.items():
        inputs = _draw(spec, 3)
        before = inputs.clone()
        with torch.no_grad():
            together = built(inputs)
            require_unchanged("batch", before, inputs)
            singles = torch.cat([built(single[None]) for single in inputs])
        require_close("in a batch a value of", together, singles, do="mix nothing across the batch in eval mode")


def _trains_every_parameter(stage: _Stage) -> None:
    """A gradient reaches every parameter and, through a bridge, the features."""
    built, inputs = stage.build(stage.first), _draw(stage.first, 2).requires_grad_()
    torch.autograd.backward(built(inputs).square().sum())
    require_gradients(built)
    if isinstance(built, Bridge):
        require_input_gradient("features", inputs)


def _is_reproducible(stage: _Stage) -> None:
    """The seed decides the weights, and a state_dict holds all of them."""
    inputs = _draw(stage.first, 2)
    require_reproducible(partial(stage.make, stage.first), lambda built: built(inputs))


def _builds_on_meta(stage: _Stage) -> None:
    """It builds on the meta device, where the plan asks for shapes and cost, and declares the same there."""
    for spec, on_cpu in stage.built.items():
        on_meta = build_on_meta(partial(stage.make, spec))
        require(
            _declared(on_meta) == _declared(on_cpu),
            got=f"{_declared(on_meta)} there and {_declared(on_cpu)} on the CPU, for {spec}",
            do="derive the declaration from shapes, not from values",
        )


RULES = (
    _starts_with_fresh_statistics,
    _yields_what_it_declares,
    _reads_each_image_alone,
    _trains_every_parameter,
    _is_reproducible,
    _builds_on_meta,
)
