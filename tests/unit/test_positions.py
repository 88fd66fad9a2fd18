"""Sinusoidal positions: their formula, odd widths, and positions on a feature map of any width."""

import math

import pytest
import torch

from decoderbench import Memory, memory_positions, sinusoidal_positions


@pytest.mark.parametrize("dim", [1, 6, 7])
def test_positions_follow_the_formula(dim: int) -> None:
    expected = [
        [(math.cos if i % 2 else math.sin)(t / 10_000 ** (2 * (i // 2) / dim)) for i in range(dim)] for t in range(5)
    ]
    torch.testing.assert_close(sinusoidal_positions(5, dim), torch.tensor(expected))


def map_of(height: int, width: int, dim: int) -> Memory:
    frames = torch.zeros(2, height * width, dim)
    return Memory(frames, torch.ones(frames.shape[:2], dtype=torch.bool), (height, width))


@pytest.mark.parametrize("dim", [1, 6, 7])
def test_place_on_a_map_has_the_positions_of_its_row_and_column(dim: int) -> None:
    grid = memory_positions(map_of(3, 4, dim)).unflatten(0, (3, 4))
    rows, columns = sinusoidal_positions(3, dim // 2), sinusoidal_positions(4, dim - dim // 2)
    for row in range(3):
        for column in range(4):
            torch.testing.assert_close(grid[row, column], torch.cat([rows[row], columns[column]]))


def test_place_keeps_its_position_in_a_narrower_map() -> None:
    wide, narrow = (memory_positions(map_of(3, width, 6)).unflatten(0, (3, width)) for width in (9, 2))
    assert torch.equal(wide[:, :2], narrow)


def test_sequence_has_one_dimensional_positions() -> None:
    assert torch.equal(memory_positions(Memory.of(torch.zeros(2, 5, 6))), sinusoidal_positions(5, 6))
