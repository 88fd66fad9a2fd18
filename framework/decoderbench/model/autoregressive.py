"""The autoregressive family: a leaf implements one step, the family provides end of text, nll, greedy and beam search.

Sutskever et al. 2014, "Sequence to Sequence Learning with Neural Networks".
"""

from abc import abstractmethod
from typing import Any, ClassVar, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from decoderbench.labels import Labels
from decoderbench.model.memory import Memory
from decoderbench.model.stages import Decoder, Hypotheses
from decoderbench.specs import LabelSpec, SequenceSpec

State = Any


class TokenTargets(NamedTuple):
    """What an autoregressive decoder reads and has to predict for a batch of labels, S = `labels.longest` + 1 steps.

    Attributes:
        tokens: (B, S) int64, the input of each step: the start, then the characters.
        targets: (B, S) int64, the output of each step: the characters, then the end.
        counted: (B, S) bool, the steps up to the end of each text.
    """

    tokens: Tensor
    targets: Tensor
    counted: Tensor


class PrefixScorer(Protocol):
    """What scores the prefixes of a beam search next to the decoder: CTC, for example. N = B * K rows, K beams each."""

    def initial_state(self, beam_size: int) -> State:
        """Return the state of the empty prefix, N rows of each tensor."""

    def scores(self, state: State) -> Tensor:
        """Return the score of each whole prefix followed by each character, then by the end, (N, V), in nats."""

    def advance(self, state: State, token: Tensor) -> State:
        """Return the state after one more token (N,) of each prefix; that of a text that ends has no meaning."""


class AutoregressiveDecoder(Decoder):
    """A decoder that emits one character per step, each conditioned on the previous ones.

    The leaf implements `initial_state` and `step`. Tokens are the ids of the charset, then `end`, then `start`. The
    input of a step is any of `num_tokens` tokens; its output scores the first `vocabulary_size`, the charset and `end`.
    A state is a tensor or a (nested) tuple of tensors, all with the batch as first dimension.

    The methods of the leaf get the frames of the memory, (B, T, D), those that show padding too. With
    `takes_memory = True` they get the `Memory`, and promise to read its valid frames only.
    """

    takes_memory: ClassVar[bool] = False

    def __init__(self, config: Any, memory: SequenceSpec, labels: LabelSpec) -> None:
        super().__init__(config, memory, labels)
        self.reads_padding = not self.takes_memory
        self.max_length = labels.max_length
        self.end = len(labels.charset)
        self.start = self.end + 1
        self.vocabulary_size = len(labels.charset) + 1
        self.num_tokens = len(labels.charset) + 2

    @property
    def reads_by_step(self) -> bool:
        """Whether it transcribes as its family does, so that others can search with it; a leaf with a search of its
        own that is not always used says when."""
        return type(self).transcribe is AutoregressiveDecoder.transcribe

    @abstractmethod
    def initial_state(self, memory: Any) -> State:
        """Return the state before the first step."""

    @abstractmethod
    def step(self, token: Tensor, state: State, memory: Any) -> tuple[Tensor, State]:
        """Read `token` (B,) int64; return logits (B, V) of the next token, and the next state."""

    def teacher_forced_logits(self, memory: Any, tokens: Tensor) -> Tensor:
        """Return logits (B, S, V) for given input tokens (B, S).

        The family calls `step` S times. A leaf that can compute all steps at once may override this method, and no
        other method of the family. In eval mode the result must equal that of `step`.
        """
        state, logits = self.initial_state(memory), []
        for token in tokens.unbind(dim=1):
            step_logits, state = self.step(token, state, memory)
            logits.append(step_logits)
        return torch.stack(logits, dim=1)

    def nll(self, memory: Memory | Tensor, labels: Labels) -> Tensor:
        """Return -log p(text | image), (B,), the end of the text included, under teacher forcing."""
        given = self.token_targets(labels)
        logits = self.teacher_forced_logits(self.leaf_memory(memory), given.tokens)
        return smoothed_nll(logits.float().log_softmax(dim=-1), given, 0.0)

    def token_targets(self, labels: Labels) -> TokenTargets:
        """Return what the decoder reads and has to predict at each step."""
        return token_targets(labels, start=self.start, end=self.end)

    def transcribe(self, memory: Memory | Tensor, *, beam_size: int = 1) -> Hypotheses:
        """Transcribe greedily if `beam_size` is 1, else by beam search; force `end` after `max_length` characters.

        A text has ended by itself if `end` was chosen, or is the most probable token where it is forced.
        """
        memory = Memory.of(memory)
        return self._greedy(memory) if beam_size == 1 else self.beam_search(memory, beam_size)

    def transcribe_and_score(self, memory: Memory | Tensor, *, beam_size: int = 1) -> tuple[Hypotheses, Tensor]:
        """Return the texts that `transcribe` returns and their nll, (B,), which the search has summed up."""
        read = self.transcribe(memory, beam_size=beam_size)
        return read, -read.log_prob

    def leaf_memory(self, memory: Memory | Tensor) -> Any:
        """Return what the methods of the leaf get."""
        memory = Memory.of(memory)
        return memory if self.takes_memory else memory.frames

    def _greedy(self, memory: Memory) -> Hypotheses:
        batch, given = memory.batch, self.leaf_memory(memory)
        state = self.initial_state(given)
        token = torch.full((batch,), self.start, dtype=torch.int64, device=memory.device)
        ended = torch.zeros_like(token, dtype=torch.bool)
        log_prob = torch.zeros(batch, device=memory.device)
        ids: list[Tensor] = []
        for position in range(self.max_length + 1):
            logits, state = self.step(token, state, given)
            log_probs = logits.float().log_softmax(dim=-1)  # (B, V)
            if position == self.max_length:
                log_prob = log_prob + torch.where(ended, 0.0, log_probs[:, self.end])
                ended = ended | (log_probs.argmax(dim=-1) == self.end)
                break
            score, token = log_probs.max(dim=-1)
            log_prob = log_prob + torch.where(ended, 0.0, score)
            ended = ended | (token == self.end)
            ids.append(torch.where(ended, -1, token))
            if all_ended(ended):
                break
        text = torch.stack(ids, dim=1)  # (B, S)
        return Hypotheses(text.clamp(min=0), (text >= 0).sum(dim=1), log_prob, ended)

    def beam_search(
        self, memory: Memory | Tensor, beam_size: int, scorer: PrefixScorer | None = None, weight: float = 0.0
    ) -> Hypotheses:
        """Keep the `beam_size` best prefixes, including ended ones. The K beams of an image are K rows.

        Prefixes rank by log probability or, with a scorer, by (1 - weight) * log probability + weight * score, as in
        Watanabe et al. 2017, "Hybrid CTC/Attention Architecture for End-to-End Speech Recognition", equation 15. The
        `log_prob` of the result is that of the decoder alone.
        """
        memory = Memory.of(memory)
        batch = memory.batch
        image = torch.arange(batch, device=memory.device).repeat_interleave(beam_size)
        state = select_rows(self.initial_state(self.leaf_memory(memory)), image)  # computed once for all K
        given = self.leaf_memory(memory.repeat_interleave(beam_size))  # (B*K, T, D)
        scorer_state = None if scorer is None else scorer.initial_state(beam_size)
        token = torch.full((batch * beam_size,), self.start, dtype=torch.int64, device=memory.device)
        ended = torch.zeros(batch, beam_size, dtype=torch.bool, device=memory.device)
        log_prob = torch.full((batch, beam_size), float("-inf"), device=memory.device)
        log_prob[:, 0] = 0.0  # all beams start equal, so only one may count
        rank = log_prob
        text = token.new_empty(batch, beam_size, 0)
        first_row = torch.arange(batch, device=memory.device)[:, None] * beam_size

        for position in range(self.max_length + 1):
            logits, state = self.step(token, state, given)
            log_probs = logits.float().log_softmax(dim=-1).view(batch, beam_size, -1)  # (B, K, V)
            # An ended text has a single continuation, another end, which leaves it as it is.
            grown = log_prob[:, :, None] + torch.where(ended[:, :, None], 0.0, log_probs)
            ranks = grown
            if scorer is not None:
                ranks = (1 - weight) * grown + weight * scorer.scores(scorer_state).view_as(grown)
            only_end = torch.full_like(grown, float("-inf"))
            only_end[:, :, self.end] = rank
            ranks = torch.where(ended[:, :, None], only_end, ranks)
            if position == self.max_length:
                ended = ended | (ranks.argmax(dim=-1) == self.end)
                log_prob, rank = grown[:, :, self.end], ranks[:, :, self.end]
                break
            rank, chosen = ranks.flatten(1).topk(beam_size, dim=1)  # (B, K)
            log_prob = grown.flatten(1).gather(1, chosen)
            parent, chosen_token = chosen // self.vocabulary_size, chosen % self.vocabulary_size
            ended = ended.gather(1, parent) | (chosen_token == self.end)
            text = text.gather(1, parent[:, :, None].expand(-1, -1, position))
            text = torch.cat([text, torch.where(ended, -1, chosen_token)[:, :, None]], dim=2)
            if all_ended(ended):
                break
            token, row = chosen_token.flatten(), (first_row + parent).flatten()
            state = select_rows(state, row)
            if scorer is not None:
                scorer_state = scorer.advance(select_rows(scorer_state, row), token)
        best = rank.argmax(dim=1)
        rows = torch.arange(batch, device=best.device)
        text = text[rows, best]  # (B, S)
        return Hypotheses(text.clamp(min=0), (text >= 0).sum(dim=1), log_prob[rows, best], ended[rows, best])


def all_ended(ended: Tensor) -> bool:
    """Return whether all texts have ended: the one wait for the device, once per character.

    Always False on the meta device, which has no values, and in a graph that is exported, which takes all steps.
    """
    return not ended.is_meta and not torch.compiler.is_exporting() and bool(ended.all())


def select_rows(state: State, rows: Tensor) -> State:
    """Return the state of the given rows (N,) int64 of the batch; raise `TypeError` if `state` is not a valid state."""
    if isinstance(state, Tensor):
        return state.index_select(0, rows)
    if not isinstance(state, tuple | list):
        raise TypeError(f"a state is a tensor or a (nested) tuple of tensors, given {type(state).__name__}")
    return tuple(select_rows(part, rows) for part in state)


def token_targets(labels: Labels, *, start: int, end: int) -> TokenTargets:
    """Return the tokens, targets and counted steps of labels, for the given ids of the start and end of a text."""
    ids = labels.ids[:, : labels.longest]  # (B, L)
    inside = F.pad(labels.mask()[:, : labels.longest], (0, 1), value=False)  # (B, S), S = L + 1
    targets = torch.where(inside, F.pad(ids, (0, 1)), end)
    counted = F.pad(inside, (1, 0), value=True)[:, :-1]  # the characters of each text and its end
    return TokenTargets(F.pad(ids, (1, 0), value=start), targets, counted)


def smoothed_nll(log_probs: Tensor, given: TokenTargets, smoothing: float) -> Tensor:
    """Return the cross entropy with smoothed targets of each text, (B,), in nats; the nll if `smoothing` is 0.

    Each target has the probability 1 - smoothing, and all V tokens share the rest alike (Szegedy et al. 2016,
    "Rethinking the Inception Architecture for Computer Vision").

    Args:
        log_probs: (B, S, V).
        given: the targets.
        smoothing: from 0 to 1.
    """
    scores = log_probs.gather(2, given.targets[:, :, None]).squeeze(2)  # (B, S)
    if smoothing:
        scores = (1 - smoothing) * scores + smoothing * log_probs.mean(dim=2)
    return -torch.where(given.counted, scores, 0.0).sum(dim=1)
