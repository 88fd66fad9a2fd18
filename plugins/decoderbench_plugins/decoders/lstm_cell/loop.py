"""The LSTMCell loop of a public question, with an option for every claim about it; and the same function by nn.LSTM.

A recurrent cell starts from zeros. It reads the image as one vector at the first step, or as one span of frames per
step, and feedback at the later steps. `lstm_cell` loops over the steps. `lstm_unrolled` calls nn.LSTM once for all
steps, which is the same function if the inputs of all steps are known beforehand.

The module of the question: fc_in projects the vector of the image to the width of the vocabulary, and later steps read
the logits of the previous step. These are the defaults:

    "as asked" = { use = "lstm_cell", pool = "mean", input_projection = "linear", feedback = "logits" }

The module of the answer, which considers fc_in unnecessary. Logits are still fed back, so the vector must be as wide as
the vocabulary (11 for ten digits and the end of a text), for example by `projection_dim` of a bridge. That module
returns its hidden states stacked along the batch, which is another output format, not another function:

    "as answered" = { use = "lstm_cell", input_projection = "none" }
"""

from typing import final

import torch
from pydantic import Field
from torch import Tensor, nn

from decoderbench import LabelSpec, Memory, SequenceSpec, recurrent_cell

from .reader import RecurrentReader, States


@final
class LSTMCellLoop(RecurrentReader):
    """fc_in, an LSTMCell that reads its own logits, fc_out; options replace each of them."""

    name = "lstm_cell"
    steps_trained: Tensor

    class Config(RecurrentReader.Config):
        """Options of `lstm_cell`."""

        teacher_forcing_ratio: float = Field(default=0.5, ge=0, le=1)
        """If teacher_forcing is scheduled: the fraction of true characters at the end of the schedule."""

        teacher_forcing_steps: int = Field(default=1000, ge=1)
        """If teacher_forcing is scheduled: training steps over which that fraction falls linearly from 1."""

    def __init__(self, config: Config, memory: SequenceSpec, labels: LabelSpec) -> None:
        super().__init__(config, memory, labels)
        widths = [self.input_dim] + [config.hidden_dim] * (config.num_layers - 1)
        self.cells = nn.ModuleList(recurrent_cell(config.cell, width, config.hidden_dim) for width in widths)
        self.final_ratio, self.schedule_steps = config.teacher_forcing_ratio, config.teacher_forcing_steps
        self.scheduled = config.teacher_forcing == "scheduled"
        if self.scheduled:
            self.register_buffer("steps_trained", torch.zeros((), dtype=torch.int64))

    def advance(self, read: Tensor, states: States) -> tuple[Tensor, States]:
        after = []
        for cell, state in zip(self.cells, states, strict=True):
            read, state_after = cell(read, state)
            after.append(state_after)
        return read, tuple(after)

    def teacher_forced_logits(self, memory: Memory, tokens: Tensor) -> Tensor:
        """Add scheduled sampling: in training, some true characters are replaced by the decoder's predictions.

        Bengio et al. 2015, "Scheduled Sampling for Sequence Prediction with Recurrent Neural Networks": one draw per
        character. In eval mode all characters are true, so `nll` is -log p by the chain rule.
        """
        if not (self.scheduled and self.training):
            return super().teacher_forced_logits(memory, tokens)
        # The count stays on the device, so that no step synchronizes it.
        fraction_true = 1 - (1 - self.final_ratio) * (self.steps_trained / self.schedule_steps).clamp(max=1)
        self.steps_trained += 1
        true = torch.rand(tokens.shape, device=tokens.device) < fraction_true  # (B, S)
        state, logits = self.initial_state(memory), list[Tensor]()
        for token, is_true in zip(tokens.unbind(dim=1), true.unbind(dim=1), strict=True):
            fed = torch.where(is_true, token, logits[-1].argmax(dim=-1)) if logits else token
            step_logits, state = self.step(fed, state, memory)
            logits.append(step_logits)
        return torch.stack(logits, dim=1)
