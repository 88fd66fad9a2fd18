"""The residual network of FAN: declared shapes, its blocks, how it starts and learns, refusals."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from decoderbench import ImageSpec, InfeasibleError
from decoderbench_plugins.encoders.resnet_fan import ResNetFAN


def build(channels: int = 1, height: int = 32, width: int = 100, output_channels: int = 32) -> ResNetFAN:
    config = ResNetFAN.Config(output_channels=output_channels)
    return ResNetFAN(config, ImageSpec(channels=channels, height=height, width=width))


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


def test_a_block_without_its_residual_is_its_shortcut() -> None:
    blocks = [module for module in build().modules() if hasattr(module, "shortcut")]
    assert len(blocks) == 1 + 2 + 5 + 3
    unchanged = [block for block in blocks if not len(block.shortcut)]
    assert len(unchanged) == len(blocks) - 3  # channels change three times
    for block in unchanged:
        *_, norm = block.residual
        nn.init.zeros_(norm.weight)
        inputs = torch.randn(2, norm.num_features, 3, 5)
        before = inputs.clone()
        torch.testing.assert_close(block(inputs), inputs.relu())
        assert torch.equal(inputs, before)


def test_it_starts_with_features_and_gradients_of_a_sane_size() -> None:
    torch.manual_seed(0)
    encoder = build()
    features = encoder(torch.randn(8, 1, 32, 100))
    assert 0.1 < features.std().item() < 10
    features.sum(dim=1).square().mean().backward()
    norms = [p.grad.norm().item() / p.norm().item() for p in encoder.parameters() if p.ndim == 4 and p.grad is not None]
    assert len(norms) == 32
    assert max(norms) < 1e3 * min(norms)


def test_it_learns_at_a_usual_rate_of_adamw() -> None:
    torch.manual_seed(0)
    encoder, head = build(width=32, output_channels=16), nn.Linear(16, 8)
    images, classes = torch.randn(8, 1, 32, 32), torch.arange(8)
    optimizer = torch.optim.AdamW([*encoder.parameters(), *head.parameters()], lr=3e-3)
    for _ in range(60):
        loss = F.cross_entropy(head(encoder(images).mean(dim=(2, 3))), classes)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.5  # of 2.08, log 8, for guessing


@pytest.mark.parametrize(("height", "width"), [(31, 100), (32, 3)])
def test_too_small_images_are_refused(height: int, width: int) -> None:
    with pytest.raises(InfeasibleError, match=rf"at least 32x4 \(height x width\), given {height}x{width}"):
        build(1, height, width)


@pytest.mark.parametrize("output_channels", [8, 40])
def test_widths_that_cannot_be_shared_out(output_channels: int) -> None:
    with pytest.raises(ValueError, match="output_channels"):
        build(output_channels=output_channels)
