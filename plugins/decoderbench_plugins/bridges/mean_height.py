"""Mean over the height: one frame a column, as wide as the feature map has channels."""

from typing import final

from torch import Tensor

from decoderbench import FeatureMapSpec, SequenceBridge, SequenceSpec, hookimpl


@final
class MeanHeight(SequenceBridge):
    """T = W, D = C. What CRNN-like recognizers do when the map is not one row high."""

    name = "mean_height"
    exports = True

    @staticmethod
    def frames_of(features: FeatureMapSpec) -> SequenceSpec:
        return SequenceSpec(length=features.width, dim=features.channels, left_to_right=True)

    @staticmethod
    def to_frames(features: Tensor) -> Tensor:
        return features.mean(dim=2).transpose(1, 2)  # (B, W, C)


@hookimpl
def register_bridges() -> list[type[MeanHeight]]:
    """Offer the bridge of this file."""
    return [MeanHeight]
