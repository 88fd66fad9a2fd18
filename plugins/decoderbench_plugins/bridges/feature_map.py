"""The feature map itself, as a memory of one frame per place that keeps its height and width.

The memory for attention over two dimensions, as in Li et al. 2019, "Show, Attend and Read". Images narrower than the
size that it was built for have fewer columns, and as many rows. A map of several rows is not in reading order, so CTC
cannot use it.
"""

from typing import final

from torch import Tensor

from decoderbench import FeatureMapSpec, SequenceBridge, SequenceSpec, hookimpl


class Grid(SequenceBridge):
    """T = H * W, row by row, D = C; the shape (H, W) is kept."""

    exports = True

    @staticmethod
    def frames_of(features: FeatureMapSpec) -> SequenceSpec:
        return SequenceSpec(
            length=features.height * features.width,
            dim=features.channels,
            left_to_right=features.height == 1,
            shape=(features.height, features.width),
        )

    @staticmethod
    def to_frames(features: Tensor) -> Tensor:
        return features.flatten(2).transpose(1, 2)  # (B, H*W, C)


@final
class FeatureMap(Grid):
    """T = H * W, row by row, D = C; the shape (H, W) is kept."""

    name = "feature_map"


@final
class FlattenGrid(Grid):
    """The same as feature_map, under the name that it had before memories knew their height and width."""

    name = "flatten_grid"


@hookimpl
def register_bridges() -> list[type[Grid]]:
    """Register `feature_map` and `flatten_grid`."""
    return [FeatureMap, FlattenGrid]
