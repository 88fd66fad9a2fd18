"""Rectifiers, encoders and bridges with one fault each, and the rule that catches it."""

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
    """Scales each channel by a learned contrast."""

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


class DeclaresAnotherWidth(SmallRectifier):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images)[..., 1:]


class HalfPrecisionImages(SmallRectifier):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images).half()


class ScalesByTheBatch(SmallRectifier):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images / images.abs().max())


class ChangesImagesInPlace(SmallRectifier):
    def forward(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            images *= 2
        return super().forward(images)


class DetachedContrast(SmallRectifier):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images).detach() + 0 * images


class UnregisteredBrightness(SmallRectifier):
    def __init__(self, config: ComponentConfig, image: ImageSpec) -> None:
        super().__init__(config, image)
        self.brightness = torch.rand(())

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images) + self.brightness


class WarmsUpByCounting(SmallRectifier):
    """Counts its passes in an attribute, which no checkpoint holds."""

    passes = 0

    def forward(self, images: Tensor) -> Tensor:
        self.passes += self.training
        return super().forward(images) * (1.0 - 0.5**self.passes if self.training else 1.0)


class GridOnTheCPU(SmallRectifier):
    def __init__(self, config: ComponentConfig, image: ImageSpec) -> None:
        super().__init__(config, image)
        self.register_buffer("grid", torch.linspace(-1, 1, image.width, device="cpu"))


class SmallEncoder(Encoder):
    """One convolution with BatchNorm; halves height and width."""

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


class DeclaresAnotherHeight(SmallEncoder):
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


class DetachedConvolution(SmallEncoder):
    def forward(self, images: Tensor) -> Tensor:
        return cast(Tensor, self.norm(self.convolution(images).detach())).relu()


class AssumesGray(SmallEncoder):
    def __init__(self, config: ComponentConfig, image: ImageSpec) -> None:
        super().__init__(config, image)
        self.convolution = nn.Conv2d(1, 4, 3, stride=2, padding=1)


class DeclaresAnotherMapOnMeta(SmallEncoder):
    def __init__(self, config: ComponentConfig, image: ImageSpec) -> None:
        super().__init__(config, image)
        if self.convolution.weight.is_meta:
            self.features = FeatureMapSpec(channels=4, height=1, width=1)


class NotFinite(SmallEncoder):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images) / torch.zeros(())


class NoConvolution(SmallEncoder):
    """Slices and adds a weight: operations that are not counted."""

    def __init__(self, config: ComponentConfig, image: ImageSpec) -> None:
        super(SmallEncoder, self).__init__(config, image)
        self.features = FeatureMapSpec(channels=image.channels, height=image.height // 2, width=image.width // 2)
        self.bias = nn.Parameter(torch.zeros(image.channels, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        return images[..., ::2, ::2] + self.bias


class AlwaysTrainsBatchNorm(SmallEncoder):
    """Normalizes by the batch in evaluation too, and updates its statistics."""

    def forward(self, images: Tensor) -> Tensor:
        self.norm.train()
        return super().forward(images)


class OpensAFolder(SmallEncoder):
    def forward(self, images: Tensor) -> Tensor:
        list(Path(__file__).parent.iterdir())
        return super().forward(images)


class SetsDeterministicMode(SmallEncoder):
    def __init__(self, config: ComponentConfig, image: ImageSpec) -> None:
        super().__init__(config, image)
        torch.use_deterministic_algorithms(True)


class CannotBeExported(SmallEncoder):
    def forward(self, images: Tensor) -> Tensor:
        features = super().forward(images)
        return features if features.sum().item() > 1e9 else 1 * features


class WeightsFromHash(SmallEncoder):
    def __init__(self, config: ComponentConfig, image: ImageSpec) -> None:
        super().__init__(config, image)
        nn.init.constant_(self.convolution.bias, hash("weights") % 1000)


class SmallBridge(Bridge):
    """The mean over the height, and a linear layer applied to each column."""

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


class NeverFeasible(SmallBridge):
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


class FaintLeak(SmallBridge):
    """Adds a millionth of the next image."""

    def forward(self, features: Tensor) -> Tensor:
        return super().forward(features + 1e-6 * features.roll(-1, dims=0))


class ChangesFeaturesInPlace(SmallBridge):
    def forward(self, features: Tensor) -> Tensor:
        with torch.no_grad():
            features += 1
        return super().forward(features)


class Detached(SmallBridge):
    def forward(self, features: Tensor) -> Tensor:
        return super().forward(features.detach())


class UnusedPosition(SmallBridge):
    def __init__(self, config: ComponentConfig, features: FeatureMapSpec) -> None:
        super().__init__(config, features)
        self.position = nn.Parameter(torch.zeros(8))


class ReadsWeights(SmallBridge):
    def __init__(self, config: ComponentConfig, features: FeatureMapSpec) -> None:
        super().__init__(config, features)
        if self.linear.weight.abs().max().item() > 9:
            nn.init.zeros_(self.linear.weight)


class PositionsOnTheCPU(SmallBridge):
    def forward(self, features: Tensor) -> Tensor:
        return super().forward(features) + torch.arange(features.shape[-1])[:, None]


class SkipsEmptyFeatures(SmallBridge):
    def forward(self, features: Tensor) -> Tensor:
        return super().forward(features if features.any() else features + 1)


class RunningMean(SmallBridge):
    def __init__(self, config: ComponentConfig, features: FeatureMapSpec) -> None:
        super().__init__(config, features)
        self.register_buffer("mean", torch.zeros(()))

    def forward(self, features: Tensor) -> Tensor:
        with torch.no_grad():
            self.mean += features.mean()
        return super().forward(features)


class NameWithSpaces(SmallBridge):
    name = "small bridge"


class WithoutDocstring(SmallBridge):
    class Config(ComponentConfig):
        width: int = 8


FAULTS = [
    *(
        Fault("rectifier", cls, rule, message)
        for cls, rule, message in [
            (
                DeclaresAnotherWidth,
                "output_matches_declaration",
                r"got \(2, 1, 32, 127\), declared is \(2, 1, 32, 128\), for ImageSpec",
            ),
            (
                HalfPrecisionImages,
                "output_matches_declaration",
                "got torch.float16; leave the dtype to the recognizer",
            ),
            (ScalesByTheBatch, "output_matches_single_images", "mix nothing across the batch"),
            (ChangesImagesInPlace, "inputs_are_unchanged", "got an input changed in place; work on a copy"),
            (DetachedContrast, "every_parameter_gets_gradient", "got no gradient for contrast; use these parameters"),
            (
                WarmsUpByCounting,
                "training_goes_on_from_saved_state",
                "got the loss of the next step .*; keep what training changes in buffers",
            ),
            (UnregisteredBrightness, "state_dict_round_trips", "register every tensor as a parameter, a buffer"),
            (GridOnTheCPU, "builds_on_meta_device", "got values in grid.*create tensors on the default device"),
        ]
    ),
    *(
        Fault("encoder", cls, rule, message)
        for cls, rule, message in [
            (
                DeclaresAnotherHeight,
                "output_matches_declaration",
                r"got \(2, 4, 24, 80\), declared is \(2, 4, 16, 80\), for ImageSpec.*probe_features",
            ),
            (
                AssumesGray,
                "output_matches_declaration",
                "got RuntimeError: Given groups=1.*look at stages.py:",
            ),
            (NotFinite, "output_matches_declaration", "got values that are not finite, for ImageSpec"),
            (ProbesInTrainingMode, "batch_norm_starts_fresh", "got changed statistics in norm; .*probe_features"),
            (
                NumPyWeights,
                "initial_weights_depend_on_seed_only",
                "another norm.bias when built again from the same seed",
            ),
            (AlwaysBatchStatistics, "output_matches_single_images", "mix nothing across the batch"),
            (
                DetachedConvolution,
                "every_parameter_gets_gradient",
                "got no gradient for convolution.weight, convolution.bias",
            ),
            (
                DeclaresAnotherMapOnMeta,
                "declaration_is_the_same_on_meta",
                r"got \(4, 1, 1\) on the meta device and \(4, 16, 64\) on the CPU",
            ),
            (NoConvolution, "macs_can_be_counted", "got no operation that is counted"),
            (AlwaysTrainsBatchNorm, "inference_changes_nothing", "by inference; learn in training mode only"),
            (OpensAFolder, "opens_no_files", "got os.listdir of .*planted"),
            (SetsDeterministicMode, "global_state_is_unchanged", "a change of deterministic algorithms"),
            (CannotBeExported, "exported_program_matches", "as `exports = True` promises; got "),
            (WeightsFromHash, "fresh_processes_agree", "two different results from one seed"),
        ]
    ),
    *(
        Fault("bridge", cls, rule, message)
        for cls, rule, message in [
            (NameWithSpaces, "can_be_registered", "has the name 'small bridge'; use a-z, 0-9"),
            (WithoutDocstring, "options_are_described", "option 'width' of bridge 'small' without a docstring"),
            (
                WrongLength,
                "output_matches_declaration",
                r"got \(2, 5, 8\), declared is \(2, 15, 8\), for FeatureMapSpec\(chann",
            ),
            (NeverFeasible, "output_matches_declaration", "got bridge small reads nothing;.*accept at least one of"),
            (
                HalfPrecisionMemory,
                "output_matches_declaration",
                "got torch.float16; leave the dtype to the recognizer",
            ),
            (NeedsContiguous, "output_matches_declaration", "got RuntimeError: view size is not compatible"),
            (MixesTheBatch, "output_matches_single_images", "mix nothing across the batch"),
            (FaintLeak, "images_do_not_affect_each_other", "next to other images .*; mix nothing across the batch"),
            (ChangesFeaturesInPlace, "inputs_are_unchanged", "got an input changed in place; work on a copy"),
            (Detached, "every_parameter_gets_gradient", "got no finite gradient for the input; keep it in the graph"),
            (UnusedPosition, "every_parameter_gets_gradient", "got no gradient for position; use these parameters"),
            (ReadsWeights, "builds_on_meta_device", "got RuntimeError: Tensor.item"),
            (PositionsOnTheCPU, "stays_on_one_device", "got add of tensors on cpu and cuda; create tensors on"),
            (SkipsEmptyFeatures, "does_not_wait_for_device", r"a wait for a value .* at stages.py:\d+; keep values on"),
            (RunningMean, "inference_changes_nothing", "a change of mean by inference"),
        ]
    ),
]
HEALTHY: list[Any] = [
    SmallRectifier, HalvesTheWidth, OnlyGrayRectifier, SmallEncoder, OnlyGrayEncoder, SmallBridge, OnlyOneRow
]  # fmt: skip
