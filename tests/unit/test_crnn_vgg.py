"""The VGG backbone of CRNN: its widths, norms and initial scale."""

import torch

from decoderbench import ImageSpec
from decoderbench_plugins.encoders.crnn_vgg import CRNNVGG


def build(channels: int, height: int, width: int, output_channels: int = 32) -> CRNNVGG:
    config = CRNNVGG.Config(output_channels=output_channels)
    return CRNNVGG(config, ImageSpec(channels=channels, height=height, width=width))


def test_layer_widths_are_shares_of_output_channels() -> None:
    layers = build(1, 32, 100, output_channels=64).layers
    widths = [layer.out_channels for layer in layers if isinstance(layer, torch.nn.Conv2d)]
    assert widths == [8, 16, 32, 32, 64, 64, 64]


def test_initial_layers_before_the_first_norm_keep_the_scale() -> None:
    torch.manual_seed(0)
    layers = build(1, 32, 100).layers
    first_norm = next(index for index, layer in enumerate(layers) if isinstance(layer, torch.nn.BatchNorm2d))
    images = torch.randn(8, 1, 32, 100)
    assert 0.3 < layers[:first_norm](images).std().item() / images.std().item() < 5  # pools increase it slightly


def test_batch_norm_follows_only_the_fifth_and_sixth_convolution() -> None:
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
