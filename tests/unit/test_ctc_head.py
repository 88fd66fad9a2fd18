"""The linear CTC head: published size, one linear map a frame, and what the plan says where CTC cannot work."""

import string

import pytest
import torch

from decoderbench import Charset, LabelSpec, SequenceSpec
from decoderbench_plugins.decoders.ctc import LinearCTC

LABELS = LabelSpec(charset=Charset(string.digits + string.ascii_lowercase), max_length=25)


def build(dim: int) -> LinearCTC:
    return LinearCTC(LinearCTC.Config(), SequenceSpec(length=26, dim=dim, left_to_right=True), LABELS)


@pytest.mark.parametrize(("dim", "parameters"), [(256, 9_509), (512, 18_981)])
def test_golden_parameter_count_at_37_classes(dim: int, parameters: int) -> None:
    assert sum(parameter.numel() for parameter in build(dim).parameters()) == parameters


def test_a_frame_is_scored_by_itself() -> None:
    decoder, memory = build(8), torch.randn(2, 26, 8)
    logits = decoder(memory)
    assert logits.shape == (2, 26, 37)
    memory[:, 5] += 1
    changed = (decoder(memory) != logits).any(dim=2)
    assert changed[:, 5].all()
    assert changed.sum() == len(memory)


def test_the_plan_refuses_too_few_frames() -> None:
    short = SequenceSpec(length=10, dim=8, left_to_right=True)
    assert "needs T >= 49" in str(LinearCTC.infeasible(LinearCTC.Config(), short, LABELS))
