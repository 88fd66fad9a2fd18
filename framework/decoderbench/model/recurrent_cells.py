"""Recurrent cells behind one interface, and a first-order linear recurrence over all positions at once.

    lstm    Hochreiter and Schmidhuber 1997, "Long Short-Term Memory", with a forget gate
    gru     Cho et al. 2014, "Learning Phrase Representations using RNN Encoder-Decoder"
    mingru  Feng et al. 2024, "Were RNNs All We Needed?": z = sigmoid(W x), h = (1 - z) h' + z V x

The first two are nn.LSTMCell and nn.GRUCell with their initial weights. The gate of a minGRU does not read h', so all
steps can be computed at once if their inputs are known. Its candidate is V x without an activation, as in the paper's
first version; its second adds one only to keep the states positive, which `linear_recurrence` does not need.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

RecurrentKind = Literal["lstm", "gru", "mingru"]
"""The kinds of cells that `recurrent_cell` builds."""

RecurrentState = tuple[Tensor, ...]
"""The state of a cell, its hidden state (B, N) first; that of an LSTM has its memory too."""


class RecurrentCell(nn.Module, ABC):
    """One step of a recurrent layer; its state is a tuple of tensors (B, N), the hidden state first."""

    state_size: ClassVar[int] = 1

    def __init__(self, hidden_dim: int) -> None:
        super().__init__()
        self.hidden_dim = hidden_dim

    def initial_state(self, like: Tensor, batch: int) -> RecurrentState:
        """Return zeros (B, N), with the device and number format of `like`."""
        return (like.new_zeros(batch, self.hidden_dim),) * self.state_size

    @abstractmethod
    def forward(self, read: Tensor, state: RecurrentState) -> tuple[Tensor, RecurrentState]:
        """Read (B, W); return the hidden state (B, N) and the next state."""


class _LSTM(RecurrentCell):
    state_size = 2

    def __init__(self, input_dim: int, hidden_dim: int) -> None:
        super().__init__(hidden_dim)
        self.cell = nn.LSTMCell(input_dim, hidden_dim)

    def forward(self, read: Tensor, state: RecurrentState) -> tuple[Tensor, RecurrentState]:
        hidden, cell = self.cell(read, state)
        return hidden, (hidden, cell)


class _GRU(RecurrentCell):
    def __init__(self, input_dim: int, hidden_dim: int) -> None:
        super().__init__(hidden_dim)
        self.cell = nn.GRUCell(input_dim, hidden_dim)

    def forward(self, read: Tensor, state: RecurrentState) -> tuple[Tensor, RecurrentState]:
        hidden = self.cell(read, state[0])
        return hidden, (hidden,)


class _MinGRU(RecurrentCell):
    def __init__(self, input_dim: int, hidden_dim: int) -> None:
        super().__init__(hidden_dim)
        self.gate = nn.Linear(input_dim, hidden_dim)
        self.candidate = nn.Linear(input_dim, hidden_dim)

    def forward(self, read: Tensor, state: RecurrentState) -> tuple[Tensor, RecurrentState]:
        hidden = torch.lerp(state[0], self.candidate(read), self.gate(read).sigmoid())
        return hidden, (hidden,)


class MinGRU(nn.Module):
    """Stacked minGRUs that compute all steps at once, called like nn.GRU with batch_first."""

    def __init__(self, input_dim: int, hidden_dim: int, num_layers: int = 1) -> None:
        super().__init__()
        widths = [input_dim] + [hidden_dim] * (num_layers - 1)
        self.layers = nn.ModuleList(_MinGRU(width, hidden_dim) for width in widths)

    def forward(self, read: Tensor, states: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the hidden states of the top layer (B, S, N), and the last ones of all layers (layers, B, N).

        Args:
            read: (B, S, W), the inputs.
            states: (layers, B, N), the hidden states before the first step; zeros if not given.
        """
        last = []
        for number, layer in enumerate(self.layers):
            assert isinstance(layer, _MinGRU)
            gate = layer.gate(read).sigmoid()
            decay, increment = 1 - gate, gate * layer.candidate(read)
            if states is not None:
                first = increment[:, :1] + decay[:, :1] * states[number][:, None]
                increment = torch.cat([first, increment[:, 1:]], dim=1)
            read = linear_recurrence(decay, increment)
            last.append(read[:, -1])
        return read, torch.stack(last)


def recurrent_cell(kind: RecurrentKind, input_dim: int, hidden_dim: int) -> RecurrentCell:
    """Return a cell with torch's initial weights: it reads (B, input_dim), its hidden state is (B, hidden_dim)."""
    kinds: dict[RecurrentKind, Callable[[int, int], RecurrentCell]] = {"lstm": _LSTM, "gru": _GRU, "mingru": _MinGRU}
    return kinds[kind](input_dim, hidden_dim)


def linear_recurrence(decay: Tensor, increment: Tensor) -> Tensor:
    """Return h_t = decay_t h_{t-1} + increment_t for all t, from h_{-1} = 0; all are (B, T, ...).

    Hillis and Steele 1986, "Data Parallel Algorithms": log2(T) rounds, in which each position takes in what as many
    positions before it hold as it covers itself. Nothing is divided, so it is as exact as the loop wherever decay is in
    0..1. Forms that divide by the cumulative product of decay lose everything where that product underflows.
    """
    reach = 1
    while reach < increment.shape[1]:
        carried = decay[:, reach:] * increment[:, :-reach]
        increment = torch.cat([increment[:, :reach], increment[:, reach:] + carried], dim=1)
        decay = torch.cat([decay[:, :reach], decay[:, reach:] * decay[:, :-reach]], dim=1)
        reach *= 2
    return increment
