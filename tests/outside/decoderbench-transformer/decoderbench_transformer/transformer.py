"""Transformer decoder: each character attends to the previous characters and to the frames of the memory.

Vaswani et al. 2017, "Attention Is All You Need", with learned positions and layer normalization before each sublayer.
"""

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from decoderbench import AutoregressiveDecoder, ComponentConfig, InfeasibleError, LabelSpec, SequenceSpec, hookimpl

State = tuple[tuple[Tensor, Tensor], ...]  # keys and values per layer: frames (B, T, 2N), characters (B, S, 2N)


class TransformerDecoder(AutoregressiveDecoder):
    """Caches keys and values from step to step; training computes all steps at once."""

    name = "transformer"

    class Config(ComponentConfig):
        """Options of `transformer`."""

        hidden_dim: int = Field(default=128, ge=1)
        """Width N of characters, queries, keys and values; a multiple of `heads`."""
        heads: int = Field(default=4, ge=1)
        """Number of attention heads, each of width N / heads."""
        layers: int = Field(default=2, ge=1)
        """Number of layers, each with attention to characters, attention to frames, and two linear layers."""
        dropout: float = Field(default=0.1, ge=0, lt=1)
        """Dropout rate after each sublayer."""

    def __init__(self, config: Config, memory: SequenceSpec, labels: LabelSpec) -> None:
        super().__init__(config, memory, labels)
        width = config.hidden_dim
        if width % config.heads:
            raise InfeasibleError(
                f"transformer needs hidden_dim to be a multiple of heads = {config.heads}, given {width}; change one"
            )
        self.embed, self.position = nn.Embedding(self.num_tokens, width), nn.Embedding(self.max_length + 1, width)
        self.layers = nn.ModuleList(Layer(config, memory.dim) for _ in range(config.layers))
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, self.vocabulary_size))

    def initial_state(self, memory: Tensor) -> State:
        return tuple((kept, kept[:, :0]) for kept in (layer.of_frames(memory) for layer in self.layers))

    def step(self, token: Tensor, state: State, memory: Tensor) -> tuple[Tensor, State]:
        logits, state = self.advance(token[:, None], state)
        return logits[:, 0], state  # (B, V)

    def teacher_forced_logits(self, memory: Tensor, tokens: Tensor) -> Tensor:
        return self.advance(tokens, self.initial_state(memory))[0]  # (B, S, V)

    def advance(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        """Return logits (B, S, V) and the next state for tokens (B, S): a single next one, or all from the start."""
        seen, following = state[0][1].shape[1], []
        hidden = self.embed(tokens) + self.position.weight[seen : seen + tokens.shape[1]]  # (B, S, N)
        for layer, (frames, characters) in zip(self.layers, state, strict=True):
            hidden, characters = layer(hidden, frames, characters)
            following.append((frames, characters))
        return self.head(hidden), tuple(following)


class Layer(nn.Module):
    def __init__(self, config: TransformerDecoder.Config, memory_dim: int) -> None:
        super().__init__()
        width, self.heads, self.dropout = config.hidden_dim, config.heads, nn.Dropout(config.dropout)
        self.norm = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.of_characters, self.of_frames = nn.Linear(width, 3 * width), nn.Linear(memory_dim, 2 * width)
        self.ask, self.mix = nn.Linear(width, width), nn.ModuleList(nn.Linear(width, width) for _ in range(2))
        self.feed = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, hidden: Tensor, frames: Tensor, characters: Tensor) -> tuple[Tensor, Tensor]:
        query, *added = self.of_characters(self.norm[0](hidden)).chunk(3, dim=2)
        characters = torch.cat([characters, torch.cat(added, dim=2)], dim=1)
        hidden = hidden + self.dropout(self.mix[0](self.attend(query, characters, causal=hidden.shape[1] > 1)))
        hidden = hidden + self.dropout(self.mix[1](self.attend(self.ask(self.norm[1](hidden)), frames)))
        return hidden + self.dropout(self.feed(self.norm[2](hidden))), characters

    def attend(self, query: Tensor, kept: Tensor, *, causal: bool = False) -> Tensor:
        """Return (B, S, N) for a query (B, S, N); causal: each character attends to itself and the previous ones."""
        heads = [part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in (query, *kept.chunk(2, dim=2))]
        return scaled_dot_product_attention(*heads, is_causal=causal).transpose(1, 2).flatten(2)


@hookimpl
def register_decoders() -> list[type[TransformerDecoder]]:
    return [TransformerDecoder]
