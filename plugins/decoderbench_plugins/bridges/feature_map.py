"""The feature map itself, as a memory that keeps its height and width, for decoders that read two dimensions.

Its frames are those of `flatten_grid`, one per place, row by row. `flatten_grid` is for decoders that read a sequence,
whatever its order; with `feature_map` the decoder also knows the row and the column of each frame. Images narrower than
the size that it was built for have fewer columns, and as many rows.
"""

from typing import final

from torch import Tensor

from decoderbench import FeatureMapSpec, SequenceBridge, SequenceSpec, hookimpl


@final
class FeatureMap(SequenceBridge):
    """T = H * W, row by row, D = C; the shape (H, W) is kept."""

    name = "feature_map"
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


@hookimpl
def register_bridges() -> list[type[FeatureMap]]:
    """Register `feature_map`."""
    return [FeatureMap]
