"""NRTR: a Transformer that writes one character at a time and attends to all frames of the memory at every layer.

Sheng et al. 2019, "NRTR: A No-Recurrence Sequence-to-Sequence Model For Scene Text Recognition". Its layers are those
of Vaswani et al. 2017, normalized after each of their parts, and trained with smoothed targets. The paper's decoder:

    "NRTR" = { use = "nrtr", dim = 512, num_layers = 6 }

The paper's encoder is a Transformer too, whose output is normalized and says where each frame is. Here the decoder
normalizes the memory and adds positions to it (`memory_positions`).

Training computes all characters of a text at once. Reading keeps the keys and values of the frames and of the earlier
characters, so a step costs the same at every position but for the attention itself.
"""

from collections.abc import Sequence
from math import sqrt
from typing import cast, final

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from decoderbench import (
    Attention,
    AutoregressiveDecoder,
    ComponentConfig,
    Labels,
    LabelSpec,
    Memory,
    MemoryInput,
    SequenceSpec,
    causal_mask,
    feed_forward,
    hookimpl,
    resolve_num_heads,
    sinusoidal_positions,
    smoothed_nll,
)

# The keys and values of each layer: those of the tokens so far (B, S, 2N), and those of the frames (B, T, 2N).
State = tuple[tuple[Tensor, Tensor], ...]


@final
class NRTR(AutoregressiveDecoder):
    """A Transformer decoder that keeps keys and values."""

    name = "nrtr"
    takes_memory = True
    positions: Tensor
    """Of the tokens of a text and its start, (max_length + 1, N)."""

    class Config(ComponentConfig):
        """Options of `nrtr`."""

        dim: int | None = Field(default=None, ge=1)
        """Width N of all layers; frames of another width are projected to it. Default: the width of the memory."""

        num_layers: int = Field(default=2, ge=1)
        """Number of layers. The paper has six."""

        num_heads: int | None = Field(default=None, ge=1)
        """Heads of each attention, a divisor of the width. Default: as many as are at least 32 wide."""

        feedforward_factor: int = Field(default=4, ge=1)
        """Width of the hidden layer of each feed-forward part, as a multiple of N."""

        dropout: float = Field(default=0.1, ge=0, lt=1)
        """Dropout rate of the embedded characters and of the output of each part of a layer."""

        label_smoothing: float = Field(default=0.1, ge=0, lt=1)
        """Share of each target that all tokens get alike in training."""

        memory_positions: bool = True
        """Add sinusoidal positions to the frames, of row and column for a feature map."""

    def __init__(self, config: Config, memory: SequenceSpec, labels: LabelSpec) -> None:
        super().__init__(config, memory, labels)
        dim = config.dim or memory.dim
        num_heads = resolve_num_heads(self.name, dim, config.num_heads)
        self.label_smoothing = config.label_smoothing
        self.read = MemoryInput(memory.dim, dim, positions=config.memory_positions)
        self.embed = nn.Embedding(self.num_tokens, dim)
        self.register_buffer("positions", sinusoidal_positions(self.max_length + 1, dim), persistent=False)
        self.dropout = nn.Dropout(config.dropout)
        layers = nn.ModuleList(
            Layer(dim, num_heads, config.feedforward_factor, config.dropout) for _ in range(config.num_layers)
        )
        self.layers = cast("Sequence[Layer]", layers)
        self.head = nn.Linear(dim, self.vocabulary_size, bias=False)
        for part in layers.modules():
            if isinstance(part, nn.Linear):
                nn.init.xavier_normal_(part.weight)
                nn.init.zeros_(part.bias)
        for embedding in (self.embed, self.head):
            nn.init.normal_(embedding.weight, std=dim**-0.5)

    def initial_state(self, memory: Memory) -> State:
        frames = self.read(memory)  # (B, T, N)
        return tuple(
            (layer.of_tokens.keys_values(frames[:, :0]), layer.of_frames.keys_values(frames)) for layer in self.layers
        )

    def step(self, token: Tensor, state: State, memory: Memory) -> tuple[Tensor, State]:
        hidden, state, _ = self.advance(token[:, None], state, memory)
        return self.head(hidden[:, 0]), state  # (B, V)

    def teacher_forced_logits(self, memory: Memory, tokens: Tensor) -> Tensor:
        hidden, _, _ = self.advance(tokens, self.initial_state(memory), memory)
        logits: Tensor = self.head(hidden)
        return logits  # (B, S, V)

    def advance(self, tokens: Tensor, state: State, memory: Memory) -> tuple[Tensor, State, Tensor]:
        """Read the next tokens (B, S), one or more.

        Returns:
            The output of the last layer (B, S, N), the next state, and what that layer asks of the frames (B, S, N).
        """
        seen, steps = state[0][0].shape[1], tokens.shape[1]
        asked = hidden = self.dropout(
            self.embed(tokens) * sqrt(self.embed.embedding_dim) + self.positions[seen : seen + steps]
        )
        earlier = None if steps == 1 else causal_mask(steps, seen + steps, tokens.device)
        kept = list[tuple[Tensor, Tensor]]()
        for layer, (of_tokens, of_frames) in zip(self.layers, state, strict=True):
            hidden, asked, of_tokens = layer(hidden, of_tokens, of_frames, earlier, memory.valid[:, None, None])
            kept.append((of_tokens, of_frames))
        return hidden, tuple(kept), asked

    def loss(self, memory: Memory | Tensor, labels: Labels) -> Tensor:
        """Return the cross entropy with smoothed targets, (B,)."""
        given = self.token_targets(labels)
        logits = self.teacher_forced_logits(Memory.of(memory), given.tokens)
        return smoothed_nll(logits.float().log_softmax(dim=2), given, self.label_smoothing)

    def alignment(self, memory: Memory | Tensor, labels: Labels) -> Tensor:
        """Return the attention of the last layer to the frames, the mean of its heads, (B, S, T)."""
        memory = Memory.of(memory)
        tokens = F.pad(labels.ids, (1, 0), value=self.start)[:, : max(1, labels.longest)]
        state = self.initial_state(memory)
        _, _, asked = self.advance(tokens, state, memory)
        of_frames = self.layers[-1].of_frames
        return of_frames.weights(asked, state[-1][1], memory.valid[:, None, None])[:, : labels.longest]


class Layer(nn.Module):
    """Attention to the earlier tokens, attention to the frames and a feed-forward part, each added and normalized."""

    def __init__(self, dim: int, num_heads: int, feedforward_factor: int, dropout: float) -> None:
        super().__init__()
        self.of_tokens, self.of_frames = Attention(dim, num_heads), Attention(dim, num_heads)
        self.feed = feed_forward(dim, feedforward_factor, nn.ReLU())
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(3))
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, hidden: Tensor, of_tokens: Tensor, of_frames: Tensor, earlier: Tensor | None, valid: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the output (B, S, N), what it asks of the frames (B, S, N), and the keys and values of all tokens."""
        of_tokens = self.of_tokens.keys_values(hidden, of_tokens)
        asked = self.norms[0](hidden + self.dropout(self.of_tokens(hidden, of_tokens, earlier)))
        hidden = self.norms[1](asked + self.dropout(self.of_frames(asked, of_frames, valid)))
        return self.norms[2](hidden + self.dropout(self.feed(hidden))), asked, of_tokens


@hookimpl
def register_decoders() -> list[type[NRTR]]:
    """Register the decoder of this file."""
    return [NRTR]
