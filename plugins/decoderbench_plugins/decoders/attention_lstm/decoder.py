"""Attention LSTM: one glimpse of the memory per character, by one of five mechanisms of attention.

Bahdanau et al. 2015, "Neural Machine Translation by Jointly Learning to Align and Translate". The wiring "baek2019"
is the prediction stage "Attn" of Baek et al. 2019, "What Is Wrong With Scene Text Recognition Model Comparisons?",
except for the initial weights, which are torch's defaults:

    "Attn" = { use = "attention_lstm", wiring = "baek2019", hidden_dim = 256 }

On long lines attention by content alone does not find the way. Positions, mechanisms that know where they have read,
and a loss for weights off the diagonal are for these:

    "GMM" = { use = "attention_lstm", attention = "gmm" }
    "location" = { use = "attention_lstm", attention = "location", positions = "sinusoidal", guided_loss = 1.0 }

Sizes in frames that are not set follow from h, the median frames per character of the training labels.
"""

from collections.abc import Callable
from typing import Any, Literal, final

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from decoderbench import (
    AutoregressiveDecoder,
    ComponentConfig,
    InfeasibleError,
    Labels,
    LabelSpec,
    Memory,
    RecurrentKind,
    SequenceSpec,
    memory_positions,
    recurrent_cell,
    smoothed_nll,
)

from .additive import AdditiveAttention
from .coverage import CoverageAttention, coverage_penalty
from .gmm import GMMAttention
from .guided import guided_penalty
from .location import LocationAttention, kernel_for
from .mechanism import Attention, Tensors
from .monotonic import MonotonicAttention
from .positions import LearnedPositions

# The state of the cell, what is fixed for the images, what the attention changes from step to step, what glimpses are
# made of if that is not the memory itself, and the glimpse before if the cell reads it.
State = tuple[Tensors, Tensors, Tensors, Tensors, Tensors]

WIDEST = 16384
"""The largest sizes in frames: no image is wider, so no memory has more frames side by side."""

ONLY_WITH = {
    "kernel": ("location",),
    "frames_per_step": ("gmm", "monotonic"),
    "components": ("gmm",),
    "hard": ("monotonic",),
}
"""The mechanisms that have an option."""


@final
class AttentionLSTM(AutoregressiveDecoder):
    """A recurrent cell that reads the previous character and a glimpse of the memory."""

    name = "attention_lstm"
    takes_memory = True

    class Config(ComponentConfig):
        """Options of `attention_lstm`."""

        wiring: Literal["default", "baek2019"] = "default"
        """default: the cell reads an embedding of the previous character; keys have a bias, queries none. baek2019:
        the cell reads the previous character as one-hot; queries have a bias, keys none."""

        embed_dim: int = Field(default=64, ge=1)
        """Width of the embedding of the previous character; ignored if wiring is baek2019."""

        hidden_dim: int = Field(default=256, ge=1)
        """Hidden width of the cell, and width of keys and queries."""

        cell: RecurrentKind = "lstm"
        """Kind of cell: an LSTMCell, a GRUCell, or a minGRU, whose gate does not read its own state."""

        attention: Literal["additive", "location", "gmm", "monotonic", "coverage"] = "additive"
        """additive: by content. location: also by the weights of earlier steps (Tacotron 2). gmm: by location alone, a
        mixture that moves to the right (Battenberg et al. 2020). monotonic: each step scans from where the last one
        stopped (Raffel et al. 2017). coverage: also by how much of a frame has been read (See et al. 2017)."""

        positions: Literal["none", "sinusoidal", "learned"] = "none"
        """Positions that are added to the frames, so that keys and glimpses tell where they are from: none, sinusoidal
        (Vaswani et al. 2017), or learned, for memories as wide as declared or narrower. In a feature map, positions of
        the row and of the column."""

        input_feeding: bool = False
        """Whether the cell also reads the glimpse of the step before, zeros at the first (Luong et al. 2015)."""

        kernel: int | None = Field(default=None, ge=1, le=WIDEST)
        """Only with attention = location: width in frames of its filters, odd. Default: the smallest odd width that is
        at least 4 h + 1."""

        frames_per_step: float | None = Field(default=None, gt=0, le=WIDEST)
        """Only with attention = gmm or monotonic: how many frames a step moves at first. Default: h."""

        components: int | None = Field(default=None, ge=1)
        """Only with attention = gmm: number of Gaussians. Default: 5, as in the paper."""

        hard: bool = False
        """Only with attention = monotonic: whether each step reads a single frame in evaluation; training always reads
        the expectation."""

        guided_loss: float = Field(default=0.0, ge=0)
        """Weight of the loss for attention far from the diagonal, 0 to 1 per character (Tachibana et al. 2018)."""

        guided_sigma: float = Field(default=0.1, gt=0)
        """Distance from the diagonal, as a share of text and image, at which the guided loss is 0.39 per character."""

        coverage_loss: float = Field(default=0.0, ge=0)
        """Weight of the loss for frames that are read again, 0 to 1 per character (See et al. 2017)."""

        label_smoothing: float = Field(default=0.0, ge=0, lt=1)
        """Share of the probability of each target that all tokens share alike; in the loss only."""

    def __init__(self, config: Config, memory: SequenceSpec, labels: LabelSpec) -> None:
        super().__init__(config, memory, labels)
        self._refuse_infeasible(config, memory)
        of_paper = config.wiring == "baek2019"
        token_dim = self.num_tokens if of_paper else config.embed_dim
        glimpses = 2 if config.input_feeding else 1
        self.embed = None if of_paper else nn.Embedding(self.num_tokens, token_dim)
        self.attention = _attention(config, memory, labels)
        self.cell = recurrent_cell(config.cell, token_dim + glimpses * memory.dim, config.hidden_dim)
        # The paper also scores the start token, which is never a target. Its row, the last one, exists only to match
        # the published number of parameters; `score` cuts it off.
        self.head = nn.Linear(config.hidden_dim, self.num_tokens if of_paper else self.vocabulary_size)
        self.positions: Callable[[Memory], Tensor] | None = None
        if config.positions != "none":
            self.positions = LearnedPositions(memory) if config.positions == "learned" else memory_positions
        self.input_feeding, self.glimpse_dim = config.input_feeding, memory.dim
        self.guided_loss, self.guided_sigma = config.guided_loss, config.guided_sigma
        self.coverage_loss, self.label_smoothing = config.coverage_loss, config.label_smoothing

    def _refuse_infeasible(self, config: Config, memory: SequenceSpec) -> None:
        """Raise `InfeasibleError` for options without effect, and for what needs frames in reading order."""
        for option, kinds in ONLY_WITH.items():
            if getattr(config, option) != type(config).model_fields[option].default and config.attention not in kinds:
                raise InfeasibleError(
                    f"{self.name} with attention = {config.attention!r} has no {option}; remove it, or use attention = "
                    f"{' or '.join(map(repr, kinds))}"
                )
        if config.guided_sigma != type(config).model_fields["guided_sigma"].default and not config.guided_loss:
            raise InfeasibleError(
                f"{self.name} with guided_loss = 0 has no guided_sigma; remove it, or give guided_loss a weight"
            )
        if config.kernel is not None and config.kernel % 2 == 0:
            raise InfeasibleError(
                f"{self.name} needs an odd kernel, so that it has a middle, given {config.kernel}; use "
                f"{config.kernel + 1}"
            )
        if config.positions != "none" and memory.shape is None and not memory.left_to_right:
            raise InfeasibleError(
                f"{self.name} with positions = {config.positions!r} needs the place of each frame, the frames of this "
                f"memory are neither in reading order nor a feature map; use the bridge feature_map or mean_height"
            )
        ordered = config.attention in ("location", "gmm", "monotonic")
        if (ordered or config.guided_loss) and not memory.left_to_right:
            what = f"attention = {config.attention!r}" if ordered else "guided_loss"
            raise InfeasibleError(
                f"{self.name} with {what} needs frames in reading order, the frames of this memory do not run from "
                f"left to right; use mean_height or stack_height, or attention = 'additive' or 'coverage' without "
                f"guided_loss"
            )

    def initial_state(self, memory: Memory) -> State:
        values, moved = memory.frames, tuple[Tensor, ...]()
        if self.positions is not None:
            values = values + self.positions(memory)  # (B, T, D)
            moved = (values,)
        fixed, before = self.attention.prepare(values, memory)
        glimpse = (memory.frames.new_zeros(memory.batch, memory.dim),) if self.input_feeding else ()
        return self.cell.initial_state(memory.frames, memory.batch), fixed, before, moved, glimpse

    def first_character_in(self, weight: str, dimension: int) -> int:
        # Without an embedding, the cell reads the glimpse first, then the token.
        return self.glimpse_dim if weight.startswith("cell.") and dimension == 1 else 0

    def step(self, token: Tensor, state: State, memory: Memory) -> tuple[Tensor, State]:
        hidden, _, state = self.advance(self.encode(token), state, memory)
        return self.score(hidden), state  # (B, V)

    def encode(self, tokens: Tensor) -> Tensor:
        """Return what the cell reads of tokens (...) int64: their embeddings, or one-hot, (..., E)."""
        if self.embed is None:
            return F.one_hot(tokens, self.num_tokens).to(self.head.weight.dtype)
        embedded: Tensor = self.embed(tokens)
        return embedded

    def advance(self, token: Tensor, state: State, memory: Memory) -> tuple[Tensor, Tensor, State]:
        """Read a token (B, E); return the hidden state (B, N), the weights of the frames (B, T) and the next state."""
        cells, fixed, before, moved, fed = state
        weights, before = self.attention(cells[0], memory, fixed, before)
        values = moved[0] if moved else memory.frames
        glimpse = torch.bmm(weights[:, None], values)[:, 0]  # (B, D)
        read = [glimpse, token] if self.embed is None else [token, glimpse]
        hidden, cells = self.cell(torch.cat([*read, *fed], dim=-1), cells)
        return hidden, weights, (cells, fixed, before, moved, (glimpse,) if fed else ())

    def score(self, hidden: Tensor) -> Tensor:
        """Return logits (..., V) for hidden states (..., N)."""
        logits: Tensor = self.head(hidden)
        return logits[..., : self.vocabulary_size]

    def teacher_forced_logits(self, memory: Memory, tokens: Tensor) -> Tensor:
        return self._teacher_forced(memory, tokens)[0]

    def _teacher_forced(self, memory: Memory, tokens: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return logits (B, S, V) and the weights (B, T) of each step, with tokens and logits of all steps at once."""
        state, hidden, weights = self.initial_state(memory), list[Tensor](), list[Tensor]()
        for token in self.encode(tokens).unbind(dim=1):
            step_hidden, step_weights, state = self.advance(token, state, memory)
            hidden.append(step_hidden)
            weights.append(step_weights)
        return self.score(torch.stack(hidden, dim=1)), weights

    def loss(self, memory: Memory | Tensor, labels: Labels) -> Tensor:
        """Return the nll with smoothed targets, plus what weights far from the diagonal and read again cost."""
        memory, given = Memory.of(memory), self.token_targets(labels)
        logits, of_steps = self._teacher_forced(memory, given.tokens)
        loss = smoothed_nll(logits.float().log_softmax(dim=-1), given, self.label_smoothing)
        if self.guided_loss or self.coverage_loss:
            weights = torch.stack(of_steps, dim=1)  # (B, S, T)
            if self.guided_loss:
                loss = loss + self.guided_loss * guided_penalty(weights, memory, labels, self.guided_sigma)
            if self.coverage_loss:
                loss = loss + self.coverage_loss * coverage_penalty(weights, given.counted)
        return loss

    def alignment(self, memory: Memory | Tensor, labels: Labels) -> Tensor:
        """Return the attention weights of each character, (B, S, T), with the characters before it given."""
        _, weights = self._teacher_forced(Memory.of(memory), self.token_targets(labels).tokens)
        return torch.stack(weights, dim=1)[:, :-1]  # without the end


def _attention(config: AttentionLSTM.Config, memory: SequenceSpec, labels: LabelSpec) -> Attention:
    """Return the mechanism of a config; what it leaves open follows from the labels."""
    h = labels.frames_per_character(memory).median
    step = config.frames_per_step or h
    sizes: dict[str, Any] = {
        "memory_dim": memory.dim,
        "hidden_dim": config.hidden_dim,
        "bias_of": "query" if config.wiring == "baek2019" else "key",
    }
    match config.attention:
        case "additive":
            return AdditiveAttention(**sizes)
        case "location":
            return LocationAttention(**sizes, kernel=config.kernel or kernel_for(h))
        case "coverage":
            return CoverageAttention(**sizes)
        case "monotonic":
            return MonotonicAttention(**sizes, frames_per_step=step, hard=config.hard)
        case "gmm":
            return GMMAttention(config.hidden_dim, components=config.components or 5, frames_per_step=step)
