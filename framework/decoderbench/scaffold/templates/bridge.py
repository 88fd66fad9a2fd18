"""my_component: one frame per column of the feature map, the maximum over its height."""

from typing import final

from torch import Tensor

from decoderbench import FeatureMapSpec, SequenceBridge, SequenceConfig, SequenceSpec, hookimpl


@final
class MyComponent(SequenceBridge):
    """The maximum of each column; the family adds optional projection and LSTM layers."""

    name = "my_component"
    exports = True

    class Config(SequenceConfig):
        """Options besides those of the family; the string below a field documents it."""

    @staticmethod
    def frames_of(features: FeatureMapSpec) -> SequenceSpec:
        return SequenceSpec(length=features.width, dim=features.channels, left_to_right=True)

    @staticmethod
    def to_frames(features: Tensor) -> Tensor:
        return features.amax(dim=2).transpose(1, 2)  # (B, C, H, W) -> (B, T, D)


@hookimpl
def register_bridges() -> list[type[MyComponent]]:
    """Register the component with decoderbench."""
    return [MyComponent]
