"""One frame per position of the feature map, row by row: the memory for attention over two dimensions.

Li et al. 2019, "Show, Attend and Read". Frames are not in reading order, so CTC cannot use them.
"""

from typing import final

from torch import Tensor

from decoderbench import FeatureMapSpec, SequenceBridge, SequenceSpec, hookimpl


@final
class FlattenGrid(SequenceBridge):
    """T = H * W in row-major order, D = C."""

    name = "flatten_grid"
    exports = True

    @staticmethod
    def frames_of(features: FeatureMapSpec) -> SequenceSpec:
        return SequenceSpec(
            length=features.height * features.width, dim=features.channels, left_to_right=features.height == 1
        )

    @staticmethod
    def to_frames(features: Tensor) -> Tensor:
        return features.flatten(2).transpose(1, 2)  # (B, H*W, C)


@hookimpl
def register_bridges() -> list[type[FlattenGrid]]:
    """Register `flatten_grid`."""
    return [FlattenGrid]
