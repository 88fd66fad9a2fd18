"""The bridge feature_map: frames row by row, and the height and width of the map it was given."""

import torch

from decoderbench import FeatureMapSpec, SequenceSpec
from decoderbench_plugins.bridges.feature_map import FeatureMap, FlattenGrid


def build(channels: int, height: int, width: int, **options: object) -> FeatureMap:
    features = FeatureMapSpec(channels=channels, height=height, width=width)
    return FeatureMap(FeatureMap.Config.model_validate(options), features)


def test_frame_t_is_place_of_row_and_column() -> None:
    features = torch.rand(2, 5, 3, 4)
    frames = build(5, 3, 4)(features)
    for frame in range(12):
        assert torch.equal(frames[:, frame], features[:, :, frame // 4, frame % 4])


def test_memory_states_height_and_width() -> None:
    assert build(5, 3, 4).memory == SequenceSpec(length=12, dim=5, left_to_right=False, shape=(3, 4))
    assert build(5, 1, 4).memory == SequenceSpec(length=4, dim=5, left_to_right=True, shape=(1, 4))
    assert build(5, 3, 4, projection_dim=7).memory.dim == 7
    assert build(5, 3, 4, projection_dim=7, lstm_layers=1, lstm_dim=2).memory.shape == (3, 4)


def test_narrower_maps_are_read() -> None:
    features = torch.rand(2, 5, 3, 2)
    assert torch.equal(build(5, 3, 4)(features), features.flatten(2).transpose(1, 2))


def test_flatten_grid_is_the_same() -> None:
    spec, features = FeatureMapSpec(channels=5, height=3, width=4), torch.rand(2, 5, 3, 4)
    flat = FlattenGrid(FlattenGrid.Config(), spec)
    assert torch.equal(flat(features), build(5, 3, 4)(features))
    assert flat.memory == build(5, 3, 4).memory
