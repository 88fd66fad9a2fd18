"""The VGG trunk of CRNN: published parameter count and frames, declared shapes, refusals."""

import pytest
import torch

from decoderbench import FeatureMapSpec, ImageSpec, InfeasibleError
from decoderbench_plugins.encoders.crnn_vgg import CRNNVGG


def build(channels: int, height: int, width: int) -> CRNNVGG:
    return CRNNVGG(CRNNVGG.Config(), ImageSpec(channels=channels, height=height, width=width))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("height", "width"), [(32, 8), (32, 100), (40, 130), (64, 96)])
def test_declared_features_are_those_of_a_forward(channels: int, height: int, width: int) -> None:
    encoder = build(channels, height, width)
    features = encoder(torch.zeros(2, channels, height, width))
    declared = encoder.features
    assert features.shape == (2, declared.channels, declared.height, declared.width)


def test_golden_parameter_count() -> None:
    with torch.device("meta"):
        encoder = build(1, 32, 100)
    assert sum(parameter.numel() for parameter in encoder.parameters()) == 5_549_824


@pytest.mark.parametrize(("width", "frames"), [(100, 24), (128, 31)])
def test_golden_frames(width: int, frames: int) -> None:
    with torch.device("meta"):
        encoder = build(1, 32, width)
    assert encoder.features == FeatureMapSpec(channels=512, height=1, width=frames)


def test_batch_norm_follows_the_fifth_and_sixth_convolution_only() -> None:
    with torch.device("meta"):
        layers = build(1, 32, 100).layers
    convolutions = [index for index, layer in enumerate(layers) if isinstance(layer, torch.nn.Conv2d)]
    normed = [isinstance(layers[index + 1], torch.nn.BatchNorm2d) for index in convolutions]
    assert normed == [False, False, False, False, True, True, False]
    assert [layers[index].bias is None for index in convolutions] == normed


def test_every_parameter_receives_a_gradient() -> None:
    encoder = build(1, 32, 32)
    encoder(torch.randn(2, 1, 32, 32)).square().sum().backward()
    assert [name for name, parameter in encoder.named_parameters() if parameter.grad is None] == []


@pytest.mark.parametrize(("height", "width"), [(31, 100), (32, 7)])
def test_too_small_images_are_refused(height: int, width: int) -> None:
    with pytest.raises(InfeasibleError, match=rf"at least 32x8 \(height x width\), given {height}x{width}"):
        build(1, height, width)
