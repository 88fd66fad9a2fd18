"""The memory that decoders read: which frames of it are valid, and the facts of the data that go with it."""

from __future__ import annotations

import pytest
import torch
from planted.readers import MaskedLSTM, NeedsMap

from decoderbench import Charset, InfeasibleError, LabelSpec, Memory, SequenceSpec
from decoderbench.model.recognizer import as_memory

CHARSET = Charset("ab")


def map_of(height: int, width: int, *, batch: int = 2, dim: int = 3) -> Memory:
    length = height * width
    valid = torch.ones(batch, length, dtype=torch.bool)
    return Memory(torch.arange(1.0 * batch * length * dim).view(batch, length, dim), valid, (height, width))


def test_tensor_is_a_sequence_of_valid_frames() -> None:
    frames = torch.randn(2, 5, 3)
    memory = Memory.of(frames)
    assert memory.frames is frames
    assert memory.valid.all()
    assert (memory.batch, memory.length, memory.dim, memory.shape) == (2, 5, 3, None)
    assert Memory.of(memory) is memory


def test_map_has_the_frames_row_by_row() -> None:
    memory = map_of(2, 4)
    assert memory.map().shape == (2, 3, 2, 4)
    for frame in range(8):
        assert torch.equal(memory.map()[:, :, frame // 4, frame % 4], memory.frames[:, frame])
    with pytest.raises(ValueError, match="a sequence, not a feature map; let the decoder say needs_map = True"):
        Memory.of(memory.frames).map()


def test_hidden_scores_get_no_weight() -> None:
    memory = Memory(torch.zeros(2, 3, 1), torch.tensor([[True, False, True], [True, False, False]]))
    weights = memory.hide(torch.zeros(2, 4, 3)).softmax(dim=-1)
    assert weights[:, 0].tolist() == [[0.5, 0, 0.5], [1, 0, 0]]


def test_rows_are_chosen_and_repeated_with_their_masks() -> None:
    memory = Memory(torch.tensor([[[1.0]], [[2.0]]]), torch.tensor([[True], [False]]))
    repeated = memory.repeat_interleave(2)
    assert (repeated.frames.flatten().tolist(), repeated.valid.flatten().tolist()) == ([1, 1, 2, 2], [1, 1, 0, 0])
    assert memory[[1]].valid.tolist() == [[False]]
    assert len(repeated) == 4


@pytest.mark.parametrize(
    ("frames", "valid", "shape", "message"),
    [((2, 5, 3), (2, 4), None, r"valid \(B, T\), given \(2, 5, 3\) and \(2, 4\)"),
     ((2, 5), (2, 5), None, r"frames \(B, T, D\)"),
     ((2, 5, 3), (2, 5), (2, 3), "map of 2x3 has not T = 5")],
)  # fmt: skip
def test_sizes_that_disagree_are_refused(
    frames: tuple[int, ...], valid: tuple[int, ...], shape: tuple[int, int] | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Memory(torch.zeros(frames), torch.ones(valid, dtype=torch.bool), shape)


COLUMNS = torch.tensor([16, 32, 33, 63, 64, 0])


def test_frames_that_begin_in_the_image_are_valid() -> None:
    sequence = SequenceSpec(length=4, dim=1, left_to_right=True)
    memory = as_memory(torch.zeros(6, 4, 1), sequence, 64, COLUMNS)  # a frame per 16 columns
    assert memory.valid.sum(dim=1).tolist() == [1, 2, 3, 4, 4, 1]
    assert memory.valid[:, 0].all()


def test_each_row_of_a_map_has_the_same_valid_columns() -> None:
    spec = SequenceSpec(length=12, dim=1, left_to_right=False, shape=(3, 4))
    memory = as_memory(torch.zeros(6, 12, 1), spec, 64, COLUMNS)
    assert memory.shape == (3, 4)
    assert memory.valid_map().sum(dim=2).tolist() == [[count] * 3 for count in (1, 2, 3, 4, 4, 1)]


def test_map_of_narrower_images_keeps_its_height() -> None:
    spec = SequenceSpec(length=12, dim=1, left_to_right=False, shape=(3, 4))
    assert as_memory(torch.zeros(1, 6, 1), spec, 32).shape == (3, 2)
    assert spec.of_length(6).shape == (3, 2)


def test_all_frames_are_valid_where_their_place_is_not_known() -> None:
    spec = SequenceSpec(length=4, dim=1, left_to_right=False)
    assert as_memory(torch.zeros(6, 4, 1), spec, 64, COLUMNS).valid.all()
    ordered = SequenceSpec(length=4, dim=1, left_to_right=True)
    assert as_memory(torch.zeros(6, 4, 1), ordered, 64, None).valid.all()


def test_decoder_that_needs_a_map_says_which_bridge_gives_one() -> None:
    labels = LabelSpec(charset=CHARSET, max_length=3)
    sequence = SequenceSpec(length=4, dim=2, left_to_right=True)
    with pytest.raises(InfeasibleError, match=r"small_lstm needs a feature map .*; use the bridge feature_map"):
        NeedsMap(NeedsMap.Config(), sequence, labels)
    MaskedLSTM(MaskedLSTM.Config(), sequence, labels)


def test_frames_per_character_follow_the_labels_and_the_columns_of_the_memory() -> None:
    labels = LabelSpec(charset=CHARSET, max_length=5, width_per_character=(0.1, 0.25, 0.5))
    sequence = SequenceSpec(length=20, dim=1, left_to_right=True)
    grid = SequenceSpec(length=40, dim=1, left_to_right=False, shape=(4, 10))
    assert labels.frames_per_character(sequence) == (2, 5, 10)
    assert labels.frames_per_character(grid) == (1, 2.5, 5)
    assert LabelSpec(charset=CHARSET, max_length=5).frames_per_character(sequence).median == 4
