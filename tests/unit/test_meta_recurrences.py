"""RecurrencesAtOnce: shapes and MACs are those that PyTorch gets step by step; what does not fit fails as it does."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from decoderbench.model.meta_recurrences import RecurrencesAtOnce

LAYERS: dict[str, Callable[[], nn.Module]] = {
    "LSTM": lambda: nn.LSTM(4, 5),
    "LSTM, two layers, both directions": lambda: nn.LSTM(4, 5, 2, bidirectional=True, batch_first=True, dropout=0.5),
    "LSTM, projected, without bias": lambda: nn.LSTM(4, 5, 2, proj_size=3, bias=False),
    "GRU, both directions": lambda: nn.GRU(4, 5, bidirectional=True),
    "RNN": lambda: nn.RNN(4, 5),
    "RNN, relu": lambda: nn.RNN(4, 5, nonlinearity="relu"),
}
CELLS: dict[str, Callable[[], nn.Module]] = {
    "LSTMCell": lambda: nn.LSTMCell(4, 5),
    "GRUCell, without bias": lambda: nn.GRUCell(4, 5, bias=False),
    "RNNCell": lambda: nn.RNNCell(4, 5),
    "RNNCell, relu": lambda: nn.RNNCell(4, 5, nonlinearity="relu"),
}


def shapes_of(result: Any) -> Any:
    return tuple(result.shape) if isinstance(result, Tensor) else tuple(map(shapes_of, result))


def run(module: nn.Module, *inputs: Any) -> tuple[Any, float]:
    """Return the shapes of the outputs and the MACs, computed step by step."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        return shapes_of(module(*inputs)), counter.get_total_flops() / 2


def run_at_once(module: nn.Module, *inputs: Any) -> tuple[Any, float, int]:
    """Return the same, and the MACs that PyTorch was left to do."""
    with torch.no_grad(), RecurrencesAtOnce() as recurrences, FlopCounterMode(display=False) as counter:
        return shapes_of(module(*inputs)), recurrences.macs, counter.get_total_flops() // 2


@pytest.mark.parametrize("build", [*LAYERS.values(), *CELLS.values()], ids=[*LAYERS, *CELLS])
def test_shapes_and_macs_are_those_of_all_steps(build: Callable[[], nn.Module]) -> None:
    with torch.device("meta"):
        module = build()
        source = torch.empty(3, 4) if isinstance(module, nn.RNNCellBase) else torch.empty(3, 7, 4)
    shapes, macs = run(module, source)
    assert macs > 0
    assert run_at_once(module, source) == (shapes, macs, 0)


def test_states_that_are_given_are_read() -> None:
    with torch.device("meta"):
        layer, cell = nn.LSTM(4, 5), nn.LSTMCell(4, 5)
        states, source = (torch.empty(1, 3, 5), torch.empty(1, 3, 5)), torch.empty(7, 3, 4)
    assert run_at_once(layer, source, states) == (*run(layer, source, states), 0)
    of_cell = tuple(state[0] for state in states)
    assert run_at_once(cell, source[0], of_cell) == (*run(cell, source[0], of_cell), 0)


def test_packed_sequences_and_values_are_left_to_pytorch() -> None:
    layer = nn.LSTM(4, 5, batch_first=True)
    source = torch.rand(2, 6, 4)
    packed = nn.utils.rnn.pack_padded_sequence(source, torch.tensor([6, 3]), batch_first=True)
    for given in (source, packed):
        with torch.no_grad(), RecurrencesAtOnce() as recurrences:
            outputs, _ = layer(given)
        expected, _ = layer(given)
        assert torch.equal(getattr(outputs, "data", outputs), getattr(expected, "data", expected))
        assert recurrences.macs == 0


def test_cell_refuses_inputs_of_another_width_as_pytorch_does() -> None:
    with torch.device("meta"):
        cell, source = nn.LSTMCell(4, 5), torch.empty(3, 9)
    with RecurrencesAtOnce(), pytest.raises(RuntimeError, match="inconsistent input_size"):
        cell(source)
