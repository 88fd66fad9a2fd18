"""The network: a stream of queries, one per position of a text, that reads a stream of content and the frames."""

from collections.abc import Sequence
from math import sqrt
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from decoderbench import Attention, Memory, MemoryInput, feed_forward

Kept = tuple[Tensor, ...]
"""Keys and values of each layer, (B, S, 2N) of content or (B, T, 2N) of frames."""


class TwoStreamDecoder(nn.Module):
    """Layers of two streams, and the head.

    Query s asks for the token at position s of a text. Content 0 is the start, content s the character at position
    s - 1. Which content a query reads is up to a mask, so that it is the same network for any order of the characters.
    """

    def __init__(
        self,
        memory_dim: int,
        dim: int,
        *,
        num_layers: int,
        num_heads: int,
        feedforward_factor: int,
        dropout: float,
        memory_positions: bool,
        num_positions: int,
        num_tokens: int,
        vocabulary_size: int,
    ) -> None:
        super().__init__()
        self.read = MemoryInput(memory_dim, dim, positions=memory_positions)
        self.embed = nn.Embedding(num_tokens, dim)
        self.positions = nn.Embedding(num_positions, dim)  # the queries
        self.dropout = nn.Dropout(dropout)
        layers = nn.ModuleList(TwoStreamLayer(dim, num_heads, feedforward_factor, dropout) for _ in range(num_layers))
        self.layers = cast("Sequence[TwoStreamLayer]", layers)
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, vocabulary_size)
        self._draw_weights()

    def _draw_weights(self) -> None:
        for part in self.modules():
            if isinstance(part, nn.Linear | nn.Embedding):
                nn.init.trunc_normal_(part.weight, std=0.02)
            if isinstance(part, nn.Linear):
                nn.init.zeros_(part.bias)
        for part in self.modules():
            if isinstance(part, Attention):
                nn.init.xavier_uniform_(part.query.weight)
                nn.init.xavier_uniform_(part.key_value.weight)

    def keep_frames(self, memory: Memory) -> Kept:
        """Return keys and values of the frames."""
        frames = self.read(memory)  # (B, T, N)
        return tuple(layer.of_frames.keys_values(frames) for layer in self.layers)

    def keep_nothing(self, rows: int) -> Kept:
        """Return keys and values of no content, for so many rows."""
        nothing = self.positions.weight.new_zeros(rows, 0, self.positions.embedding_dim)
        return tuple(layer.of_content.keys_values(nothing) for layer in self.layers)

    def forward(
        self,
        tokens: Tensor,
        characters: Kept,
        frames: Kept,
        valid: Tensor,
        *,
        num_queries: int,
        of_queries: Tensor | None = None,
        of_content: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Kept]:
        """Read the next tokens of texts, one or more, and answer the next queries.

        Args:
            tokens: (B, S) int64. B is the number of images, or a multiple of it with the rows of an image one after the
                other.
            characters: keys and values of the content of earlier tokens.
            frames: keys and values of the frames.
            valid: which frames are valid, (number of images, T) bool.
            num_queries: Q, the number of queries.
            of_queries: which content, earlier and new, the queries may read, broadcast to (B, H, Q, .) bool; None: all.
            of_content: which content new content may read, broadcast to (B, H, S, .) bool; None: all.

        Returns:
            The logits (B, Q, V), what the last layer asks of the frames (B, Q, N), and keys and values of all content.
        """
        first, valid = characters[0].shape[1], valid[:, None, None]
        content = self.dropout(self.embed_tokens(tokens, first))
        positions = torch.arange(first, first + num_queries, device=tokens.device)
        queries = self.dropout(self.positions(positions.expand(len(tokens), -1)))
        kept, asked = list[Tensor](), queries
        for layer, of_layer, frames_of_layer in zip(self.layers, characters, frames, strict=True):
            normed = layer.norm_content(content)
            kept.append(layer.of_content.keys_values(normed, of_layer))
            queries, asked = layer(queries, layer.norm_queries(queries), kept[-1], of_queries, frames_of_layer, valid)
            if len(kept) < len(self.layers):  # nothing reads the content of the last layer
                content, _ = layer(content, normed, kept[-1], of_content, frames_of_layer, valid)
        logits: Tensor = self.head(self.norm(queries))
        return logits, asked, tuple(kept)

    def embed_tokens(self, tokens: Tensor, first: int) -> Tensor:
        """Return the content (B, S, N) of tokens (B, S), of which the first is content `first`.

        A character has the position of the query that asks for it, the start has none.
        """
        positions = F.pad(self.positions.weight, (0, 0, 1, 0))[first : first + tokens.shape[1]]
        embedded: Tensor = self.embed(tokens)
        return embedded * sqrt(self.embed.embedding_dim) + positions


class TwoStreamLayer(nn.Module):
    """Attention to the content, attention to the frames and a feed-forward part, for either of the two streams.

    Each is added to the stream, which is normalized before each.
    """

    def __init__(self, dim: int, num_heads: int, feedforward_factor: int, dropout: float) -> None:
        super().__init__()
        self.of_content = Attention(dim, num_heads, dropout=dropout)
        self.of_frames = Attention(dim, num_heads, dropout=dropout)
        self.feed = feed_forward(dim, feedforward_factor, nn.GELU(), dropout=dropout)
        self.norm_queries, self.norm_content = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.norm_asking, self.norm_feed = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        stream: Tensor,
        normed: Tensor,
        content: Tensor,
        mask: Tensor | None,
        frames: Tensor,
        valid: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Return the stream after the layer (B, Q, N), and what it asks of the frames (B, Q, N)."""
        stream = stream + self.dropout(self.of_content(normed, content, mask))
        asked: Tensor = self.norm_asking(stream)
        by_image = asked.reshape(len(valid), -1, asked.shape[2])  # all rows of an image read the same frames
        stream = stream + self.dropout(self.of_frames(by_image, frames, valid).view_as(stream))
        return stream + self.dropout(self.feed(self.norm_feed(stream))), asked
