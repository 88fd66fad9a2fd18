"""The residual network of FAN: its blocks, its initial scale, and that it learns."""

import torch
from torch import nn
from torch.nn import functional as F

from decoderbench import ImageSpec
from decoderbench_plugins.encoders.resnet_fan import ResNetFAN


def build(width: int = 100, output_channels: int = 32) -> ResNetFAN:
    config = ResNetFAN.Config(output_channels=output_channels)
    return ResNetFAN(config, ImageSpec(channels=1, height=32, width=width))


def test_block_without_its_residual_equals_its_shortcut() -> None:
    blocks = [module for module in build().modules() if hasattr(module, "shortcut")]
    assert len(blocks) == 1 + 2 + 5 + 3
    unchanged = [block for block in blocks if not len(block.shortcut)]
    assert len(unchanged) == len(blocks) - 3  # the number of channels changes three times
    for block in unchanged:
        *_, norm = block.residual
        nn.init.zeros_(norm.weight)
        inputs = torch.randn(2, norm.num_features, 3, 5)
        before = inputs.clone()
        torch.testing.assert_close(block(inputs), inputs.relu())
        assert torch.equal(inputs, before)


def test_initial_features_and_gradients_have_a_moderate_scale() -> None:
    torch.manual_seed(0)
    encoder = build()
    features = encoder(torch.randn(8, 1, 32, 100))
    assert 0.1 < features.std().item() < 10
    features.sum(dim=1).square().mean().backward()
    norms = [p.grad.norm().item() / p.norm().item() for p in encoder.parameters() if p.ndim == 4 and p.grad is not None]
    assert len(norms) == 32
    assert max(norms) < 1e3 * min(norms)


def test_loss_falls_at_a_usual_learning_rate_of_adamw() -> None:
    torch.manual_seed(0)
    encoder, head = build(width=32, output_channels=16), nn.Linear(16, 8)
    images, classes = torch.randn(8, 1, 32, 32), torch.arange(8)
    optimizer = torch.optim.AdamW([*encoder.parameters(), *head.parameters()], lr=3e-3)
    for _ in range(60):
        loss = F.cross_entropy(head(encoder(images).mean(dim=(2, 3))), classes)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.5  # guessing: log 8 = 2.08
