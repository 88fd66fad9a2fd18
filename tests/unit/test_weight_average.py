"""The moving average of weights: its values, what it takes the place of, and buffers that training creates."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from decoderbench.training.weight_average import WeightAverage


class Counting(nn.Module):
    """A weight, a BatchNorm, which counts batches, and a buffer that the first pass creates."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2))
        self.norm = nn.BatchNorm1d(2)
        self.register_buffer("late", None)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        if self.late is None:
            self.late = values.mean(dim=0)
        return self.norm(values) * self.weight


@given(st.floats(0.01, 0.999), st.lists(st.floats(-10, 10), min_size=1, max_size=30))
@settings(deadline=None, max_examples=30)
def test_average_is_that_of_its_definition(decay: float, values: list[float]) -> None:
    module = Counting()
    average, expected = WeightAverage(module, decay), 0.0
    for step, value in enumerate(values, start=1):
        with torch.no_grad():
            module.weight.fill_(value)
        average.update(step)
        kept = min(decay, (1 + step) / (10 + step))
        expected = kept * expected + (1 - kept) * value
    assert average.values["weight"].tolist() == pytest.approx([expected] * 2, abs=1e-4)


def test_average_takes_the_place_of_the_weights_in_the_block_alone() -> None:
    module = Counting()
    average = WeightAverage(module, 0.5)
    module(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    with torch.no_grad():
        module.weight.fill_(8.0)
    average.update(100)
    assert "late" in average.values
    before = {name: value.clone() for name, value in module.state_dict().items()}

    def cut_off() -> None:
        with average.in_place_of_weights():
            assert module.weight.tolist() == [4.0, 4.0]
            assert int(module.norm.num_batches_tracked) == 1  # a count has no average
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cut_off()
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_average_of_weights_that_stay_is_those_weights() -> None:
    module = nn.Linear(3, 3)
    average = WeightAverage(module, 0.9)
    for step in range(1, 20):
        average.update(step)
    torch.testing.assert_close(average.values["weight"], module.weight.detach())
