"""PARSeq: one Transformer layer that learned to predict the characters of a text in any order.

Bautista & Atienza 2022, "Scene Text Recognition with Permuted Autoregressive Sequence Models". One set of weights reads
in several ways:

    "left to right, refined" = "parseq"
    "left to right"          = { use = "parseq", refinements = 0 }
    "all at once"            = { use = "parseq", read = "nar", refinements = 0 }

A stream of queries, one per position of a text, asks a stream of content, the characters, which of them each query may
read. Training minimizes the mean over several orders of the characters. The end of a text is learned in the first two
orders: left to right, and right to left with the end first.

Where this differs from the paper: the encoder's output is normalized and says where each frame is there, here the
decoder normalizes the memory and adds positions to it (`memory_positions`). A refined text may be longer than the
longest first reading of its batch. The loss is averaged per text, not per batch. So no text depends on the others.
"""

from typing import Literal, final

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from decoderbench import (
    AutoregressiveDecoder,
    ComponentConfig,
    Hypotheses,
    Labels,
    LabelSpec,
    Memory,
    SequenceSpec,
    causal_mask,
    hookimpl,
    resolve_num_heads,
    smoothed_text_nll,
    text_to_first_end,
)

from .network import Kept, TwoStreamDecoder
from .orders import cloze_mask, draw_ranks, order_masks

State = tuple[Kept, Kept]  # of the content of the tokens so far, and of the frames


@final
class PARSeq(AutoregressiveDecoder):
    """A Transformer decoder with a stream of queries and one of content.

    Without refinements, `read = "ar"` is the reading of its family. Others replace the transcription and the nll of the
    family by those of a pass over all positions at once.
    """

    name = "parseq"
    takes_memory = True

    class Config(ComponentConfig):
        """Options of `parseq`."""

        dim: int = Field(default=384, ge=1)
        """Width N of all layers; frames of another width are projected to it."""

        num_layers: int = Field(default=1, ge=1)
        """Number of layers."""

        num_heads: int | None = Field(default=None, ge=1)
        """Heads of each attention, a divisor of the width. Default: as many as are at least 32 wide."""

        feedforward_factor: int = Field(default=4, ge=1)
        """Width of the hidden layer of each feed-forward part, as a multiple of N."""

        dropout: float = Field(default=0.1, ge=0, lt=1)
        """Dropout rate of content, queries, attention weights, hidden layers, and the output of each part of a
        layer."""

        orders: int = Field(default=6, ge=2, multiple_of=2)
        """Orders of the characters that a training step learns: left to right, others drawn anew for each step, and
        the reverse of each. Texts of at most four characters have no more than 24."""

        read: Literal["ar", "nar"] = "ar"
        """ar: left to right, each character given those before it. nar: all positions at once, no character given."""

        refinements: int = Field(default=1, ge=0)
        """Further passes over all positions at once, each position given the other characters of the text that was
        read before."""

        memory_positions: bool = True
        """Add sinusoidal positions to the frames, of row and column for a feature map."""

    def __init__(self, config: Config, memory: SequenceSpec, labels: LabelSpec) -> None:
        super().__init__(config, memory, labels)
        self.from_left, self.refinements, self.order_pairs = config.read == "ar", config.refinements, config.orders // 2
        if not self.reads_by_step:
            self.largest_beam = 1
        self.network = TwoStreamDecoder(
            memory.dim,
            config.dim,
            num_layers=config.num_layers,
            num_heads=resolve_num_heads(self.name, config.dim, config.num_heads),
            feedforward_factor=config.feedforward_factor,
            dropout=config.dropout,
            memory_positions=config.memory_positions,
            num_positions=self.max_length + 1,
            num_tokens=self.num_tokens,
            vocabulary_size=self.vocabulary_size,
        )

    @property
    def reads_by_step(self) -> bool:
        return self.from_left and not self.refinements

    def initial_state(self, memory: Memory) -> State:
        return self.network.keep_nothing(memory.batch), self.network.keep_frames(memory)

    def step(self, token: Tensor, state: State, memory: Memory) -> tuple[Tensor, State]:
        characters, frames = state
        logits, _, characters = self.network(token[:, None], characters, frames, memory.valid, num_queries=1)
        return logits[:, 0], (characters, frames)  # (B, V)

    def teacher_forced_logits(self, memory: Memory, tokens: Tensor) -> Tensor:
        return self._read_from_left(memory, self.initial_state(memory), tokens)[0]

    def loss(self, memory: Memory | Tensor, labels: Labels) -> Tensor:
        """Return the nll per predicted token over several orders, times the number of characters and the end, (B,).

        In eval mode only the first two orders count, which are not drawn.
        """
        memory, given = Memory.of(memory), self.token_targets(labels)
        ranks = draw_ranks(labels.longest, self.order_pairs if self.training else 1)  # (K, S)
        ranks = ranks.to(memory.device, non_blocking=True)
        log_probs = self.logits_in_orders(memory, labels, ranks).float().log_softmax(dim=3)
        targets = given.targets[:, None].expand(-1, len(ranks), -1)  # (B, K, S)
        scores = log_probs.gather(3, targets[..., None]).squeeze(3)
        learns_end = torch.arange(len(ranks), device=memory.device)[:, None] < 2
        counted = given.counted[:, None] & (learns_end | (targets != self.end))
        mean = torch.where(counted, scores, 0.0).sum(dim=(1, 2)) / counted.sum(dim=(1, 2))
        return -mean * (labels.lengths + 1)

    def logits_in_orders(self, memory: Memory, labels: Labels, ranks: Tensor) -> Tensor:
        """Return the logits of each position, given the characters before it in each of K orders, (B, K, S, V).

        Args:
            memory: of B images.
            labels: their texts.
            ranks: (K, S) int64, the place of each position in each order; S is `labels.longest` + 1.
        """
        orders, steps = ranks.shape
        inside = self._inside(labels.lengths, steps)
        of_queries, of_content = ((mask & inside).flatten(0, 1)[:, None] for mask in order_masks(ranks))
        tokens = self.token_targets(labels).tokens[:, None].expand(-1, orders, -1).flatten(0, 1)  # (B * K, S)
        logits, _, _ = self.network(
            tokens,
            self.network.keep_nothing(len(tokens)),
            self.network.keep_frames(memory),
            memory.valid,
            num_queries=steps,
            of_queries=of_queries,
            of_content=of_content,
        )
        by_order: Tensor = logits.unflatten(0, (-1, orders))
        return by_order

    def nll(self, memory: Memory | Tensor, labels: Labels) -> Tensor:
        """Return -log p(text | image), (B,); of the last refinement if there are any, given the reading before it."""
        if self.reads_by_step:
            return super().nll(memory, labels)
        memory = Memory.of(memory)
        logits, _ = self._read_at_once(memory, self.initial_state(memory), self.refinements)
        return smoothed_text_nll(logits.float().log_softmax(dim=2), labels, 0.0)

    def transcribe(self, memory: Memory | Tensor, *, beam_size: int = 1) -> Hypotheses:
        """Transcribe left to right as the family does, or return the text of the last pass, without a beam."""
        if self.reads_by_step:
            return super().transcribe(memory, beam_size=beam_size)
        memory = Memory.of(memory)
        return self._text_of_pass(memory, self.initial_state(memory), self.refinements)

    def alignment(self, memory: Memory | Tensor, labels: Labels) -> Tensor:
        """Return the attention of the last layer to the frames, the mean of its heads, (B, S, T)."""
        memory = Memory.of(memory)
        state = self.initial_state(memory)
        if self.reads_by_step:
            tokens = F.pad(labels.ids, (1, 0), value=self.start)[:, : max(1, labels.longest)]
            _, asked = self._read_from_left(memory, state, tokens)
        else:
            _, asked = self._read_at_once(memory, state, self.refinements)
        of_frames = self.network.layers[-1].of_frames
        return of_frames.weights(asked, state[1][-1], memory.valid[:, None, None])[:, : labels.longest]

    def _read_from_left(self, memory: Memory, state: State, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits (B, S, V) and what is asked (B, S, N), each position given tokens (B, S) up to its own."""
        steps = tokens.shape[1]
        mask = causal_mask(steps, steps, memory.device)
        logits, asked, _ = self.network(
            tokens, *state, memory.valid, num_queries=steps, of_queries=mask, of_content=mask
        )
        return logits, asked

    def _read_at_once(self, memory: Memory, state: State, refinement: int) -> tuple[Tensor, Tensor]:
        """Return logits (B, S, V) and what is asked (B, S, N) for all positions, in the first pass, 0, or a refinement.

        The first pass is given no character, a refinement the text of the pass before but for the own character of each
        position.
        """
        steps = self.max_length + 1
        start = torch.full((memory.batch, 1), self.start, device=memory.device)
        if refinement == 0:
            logits, asked, _ = self.network(start, *state, memory.valid, num_queries=steps)
            return logits, asked
        text = self._text_of_pass(memory, state, refinement - 1)
        tokens = torch.cat([start, F.pad(text.ids, (0, self.max_length - text.ids.shape[1]))], dim=1)  # (B, S)
        inside = self._inside(text.lengths, steps)
        logits, asked, _ = self.network(
            tokens,
            *state,
            memory.valid,
            num_queries=steps,
            of_queries=cloze_mask(steps, memory.device) & inside,
            of_content=causal_mask(steps, steps, memory.device) & inside,
        )
        return logits, asked

    def _text_of_pass(self, memory: Memory, state: State, refinement: int) -> Hypotheses:
        """Return the text of the first pass, 0, or of a refinement."""
        if refinement == 0 and self.from_left:
            return super().transcribe(memory)
        logits, _ = self._read_at_once(memory, state, refinement)
        return text_to_first_end(logits.float().log_softmax(dim=2))

    def _inside(self, lengths: Tensor, steps: int) -> Tensor:
        """Return which content is the start or a character of a text, (B, 1, 1, S) bool, for lengths (B,)."""
        return torch.arange(steps, device=lengths.device) <= lengths[:, None, None, None]


@hookimpl
def register_decoders() -> list[type[PARSeq]]:
    """Register the decoder of this file."""
    return [PARSeq]
