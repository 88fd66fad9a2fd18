"""The per-character family: all characters are predicted at once, none knows another.

A leaf scores every position of a text, the family provides nll, loss and the search. The first to read words like
this: Jaderberg et al. 2014, "Synthetic Data and Artificial Neural Networks for Natural Scene Text Recognition", model
CHAR.
"""

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor

from decoderbench.labels import Labels
from decoderbench.model.autoregressive import smoothed_nll, token_targets
from decoderbench.model.memory import Memory
from decoderbench.model.stages import Decoder, Hypotheses
from decoderbench.specs import LabelSpec, SequenceSpec


class PerCharacterDecoder(Decoder):
    """A decoder for which p(text) is the product of the probabilities of its characters and of the end.

    The leaf implements `log_probs`. Position s of a text has its own distribution over the charset and the end, which
    depends on the image only. `label_smoothing` is an attribute that a leaf may set: `loss` then smooths its targets.
    """

    label_smoothing: float = 0.0

    def __init__(self, config: Any, memory: SequenceSpec, labels: LabelSpec) -> None:
        super().__init__(config, memory, labels)
        self.num_positions = labels.max_length + 1  # S, the end included
        self.vocabulary_size = len(labels.charset) + 1

    @abstractmethod
    def log_probs(self, memory: Memory) -> Tensor:
        """Return the log probability of each character and of the end at each position, (B, S, V), V last the end.

        S is `num_positions`, V is `vocabulary_size`. The probabilities of a position sum to at most 1.
        """

    def nll(self, memory: Memory | Tensor, labels: Labels) -> Tensor:
        """Return -log p(text | image), (B,), the end of the text included."""
        return smoothed_text_nll(self.log_probs(Memory.of(memory)), labels, 0.0)

    def loss(self, memory: Memory | Tensor, labels: Labels) -> Tensor:
        """Return the cross entropy of each text with smoothed targets, (B,); the nll without smoothing."""
        return smoothed_text_nll(self.log_probs(Memory.of(memory)), labels, self.label_smoothing)

    def transcribe(self, memory: Memory | Tensor, *, beam_size: int = 1) -> Hypotheses:
        """Return the most probable token of each position up to the first end, as in SRN, ViTSTR and MGP-STR.

        With a beam of any width above 1, return the most probable of all texts.
        """
        log_probs = self.log_probs(Memory.of(memory))
        return text_to_first_end(log_probs) if beam_size == 1 else best_text(log_probs)

    def transcribe_and_score(self, memory: Memory | Tensor, *, beam_size: int = 1) -> tuple[Hypotheses, Tensor]:
        """Return the texts that `transcribe` returns and their nll, (B,), which the search has summed up."""
        read = self.transcribe(memory, beam_size=beam_size)
        return read, -read.log_prob


def smoothed_text_nll(log_probs: Tensor, labels: Labels, smoothing: float) -> Tensor:
    """Return the cross entropy with smoothed targets of each text and its end, (B,), in nats; see `smoothed_nll`.

    Args:
        log_probs: (B, S, V), the end last; S is at least `labels.longest` + 1.
        labels: the texts.
        smoothing: from 0 to 1; 0 for the nll.
    """
    end = log_probs.shape[2] - 1
    given = token_targets(labels, start=end, end=end)  # there is no start, and nothing reads the tokens
    return smoothed_nll(log_probs[:, : labels.longest + 1], given, smoothing)


def best_text(log_probs: Tensor) -> Hypotheses:
    """Return the most probable of all texts of at most S - 1 characters, for log probabilities (B, S, V), the end last.

    The best text of each length has the best character at each position, so one cumulative sum over positions scores
    the best texts of all lengths. It can be more probable than that of `text_to_first_end`. Where a model is unsure it
    is short or empty, because each further character makes a text less probable.
    """
    characters, end = log_probs[:, :, :-1], log_probs[:, :, -1]
    best, ids = characters[:, :-1].max(dim=2)  # (B, S - 1)
    before_end = torch.cat([torch.zeros_like(end[:, :1]), best.cumsum(dim=1)], dim=1)  # (B, S)
    log_prob, lengths = (before_end + end).max(dim=1)
    inside = torch.arange(ids.shape[1], device=ids.device) < lengths[:, None]
    ended = (lengths < ids.shape[1]) | (end[:, -1] >= characters[:, -1].amax(dim=1))
    return Hypotheses(torch.where(inside, ids, 0), lengths, log_prob, ended)


def text_to_first_end(log_probs: Tensor) -> Hypotheses:
    """Return the most probable token of each position up to the first end.

    As in a reading from left to right, the end is forced at the last position.

    Args:
        log_probs: (B, S, V), the end last. Where the end of the last position has -inf, so may the text.
    """
    end = log_probs.shape[2] - 1
    scores, tokens = log_probs.max(dim=2)  # (B, S)
    inside = (tokens[:, :-1] == end).cumsum(dim=1) == 0  # (B, S - 1)
    lengths = inside.sum(dim=1)
    at_end = log_probs[:, :, end].gather(1, lengths[:, None]).squeeze(1)
    return Hypotheses(
        ids=torch.where(inside, tokens[:, :-1], 0),
        lengths=lengths,
        log_prob=torch.where(inside, scores[:, :-1], 0.0).sum(dim=1) + at_end,
        ended=tokens.gather(1, lengths[:, None]).squeeze(1) == end,
    )
