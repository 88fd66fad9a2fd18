"""RCTC: the feature map rearranged into one frame per column, by attention along the rows and then within the columns.

Du et al. 2025, "SVTRv2: CTC Beats Encoder-Decoder Models in Scene Text Recognition": the feature rearranging module.
Horizontally, each row passes a Transformer block by itself. Vertically, one learned query decides in each column which
rows its frame is read from. The module needs a map of several rows; with the decoder `ctc` it is the paper's RCTC:

    [grid.bridge]
    "RCTC" = { use = "rctc" }

The order of normalization and the scale of the query's scores, which is 1, are those of the network published with the
paper. The initial weights are torch's, except for the query.

A bridge does not know which columns show the padding of an image. They take part in the attention along the rows, as
they take part in the LSTM of a bridge.
"""

from typing import final

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from decoderbench import Bridge, ComponentConfig, FeatureMapSpec, InfeasibleError, SequenceSpec, hookimpl

HEAD_DIM = 32  # of the paper


@final
class RCTC(Bridge):
    """T = W, left to right: a Transformer block along each row, then a weighted sum over the height."""

    name = "rctc"
    exports = True

    class Config(ComponentConfig):
        """Options of `rctc`."""

        projection_dim: int | None = Field(default=None, ge=1)
        """Width of a linear layer applied to each place of the feature map before all else, and of the frames; no such
        layer if not set."""

        num_heads: int | None = Field(default=None, ge=1)
        """Attention heads; they must divide the width of the frames. Default: a head for every 32 values; if that
        number does not divide the width, the next smaller one that does."""

        mlp_ratio: float = Field(default=4.0, gt=0)
        """Width of the hidden layer of the block, in widths of a frame."""

        dropout: float = Field(default=0.0, ge=0, lt=1)
        """Probability that a value of the output of the attention or of the hidden layer is dropped in training."""

    def __init__(self, config: Config, features: FeatureMapSpec) -> None:
        super().__init__(config, features)
        dim = config.projection_dim or features.channels
        self.projection = nn.Linear(features.channels, dim) if config.projection_dim else nn.Identity()
        self.along_rows = RowBlock(dim, _num_heads(config, dim), round(config.mlp_ratio * dim), config.dropout)
        self.key_and_value = nn.Linear(dim, 2 * dim)
        self.query = nn.Parameter(torch.empty(dim))
        nn.init.trunc_normal_(self.query, std=0.02)
        self.memory = SequenceSpec(length=features.width, dim=dim, left_to_right=True)

    def forward(self, features: Tensor) -> Tensor:
        places = self.projection(features.permute(0, 2, 3, 1))  # (B, H, W, D)
        rows = self.along_rows(places.flatten(0, 1)).unflatten(0, places.shape[:2])  # (B, H, W, D)
        keys, values = self.key_and_value(rows).chunk(2, dim=3)
        weights = (keys @ self.query).softmax(dim=1)  # (B, H, W): 1 in sum within each column
        frames: Tensor = (weights[..., None] * values).sum(dim=1)
        return frames  # (B, W, D)


class RowBlock(nn.Module):
    """A Transformer block without bias in queries, keys and values; normalization comes first."""

    def __init__(self, dim: int, num_heads: int, hidden_dim: int, dropout: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.attention_norm, self.mlp_norm = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.query_key_value = nn.Linear(dim, 3 * dim, bias=False)
        self.out = nn.Linear(dim, dim)
        self.mlp = nn.Sequential(nn.Linear(dim, hidden_dim), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden_dim, dim))
        self.dropout = nn.Dropout(dropout)

    def forward(self, rows: Tensor) -> Tensor:
        """Return rows (N, W, D) for rows (N, W, D)."""
        rows = rows + self.dropout(self.attend(self.attention_norm(rows)))
        after: Tensor = rows + self.dropout(self.mlp(self.mlp_norm(rows)))
        return after

    def attend(self, rows: Tensor) -> Tensor:
        """Return what each place reads from its row, (N, W, D)."""
        by_head = self.query_key_value(rows).unflatten(2, (3, self.num_heads, -1))  # (N, W, 3, heads, D / heads)
        query, key, value = by_head.permute(2, 0, 3, 1, 4)
        read: Tensor = self.out(F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2))
        return read


def _num_heads(config: RCTC.Config, dim: int) -> int:
    """Return the number of heads; raise `InfeasibleError` if the given one does not divide the width."""
    if config.num_heads is None:
        return next(number for number in range(max(1, dim // HEAD_DIM), 0, -1) if dim % number == 0)
    if dim % config.num_heads:
        raise InfeasibleError(
            f"rctc: num_heads = {config.num_heads} does not divide the width of the frames, {dim}; set num_heads to a "
            f"divisor of it, or projection_dim to a multiple of {config.num_heads}"
        )
    return config.num_heads


@hookimpl
def register_bridges() -> list[type[RCTC]]:
    """Register `rctc`."""
    return [RCTC]
