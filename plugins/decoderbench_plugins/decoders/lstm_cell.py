"""The LSTMCell loop of a public question, with a switch for every claim made about it; and the same by nn.LSTM.

A recurrent cell starts from zeros and reads the image: one vector at its first step, or a span of frames at each.
At later steps it reads what is fed back. `lstm_cell` loops over the steps by hand; `lstm_unrolled` lets nn.LSTM run
over all of them at once, which is the same function where the steps' inputs are known beforehand.

The module of the question: fc_in takes the image's vector to the vocabulary's width, and the loop reads its own
logits afterwards. These are the defaults:

    "as asked" = { use = "lstm_cell", pool = "mean", input_projection = "linear", feedback = "logits" }

The module of the answer, which calls fc_in needless. Logits still come back, so the vector must be as wide as the
vocabulary, which `projection_dim` of a bridge can see to (11 for ten digits and the end of a text). That it hands
its hidden states out stacked along the batch is a form of output, not another function:

    "as answered" = { use = "lstm_cell", input_projection = "none" }
"""

from abc import abstractmethod
from typing import Any, Literal, final

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from decoderbench import AutoregressiveDecoder, ComponentConfig, LabelSpec, SequenceSpec, hookimpl

# What is still unread of the image (B, K, W), the last logits (B, V), and each layer's (B, N): a pair for an LSTM.
State = tuple[Tensor, Tensor, tuple[Any, ...]]

FEEDBACK_OF_CHARACTERS = ("embedding", "one_hot")


class RecurrentReader(AutoregressiveDecoder):
    """What both share: how the image is read, what is fed back, and which of these go together.

    What the image has to say is a queue whose head is read at a step: one vector and then nothing, or a span for
    each step. So the shape of a state tells the first step from the others.
    """

    class Config(ComponentConfig):
        """Options of both decoders."""

        hidden_dim: int = Field(default=256, ge=1)
        """Hidden width of the cell."""

        num_layers: int = Field(default=1, ge=1)
        """Stacked cells, each reading the hidden state of the one below."""

        cell: Literal["lstm", "gru"] = "lstm"
        """Kind of cell."""

        pool: Literal["mean", "flatten", "frames"] = "mean"
        """How frames are read. mean, flatten: as one vector at the first step, their mean or all of them side by
        side. frames: in max_length + 1 equal spans from left to right, each step reading the mean of its own span
        next to what is fed back."""

        input_projection: Literal["linear", "none"] = "linear"
        """linear: a layer (fc_in) takes the vector to the width of what is fed back. none: the cell reads it itself."""

        feedback: Literal["logits", "embedding", "one_hot", "nothing"] = "logits"
        """What the cell reads after the first step: its own last logits, the previous character as an embedding or
        one-hot, or zeros."""

        embed_dim: int = Field(default=64, ge=1)
        """Width of the embedding. One vector that is not projected sets this width itself, as the cell reads both."""

        teacher_forcing: Literal["always", "never", "scheduled"] = "never"
        """Which previous character is fed back. always: the true one. never: the most probable one by the decoder's
        own account, in training as in testing. scheduled: the true one ever less often (training only). Left out:
        always where characters are fed back, never where none are."""

        @model_validator(mode="before")
        @classmethod
        def _resolve_teacher_forcing(cls, given: Any) -> Any:
            """Fill in what was left out, so that the options on record say what was done."""
            if not isinstance(given, dict) or "teacher_forcing" in given:
                return given
            feedback = given.get("feedback", cls.model_fields["feedback"].default)
            return {**given, "teacher_forcing": "always" if feedback in FEEDBACK_OF_CHARACTERS else "never"}

    def __init__(self, config: Config, memory: SequenceSpec, labels: LabelSpec) -> None:
        super().__init__(config, memory, labels)
        self.pool, self.feedback, self.is_lstm = config.pool, config.feedback, config.cell == "lstm"
        self.free_running = config.feedback in FEEDBACK_OF_CHARACTERS and config.teacher_forcing == "never"
        self.num_layers, self.hidden_dim = config.num_layers, config.hidden_dim
        vector_dim, projected = _vector_dim(config, memory), config.input_projection == "linear"
        widths = {"embedding": config.embed_dim, "one_hot": self.num_tokens}
        fed_dim = widths.get(config.feedback, self.vocabulary_size)
        if config.pool != "frames" and not projected and config.feedback in ("embedding", "nothing"):
            fed_dim = vector_dim  # the same inputs of the cell read both
        self.fc_in = nn.Linear(vector_dim, fed_dim) if projected else nn.Identity()
        self.embed = nn.Embedding(self.num_tokens, fed_dim) if config.feedback == "embedding" else None
        self.fc_out = nn.Linear(config.hidden_dim, self.vocabulary_size)
        # Beside a span zeros would say nothing, so that nothing is no input at all.
        self.fed_dim = 0 if config.pool == "frames" and config.feedback == "nothing" else fed_dim
        seen_dim = fed_dim if projected else vector_dim
        self.input_dim = seen_dim + self.fed_dim if config.pool == "frames" else fed_dim

    @classmethod
    def infeasible(cls, config: Any, memory: SequenceSpec, labels: LabelSpec) -> str | None:
        """Refuse options that contradict each other, and frames that cannot be shared out among the steps."""
        steps, vector_dim = labels.max_length + 1, _vector_dim(config, memory)
        if config.feedback not in FEEDBACK_OF_CHARACTERS and config.teacher_forcing != "never":
            return (
                f"{cls.name} feeds back {config.feedback}, so there is no character for teacher_forcing = "
                f"{config.teacher_forcing!r} to force; leave it out, or use feedback = 'embedding' or 'one_hot'"
            )
        if config.pool == "frames" and not memory.left_to_right:
            return (
                f"{cls.name} with pool = 'frames' needs frames in reading order, these are not left to right; "
                f"use mean_height or stack_height, or pool = 'mean' or 'flatten'"
            )
        if config.pool == "frames" and memory.length < steps:
            return (
                f"{cls.name} with pool = 'frames' needs T >= {steps} (the longest label and its end), this memory has "
                f"T = {memory.length}; use an earlier encoder stage, keep_width or a wider image"
            )
        fed_dim = {"logits": len(labels.charset) + 1, "one_hot": len(labels.charset) + 2}.get(config.feedback)
        shared = config.pool != "frames" and config.input_projection == "none"
        if shared and fed_dim not in (None, vector_dim):
            return (
                f"{cls.name} with input_projection = 'none' reads the image's vector and its {config.feedback} by the "
                f"same inputs, the vector is {vector_dim} wide and the {config.feedback} {fed_dim}; "
                f"use input_projection = 'linear', feedback = 'embedding', or a bridge that makes the widths equal"
            )
        return None

    @abstractmethod
    def advance(self, read: Tensor, states: tuple[Any, ...]) -> tuple[Tensor, tuple[Any, ...]]:
        """Return the upper hidden state (B, N) and each layer's next state, after reading (B, input_dim)."""

    def initial_state(self, memory: Tensor) -> State:
        no_logits = memory.new_zeros(len(memory), self.vocabulary_size)
        zeros = memory.new_zeros(len(memory), self.hidden_dim)
        return self.seen(memory), no_logits, ((zeros, zeros) if self.is_lstm else zeros,) * self.num_layers

    def step(self, token: Tensor, state: State, memory: Tensor) -> tuple[Tensor, State]:
        unread, logits, states = state
        if self.feedback == "logits":
            fed = logits
        elif self.free_running:  # argmax has no gradient; a start is nobody's guess and marks the first step
            fed = self.fed_back(torch.where(token == self.start, token, logits.argmax(dim=-1)))
        else:
            fed = self.fed_back(token)
        read = unread[:, 0] if unread.shape[1] else fed
        if self.pool == "frames":
            read = torch.cat([read, fed], dim=1)
        hidden, states = self.advance(read, states)  # (B, N)
        logits = self.fc_out(hidden)  # (B, V)
        return logits, (unread[:, 1:], logits, states)

    def seen(self, memory: Tensor) -> Tensor:
        """Return what the steps read of the image: (B, 1, W) for the first one, or (B, S, W) for each its own."""
        if self.pool == "frames":
            vectors = spans(memory, self.max_length + 1)
        else:
            vectors = (memory.mean(dim=1) if self.pool == "mean" else memory.flatten(1))[:, None]
        seen: Tensor = self.fc_in(vectors)
        return seen

    def fed_back(self, tokens: Tensor) -> Tensor:
        """Return what is fed back for tokens (...) int64, (..., F): their embedding, one-hot, or zeros."""
        if self.embed is not None:
            embedded: Tensor = self.embed(tokens)
            return embedded
        if self.feedback == "one_hot":
            return F.one_hot(tokens, self.num_tokens).to(self.fc_out.weight.dtype)
        return self.fc_out.weight.new_zeros(*tokens.shape, self.fed_dim)


@final
class LSTMCellLoop(RecurrentReader):
    """fc_in, an LSTMCell that reads its own logits, fc_out; each of these is an option."""

    name = "lstm_cell"
    steps_trained: Tensor

    class Config(RecurrentReader.Config):
        """Options of `lstm_cell`."""

        teacher_forcing_ratio: float = Field(default=0.5, ge=0, le=1)
        """Where teacher_forcing is scheduled: the share of true characters at the end of the schedule."""

        teacher_forcing_steps: int = Field(default=1000, ge=1)
        """Where teacher_forcing is scheduled: training steps in which that share falls from 1, in a line."""

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
        """As the family does it, but for scheduled sampling, which in training feeds guesses among the truth.

        Bengio et al. 2015, "Scheduled Sampling for Sequence Prediction with Recurrent Neural Networks": one draw a
        character. In eval mode all characters are true, so that `nll` is -log p by the chain rule.
        """
        if not (self.scheduled and self.training):
            return super().teacher_forced_logits(memory, tokens)
        # Counted and compared on the device, so that a step never waits for it.
        share_of_truth = 1 - (1 - self.final_ratio) * (self.steps_trained / self.schedule_steps).clamp(max=1)
        self.steps_trained += 1
        true = torch.rand(tokens.shape, device=tokens.device) < share_of_truth  # (B, S)
        state, logits = self.initial_state(memory), list[Tensor]()
        for token, is_true in zip(tokens.unbind(dim=1), true.unbind(dim=1), strict=True):
            fed = torch.where(is_true, token, logits[-1].argmax(dim=-1)) if logits else token
            step_logits, state = self.step(fed, state, memory)
            logits.append(step_logits)
        return torch.stack(logits, dim=1)


@final
class LSTMUnrolled(RecurrentReader):
    """`lstm_cell` by nn.LSTM: the same function and weights, all steps in one call where their inputs are known."""

    name = "lstm_unrolled"

    class Config(RecurrentReader.Config):
        """Options of `lstm_unrolled`."""

        feedback: Literal["logits", "embedding", "one_hot", "nothing"] = "embedding"
        """As in lstm_cell; logits are refused when planned, as a step would have to wait for the one before."""

        teacher_forcing: Literal["always", "never", "scheduled"] = "always"
        """As in lstm_cell; where characters are fed back, only always is not refused when planned."""

    def __init__(self, config: Config, memory: SequenceSpec, labels: LabelSpec) -> None:
        super().__init__(config, memory, labels)
        recurrent = nn.LSTM if self.is_lstm else nn.GRU
        self.recurrent = recurrent(self.input_dim, config.hidden_dim, config.num_layers, batch_first=True)

    @classmethod
    def infeasible(cls, config: Any, memory: SequenceSpec, labels: LabelSpec) -> str | None:
        """Refuse also what makes a step wait for the one before."""
        forced = config.feedback in FEEDBACK_OF_CHARACTERS and config.teacher_forcing == "always"
        if forced or config.feedback == "nothing":
            return super().infeasible(config, memory, labels)
        return (
            f"lstm_unrolled reads all steps at once, with feedback = {config.feedback!r} and teacher_forcing = "
            f"{config.teacher_forcing!r} a step needs the one before; use lstm_cell, or teacher_forcing = 'always' and "
            f"feedback = 'embedding' or 'one_hot'"
        )

    def advance(self, read: Tensor, states: tuple[Any, ...]) -> tuple[Tensor, tuple[Any, ...]]:
        # nn.LSTM has the layers in one tensor (layers, B, N), a state has them one by one.
        if self.is_lstm:
            hidden, after = self.recurrent(read[:, None], tuple(map(torch.stack, zip(*states, strict=True))))
            return hidden[:, 0], tuple(zip(*after, strict=True))
        hidden, after = self.recurrent(read[:, None], torch.stack(states))
        return hidden[:, 0], tuple(after)

    def teacher_forced_logits(self, memory: Tensor, tokens: Tensor) -> Tensor:
        seen, fed = self.seen(memory), self.fed_back(tokens)  # (B, 1 or S, W), (B, S, F)
        if self.pool == "frames":
            read = torch.cat([seen[:, : tokens.shape[1]], fed], dim=2)
        else:
            read = torch.cat([seen, fed[:, 1:]], dim=1)
        hidden, _ = self.recurrent(read)  # (B, S, N)
        logits: Tensor = self.fc_out(hidden)
        return logits  # (B, S, V)


def _vector_dim(config: RecurrentReader.Config, memory: SequenceSpec) -> int:
    return memory.dim * (memory.length if config.pool == "flatten" else 1)


def spans(memory: Tensor, steps: int) -> Tensor:
    """Return the means of `steps` equal spans of a memory (B, T, D), (B, S, D).

    A frame on the border of two spans counts in each by its share. A product with a matrix, since adaptive pooling
    adds gradients up in no fixed order on CUDA.
    """
    frames = memory.shape[1]
    # On a ruler of T * S marks frame t covers S of them and span s covers T, so all overlaps are whole numbers.
    frame = torch.arange(frames, device=memory.device) * steps  # (T,)
    span = torch.arange(steps, device=memory.device)[:, None] * frames  # (S, 1)
    overlap = torch.minimum(span + frames, frame + steps) - torch.maximum(span, frame)
    return (overlap.clamp(min=0) / frames).to(memory.dtype) @ memory


@hookimpl
def register_decoders() -> list[type[RecurrentReader]]:
    """Offer the decoders of this file."""
    return [LSTMCellLoop, LSTMUnrolled]
