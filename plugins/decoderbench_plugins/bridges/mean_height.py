"""Mean over the height: one frame per column, with one value per channel of the feature map."""

from typing import final

from torch import Tensor

from decoderbench import FeatureMapSpec, SequenceBridge, SequenceSpec, hookimpl


@final
class MeanHeight(SequenceBridge):
    """T = W, D = C. The usual bridge of CRNN-like recognizers if the map has more than one row."""

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
    """Register `mean_height`."""
    return [MeanHeight]
