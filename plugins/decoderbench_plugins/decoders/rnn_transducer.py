"""RNN transducer: frames are read from left to right, and each emits any number of characters, which know one another.

Graves 2012, "Sequence Transduction with Recurrent Neural Networks". A recurrent network predicts from the characters so
far, a joint network scores the blank and the characters from a frame and that prediction, and p(text) is the sum over
all alignments. So it is monotonic, as CTC is, and has a language model of its own, as attention has. The joint network
is that of Graves et al. 2013, "Speech Recognition with Deep Recurrent Neural Networks": tanh of a sum, then linear.

    "transducer" = { use = "rnn_transducer" }
"""

from typing import Literal, final

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from decoderbench import (
    ComponentConfig,
    Decoder,
    Hypotheses,
    InfeasibleError,
    Labels,
    LabelSpec,
    Memory,
    SequenceSpec,
    TransducerSearch,
    hookimpl,
    transducer_alignment,
    transducer_nll,
)

BLANK = 0  # character i of the charset is class i + 1; the prediction network starts from the blank
State = tuple[Tensor, ...]


@final
class RNNTransducer(Decoder):
    """A prediction network over the characters, and a joint network over frames and predictions."""

    name = "rnn_transducer"

    class Config(ComponentConfig):
        """Options of `rnn_transducer`."""

        cell: Literal["lstm", "gru"] = "lstm"
        """Kind of cell of the prediction network."""

        embed_dim: int = Field(default=64, ge=1)
        """Width of the embedding of the previous character."""

        hidden_dim: int = Field(default=256, ge=1)
        """Hidden width of the prediction network."""

        joint_dim: int = Field(default=256, ge=1)
        """Width of the joint network, to which frames and predictions are projected."""

        max_symbols_per_frame: int = Field(default=10, ge=1)
        """The most characters that a transcription emits in one frame."""

    def __init__(self, config: Config, memory: SequenceSpec, labels: LabelSpec) -> None:
        super().__init__(config, memory, labels)
        if not memory.left_to_right:
            raise InfeasibleError(
                "rnn_transducer needs frames in reading order, the frames of this memory do not run from left to "
                "right; use a bridge with one frame per column of the feature map"
            )
        most = memory.length * config.max_symbols_per_frame
        if most < (longest := (labels.frames_needed + 1) // 2):  # at least, if all its characters are the same
            raise InfeasibleError(
                f"rnn_transducer with max_symbols_per_frame = {config.max_symbols_per_frame} writes at most {most} "
                f"characters for a memory with T = {memory.length}, the longest label has at least {longest}; raise "
                f"max_symbols_per_frame, or use an earlier encoder stage, keep_width or a wider image"
            )
        self.max_length, self.max_symbols_per_frame = labels.max_length, config.max_symbols_per_frame
        self.vocabulary_size = len(labels.charset) + 1
        self.embed = nn.Embedding(self.vocabulary_size, config.embed_dim)
        recurrence = nn.LSTM if config.cell == "lstm" else nn.GRU
        self.prediction: nn.LSTM | nn.GRU = recurrence(config.embed_dim, config.hidden_dim, batch_first=True)
        self.of_frame = nn.Linear(memory.dim, config.joint_dim)
        self.of_text = nn.Linear(config.hidden_dim, config.joint_dim, bias=False)
        self.head = nn.Linear(config.joint_dim, self.vocabulary_size)

    def first_character_in(self, weight: str, dimension: int) -> int:
        return BLANK + 1

    def nll(self, memory: Memory | Tensor, labels: Labels) -> Tensor:
        """Return -log p(text | image), (B,), summed over all alignments with the valid frames."""
        memory = Memory.of(memory)
        return transducer_nll(self._project(memory), self._predictions(labels), labels, memory.valid, self.head)

    def alignment(self, memory: Memory | Tensor, labels: Labels) -> Tensor:
        """Return the probability that each character of a text is emitted at each frame, (B, S, T)."""
        memory = Memory.of(memory)
        return transducer_alignment(self._project(memory), self._predictions(labels), labels, memory.valid, self.head)

    def transcribe(self, memory: Memory | Tensor, *, beam_size: int = 1) -> Hypotheses:
        """Search as `TransducerSearch` does, in at most T + `max_length` steps."""
        memory = Memory.of(memory)
        search = TransducerSearch(self._predict, self.head, self.max_length, self.max_symbols_per_frame)
        return search.run(self._project(memory), memory.valid, beam_size)

    def _project(self, memory: Memory) -> Tensor:
        """Return the frames as the joint network reads them, (B, T, J)."""
        frames: Tensor = self.of_frame(torch.where(memory.valid[:, :, None], memory.frames, 0.0))
        return frames

    def _predictions(self, labels: Labels) -> Tensor:
        """Return the predictions before each character and after the last one, (B, U + 1, J)."""
        classes = torch.where(labels.mask(), labels.ids + 1, BLANK)[:, : labels.longest]
        hidden, _ = self.prediction(self.embed(F.pad(classes, (1, 0), value=BLANK)))
        predictions: Tensor = self.of_text(hidden)
        return predictions

    def _predict(self, last: Tensor, state: State | None) -> tuple[Tensor, State]:
        """Read the last character as a class (N,); return the next prediction (N, J), and the state (N, hidden_dim)."""
        parts = None if state is None else tuple(part[None] for part in state)
        is_lstm = isinstance(self.prediction, nn.LSTM)
        given = parts if parts is None or is_lstm else parts[0]
        hidden, new = self.prediction(self.embed(last)[:, None], given)
        return self.of_text(hidden[:, 0]), tuple(part[0] for part in (new if is_lstm else (new,)))


@hookimpl
def register_decoders() -> list[type[RNNTransducer]]:
    """Register the decoder of this file."""
    return [RNNTransducer]
