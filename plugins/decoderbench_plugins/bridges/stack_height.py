"""Height stacked into channels: one frame per column, which keeps all values of the column."""

from typing import final

from torch import Tensor

from decoderbench import FeatureMapSpec, SequenceBridge, SequenceSpec, hookimpl


@final
class StackHeight(SequenceBridge):
    """T = W, D = C * H, channels outermost."""

    name = "stack_height"
    exports = True

    @staticmethod
    def frames_of(features: FeatureMapSpec) -> SequenceSpec:
        return SequenceSpec(length=features.width, dim=features.channels * features.height, left_to_right=True)

    @staticmethod
    def to_frames(features: Tensor) -> Tensor:
        return features.flatten(1, 2).transpose(1, 2)  # (B, W, C*H)


@hookimpl
def register_bridges() -> list[type[StackHeight]]:
    """Register `stack_height`."""
    return [StackHeight]
