"""Parts of Transformer decoders: attention whose keys and values are kept from step to step, and what it reads.

Vaswani et al. 2017, "Attention Is All You Need".
"""

from math import sqrt

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from decoderbench.errors import InfeasibleError
from decoderbench.model.memory import Memory
from decoderbench.model.positions import memory_positions

HEAD_WIDTH = 32


class Attention(nn.Module):
    """Scaled dot-product attention in H heads.

    Keys and values are computed apart from the result, so that a decoder computes those of the frames once per image
    and those of a character once per step. They are one tensor, with the batch first as in any state.

    A mask is true where a query may read a key. It is broadcast to (B, H, Q, S); every query needs one key.
    """

    def __init__(self, dim: int, num_heads: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.num_heads, self.dropout = num_heads, dropout
        self.query, self.key_value, self.output = nn.Linear(dim, dim), nn.Linear(dim, 2 * dim), nn.Linear(dim, dim)

    def keys_values(self, source: Tensor, earlier: Tensor | None = None) -> Tensor:
        """Return the keys and values of a source (B, S, N), after `earlier` ones if there are any, (B, all S, 2N)."""
        kept: Tensor = self.key_value(source)
        return kept if earlier is None else torch.cat([earlier, kept], dim=1)

    def forward(self, reader: Tensor, kept: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return what each position of the reader (B, Q, N) reads of the keys and values (B, S, 2N), (B, Q, N)."""
        queries, keys, values = map(self._split, (self.query(reader), *kept.chunk(2, dim=2)))
        dropout = self.dropout if self.training else 0.0
        read = F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask, dropout_p=dropout)
        output: Tensor = self.output(read.transpose(1, 2).flatten(2))
        return output

    def weights(self, reader: Tensor, kept: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the weight of each key for each position of the reader, the mean of all heads, (B, Q, S)."""
        queries, keys = self._split(self.query(reader)), self._split(kept.chunk(2, dim=2)[0])
        scores = queries @ keys.transpose(2, 3) / sqrt(queries.shape[3])
        if mask is not None:
            scores = torch.where(mask, scores, float("-inf"))
        return scores.softmax(dim=3).mean(dim=1)

    def _split(self, joined: Tensor) -> Tensor:
        """Return (B, H, S, N / H) for (B, S, N)."""
        batch, length, dim = joined.shape
        return joined.reshape(batch, length, self.num_heads, dim // self.num_heads).transpose(1, 2)


class MemoryInput(nn.Module):
    """Brings the frames of a memory to the width of a decoder and normalizes them; adds sinusoidal positions if wanted.

    Attention alone reads frames as a set: without positions nothing says where a frame is, unless the bridge does.
    Transformer decoders were published with encoders that end in a LayerNorm. Frames of a CNN may have any scale, and
    positions, of at most 1, hardly count beside large ones.

    Raises:
        InfeasibleError: the width is 1, and a single normalized number is always 0.
    """

    def __init__(self, memory_dim: int, dim: int, *, positions: bool) -> None:
        super().__init__()
        if dim == 1:
            raise InfeasibleError(
                "frames are normalized here, so their width must be more than 1; use a wider bridge or a larger dim"
            )
        self.project = nn.Identity() if memory_dim == dim else nn.Linear(memory_dim, dim)
        self.norm = nn.LayerNorm(dim)
        self.positions = positions

    def forward(self, memory: Memory) -> Tensor:
        """Return frames (B, T, N)."""
        memory = memory.with_frames(self.norm(self.project(memory.frames)))
        return memory.frames + memory_positions(memory) if self.positions else memory.frames


def feed_forward(dim: int, factor: int, activation: nn.Module, *, dropout: float = 0.0) -> nn.Sequential:
    """Return two linear layers around a hidden one that is `factor` times as wide."""
    return nn.Sequential(nn.Linear(dim, factor * dim), activation, nn.Dropout(dropout), nn.Linear(factor * dim, dim))


def causal_mask(queries: int, keys: int, device: torch.device) -> Tensor:
    """Return which of S keys each of Q queries may read, (Q, S) bool: the last query all, the one before one less."""
    return torch.ones(queries, keys, dtype=torch.bool, device=device).tril(keys - queries)


def resolve_num_heads(decoder: str, dim: int, num_heads: int | None) -> int:
    """Return the number of heads: as given, else as many as divide `dim` and are at least 32 wide, or one.

    Raises:
        InfeasibleError: `dim` is no multiple of the given number.
    """
    if num_heads is None:
        return next(heads for heads in range(max(1, dim // HEAD_WIDTH), 0, -1) if dim % heads == 0)
    if dim % num_heads:
        raise InfeasibleError(
            f"{decoder} needs a width that num_heads = {num_heads} divides, it is {dim}; change dim or num_heads"
        )
    return num_heads
