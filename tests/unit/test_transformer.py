"""The shared parts of Transformer decoders against those of PyTorch."""

import pytest
import torch
from torch import nn

from decoderbench import Attention, InfeasibleError, Memory, MemoryInput, causal_mask, resolve_num_heads


def reference_of(attention: Attention, dim: int) -> nn.MultiheadAttention:
    """Return PyTorch's attention with the same weights."""
    reference = nn.MultiheadAttention(dim, attention.num_heads, batch_first=True)
    with torch.no_grad():
        reference.in_proj_weight.copy_(torch.cat([attention.query.weight, attention.key_value.weight]))
        reference.in_proj_bias.copy_(torch.cat([attention.query.bias, attention.key_value.bias]))
        reference.out_proj.load_state_dict(attention.output.state_dict())
    return reference


def test_attention_and_its_weights_are_those_of_pytorch() -> None:
    torch.manual_seed(0)
    attention, reader, source = Attention(12, 3), torch.randn(2, 4, 12), torch.randn(2, 5, 12)
    readable = torch.tensor([[True, True, False, True, False], [False, True, True, True, True]])
    expected, expected_weights = reference_of(attention, 12)(reader, source, source, key_padding_mask=~readable)
    kept, mask = attention.keys_values(source), readable[:, None, None]
    torch.testing.assert_close(attention(reader, kept, mask), expected)
    torch.testing.assert_close(attention.weights(reader, kept, mask), expected_weights)


def test_keys_and_values_in_two_parts_are_those_of_the_whole() -> None:
    attention, source = Attention(6, 2), torch.randn(2, 5, 6)
    in_parts = attention.keys_values(source[:, 3:], attention.keys_values(source[:, :3]))
    torch.testing.assert_close(in_parts, attention.keys_values(source))


def test_causal_mask_lets_the_last_query_read_all() -> None:
    assert causal_mask(2, 4, torch.device("cpu")).long().tolist() == [[1, 1, 1, 0], [1, 1, 1, 1]]


@pytest.mark.parametrize(("dim", "heads"), [(1, 1), (33, 1), (64, 2), (100, 2), (384, 12), (512, 16)])
def test_default_heads_divide_the_width_and_are_at_least_32_wide(dim: int, heads: int) -> None:
    assert resolve_num_heads("nrtr", dim, None) == heads


def test_heads_that_do_not_divide_the_width_are_infeasible() -> None:
    with pytest.raises(InfeasibleError, match="nrtr needs a width that num_heads = 5 divides, it is 12"):
        resolve_num_heads("nrtr", 12, 5)


@pytest.mark.parametrize("scale", [0.1, 10.0])
def test_memory_input_brings_frames_to_one_scale_and_adds_positions(scale: float) -> None:
    memory = Memory.of(scale * torch.randn(2, 6, 4))
    normalized = torch.nn.functional.layer_norm(memory.frames, (4,))
    torch.testing.assert_close(MemoryInput(4, 4, positions=False)(memory), normalized)
    projected = MemoryInput(4, 6, positions=False)(memory)
    torch.testing.assert_close(projected, torch.nn.functional.layer_norm(projected, (6,)), atol=1e-2, rtol=1e-2)
    added = MemoryInput(4, 4, positions=True)(memory) - normalized
    angle = torch.arange(6.0)
    torch.testing.assert_close(added[1, :, 0], angle.sin())
    torch.testing.assert_close(added[0, :, 3], (angle / 100).cos())


def test_frames_of_a_single_number_cannot_be_normalized() -> None:
    with pytest.raises(InfeasibleError, match="their width must be more than 1; use a wider bridge or a larger dim"):
        MemoryInput(4, 1, positions=True)
