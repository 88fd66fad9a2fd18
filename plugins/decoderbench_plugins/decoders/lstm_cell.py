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

from abc import abstractmethod
from typing import Any, Literal, final

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from decoderbench import (
    AutoregressiveDecoder,
    ComponentConfig,
    InfeasibleError,
    Labels,
    LabelSpec,
    Memory,
    SequenceSpec,
    hookimpl,
)

# The inputs from the image that are still unread (B, K, W), the last logits (B, V), and the state of each layer's cell:
# (B, N), or a pair of these for an LSTM.
State = tuple[Tensor, Tensor, tuple[Any, ...]]

FEEDBACK_OF_CHARACTERS = ("embedding", "one_hot")


class RecurrentReader(AutoregressiveDecoder):
    """The common part of both decoders: how they read the image, what is fed back, and which options go together.

    The inputs from the image are a queue: each step reads its head. The queue holds one vector, or one span per step.
    The shape of a state therefore distinguishes the first step from the others.
    """

    class Config(ComponentConfig):
        """Options of both decoders."""

        hidden_dim: int = Field(default=256, ge=1)
        """Hidden width of the cell."""

        num_layers: int = Field(default=1, ge=1)
        """Number of stacked cells; each reads the hidden state of the cell below."""

        cell: Literal["lstm", "gru"] = "lstm"
        """Kind of cell."""

        pool: Literal["mean", "flatten", "frames"] = "mean"
        """How the frames are read. mean, flatten: as one vector at the first step, the mean or the concatenation of
        all frames. frames: in max_length + 1 equal spans from left to right; each step reads the mean of its own span
        and the feedback."""

        input_projection: Literal["linear", "none"] = "linear"
        """linear: a layer (fc_in) projects the vector to the width of the feedback. none: the cell reads the vector."""

        feedback: Literal["logits", "embedding", "one_hot", "nothing"] = "logits"
        """Input of the cell after the first step: its previous logits, the previous character as an embedding or
        one-hot, or zeros."""

        embed_dim: int = Field(default=64, ge=1)
        """Width of the embedding. Ignored if a single vector is read without projection: the embedding is then as
        wide as the vector, because the same inputs of the cell read both."""

        teacher_forcing: Literal["always", "never", "scheduled"] = "never"
        """Which previous character is fed back. always: the true one. never: the most probable one according to the
        decoder, in training and in evaluation. scheduled: in training, the true one less and less often. Default:
        always if characters are fed back, else never."""

        @model_validator(mode="before")
        @classmethod
        def _resolve_teacher_forcing(cls, given: Any) -> Any:
            """Fill in the default, so that recorded options state which one was used."""
            if not isinstance(given, dict) or "teacher_forcing" in given:
                return given
            feedback = given.get("feedback", cls.model_fields["feedback"].default)
            return {**given, "teacher_forcing": "always" if feedback in FEEDBACK_OF_CHARACTERS else "never"}

    def __init__(self, config: Config, memory: SequenceSpec, labels: LabelSpec) -> None:
        super().__init__(config, memory, labels)
        self._refuse_infeasible(config, memory, labels)
        self.pool, self.feedback, self.is_lstm = config.pool, config.feedback, config.cell == "lstm"
        self.free_running = config.feedback in FEEDBACK_OF_CHARACTERS and config.teacher_forcing == "never"
        self.num_layers, self.hidden_dim = config.num_layers, config.hidden_dim
        vector_dim, projected = _vector_dim(config, memory), config.input_projection == "linear"
        widths = {"embedding": config.embed_dim, "one_hot": self.num_tokens}
        feedback_dim = widths.get(config.feedback, self.vocabulary_size)
        if config.pool != "frames" and not projected and config.feedback in ("embedding", "nothing"):
            feedback_dim = vector_dim  # the same inputs of the cell read both
        self.fc_in = nn.Linear(vector_dim, feedback_dim) if projected else nn.Identity()
        self.embed = nn.Embedding(self.num_tokens, feedback_dim) if config.feedback == "embedding" else None
        self.fc_out = nn.Linear(config.hidden_dim, self.vocabulary_size)
        # Next to a span, zeros would carry no information, so this feedback has width 0.
        self.feedback_dim = 0 if config.pool == "frames" and config.feedback == "nothing" else feedback_dim
        image_dim = feedback_dim if projected else vector_dim
        self.input_dim = image_dim + self.feedback_dim if config.pool == "frames" else feedback_dim

    def _refuse_infeasible(self, config: Config, memory: SequenceSpec, labels: LabelSpec) -> None:
        """Raise `InfeasibleError` for contradictory options, or frames that cannot be divided among the steps."""
        steps, vector_dim = labels.max_length + 1, _vector_dim(config, memory)
        if config.feedback not in FEEDBACK_OF_CHARACTERS and config.teacher_forcing != "never":
            raise InfeasibleError(
                f"{self.name} feeds back {config.feedback}, so there is no character for teacher_forcing = "
                f"{config.teacher_forcing!r} to force; remove it, or use feedback = 'embedding' or 'one_hot'"
            )
        if config.pool == "frames" and not memory.left_to_right:
            raise InfeasibleError(
                f"{self.name} with pool = 'frames' needs frames in reading order, the frames of this memory do not run "
                f"from left to right; use mean_height or stack_height, or pool = 'mean' or 'flatten'"
            )
        if config.pool == "frames" and memory.length < steps:
            raise InfeasibleError(
                f"{self.name} with pool = 'frames' needs T >= {steps} (the longest label and its end), this memory has "
                f"T = {memory.length}; use an earlier encoder stage, keep_width or a wider image"
            )
        feedback_dim = {"logits": len(labels.charset) + 1, "one_hot": len(labels.charset) + 2}.get(config.feedback)
        shared = config.pool != "frames" and config.input_projection == "none"
        if shared and feedback_dim not in (None, vector_dim):
            raise InfeasibleError(
                f"{self.name} with input_projection = 'none' reads the vector of the image and its {config.feedback} "
                f"with the same inputs, the vector is {vector_dim} wide and the {config.feedback} {feedback_dim}; "
                f"use input_projection = 'linear', feedback = 'embedding', or a bridge that makes the widths equal"
            )

    @abstractmethod
    def advance(self, read: Tensor, states: tuple[Any, ...]) -> tuple[Tensor, tuple[Any, ...]]:
        """Read (B, input_dim); return the hidden state of the top layer (B, N), and the next state of each layer."""

    def initial_state(self, memory: Tensor) -> State:
        no_logits = memory.new_zeros(len(memory), self.vocabulary_size)
        zeros = memory.new_zeros(len(memory), self.hidden_dim)
        return self.image_inputs(memory), no_logits, ((zeros, zeros) if self.is_lstm else zeros,) * self.num_layers

    def step(self, token: Tensor, state: State, memory: Tensor) -> tuple[Tensor, State]:
        unread, logits, states = state
        if self.feedback == "logits":
            feedback = logits
        elif self.free_running:  # argmax has no gradient; the start token is never predicted and marks the first step
            feedback = self.encode_feedback(torch.where(token == self.start, token, logits.argmax(dim=-1)))
        else:
            feedback = self.encode_feedback(token)
        read = unread[:, 0] if unread.shape[1] else feedback
        if self.pool == "frames":
            read = torch.cat([read, feedback], dim=1)
        hidden, states = self.advance(read, states)  # (B, N)
        logits = self.fc_out(hidden)  # (B, V)
        return logits, (unread[:, 1:], logits, states)

    def image_inputs(self, memory: Tensor) -> Tensor:
        """Return the inputs from the image: (B, 1, W) for the first step only, or (B, S, W), one per step."""
        if self.pool == "frames":
            vectors = average_spans(memory, self.max_length + 1)
        else:
            vectors = (memory.mean(dim=1) if self.pool == "mean" else memory.flatten(1))[:, None]
        inputs: Tensor = self.fc_in(vectors)
        return inputs

    def alignment(self, memory: Memory | Tensor, labels: Labels) -> Tensor | None:
        """Return the spans of the characters, (B, S, T), if each step reads one; None for a single vector."""
        if self.pool != "frames":
            return None
        frames = Memory.of(memory).frames
        weights = span_weights(frames, self.max_length + 1)[: labels.longest]
        return weights.expand(len(frames), -1, -1)

    def encode_feedback(self, tokens: Tensor) -> Tensor:
        """Return the feedback (..., F) for tokens (...) int64: their embedding, one-hot, or zeros."""
        if self.embed is not None:
            embedded: Tensor = self.embed(tokens)
            return embedded
        if self.feedback == "one_hot":
            return F.one_hot(tokens, self.num_tokens).to(self.fc_out.weight.dtype)
        return self.fc_out.weight.new_zeros(*tokens.shape, self.feedback_dim)


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
        cell = nn.LSTMCell if self.is_lstm else nn.GRUCell
        widths = [self.input_dim] + [config.hidden_dim] * (config.num_layers - 1)
        self.cells = nn.ModuleList(cell(width, config.hidden_dim) for width in widths)
        self.final_ratio, self.schedule_steps = config.teacher_forcing_ratio, config.teacher_forcing_steps
        self.scheduled = config.teacher_forcing == "scheduled"
        if self.scheduled:
            self.register_buffer("steps_trained", torch.zeros((), dtype=torch.int64))

    def advance(self, read: Tensor, states: tuple[Any, ...]) -> tuple[Tensor, tuple[Any, ...]]:
        after = []
        for cell, state in zip(self.cells, states, strict=True):
            after.append(cell(read, state))
            read = after[-1][0] if self.is_lstm else after[-1]
        return read, tuple(after)

    def teacher_forced_logits(self, memory: Tensor, tokens: Tensor) -> Tensor:
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
        recurrent = nn.LSTM if self.is_lstm else nn.GRU
        self.recurrent = recurrent(self.input_dim, config.hidden_dim, config.num_layers, batch_first=True)

    def advance(self, read: Tensor, states: tuple[Any, ...]) -> tuple[Tensor, tuple[Any, ...]]:
        # nn.LSTM stores the layers in one tensor (layers, B, N), a state stores one tensor per layer.
        if self.is_lstm:
            hidden, after = self.recurrent(read[:, None], tuple(map(torch.stack, zip(*states, strict=True))))
            return hidden[:, 0], tuple(zip(*after, strict=True))
        hidden, after = self.recurrent(read[:, None], torch.stack(states))
        return hidden[:, 0], tuple(after)

    def teacher_forced_logits(self, memory: Tensor, tokens: Tensor) -> Tensor:
        inputs, feedback = self.image_inputs(memory), self.encode_feedback(tokens)  # (B, 1 or S, W), (B, S, F)
        if self.pool == "frames":
            read = torch.cat([inputs[:, : tokens.shape[1]], feedback], dim=2)
        else:
            read = torch.cat([inputs, feedback[:, 1:]], dim=1)
        hidden, _ = self.recurrent(read)  # (B, S, N)
        logits: Tensor = self.fc_out(hidden)
        return logits  # (B, S, V)


def _vector_dim(config: RecurrentReader.Config, memory: SequenceSpec) -> int:
    return memory.dim * (memory.length if config.pool == "flatten" else 1)


def average_spans(memory: Tensor, steps: int) -> Tensor:
    """Return the means (B, S, D) of `steps` equal spans of a memory (B, T, D).

    Computed as a matrix product, because adaptive pooling adds gradients in no fixed order on CUDA.
    """
    return span_weights(memory, steps) @ memory


def span_weights(memory: Tensor, steps: int) -> Tensor:
    """Return the weight of each frame in each of `steps` equal spans of a memory (B, T, D), (S, T).

    A frame on the border of two spans contributes to each in proportion to the overlap.
    """
    frames = memory.shape[1]
    # In units of 1 / (T * S) of the memory, a frame covers S units and a span T units, so all overlaps are integers.
    frame = torch.arange(frames, device=memory.device) * steps  # (T,)
    span = torch.arange(steps, device=memory.device)[:, None] * frames  # (S, 1)
    overlap = torch.minimum(span + frames, frame + steps) - torch.maximum(span, frame)
    return (overlap.clamp(min=0) / frames).to(memory.dtype)


@hookimpl
def register_decoders() -> list[type[RecurrentReader]]:
    """Register the decoders of this file."""
    return [LSTMCellLoop, LSTMUnrolled]
