"""The BiLSTM bridge: its output against nn.LSTM and nn.Linear, and its declared memory."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from decoderbench import FeatureMapSpec, SequenceSpec
from decoderbench_plugins.bridges.bilstm import BiLSTM


def build(channels: int, height: int, width: int, **options: object) -> BiLSTM:
    features = FeatureMapSpec(channels=channels, height=height, width=width)
    return BiLSTM(BiLSTM.Config.model_validate(options), features)


@settings(deadline=None, max_examples=25)
@given(
    num_layers=st.integers(1, 3),
    hidden_dim=st.integers(1, 6),
    output_dim=st.integers(1, 9),
    last_projection=st.booleans(),
    width=st.integers(1, 7),
)
def test_declared_memory_matches_the_output(
    num_layers: int, hidden_dim: int, output_dim: int, last_projection: bool, width: int
) -> None:
    bridge = build(
        5,
        2,
        width,
        num_layers=num_layers,
        hidden_dim=hidden_dim,
        output_dim=output_dim,
        last_projection=last_projection,
    )
    dim = output_dim if last_projection else 2 * hidden_dim
    assert bridge.memory == SequenceSpec(length=width, dim=dim, left_to_right=True)
    assert bridge(torch.rand(3, 5, 2, width)).shape == (3, width, dim)


@pytest.mark.parametrize("last_projection", [True, False])
def test_output_equals_two_lstms_and_projections(last_projection: bool) -> None:
    torch.manual_seed(0)
    bridge = build(6, 3, 5, hidden_dim=4, output_dim=7, last_projection=last_projection)
    features = torch.rand(2, 6, 3, 5)
    columns = torch.stack([features[..., column].mean(dim=2) for column in range(5)], dim=1)  # (B, W, C)
    first, second = bridge.lstms
    between, *after = bridge.projections
    expected = second(between(first(columns)[0]))[0]
    if last_projection:
        expected = after[0](expected)
    torch.testing.assert_close(bridge(features), expected)


def test_initial_weights_keep_the_variation_between_images() -> None:
    torch.manual_seed(0)
    features = torch.randn(64, 64, 1, 13).relu()
    memory = build(64, 1, 13, hidden_dim=64, output_dim=64)(features)
    assert memory.std(dim=0).mean() > 0.1 * features.std(dim=0).mean()


def test_every_frame_depends_on_every_column() -> None:
    bridge = build(4, 1, 9, num_layers=1, hidden_dim=8)
    features = torch.rand(1, 4, 1, 9, requires_grad=True)
    for frame in (0, 8):
        (gradient,) = torch.autograd.grad(bridge(features)[0, frame].sum(), features)
        assert (gradient.abs().sum(dim=(0, 1, 2)) > 0).all()


def test_maps_of_another_width_are_read() -> None:
    assert build(4, 1, 9, hidden_dim=3, output_dim=5)(torch.rand(2, 4, 1, 12)).shape == (2, 12, 5)


def test_projection_is_linear() -> None:
    bridge = build(4, 1, 9, num_layers=1, hidden_dim=3, output_dim=5)
    with torch.no_grad():
        bridge.projections[0].weight.fill_(-10.0)
        bridge.projections[0].bias.fill_(-1000.0)
    assert (bridge(torch.rand(2, 4, 1, 9)) < -100).all()  # a non-linearity would limit this
