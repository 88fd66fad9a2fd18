"""GRCNN: declared shapes, the recurrence by hand, refusals."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from decoderbench import ImageSpec, InfeasibleError
from decoderbench_plugins.encoders.grcnn import GRCNN


def build(channels: int = 1, height: int = 32, width: int = 100, output_channels: int = 32) -> GRCNN:
    config = GRCNN.Config(output_channels=output_channels)
    return GRCNN(config, ImageSpec(channels=channels, height=height, width=width))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("height", "width"), [(32, 4), (32, 100), (40, 130), (64, 96)])
def test_declared_features_are_those_of_a_forward(channels: int, height: int, width: int) -> None:
    encoder = build(channels, height, width)
    declared = encoder.features
    features = encoder(torch.zeros(2, channels, height, width))
    assert features.shape == (2, declared.channels, declared.height, declared.width)


@pytest.mark.parametrize(("height", "width", "rows", "columns"), [(32, 100, 1, 26), (32, 128, 1, 33), (64, 99, 3, 25)])
def test_a_column_every_four_pixels_and_one_more(height: int, width: int, rows: int, columns: int) -> None:
    features = build(height=height, width=width).features
    assert (features.height, features.width) == (rows, columns)


def test_it_reads_images_of_another_width() -> None:
    assert build(width=100).eval()(torch.zeros(2, 1, 32, 60)).shape == (2, 32, 1, 16)


def test_the_recurrence_is_that_of_the_paper() -> None:
    torch.manual_seed(0)
    layer = build().layers[3].eval()
    inputs = torch.randn(2, 4, 6, 7)
    one = 1 / (1 + layer.first_norm.eps) ** 0.5  # what a BatchNorm that saw nothing yet multiplies by

    def conv(images: Tensor, weight: Tensor) -> Tensor:
        return F.conv2d(images, weight, padding=weight.shape[-1] // 2)

    state = (conv(inputs, layer.input_conv.weight) * one).relu()
    for _ in range(5):
        gate = conv(inputs, layer.input_gate.weight) * one + conv(state, layer.recurrent_gate.weight) * one
        gated = conv(state, layer.recurrent_conv.weight) * one * gate.sigmoid() * one
        state = (conv(inputs, layer.input_conv.weight) * one + gated).relu()
    torch.testing.assert_close(layer(inputs), state)


def test_convolutions_are_shared_by_the_iterations_and_norms_are_not() -> None:
    layer = build().layers[3]
    kinds = [type(module) for module in layer.modules()]
    assert kinds.count(nn.Conv2d) == 4
    assert kinds.count(nn.BatchNorm2d) == 1 + 5 * 5


def test_a_gate_that_is_shut_leaves_what_the_input_gives() -> None:
    layer = build().layers[3].eval()
    with torch.no_grad():
        for iteration in layer.iterations:
            iteration.input_gate_norm.bias.fill_(-100.0)
    inputs = torch.randn(2, 4, 6, 7)
    torch.testing.assert_close(layer(inputs), layer.first_norm(layer.input_conv(inputs)).relu())


@pytest.mark.parametrize(("height", "width"), [(31, 100), (32, 3)])
def test_too_small_images_are_refused(height: int, width: int) -> None:
    with pytest.raises(InfeasibleError, match=rf"at least 32x4 \(height x width\), given {height}x{width}"):
        build(1, height, width)


@pytest.mark.parametrize("output_channels", [4, 20])
def test_widths_that_cannot_be_shared_out(output_channels: int) -> None:
    with pytest.raises(ValueError, match="output_channels"):
        build(output_channels=output_channels)
