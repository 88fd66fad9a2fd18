"""The meta probe: T, parameters, MACs and feasibility of a combination, without training."""

from dataclasses import replace
from typing import Any

import pytest
from helpers.small_decoders import SmallCTC, SmallLSTM
from helpers.support import REGISTRY
from planted.stages import SmallBridge, SmallEncoder
from torch import Tensor, nn

from decoderbench import Charset, Decoder, ImageSpec, InfeasibleError, LabelSpec
from decoderbench.config.cell import ResolvedComponent
from decoderbench.planning.meta_probe import Bucket, MetaProbe, Part, Size

IMAGE = ImageSpec(channels=1, height=8, width=16)  # SmallEncoder and SmallBridge: T = 8


def part(kind: str, component: Any) -> Part:
    resolved = ResolvedComponent(label=component.__name__, use=component.name, options={}, decisive={}, source="")
    return Part(kind, resolved, component, component.Config())


def measure(
    decoder: type[Decoder],
    frames_needed: int = 5,
    buckets: tuple[Bucket, ...] = (),
    *,
    encoder: Any = SmallEncoder,
    bridge: Any = SmallBridge,
    batch_size: int = 2,
) -> Size:
    labels = LabelSpec(charset=Charset("ab"), max_length=4, frames_needed=frames_needed)
    rectifier = REGISTRY["rectifier"]["none"].component
    return MetaProbe(IMAGE, labels, batch_size=batch_size, buckets=buckets).measure(
        part("rectifier", rectifier),
        part("encoder", encoder),
        part("bridge", bridge),
        part("decoder", decoder),
    )


class Raises(SmallCTC):
    def __init__(self, config: Any, memory: Any, labels: Any) -> None:
        raise ZeroDivisionError


class NeedsThreeFrames(SmallLSTM):
    def __init__(self, config: Any, memory: Any, labels: Any) -> None:
        super().__init__(config, memory, labels)
        if memory.length < 3:
            raise InfeasibleError(f"needs three frames, given {memory.length}")


def test_feasible_decoder_has_frames_parameters_and_macs() -> None:
    size = measure(SmallCTC)
    assert (size.frames, size.infeasible) == (8, None)
    assert size.num_parameters
    assert size.gmacs


def test_infeasible_decoder_keeps_frames() -> None:
    size = measure(SmallCTC, frames_needed=9)
    assert (size.frames, size.num_parameters, size.gmacs) == (8, None, None)
    assert size.infeasible is not None
    assert size.infeasible.startswith("CTC needs T >= 9 for the longest label")


def test_decoder_that_raises_has_unknown_size() -> None:
    assert measure(Raises) == Size()


def test_each_bucket_is_probed_with_its_own_frames_and_labels() -> None:
    assert measure(SmallCTC, frames_needed=8, buckets=(Bucket(8, 4), Bucket(16, 8))).infeasible is None
    narrow = measure(SmallCTC, frames_needed=8, buckets=(Bucket(8, 5), Bucket(16, 8)))
    assert narrow.frames == 8
    assert narrow.infeasible is not None
    assert narrow.infeasible.startswith("CTC needs T >= 5 ")
    assert narrow.infeasible.endswith(
        "this memory has T = 4; use an earlier encoder stage, keep_width or a wider image (at images 8 wide)"
    )


@pytest.mark.parametrize(("width", "reason"), [(4, "needs three frames, given 2 (at images 4 wide)"), (6, None)])
def test_any_decoder_may_be_infeasible_for_a_bucket(width: int, reason: str | None) -> None:
    assert measure(NeedsThreeFrames, buckets=(Bucket(width, 1), Bucket(16, 5))).infeasible == reason


class NormalizesPooledFrames(SmallCTC):
    """BatchNorm over (B, D): one value per channel and image."""

    def __init__(self, config: Any, memory: Any, labels: Any) -> None:
        super().__init__(config, memory, labels)
        self.norm = nn.BatchNorm1d(memory.dim)

    def forward(self, memory: Tensor) -> Tensor:
        return super().forward(memory + self.norm(memory.mean(dim=1))[:, None])


class NormalizesPooledMap(SmallEncoder):
    """BatchNorm over a map of one pixel, as squeeze-and-excitation may have it."""

    def __init__(self, config: Any, image: Any) -> None:
        super().__init__(config, image)
        self.norm = nn.BatchNorm2d(self.features.channels)

    def forward(self, images: Tensor) -> Tensor:
        features = super().forward(images)
        return features + self.norm(features.mean(dim=(2, 3), keepdim=True)) if hasattr(self, "norm") else features


@pytest.mark.parametrize(
    ("decoder", "encoder"), [(NormalizesPooledFrames, SmallEncoder), (SmallLSTM, NormalizesPooledMap)]
)
@pytest.mark.parametrize("buckets", [(), (Bucket(8, 1), Bucket(16, 5))])
def test_batch_norm_of_one_value_per_channel_is_infeasible(
    decoder: type[Decoder], encoder: Any, buckets: tuple[Bucket, ...]
) -> None:
    alone = measure(decoder, buckets=buckets, encoder=encoder, batch_size=1)
    assert alone.infeasible is not None
    assert alone.infeasible.endswith(
        f"a batch of one image {8 if buckets else 16} wide gives it one; set training.batch_size to 2 or more"
    )
    assert measure(decoder, buckets=buckets, encoder=encoder).infeasible is None


def test_batch_of_one_image_is_feasible_if_maps_have_several_values() -> None:
    assert measure(SmallLSTM, batch_size=1).infeasible is None


class FiveHeads(SmallCTC):
    def __init__(self, config: Any, memory: Any, labels: Any) -> None:
        super().__init__(config, memory, labels)
        self.attention = nn.MultiheadAttention(memory.dim, 5)


def test_decoder_whose_heads_do_not_divide_the_width_is_infeasible_with_a_move() -> None:
    size = measure(FiveHeads)
    assert (size.frames, size.num_parameters) == (8, None)
    assert size.infeasible is not None
    assert size.infeasible.startswith("decoder 'small_ctc' cannot be built for D = 8: embed_dim must be divisible by")
    assert "project the memory to a width of your own first, as in nn.Linear(memory.dim, 256)" in size.infeasible


class Exits(SmallCTC):
    def __init__(self, config: Any, memory: Any, labels: Any) -> None:
        raise SystemExit(0)


class ExitsLater(SmallCTC):
    def transcribe(self, memory: Any, *, beam_size: int = 1) -> Any:
        raise GeneratorExit


def refusing(*arguments: object) -> type[Decoder]:
    """Return a decoder that is infeasible for a reason of any kind."""

    def raise_infeasible(self: Any, config: Any, memory: Any, labels: Any) -> None:
        raise InfeasibleError(*arguments)

    return type("Refusing", (SmallCTC,), {"__init__": raise_infeasible})


def with_features(value: object) -> type[SmallEncoder]:
    """Return an encoder whose features are another object."""

    def set_features(self: Any, config: Any, image: Any) -> None:
        SmallEncoder.__init__(self, config, image)
        self.features = value

    return type("Odd", (SmallEncoder,), {"__init__": set_features})


def test_exit_in_a_component_does_not_end_the_plan() -> None:
    assert measure(Exits) == Size()
    assert measure(ExitsLater).frames == 8


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [((5,), "5"), ((), "InfeasibleError"), (("",), "InfeasibleError"), (("a\n\udc80",), r"a \udc80")],
)
def test_reason_of_any_kind_becomes_text(arguments: tuple[object, ...], reason: str) -> None:
    assert measure(refusing(*arguments)).infeasible == reason


@pytest.mark.parametrize("value", [None, 5, "wide"])
def test_encoder_without_a_spec_is_not_known(value: object) -> None:
    assert measure(SmallCTC, encoder=with_features(value)) == Size()


@pytest.mark.parametrize("length", ["long", 8.5, None])
def test_bridge_with_frames_that_are_no_number_is_not_known(length: object) -> None:
    class Odd(SmallBridge):
        def __init__(self, config: Any, features: Any) -> None:
            super().__init__(config, features)
            self.memory = replace(self.memory, length=length)

    assert measure(SmallCTC, bridge=Odd) == Size()
