"""Position attention: each position of a text attends to the memory by itself, all at once.

attention = "additive" is the parallel visual attention of SRN: Yu et al. 2020, "Towards Accurate Scene Text Recognition
with Semantic Reasoning Networks". attention = "a3" is the adaptive addressing and aggregation of MGP-STR: Wang et al.
2022, "Multi-Granularity Prediction for Scene Text Recognition". Neither paper's language model is part of it.

    [grid.decoder]
    "PVAM" = { use = "position_attention", hidden_dim = 512 }
    "A3" = { use = "position_attention", attention = "a3", projection_dim = 256 }

Where this differs from the papers: positions of the frames are sinusoidal and made for the memory at hand, those of a
feature map by row and column (SRN learns a table for one size; the frames of MGP-STR have the positions of its Vision
Transformer). There are max_length + 1 positions of a text, the last for the end of the longest one; MGP-STR has one
more, for a start token that it predicts and drops.
"""

from typing import Literal, final

from pydantic import Field
from torch import Tensor, nn

from decoderbench import (
    ComponentConfig,
    InfeasibleError,
    Labels,
    LabelSpec,
    Memory,
    PerCharacterDecoder,
    SequenceSpec,
    additive_scores,
    hookimpl,
    memory_positions,
)

GROUPS = 8  # of MGP-STR's convolutions


@final
class PositionAttention(PerCharacterDecoder):
    """p(text) is the product of the probabilities of its characters and of the end, each read by its own attention."""

    name = "position_attention"

    class Config(ComponentConfig):
        """Options of `position_attention`."""

        attention: Literal["additive", "a3"] = "additive"
        """additive: an embedding of the position of the text is compared with each frame (SRN). a3: a convolution
        scores each frame for each position of the text, and values are projected (MGP-STR)."""

        hidden_dim: int = Field(default=256, ge=1)
        """Width of the embeddings of positions of the text and of the keys; ignored with a3."""

        projection_dim: int | None = Field(default=None, ge=1)
        """Width of a linear layer applied to each frame first; no such layer if not set. With a3, the width of the
        frames must be divisible by 8."""

        label_smoothing: float = Field(default=0.0, ge=0, lt=1)
        """In training, the share of the probability of each target that all characters and the end share alike."""

    def __init__(self, config: Config, memory: SequenceSpec, labels: LabelSpec) -> None:
        super().__init__(config, memory, labels)
        self.label_smoothing = config.label_smoothing
        dim = config.projection_dim or memory.dim
        self.projection = nn.Linear(memory.dim, dim) if config.projection_dim else nn.Identity()
        self.attention = (
            A3(dim, self.num_positions)
            if config.attention == "a3"
            else AdditiveAttention(dim, config.hidden_dim, self.num_positions)
        )
        self.head = nn.Linear(dim, self.vocabulary_size)

    def log_probs(self, memory: Memory) -> Tensor:
        _, glyphs = self.attend(memory)
        logits: Tensor = self.head(glyphs)
        return logits.float().log_softmax(dim=2)  # (B, S, V)

    def alignment(self, memory: Memory | Tensor, labels: Labels) -> Tensor:
        """Return the attention weights of each character, (B, S, T)."""
        weights, _ = self.attend(Memory.of(memory))
        return weights[:, : labels.longest]

    def attend(self, memory: Memory) -> tuple[Tensor, Tensor]:
        """Return the weights of the frames (B, S, T) and the glyph (B, S, D) of each position of the text."""
        placed = memory.with_frames(self.projection(memory.frames))
        weights, glyphs = self.attention(placed.with_frames(placed.frames + memory_positions(placed)))
        return weights, glyphs


class AdditiveAttention(nn.Module):
    """score(tanh(order + key(frame))), a softmax over the valid frames, and the weighted mean of the frames."""

    def __init__(self, dim: int, hidden_dim: int, num_positions: int) -> None:
        super().__init__()
        self.order = nn.Embedding(num_positions, hidden_dim)
        self.key = nn.Linear(dim, hidden_dim)
        self.score = nn.Linear(hidden_dim, 1, bias=False)

    def forward(self, memory: Memory) -> tuple[Tensor, Tensor]:
        """Return weights (B, S, T) and glyphs (B, S, D)."""
        scores = additive_scores(self.order.weight[None], self.key(memory.frames), self.score)
        weights = memory.hide(scores).softmax(dim=2)
        return weights, weights @ memory.frames


class A3(nn.Module):
    """Grouped convolutions to a map of scores per position of the text, and to values; normalized before and after."""

    def __init__(self, dim: int, num_positions: int) -> None:
        super().__init__()
        if dim % GROUPS:
            raise InfeasibleError(
                f"position_attention: a3 needs frames of a width that {GROUPS} divides, this memory has D = {dim}; set "
                f"projection_dim to a multiple of {GROUPS}, such as 256"
            )
        self.norm, self.glyph_norm = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.scores = nn.Sequential(
            nn.Conv1d(dim, dim, 1, groups=GROUPS, bias=False), nn.Conv1d(dim, num_positions, 1, bias=False)
        )
        self.value = nn.Conv1d(dim, dim, 1, groups=GROUPS, bias=False)

    def forward(self, memory: Memory) -> tuple[Tensor, Tensor]:
        """Return weights (B, S, T) and glyphs (B, S, D)."""
        frames = self.norm(memory.frames).transpose(1, 2)  # (B, D, T)
        weights = memory.hide(self.scores(frames)).softmax(dim=2)
        return weights, self.glyph_norm(weights @ self.value(frames).transpose(1, 2))


@hookimpl
def register_decoders() -> list[type[PositionAttention]]:
    """Register the decoder of this file."""
    return [PositionAttention]
