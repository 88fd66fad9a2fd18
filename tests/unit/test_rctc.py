"""The bridge rctc: its output by a naive loop over rows and columns, its size, heads and widths."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from decoderbench import FeatureMapSpec, InfeasibleError, SequenceSpec
from decoderbench_plugins.bridges.rctc import RCTC


def build(channels: int, height: int, width: int, **options: object) -> RCTC:
    features = FeatureMapSpec(channels=channels, height=height, width=width)
    return RCTC(RCTC.Config.model_validate(options), features).eval()


@pytest.mark.parametrize("dim", [96, 384])
def test_parameters_follow_the_formula(dim: int) -> None:
    """Queries, keys and values 3 d^2, output d^2 + d, MLP 8 d^2 + 5 d, two norms 4 d, key and value 2 d^2 + 2 d,
    query d; 2,069,376 at the paper's width of 384.
    """
    with torch.device("meta"):
        bridge, projected = build(dim, 4, 32), build(50, 4, 32, projection_dim=dim)
    assert sum(p.numel() for p in bridge.parameters()) == 14 * dim**2 + 13 * dim
    assert sum(p.numel() for p in projected.parameters()) == 14 * dim**2 + 13 * dim + 51 * dim


def attended(bridge: RCTC, row: Tensor, num_heads: int) -> Tensor:
    """Return the row (W, D) after its Transformer block, head by head and place by place."""
    block = bridge.along_rows
    normalized = block.attention_norm(row)
    queries, keys, values = (normalized @ part.T for part in block.query_key_value.weight.chunk(3))
    width = row.shape[1] // num_heads
    heads = []
    for head in range(num_heads):
        own = slice(head * width, (head + 1) * width)
        weights = [F.softmax(keys[:, own] @ query / math.sqrt(width), dim=0) for query in queries[:, own]]
        heads.append(torch.stack([one @ values[:, own] for one in weights]))
    row = row + block.out(torch.cat(heads, dim=1))
    return row + block.mlp(block.mlp_norm(row))


def test_output_equals_naive_loop_over_rows_and_columns() -> None:
    torch.manual_seed(0)
    bridge, features = build(6, 3, 5, num_heads=2, mlp_ratio=2.5), torch.randn(2, 6, 3, 5)
    with torch.no_grad():
        bridge.query.normal_()
    frames = bridge(features)
    assert bridge.along_rows.mlp[0].out_features == 15
    for image in range(2):
        rows = [attended(bridge, features[image, :, row].T, 2) for row in range(3)]
        for column in range(5):
            both = [bridge.key_and_value(row[column]) for row in rows]
            weights = F.softmax(torch.stack([one[:6] @ bridge.query for one in both]), dim=0)
            expected = sum(weight * one[6:] for weight, one in zip(weights, both, strict=True))
            torch.testing.assert_close(frames[image, column], expected)


def test_memory_has_one_frame_per_column() -> None:
    assert build(6, 3, 5).memory == SequenceSpec(length=5, dim=6, left_to_right=True)
    assert build(6, 3, 5, projection_dim=9).memory == SequenceSpec(length=5, dim=9, left_to_right=True)
    assert build(6, 3, 5, projection_dim=9)(torch.randn(2, 6, 3, 4)).shape == (2, 4, 9)


@pytest.mark.parametrize(("dim", "heads"), [(7, 1), (64, 2), (100, 2), (384, 12)])
def test_heads_divide_the_width_and_have_about_32_values(dim: int, heads: int) -> None:
    with torch.device("meta"):
        assert build(dim, 2, 3).along_rows.num_heads == heads


def test_heads_that_do_not_divide_the_width_are_infeasible() -> None:
    with pytest.raises(InfeasibleError, match=r"num_heads = 4 does not divide the width of the frames, 6; set num"):
        build(6, 3, 5, num_heads=4)


def test_dropout_acts_in_training_only() -> None:
    bridge, features = build(8, 2, 3, dropout=0.5), torch.randn(1, 8, 2, 3)
    assert torch.equal(bridge(features), bridge(features))
    bridge.train()
    assert not torch.equal(bridge(features), bridge(features))
