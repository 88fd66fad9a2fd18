"""my_component: a frame for each column of the feature map, the strongest response over its height."""

from typing import final

from torch import Tensor

from decoderbench import FeatureMapSpec, SequenceBridge, SequenceConfig, SequenceSpec, hookimpl


@final
class MyComponent(SequenceBridge):
    """The maximum of each column; the family around it adds a projection and LSTM layers by option."""

    name = "my_component"
    exports = True

    class Config(SequenceConfig):
        """Options beside those of the family; the text under each is its documentation."""

    @staticmethod
    def frames_of(features: FeatureMapSpec) -> SequenceSpec:
        return SequenceSpec(length=features.width, dim=features.channels, left_to_right=True)

    @staticmethod
    def to_frames(features: Tensor) -> Tensor:
        return features.amax(dim=2).transpose(1, 2)  # (B, C, H, W) -> (B, T, D)


@hookimpl
def register_bridges() -> list[type[MyComponent]]:
    """Offer it to every experiment."""
    return [MyComponent]
