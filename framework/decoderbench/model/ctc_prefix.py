"""CTC prefix scores: the probability of all texts that start with a prefix, for the beams of another decoder.

Watanabe et al. 2017, "Hybrid CTC/Attention Architecture for End-to-End Speech Recognition", algorithm 2, for all
beams and characters at once, as Seki et al. 2019 do in "Vectorized Beam Search for CTC-Attention-Based Speech
Recognition". No loop over the frames is left: the probability of a prefix plus a character is a product of matrices,
and the two recurrences over the frames are cumulative sums.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from decoderbench.model.ctc import BLANK, IMPOSSIBLE

State = tuple[Tensor, Tensor, Tensor]

LEAST = -1e5
"""The least log probability of a class; the differences of cumulative sums would not be numbers with -inf."""


class CTCPrefixScorer:
    """Scores the prefixes of a beam search by the CTC posteriors of its images; a `PrefixScorer`.

    The state of N = B * K rows, K beams per image: the mass of the paths that spell the prefix in the first t frames
    and end in a blank, (N, T + 1); the same for paths that end in its last character, (N, T + 1); that character as a
    class, (N,), the blank for the empty prefix. In float64, since sums over all frames are subtracted.

    Args:
        log_probs: (B, T, V), the log probabilities of the blank and the charset in each frame.
    """

    def __init__(self, log_probs: Tensor) -> None:
        self.log_probs = log_probs.double().clamp(min=LEAST)
        self.probs = self.log_probs[:, :, 1:].exp()  # (B, T, V-1), without the blank
        self.blank = F.pad(self.log_probs[:, :, BLANK].cumsum(dim=1), (1, 0))  # (B, T+1)

    def initial_state(self, beam_size: int) -> State:
        """Return the state of the empty prefix in all beams."""
        ends_in_blank = self.blank.repeat_interleave(beam_size, dim=0)
        last = torch.full((len(ends_in_blank),), BLANK, device=ends_in_blank.device)
        return ends_in_blank, torch.full_like(ends_in_blank, IMPOSSIBLE), last

    def scores(self, state: State) -> Tensor:
        """Return the log probability of each prefix followed by each character and any text, then by the end, (N, V).

        A character less probable than exp(-700) after its prefix counts as impossible.
        """
        ends_in_blank, _, last = state
        before = torch.logaddexp(*state[:2])[:, :-1]  # (N, T)
        largest = before.amax(dim=1, keepdim=True)
        scaled = (before - largest.clamp(min=torch.finfo(before.dtype).min)).exp()
        scaled = scaled.view(len(self.probs), -1, scaled.shape[1])  # (B, K, T)
        grown = (scaled @ self.probs).flatten(0, 1).log() + largest  # (N, V-1)
        # A repeated character starts a new one only after a blank.
        repeated = (ends_in_blank[:, :-1] + self._of_class(last)).logsumexp(dim=1)
        grown = torch.where(_is_class(last, grown.shape[1]), repeated[:, None], grown)
        ended = torch.logaddexp(ends_in_blank[:, -1], state[1][:, -1])
        return torch.cat([grown, ended[:, None]], dim=1).float()

    def advance(self, state: State, token: Tensor) -> State:
        """Return the state after a character of each prefix, (N,) ids; that of a row that ends has no meaning."""
        ends_in_blank, _, last = state
        chosen = (token + 1).clamp(max=self.probs.shape[2])  # (N,)
        before = torch.where((chosen == last)[:, None], ends_in_blank, torch.logaddexp(*state[:2]))
        ends_in_character = _recur(before, F.pad(self._of_class(chosen).cumsum(dim=1), (1, 0)))
        beams = len(token) // len(self.blank)
        return _recur(ends_in_character, self.blank.repeat_interleave(beams, dim=0)), ends_in_character, chosen

    def _of_class(self, chosen: Tensor) -> Tensor:
        """Return the log probabilities of one class per row, (N, T)."""
        images, frames, _ = self.log_probs.shape
        index = chosen.view(images, 1, -1).expand(-1, frames, -1)  # (B, T, K)
        return self.log_probs.gather(2, index).transpose(1, 2).flatten(0, 1)


def _is_class(last: Tensor, characters: int) -> Tensor:
    """Return a mask (N, V-1): true at the last character of each prefix."""
    return last[:, None] == torch.arange(1, characters + 1, device=last.device)


def _recur(entering: Tensor, emitted: Tensor) -> Tensor:
    """Return r (N, T+1) with r[0] = 0 and r[t] = (r[t-1] + entering[t-1]) * p[t], all as logarithms.

    Divided by p[1] * ... * p[t], of which `emitted` is the logarithm, it is a cumulative sum.
    """
    total = (entering - emitted)[:, :-1].logcumsumexp(dim=1)
    return F.pad(total + emitted[:, 1:], (1, 0), value=IMPOSSIBLE)
