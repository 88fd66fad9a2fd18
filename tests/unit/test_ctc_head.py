"""The linear CTC head: published size, and one linear layer per frame."""

import string

import pytest
import torch

from decoderbench import Charset, LabelSpec, SequenceSpec
from decoderbench_plugins.decoders.ctc import LinearCTC

LABELS = LabelSpec(charset=Charset(string.digits + string.ascii_lowercase), max_length=25, frames_needed=25)


def build(dim: int) -> LinearCTC:
    return LinearCTC(LinearCTC.Config(), SequenceSpec(length=26, dim=dim, left_to_right=True), LABELS)


@pytest.mark.parametrize(("dim", "parameters"), [(256, 9_509), (512, 18_981)])
def test_parameter_count_for_37_classes_is_the_published_one(dim: int, parameters: int) -> None:
    assert sum(parameter.numel() for parameter in build(dim).parameters()) == parameters


def test_each_frame_is_scored_independently() -> None:
    decoder, memory = build(8), torch.randn(2, 26, 8)
    logits = decoder(memory)
    assert logits.shape == (2, 26, 37)
    memory[:, 5] += 1
    changed = (decoder(memory) != logits).any(dim=2)
    assert changed[:, 5].all()
    assert changed.sum() == len(memory)
