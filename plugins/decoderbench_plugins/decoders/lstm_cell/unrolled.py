"""The function of `lstm_cell` for all steps in one call of nn.LSTM, where their inputs are known beforehand.

    "at once" = { use = "lstm_unrolled", feedback = "embedding" }

With cell = "mingru" the steps are computed at once too: Feng et al. 2024, "Were RNNs All We Needed?".
"""

from typing import Literal, final

import torch
from torch import Tensor, nn

from decoderbench import InfeasibleError, LabelSpec, Memory, MinGRU, SequenceSpec

from .reader import FEEDBACK_OF_CHARACTERS, RecurrentReader, States


@final
class LSTMUnrolled(RecurrentReader):
    """`lstm_cell` with nn.LSTM: the same function and weights, all steps in one call if their inputs are known."""

    name = "lstm_unrolled"

    class Config(RecurrentReader.Config):
        """Options of `lstm_unrolled`."""

        feedback: Literal["logits", "embedding", "one_hot", "nothing"] = "embedding"
        """As in lstm_cell; logits are infeasible, because each step would depend on the previous one."""

        teacher_forcing: Literal["always", "never", "scheduled"] = "always"
        """As in lstm_cell; if characters are fed back, only always is feasible."""

    def __init__(self, config: Config, memory: SequenceSpec, labels: LabelSpec) -> None:
        forced = config.feedback in FEEDBACK_OF_CHARACTERS and config.teacher_forcing == "always"
        if not forced and config.feedback != "nothing":
            raise InfeasibleError(
                f"lstm_unrolled computes all steps at once, with feedback = {config.feedback!r} and teacher_forcing = "
                f"{config.teacher_forcing!r} a step depends on the previous one; use lstm_cell, or teacher_forcing = "
                f"'always' and feedback = 'embedding' or 'one_hot'"
            )
        super().__init__(config, memory, labels)
        width, hidden, layers = self.input_dim, config.hidden_dim, config.num_layers
        self.recurrent: nn.Module
        if config.cell == "mingru":
            self.recurrent = MinGRU(width, hidden, layers)
        else:
            recurrent = nn.LSTM if config.cell == "lstm" else nn.GRU
            self.recurrent = recurrent(width, hidden, layers, batch_first=True)

    def advance(self, read: Tensor, states: States) -> tuple[Tensor, States]:
        # A layer of several steps stores its state as one tensor (layers, B, N), a state stores one tensor per layer.
        stacked = tuple(map(torch.stack, zip(*states, strict=True)))
        if self.kind == "lstm":
            hidden, after = self.recurrent(read[:, None], stacked)
            return hidden[:, 0], tuple(zip(*after, strict=True))
        hidden, last = self.recurrent(read[:, None], stacked[0])
        return hidden[:, 0], tuple((of_layer,) for of_layer in last)

    def teacher_forced_logits(self, memory: Memory, tokens: Tensor) -> Tensor:
        inputs, feedback = self.image_inputs(memory), self.encode_feedback(tokens)  # (B, 1 or S, W), (B, S, F)
        if self.pool == "frames":
            read = torch.cat([inputs[:, : tokens.shape[1]], feedback], dim=2)
        else:
            read = torch.cat([inputs, feedback[:, 1:]], dim=1)
        hidden, _ = self.recurrent(read)  # (B, S, N)
        logits: Tensor = self.fc_out(hidden)
        return logits  # (B, S, V)
