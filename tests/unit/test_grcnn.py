"""GRCNN: its recurrence against the formula."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from decoderbench import ImageSpec
from decoderbench_plugins.encoders.grcnn import GRCNN


def build(width: int = 100, output_channels: int = 32) -> GRCNN:
    config = GRCNN.Config(output_channels=output_channels)
    return GRCNN(config, ImageSpec(channels=1, height=32, width=width))


def test_recurrence_equals_the_formula_of_the_paper() -> None:
    torch.manual_seed(0)
    layer = build().layers[3].eval()
    inputs = torch.randn(2, 4, 6, 7)
    one = 1 / (1 + layer.first_norm.eps) ** 0.5  # factor of an untrained BatchNorm

    def conv(images: Tensor, weight: Tensor) -> Tensor:
        return F.conv2d(images, weight, padding=weight.shape[-1] // 2)

    state = (conv(inputs, layer.input_conv.weight) * one).relu()
    for _ in range(5):
        gate = conv(inputs, layer.input_gate.weight) * one + conv(state, layer.recurrent_gate.weight) * one
        gated = conv(state, layer.recurrent_conv.weight) * one * gate.sigmoid() * one
        state = (conv(inputs, layer.input_conv.weight) * one + gated).relu()
    torch.testing.assert_close(layer(inputs), state)


def test_iterations_share_convolutions_but_not_norms() -> None:
    layer = build().layers[3]
    kinds = [type(module) for module in layer.modules()]
    assert kinds.count(nn.Conv2d) == 4
    assert kinds.count(nn.BatchNorm2d) == 1 + 5 * 5


def test_closed_gate_leaves_only_the_input_term() -> None:
    layer = build().layers[3].eval()
    with torch.no_grad():
        for iteration in layer.iterations:
            iteration.input_gate_norm.bias.fill_(-100.0)
    inputs = torch.randn(2, 4, 6, 7)
    torch.testing.assert_close(layer(inputs), layer.first_norm(layer.input_conv(inputs)).relu())
