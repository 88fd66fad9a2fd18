"""Every registered encoder conforms, and the kit catches encoders that are broken in one place."""

from typing import cast

import numpy as np
import pytest
import torch
from support import ENCODERS, REGISTRY, Options
from torch import Tensor, nn

from decoderbench import ComponentConfig, Encoder, FeatureMapSpec, ImageSpec, InfeasibleError
from decoderbench.testing import ConformanceError, check_encoder


@pytest.mark.parametrize(("name", "options"), ENCODERS, ids=str)
def test_it_conforms(name: str, options: Options) -> None:
    check_encoder(REGISTRY.encoders[name].component, **options)


class Small(Encoder):
    """One convolution with BatchNorm, which halves both sides."""

    name = "small"
    Config = ComponentConfig

    def __init__(self, config: ComponentConfig, image: ImageSpec) -> None:
        super().__init__(config, image)
        self.features = FeatureMapSpec(channels=4, height=image.height // 2, width=image.width // 2)
        self.convolution = nn.Conv2d(image.channels, 4, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(4)

    def forward(self, images: Tensor) -> Tensor:
        return cast(Tensor, self.norm(self.convolution(images))).relu()


class OnlyGrey(Small):
    def __init__(self, config: ComponentConfig, image: ImageSpec) -> None:
        super().__init__(config, image)
        if image.channels != 1:
            raise InfeasibleError("encoder small reads grey images")


@pytest.mark.parametrize("healthy", [Small, OnlyGrey])
def test_what_the_faults_are_planted_in_conforms(healthy: type[Encoder]) -> None:
    check_encoder(healthy)


class LiesAboutItsMap(Small):
    def __init__(self, config: ComponentConfig, image: ImageSpec) -> None:
        super().__init__(config, image)
        self.features = FeatureMapSpec(channels=4, height=16, width=image.width // 2)


class ProbesInTrainingMode(Small):
    def __init__(self, config: ComponentConfig, image: ImageSpec) -> None:
        super().__init__(config, image)
        self(torch.zeros(2, image.channels, image.height, image.width))


class ForeignDice(Small):
    def __init__(self, config: ComponentConfig, image: ImageSpec) -> None:
        super().__init__(config, image)
        nn.init.constant_(self.norm.bias, float(np.random.default_rng().normal()))


class AlwaysBatchStatistics(Small):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images - images.mean(dim=0))


class FrozenByAccident(Small):
    def forward(self, images: Tensor) -> Tensor:
        return cast(Tensor, self.norm(self.convolution(images).detach())).relu()


class OnlyGreyByAccident(Small):
    def __init__(self, config: ComponentConfig, image: ImageSpec) -> None:
        super().__init__(config, image)
        self.convolution = nn.Conv2d(1, 4, 3, stride=2, padding=1)


class AnotherMapOnMeta(Small):
    def __init__(self, config: ComponentConfig, image: ImageSpec) -> None:
        super().__init__(config, image)
        if self.convolution.weight.is_meta:
            self.features = FeatureMapSpec(channels=4, height=1, width=1)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (LiesAboutItsMap, r"got \(2, 4, 24, 80\) where \(2, 4, 16, 80\) is declared, for ImageSpec.*probe_features"),
        (ProbesInTrainingMode, "leaves BatchNorm as it starts.*got changed statistics in norm; .*probe_features"),
        (ForeignDice, "another norm.bias when built again from the same seed; draw weights from torch"),
        (AlwaysBatchStatistics, "a batch gives what its single images give.*mix nothing across the batch"),
        (FrozenByAccident, "got no gradient for convolution.weight, convolution.bias"),
        (OnlyGreyByAccident, "got RuntimeError: Given groups=1.*the traceback above shows where"),
        (AnotherMapOnMeta, r"builds on the meta device.*got \(4, 1, 1\) there and \(4, 16, 64\) on the CPU"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_planted_fault_is_caught(fault: type[Encoder], said: str) -> None:
    with pytest.raises(ConformanceError, match=f"(?s)^encoder 'small' breaks the rule: .*{said}"):
        check_encoder(fault)
