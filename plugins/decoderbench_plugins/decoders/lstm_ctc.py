"""LSTM + CTC: a bidirectional nn.LSTM over the frames and one linear layer, trained with CTC.

Shi et al. 2015, "An End-to-End Trainable Neural Network for Image-based Sequence Recognition" (CRNN).

Inner layers may be trained with CTC too, through the linear layer of the last one (Lee and Watanabe 2021,
"Intermediate Loss Regularization for CTC-based Speech Recognition"), and what they read be added to the input of the
next layer (Nozaki and Komatsu 2021, "Relaxing the Conditional Independence Assumption of CTC-based ASR by Conditioning
on Intermediate Predictions"). One linear layer projects the probabilities back, as in the paper, for all layers:

    "self-conditioned" = { use = "lstm_ctc", num_layers = 3, intermediate_weight = 0.5, self_conditioned = true }

A shortcut trains the frames with CTC past the LSTM, which helps it to find where characters are (Retsinas et al. 2022,
"Best Practices for a Handwritten Text Recognition System"):

    "with a shortcut" = { use = "lstm_ctc", shortcut_weight = 0.1 }
"""

from typing import final

import torch
from pydantic import Field
from torch import Tensor, nn

from decoderbench import (
    ComponentConfig,
    CTCDecoder,
    InfeasibleError,
    Labels,
    LabelSpec,
    Memory,
    SequenceSpec,
    focal_loss,
    hookimpl,
)


@final
class LSTMCTC(CTCDecoder):
    """nn.LSTM over the memory, and a linear layer that scores the blank and the charset."""

    name = "lstm_ctc"
    exports = True

    class Config(ComponentConfig):
        """Options of `lstm_ctc`."""

        hidden_dim: int = Field(default=256, ge=1)
        """Hidden width per direction."""

        num_layers: int = Field(default=1, ge=1)
        """Number of stacked LSTM layers."""

        bidirectional: bool = True
        """Whether another LSTM reads from right to left."""

        focal: float = Field(default=0.0, ge=0)
        """Training weighs each text by (1 - p)^focal, p its probability; 0 weighs all alike, PaddleOCR uses 2."""

        intermediate_weight: float = Field(default=0.0, ge=0, lt=1)
        """Weight of the mean CTC loss of the layers below the last one; that of the last one has the rest."""

        self_conditioned: bool = False
        """Whether a projection of the probabilities after each inner layer is added to the input of the next one."""

        shortcut_weight: float = Field(default=0.0, ge=0)
        """Weight of a further CTC loss, added to that of the LSTM: of a convolution of width 3 over the frames, which
        reading does not use. The paper uses 0.1; 0 trains without."""

    def __init__(self, config: Config, memory: SequenceSpec, labels: LabelSpec) -> None:
        super().__init__(config, memory, labels)
        _refuse_infeasible(config)
        self.focal, self.intermediate_weight = config.focal, config.intermediate_weight
        self.shortcut_weight = config.shortcut_weight
        width = config.hidden_dim * (1 + config.bidirectional)
        # nn.LSTM hides the outputs of its inner layers, so where they are needed each upper layer is one of its own.
        upper = config.num_layers - 1 if config.intermediate_weight else 0

        def build(input_dim: int, num_layers: int) -> nn.LSTM:
            return nn.LSTM(
                input_dim, config.hidden_dim, num_layers, batch_first=True, bidirectional=config.bidirectional
            )

        self.lstm = build(memory.dim, config.num_layers - upper)
        self.upper = nn.ModuleList(build(width, 1) for _ in range(upper))
        self.head = nn.Linear(width, self.vocabulary_size)
        self.feedback = nn.Linear(self.vocabulary_size, width) if config.self_conditioned else None
        self.shortcut = (
            nn.Conv1d(memory.dim, self.vocabulary_size, kernel_size=3, padding=1) if config.shortcut_weight else None
        )

    def forward(self, memory: Tensor) -> Tensor:
        logits: Tensor = self.head(self.outputs(memory)[-1])
        return logits  # (B, T, V)

    def outputs(self, memory: Tensor) -> list[Tensor]:
        """Return the outputs (B, T, N) of the layers that are trained with CTC, the last one last."""
        hidden, _ = self.lstm(memory)
        outputs = [hidden]
        for layer in self.upper:
            if self.feedback is not None:
                hidden = hidden + self.feedback(self.head(hidden).softmax(dim=-1))
            hidden, _ = layer(hidden)
            outputs.append(hidden)
        return outputs

    def loss(self, memory: Memory | Tensor, labels: Labels) -> Tensor:
        frames = Memory.of(memory).frames
        *inner, last = [self._loss_of(self.head(output), labels) for output in self.outputs(frames)]
        loss = last
        if inner:
            loss = (1 - self.intermediate_weight) * last + self.intermediate_weight * torch.stack(inner).mean(dim=0)
        if self.shortcut is not None:
            logits = self.shortcut(frames.transpose(1, 2)).transpose(1, 2)  # (B, T, V)
            loss = loss + self.shortcut_weight * self._loss_of(logits, labels)
        return loss

    def _loss_of(self, logits: Tensor, labels: Labels) -> Tensor:
        return focal_loss(self.nll_of(logits.float().log_softmax(dim=-1), labels), self.focal)

    def training_only(self) -> list[nn.Module]:
        return [] if self.shortcut is None else [self.shortcut]


def _refuse_infeasible(config: LSTMCTC.Config) -> None:
    """Raise `InfeasibleError` for losses of layers that do not exist or are not trained."""
    if config.intermediate_weight and config.num_layers == 1:
        raise InfeasibleError(
            f"lstm_ctc with intermediate_weight = {config.intermediate_weight:g} needs layers below the last one, it "
            f"has num_layers = 1; raise num_layers"
        )
    if config.self_conditioned and not config.intermediate_weight:
        raise InfeasibleError(
            "lstm_ctc with self_conditioned = true reads the probabilities of inner layers, which are not trained with "
            "intermediate_weight = 0; set it, to 0.5 for example, and num_layers to 2 or more"
        )


@hookimpl
def register_decoders() -> list[type[LSTMCTC]]:
    """Register the decoder of this file."""
    return [LSTMCTC]
