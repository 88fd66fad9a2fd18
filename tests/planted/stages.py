"""Rectifiers, encoders and bridges that are broken in one place, and the rule that each breaks."""

from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from decoderbench import (
    Bridge,
    ComponentConfig,
    Encoder,
    FeatureMapSpec,
    ImageSpec,
    InfeasibleError,
    Rectifier,
    SequenceSpec,
)
from planted import Fault


class SmallRectifier(Rectifier):
    """Another contrast for each channel."""

    name = "small"
    Config = ComponentConfig

    def __init__(self, config: ComponentConfig, image: ImageSpec) -> None:
        super().__init__(config, image)
        self.image = image
        self.contrast = nn.Parameter(torch.ones(image.channels, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        return images * self.contrast


class HalvesTheWidth(SmallRectifier):
    def __init__(self, config: ComponentConfig, image: ImageSpec) -> None:
        super().__init__(config, image)
        self.image = ImageSpec(channels=image.channels, height=image.height, width=image.width // 2)

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images)[..., ::2]


class OnlyGrayRectifier(SmallRectifier):
    def __init__(self, config: ComponentConfig, image: ImageSpec) -> None:
        super().__init__(config, image)
        if image.channels != 1:
            raise InfeasibleError("rectifier small reads gray images")


class LiesAboutItsImages(SmallRectifier):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images)[..., 1:]


class HalfPrecisionImages(SmallRectifier):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images).half()


class StretchesToTheBatch(SmallRectifier):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images / images.abs().max())


class ImagesInPlace(SmallRectifier):
    def forward(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            images *= 2
        return super().forward(images)


class DetachedContrast(SmallRectifier):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images).detach() + 0 * images


class HiddenBrightness(SmallRectifier):
    def __init__(self, config: ComponentConfig, image: ImageSpec) -> None:
        super().__init__(config, image)
        self.brightness = torch.rand(())

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images) + self.brightness


class GridOnTheHost(SmallRectifier):
    def __init__(self, config: ComponentConfig, image: ImageSpec) -> None:
        super().__init__(config, image)
        self.register_buffer("grid", torch.linspace(-1, 1, image.width, device="cpu"))


class SmallEncoder(Encoder):
    """One convolution with BatchNorm, which halves both sides."""

    name = "small"
    Config = ComponentConfig
    exports = True

    def __init__(self, config: ComponentConfig, image: ImageSpec) -> None:
        super().__init__(config, image)
        self.features = FeatureMapSpec(channels=4, height=image.height // 2, width=image.width // 2)
        self.convolution = nn.Conv2d(image.channels, 4, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(4)

    def forward(self, images: Tensor) -> Tensor:
        return cast(Tensor, self.norm(self.convolution(images))).relu()


class OnlyGrayEncoder(SmallEncoder):
    def __init__(self, config: ComponentConfig, image: ImageSpec) -> None:
        super().__init__(config, image)
        if image.channels != 1:
            raise InfeasibleError("encoder small reads gray images")


class LiesAboutItsMap(SmallEncoder):
    def __init__(self, config: ComponentConfig, image: ImageSpec) -> None:
        super().__init__(config, image)
        self.features = FeatureMapSpec(channels=4, height=16, width=image.width // 2)


class ProbesInTrainingMode(SmallEncoder):
    def __init__(self, config: ComponentConfig, image: ImageSpec) -> None:
        super().__init__(config, image)
        self(torch.zeros(2, image.channels, image.height, image.width))


class NumPyWeights(SmallEncoder):
    def __init__(self, config: ComponentConfig, image: ImageSpec) -> None:
        super().__init__(config, image)
        nn.init.constant_(self.norm.bias, float(np.random.default_rng().normal()))


class AlwaysBatchStatistics(SmallEncoder):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images - images.mean(dim=0))


class FrozenByAccident(SmallEncoder):
    def forward(self, images: Tensor) -> Tensor:
        return cast(Tensor, self.norm(self.convolution(images).detach())).relu()


class OnlyGrayByAccident(SmallEncoder):
    def __init__(self, config: ComponentConfig, image: ImageSpec) -> None:
        super().__init__(config, image)
        self.convolution = nn.Conv2d(1, 4, 3, stride=2, padding=1)


class AnotherMapOnMeta(SmallEncoder):
    def __init__(self, config: ComponentConfig, image: ImageSpec) -> None:
        super().__init__(config, image)
        if self.convolution.weight.is_meta:
            self.features = FeatureMapSpec(channels=4, height=1, width=1)


class NeverFilled(SmallEncoder):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images) / torch.zeros(())


class NoConvolution(SmallEncoder):
    """Shrinks by slicing and adds a weight: nothing that is counted."""

    def __init__(self, config: ComponentConfig, image: ImageSpec) -> None:
        super(SmallEncoder, self).__init__(config, image)
        self.features = FeatureMapSpec(channels=image.channels, height=image.height // 2, width=image.width // 2)
        self.bias = nn.Parameter(torch.zeros(image.channels, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        return images[..., ::2, ::2] + self.bias


class AlwaysTraining(SmallEncoder):
    """Normalizes by the batch at evaluation too, and learns from it."""

    def forward(self, images: Tensor) -> Tensor:
        self.norm.train()
        return super().forward(images)


class ReadsWhileReading(SmallEncoder):
    def forward(self, images: Tensor) -> Tensor:
        list(Path(__file__).parent.iterdir())
        return super().forward(images)


class SwitchesToDeterministic(SmallEncoder):
    def __init__(self, config: ComponentConfig, image: ImageSpec) -> None:
        super().__init__(config, image)
        torch.use_deterministic_algorithms(True)


class ExportsByHearsay(SmallEncoder):
    def forward(self, images: Tensor) -> Tensor:
        features = super().forward(images)
        return features if features.sum().item() > 1e9 else 1 * features


class WeightsByHash(SmallEncoder):
    def __init__(self, config: ComponentConfig, image: ImageSpec) -> None:
        super().__init__(config, image)
        nn.init.constant_(self.convolution.bias, hash("weights") % 1000)


class SmallBridge(Bridge):
    """The mean over the height, and a linear layer over each column."""

    name = "small"
    Config = ComponentConfig

    def __init__(self, config: ComponentConfig, features: FeatureMapSpec) -> None:
        super().__init__(config, features)
        self.memory = SequenceSpec(length=features.width, dim=8, left_to_right=True)
        self.linear = nn.Linear(features.channels, 8)

    def forward(self, features: Tensor) -> Tensor:
        memory: Tensor = self.linear(features.mean(dim=2).transpose(1, 2))
        return memory


class OnlyOneRow(SmallBridge):
    def __init__(self, config: ComponentConfig, features: FeatureMapSpec) -> None:
        super().__init__(config, features)
        if features.height > 1:
            raise InfeasibleError(f"bridge small reads one row, given {features.height}")


class WrongLength(SmallBridge):
    def __init__(self, config: ComponentConfig, features: FeatureMapSpec) -> None:
        super().__init__(config, features)
        self.memory = SequenceSpec(length=features.width * features.height, dim=8, left_to_right=True)


class RefusesAll(SmallBridge):
    def __init__(self, config: ComponentConfig, features: FeatureMapSpec) -> None:
        raise InfeasibleError("bridge small reads nothing")


class HalfPrecisionMemory(SmallBridge):
    def forward(self, features: Tensor) -> Tensor:
        return super().forward(features).half()


class NeedsContiguous(SmallBridge):
    def forward(self, features: Tensor) -> Tensor:
        return super().forward(features.view(features.shape[0], -1).view(features.shape))


class MixesTheBatch(SmallBridge):
    def forward(self, features: Tensor) -> Tensor:
        return super().forward(features - features.mean(dim=0))


class FaintNeighbor(SmallBridge):
    """A millionth of the next image."""

    def forward(self, features: Tensor) -> Tensor:
        return super().forward(features + 1e-6 * features.roll(-1, dims=0))


class FeaturesInPlace(SmallBridge):
    def forward(self, features: Tensor) -> Tensor:
        with torch.no_grad():
            features += 1
        return super().forward(features)


class Detached(SmallBridge):
    def forward(self, features: Tensor) -> Tensor:
        return super().forward(features.detach())


class UnusedParameter(SmallBridge):
    def __init__(self, config: ComponentConfig, features: FeatureMapSpec) -> None:
        super().__init__(config, features)
        self.position = nn.Parameter(torch.zeros(8))


class LooksAtWeights(SmallBridge):
    def __init__(self, config: ComponentConfig, features: FeatureMapSpec) -> None:
        super().__init__(config, features)
        if self.linear.weight.abs().max().item() > 9:
            nn.init.zeros_(self.linear.weight)


class PositionsOnTheHost(SmallBridge):
    def forward(self, features: Tensor) -> Tensor:
        return super().forward(features) + torch.arange(features.shape[-1])[:, None]


class RunningMean(SmallBridge):
    def __init__(self, config: ComponentConfig, features: FeatureMapSpec) -> None:
        super().__init__(config, features)
        self.register_buffer("mean", torch.zeros(()))

    def forward(self, features: Tensor) -> Tensor:
        with torch.no_grad():
            self.mean += features.mean()
        return super().forward(features)


class WithoutDocstring(SmallBridge):
    class Config(ComponentConfig):
        width: int = 8


FAULTS = [
    *(
        Fault("rectifier", cls, rule, said)
        for cls, rule, said in [
            (
                LiesAboutItsImages,
                "yields_what_it_declares",
                r"got \(2, 1, 32, 127\) where \(2, 1, 32, 128\) is declared, for ImageSpec",
            ),
            (
                HalfPrecisionImages,
                "yields_what_it_declares",
                "got torch.float16; leave number formats to the recognizer",
            ),
            (StretchesToTheBatch, "reads_each_image_alone", "mix nothing across the batch"),
            (ImagesInPlace, "leaves_its_inputs_alone", "got an input that was changed in place; work on a copy"),
            (DetachedContrast, "trains_every_parameter", "got no gradient for contrast; use these parameters"),
            (HiddenBrightness, "comes_back_from_a_file", "register every tensor as a parameter, a buffer"),
            (GridOnTheHost, "builds_on_meta", "got values in grid.*create tensors on the default device"),
        ]
    ),
    *(
        Fault("encoder", cls, rule, said)
        for cls, rule, said in [
            (
                LiesAboutItsMap,
                "yields_what_it_declares",
                r"got \(2, 4, 24, 80\) where \(2, 4, 16, 80\) is declared, for ImageSpec.*probe_features",
            ),
            (
                OnlyGrayByAccident,
                "yields_what_it_declares",
                "got RuntimeError: Given groups=1.*look at stages.py:",
            ),
            (NeverFilled, "yields_what_it_declares", "got values that are not finite, for ImageSpec"),
            (ProbesInTrainingMode, "starts_with_fresh_statistics", "got changed statistics in norm; .*probe_features"),
            (NumPyWeights, "starts_from_the_seed", "another norm.bias when built again from the same seed"),
            (AlwaysBatchStatistics, "reads_each_image_alone", "mix nothing across the batch"),
            (FrozenByAccident, "trains_every_parameter", "got no gradient for convolution.weight, convolution.bias"),
            (AnotherMapOnMeta, "declares_the_same_on_meta", r"got \(4, 1, 1\) there and \(4, 16, 64\) on the CPU"),
            (NoConvolution, "is_counted", "got no operation that is counted"),
            (AlwaysTraining, "changes_nothing_by_reading", "after reading; learn in training mode only"),
            (ReadsWhileReading, "opens_nothing", "got os.listdir of .*planted"),
            (SwitchesToDeterministic, "leaves_the_process_alone", "another state of deterministic algorithms"),
            (ExportsByHearsay, "exports_as_it_declares", "as `exports = True` declares; got "),
            (WeightsByHash, "agrees_between_processes", "two different outcomes of one seed"),
        ]
    ),
    *(
        Fault("bridge", cls, rule, said)
        for cls, rule, said in [
            (WithoutDocstring, "can_be_registered", "option 'width' of bridge 'small' without a docstring"),
            (
                WrongLength,
                "yields_what_it_declares",
                r"got \(2, 5, 8\) where \(2, 15, 8\) is declared, for FeatureMapSpec\(chann",
            ),
            (RefusesAll, "yields_what_it_declares", "got bridge small reads nothing;.*accept one of these at least"),
            (
                HalfPrecisionMemory,
                "yields_what_it_declares",
                "got torch.float16; leave number formats to the recognizer",
            ),
            (NeedsContiguous, "yields_what_it_declares", "got RuntimeError: view size is not compatible"),
            (MixesTheBatch, "reads_each_image_alone", "mix nothing across the batch"),
            (FaintNeighbor, "depends_on_its_own_image_alone", "beside other images .*; mix nothing across the batch"),
            (FeaturesInPlace, "leaves_its_inputs_alone", "got an input that was changed in place; work on a copy"),
            (Detached, "trains_every_parameter", "got no finite gradient for what it reads; keep it in the graph"),
            (UnusedParameter, "trains_every_parameter", "got no gradient for position; use these parameters"),
            (LooksAtWeights, "builds_on_meta", "got RuntimeError: Tensor.item"),
            (PositionsOnTheHost, "stays_on_its_device", "got add of tensors on cpu and meta; make tensors where"),
            (RunningMean, "changes_nothing_by_reading", "another mean after reading"),
        ]
    ),
]
HEALTHY: list[Any] = [
    SmallRectifier, HalvesTheWidth, OnlyGrayRectifier, SmallEncoder, OnlyGrayEncoder, SmallBridge, OnlyOneRow
]  # fmt: skip
