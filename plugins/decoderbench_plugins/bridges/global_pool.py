"""Global average pooling: one vector for the whole image, as in classifiers. T = 1."""

from typing import final

from torch import Tensor

from decoderbench import FeatureMapSpec, SequenceBridge, SequenceSpec, hookimpl


@final
class GlobalPool(SequenceBridge):
    """T = 1, D = C."""

    name = "global_pool"
    exports = True

    @staticmethod
    def frames_of(features: FeatureMapSpec) -> SequenceSpec:
        return SequenceSpec(length=1, dim=features.channels, left_to_right=True)

    @staticmethod
    def to_frames(features: Tensor) -> Tensor:
        return features.mean(dim=(2, 3))[:, None]  # (B, 1, C)


@hookimpl
def register_bridges() -> list[type[GlobalPool]]:
    """Register `global_pool`."""
    return [GlobalPool]
