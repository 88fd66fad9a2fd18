"""What both decoders share: how they read the image, what is fed back, and which options go together."""

from abc import abstractmethod
from typing import Any, Literal

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
    RecurrentKind,
    RecurrentState,
    SequenceSpec,
)

from .spans import average_spans, span_weights

States = tuple[RecurrentState, ...]
# The inputs from the image that are still unread (B, K, W), the last logits (B, V), and the state of each layer's cell.
State = tuple[Tensor, Tensor, States]

FEEDBACK_OF_CHARACTERS = ("embedding", "one_hot")


class RecurrentReader(AutoregressiveDecoder):
    """The common part of both decoders: how they read the image, what is fed back, and which options go together.

    The inputs from the image are a queue: each step reads its head. The queue holds one vector, or one span per step.
    The shape of a state therefore distinguishes the first step from the others.
    """

    takes_memory = True

    class Config(ComponentConfig):
        """Options of both decoders."""

        hidden_dim: int = Field(default=256, ge=1)
        """Hidden width of the cell."""

        num_layers: int = Field(default=1, ge=1)
        """Number of stacked cells; each reads the hidden state of the cell below."""

        cell: RecurrentKind = "lstm"
        """Kind of cell. The gate of a minGRU reads the inputs of a step only, not the state."""

        pool: Literal["mean", "flatten", "frames"] = "mean"
        """How the frames are read. mean, flatten: as one vector at the first step, the mean of the valid frames or the
        concatenation of all frames, those that show padding too. frames: the valid frames in max_length + 1 equal spans
        from left to right; each step reads the mean of its own span and the feedback."""

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
        self.pool, self.feedback, self.kind = config.pool, config.feedback, config.cell
        self.reads_padding = config.pool == "flatten"
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

    def first_character_in(self, weight: str, dimension: int) -> int:
        # A recurrent layer reads the span of the image first, then the feedback.
        return 0 if weight.startswith(("fc_", "embed")) or dimension == 0 else self.input_dim - self.feedback_dim

    @abstractmethod
    def advance(self, read: Tensor, states: States) -> tuple[Tensor, States]:
        """Read (B, input_dim); return the hidden state of the top layer (B, N), and the next state of each layer."""

    def initial_state(self, memory: Memory) -> State:
        no_logits = memory.frames.new_zeros(memory.batch, self.vocabulary_size)
        zeros = memory.frames.new_zeros(memory.batch, self.hidden_dim)
        of_layer = (zeros, zeros) if self.kind == "lstm" else (zeros,)
        return self.image_inputs(memory), no_logits, (of_layer,) * self.num_layers

    def step(self, token: Tensor, state: State, memory: Memory) -> tuple[Tensor, State]:
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

    def image_inputs(self, memory: Memory) -> Tensor:
        """Return the inputs from the image: (B, 1, W) for the first step only, or (B, S, W), one per step."""
        if self.pool == "frames":
            vectors = average_spans(memory, self.max_length + 1)
        elif self.pool == "flatten":
            vectors = memory.frames.flatten(1)[:, None]
        else:
            valid = memory.valid[:, :, None]
            vectors = torch.where(valid, memory.frames, 0.0).sum(dim=1, keepdim=True) / valid.sum(dim=1, keepdim=True)
        inputs: Tensor = self.fc_in(vectors)
        return inputs

    def alignment(self, memory: Memory | Tensor, labels: Labels) -> Tensor | None:
        """Return the spans of the characters, (B, S, T), if each step reads one; None for a single vector."""
        if self.pool != "frames":
            return None
        return span_weights(Memory.of(memory).valid, self.max_length + 1)[:, : labels.longest]

    def encode_feedback(self, tokens: Tensor) -> Tensor:
        """Return the feedback (..., F) for tokens (...) int64: their embedding, one-hot, or zeros."""
        if self.embed is not None:
            embedded: Tensor = self.embed(tokens)
            return embedded
        if self.feedback == "one_hot":
            return F.one_hot(tokens, self.num_tokens).to(self.fc_out.weight.dtype)
        return self.fc_out.weight.new_zeros(*tokens.shape, self.feedback_dim)


def _vector_dim(config: RecurrentReader.Config, memory: SequenceSpec) -> int:
    return memory.dim * (memory.length if config.pool == "flatten" else 1)
