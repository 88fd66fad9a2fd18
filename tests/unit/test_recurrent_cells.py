"""Recurrent cells: torch's weights and steps behind one interface, minGRU, and the recurrence in logarithmic rounds."""

import pytest
import torch
from torch import Tensor, nn

from decoderbench import MinGRU, RecurrentKind, linear_recurrence, recurrent_cell

DECAYS = {"small": 1e-3, "middle": 0.5, "one": 1.0, "zero": 0.0}


@pytest.mark.parametrize(("kind", "reference"), [("lstm", nn.LSTMCell), ("gru", nn.GRUCell)])
def test_lstm_and_gru_are_those_of_torch_with_the_same_seed(kind: RecurrentKind, reference: type[nn.Module]) -> None:
    torch.manual_seed(0)
    cell = recurrent_cell(kind, 3, 5)
    torch.manual_seed(0)
    expected = reference(3, 5)
    read = torch.randn(2, 3)
    state, after = cell.initial_state(read, 2), None
    for _ in range(3):
        hidden, state = cell(read, state)
        after = expected(read, after)
        same = after if isinstance(after, tuple) else (after,)
        assert len(state) == len(same)
        assert torch.equal(hidden, state[0])
        assert all(torch.equal(one, other) for one, other in zip(state, same, strict=True))


@pytest.mark.parametrize(("kind", "weights"), [("lstm", 4 * 5 * 10), ("gru", 3 * 5 * 10), ("mingru", 2 * 5 * 4)])
def test_number_of_parameters_is_that_of_the_gates(kind: RecurrentKind, weights: int) -> None:
    """nn.LSTMCell and nn.GRUCell have two biases per gate, a minGRU one, and no weights of the hidden state."""
    assert sum(parameter.numel() for parameter in recurrent_cell(kind, 3, 5).parameters()) == weights


def test_mingru_matches_formula() -> None:
    cell, read, before = recurrent_cell("mingru", 3, 5), torch.randn(2, 3), torch.randn(2, 5)
    weights = dict(cell.named_parameters())
    z = torch.sigmoid(read @ weights["gate.weight"].T + weights["gate.bias"])
    candidate = read @ weights["candidate.weight"].T + weights["candidate.bias"]
    hidden, state = cell(read, (before,))
    torch.testing.assert_close(hidden, (1 - z) * before + z * candidate)
    assert torch.equal(state[0], hidden)


@pytest.mark.parametrize("steps", [1, 2, 7, 8])
def test_mingru_of_all_steps_equals_its_cells_step_by_step(steps: int) -> None:
    layers, read = MinGRU(3, 5, num_layers=2), torch.randn(2, steps, 3)
    before = torch.randn(2, 2, 5)
    for given in (None, before):
        states: list[tuple[Tensor, ...]] = [(row,) for row in (before if given is not None else torch.zeros(2, 2, 5))]
        expected = []
        for step in read.unbind(dim=1):
            hidden = step
            for number, cell in enumerate(layers.layers):
                hidden, states[number] = cell(hidden, states[number])
            expected.append(hidden)
        hidden_of_all, last = layers(read, given)
        torch.testing.assert_close(hidden_of_all, torch.stack(expected, dim=1))
        torch.testing.assert_close(last, torch.stack([state[0] for state in states]))


@pytest.mark.parametrize("length", [1, 2, 3, 8, 13])
@pytest.mark.parametrize("shape", [(), (4,)])
def test_linear_recurrence_equals_its_loop(length: int, shape: tuple[int, ...]) -> None:
    decay, increment = torch.rand(2, length, *shape), torch.randn(2, length, *shape)
    expected, state = [], torch.zeros(2, *shape)
    for step in range(length):
        state = decay[:, step] * state + increment[:, step]
        expected.append(state)
    torch.testing.assert_close(linear_recurrence(decay, increment), torch.stack(expected, dim=1))


@pytest.mark.parametrize("decay", DECAYS.values(), ids=DECAYS)
def test_linear_recurrence_stays_exact_where_the_product_of_decays_underflows(decay: float) -> None:
    """The last state of 200 equal steps is a geometric sum; decay ** 200 is below the smallest float32 for 0.001."""
    steps = torch.full((1, 200), decay).requires_grad_()
    last = linear_recurrence(steps, torch.ones(1, 200))[0, -1]
    assert last.item() == pytest.approx(sum(decay**age for age in range(200)), rel=1e-6)
    torch.autograd.backward(last)
    assert steps.grad is not None
    assert steps.grad.isfinite().all()
