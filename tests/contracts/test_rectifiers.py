"""Every registered rectifier conforms, and the kit catches rectifiers that are broken in one place."""

import pytest
import torch
from support import RECTIFIERS, REGISTRY, Options
from torch import Tensor, nn

from decoderbench import ComponentConfig, ImageSpec, InfeasibleError, Rectifier
from decoderbench.testing import ConformanceError, check_rectifier


@pytest.mark.parametrize(("name", "options"), RECTIFIERS, ids=str)
def test_it_conforms(name: str, options: Options) -> None:
    check_rectifier(REGISTRY.rectifiers[name].component, **options)


class Small(Rectifier):
    """Another contrast for each channel."""

    name = "small"
    Config = ComponentConfig

    def __init__(self, config: ComponentConfig, image: ImageSpec) -> None:
        super().__init__(config, image)
        self.image = image
        self.contrast = nn.Parameter(torch.ones(image.channels, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        return images * self.contrast


class HalvesTheWidth(Small):
    def __init__(self, config: ComponentConfig, image: ImageSpec) -> None:
        super().__init__(config, image)
        self.image = ImageSpec(channels=image.channels, height=image.height, width=image.width // 2)

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images)[..., ::2]


class OnlyGrey(Small):
    def __init__(self, config: ComponentConfig, image: ImageSpec) -> None:
        super().__init__(config, image)
        if image.channels != 1:
            raise InfeasibleError("rectifier small reads grey images")


@pytest.mark.parametrize("healthy", [Small, HalvesTheWidth, OnlyGrey])
def test_what_the_faults_are_planted_in_conforms(healthy: type[Rectifier]) -> None:
    check_rectifier(healthy)


class LiesAboutItsImages(Small):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images)[..., 1:]


class HalfPrecision(Small):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images).half()


class StretchesToTheBatch(Small):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images / images.abs().max())


class InPlace(Small):
    def forward(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            images *= 2
        return super().forward(images)


class FrozenByAccident(Small):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images).detach() + 0 * images


class HiddenState(Small):
    def __init__(self, config: ComponentConfig, image: ImageSpec) -> None:
        super().__init__(config, image)
        self.brightness = torch.rand(())

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images) + self.brightness


class FixedDevice(Small):
    def __init__(self, config: ComponentConfig, image: ImageSpec) -> None:
        super().__init__(config, image)
        self.register_buffer("grid", torch.linspace(-1, 1, image.width, device="cpu"))


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (LiesAboutItsImages, r"`image`.*got \(2, 1, 32, 127\) where \(2, 1, 32, 128\) is declared, for ImageSpec"),
        (HalfPrecision, "in float32; got torch.float16; leave number formats to the recogniser"),
        (StretchesToTheBatch, "a batch gives what its single images give.*mix nothing across the batch"),
        (InPlace, "got a batch that was changed in place; work on a copy"),
        (FrozenByAccident, "got no gradient for contrast; use these parameters"),
        (HiddenState, "from a twin that loaded the state_dict.*register every tensor as a parameter, a buffer"),
        (FixedDevice, "builds on the meta device.*got values in grid.*create tensors on the default device"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_planted_fault_is_caught(fault: type[Rectifier], said: str) -> None:
    with pytest.raises(ConformanceError, match=f"(?s)^rectifier 'small' breaks the rule: .*{said}"):
        check_rectifier(fault)
