"""The meta probe: T, parameters, MACs and feasibility of a combination, without training."""

from typing import Any

import pytest
from helpers.support import REGISTRY, SmallCTC, SmallLSTM
from planted.stages import SmallBridge, SmallEncoder

from decoderbench import Charset, Decoder, ImageSpec, InfeasibleError, LabelSpec
from decoderbench.config.cell import ResolvedComponent
from decoderbench.planning.meta_probe import Bucket, MetaProbe, Part, Size

IMAGE = ImageSpec(channels=1, height=8, width=16)  # SmallEncoder and SmallBridge: T = 8


def part(kind: str, component: Any) -> Part:
    resolved = ResolvedComponent(label=component.__name__, use=component.name, options={}, decisive={}, source="")
    return Part(kind, resolved, component, component.Config())


def measure(decoder: type[Decoder], frames_needed: int = 5, buckets: tuple[Bucket, ...] = ()) -> Size:
    labels = LabelSpec(charset=Charset("ab"), max_length=4, frames_needed=frames_needed)
    rectifier = REGISTRY["rectifier"]["none"].component
    return MetaProbe(IMAGE, labels, buckets).measure(
        part("rectifier", rectifier),
        part("encoder", SmallEncoder),
        part("bridge", SmallBridge),
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
