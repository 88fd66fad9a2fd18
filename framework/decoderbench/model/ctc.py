"""The CTC family: a leaf scores each frame, the family provides blank, nll, best path and prefix beam search.

Graves et al. 2006, "Connectionist Temporal Classification"; prefix beam search as in Hannun et al. 2014,
"First-Pass Large Vocabulary Continuous Speech Recognition using Bi-Directional Recurrent DNNs".
"""

from abc import abstractmethod
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from decoderbench.errors import InfeasibleError
from decoderbench.labels import Labels
from decoderbench.model.memory import Memory
from decoderbench.model.stages import Decoder, Hypotheses
from decoderbench.specs import LabelSpec, SequenceSpec

BLANK = 0  # character i of the charset is class i + 1
IMPOSSIBLE = float("-inf")


class CTCDecoder(Decoder):
    """A decoder that scores each frame once; the leaf implements `forward(memory) -> logits (B, T, V)`.

    V is `vocabulary_size`: the blank, then the charset. A text has at most T characters, whatever `max_length` is.
    Every frame is scored, those of padding too, which are blank once that is learned. With `takes_memory = True`,
    `forward` gets the `Memory` instead of its frames (B, T, D).

    Raises:
        InfeasibleError: the frames are not in reading order, or fewer than the labels need.
    """

    takes_memory: ClassVar[bool] = False
    reads_padding = True

    def __init__(self, config: Any, memory: SequenceSpec, labels: LabelSpec) -> None:
        super().__init__(config, memory, labels)
        if not memory.left_to_right:
            raise InfeasibleError(
                "CTC needs frames in reading order, the frames of this memory do not run from left to right; use a "
                "bridge with one frame per column of the feature map"
            )
        if memory.length < labels.frames_needed:
            raise InfeasibleError(
                f"CTC needs T >= {labels.frames_needed} for the longest label (one frame per character, plus one blank "
                f"between repeated characters), this memory has T = {memory.length}; use an earlier encoder stage, "
                f"keep_width or a wider image"
            )
        self.vocabulary_size = len(labels.charset) + 1

    def first_character_in(self, weight: str, dimension: int) -> int:
        return BLANK + 1

    @abstractmethod
    def forward(self, memory: Any) -> Tensor:
        """Return unnormalized logits (B, T, V)."""

    def nll(self, memory: Memory | Tensor, labels: Labels) -> Tensor:
        """Return -log p(text | image), (B,); infinite, not zeroed, if T is too small for a label.

        Raises:
            ValueError: an id is outside of the charset; not on CUDA, which would wait for it.
        """
        return self.nll_of(self.log_probs(memory), labels)

    def nll_of(self, log_probs: Tensor, labels: Labels) -> Tensor:
        """Return -log p(text | image), (B,), given the log probabilities of the classes, (B, T, V); as `nll` does."""
        if labels.ids.device.type == "cpu":
            _refuse_other_ids(labels, self.vocabulary_size - 1)
        # F.ctc_loss copies targets and lengths on CUDA to the host before it calls this operator (torch 2.14).
        nll: Tensor = torch.ops.aten._ctc_loss(
            log_probs.transpose(0, 1),  # it is time-major
            labels.ids + 1,
            [log_probs.shape[1]] * len(log_probs),
            labels.host_lengths,
            BLANK,
        )[0]
        return nll  # (B,)

    def transcribe(self, memory: Memory | Tensor, *, beam_size: int = 1) -> Hypotheses:
        """Transcribe by best path if `beam_size` is 1, else by prefix beam search."""
        return search(self.log_probs(memory), beam_size)

    def transcribe_and_score(self, memory: Memory | Tensor, *, beam_size: int = 1) -> tuple[Hypotheses, Tensor]:
        """Return the texts that `transcribe` returns and their nll, (B,), with one pass over the memory."""
        if (type(self).transcribe, type(self).nll) != (CTCDecoder.transcribe, CTCDecoder.nll):
            return super().transcribe_and_score(memory, beam_size=beam_size)  # a leaf has one of its own
        log_probs = self.log_probs(memory)
        read = search(log_probs, beam_size)
        return read, self.nll_of(log_probs, read.labels())

    def alignment(self, memory: Memory | Tensor, labels: Labels) -> Tensor:
        """Return the probability that a frame emits a character, over all paths that spell the text, (B, S, T).

        The sum over the characters is at most 1 in each frame; the rest is the probability of the blank.
        """
        return occupancy(self.log_probs(memory), labels)

    def log_probs(self, memory: Memory | Tensor) -> Tensor:
        """Return the log probabilities of blank and characters in each frame, (B, T, V)."""
        memory = Memory.of(memory)
        logits: Tensor = self(memory if self.takes_memory else memory.frames)
        expected = (memory.batch, memory.length, self.vocabulary_size)
        if logits.shape != expected:
            raise ValueError(
                f"forward of a CTC decoder must return logits (B, T, V) = {expected}, it returned {tuple(logits.shape)}"
            )
        return logits.float().log_softmax(dim=-1)  # (B, T, V)


def _refuse_other_ids(labels: Labels, num_characters: int) -> None:
    """Raise if an id is outside of the charset: the operator would read memory beyond the log probabilities."""
    ids = labels.ids[labels.mask()]
    if ids.numel() and (int(ids.min()) < 0 or int(ids.max()) >= num_characters):
        raise ValueError(
            f"labels have ids from {int(ids.min())} to {int(ids.max())}, the charset has ids from 0 to "
            f"{num_characters - 1}; encode labels with the charset of the experiment"
        )


def occupancy(log_probs: Tensor, labels: Labels) -> Tensor:
    """Return p(frame t emits character s | text, image), (B, S, T), for log_probs (B, T, V), S = `labels.longest`.

    By the forward-backward algorithm over the 2S + 1 states blank, character 0, blank, ..., blank (Graves et al. 2006,
    section 4.1). All entries are 0 for a text that needs more frames than there are. Nothing waits for the device.
    """
    batch, frames, _ = log_probs.shape
    if labels.longest == 0:
        return log_probs.new_zeros(batch, 0, frames)
    ids = labels.ids[:, : labels.longest] + 1  # (B, S)
    states = F.pad(torch.stack([torch.full_like(ids, BLANK), ids], dim=2).flatten(1), (0, 1), value=BLANK)  # (B, 2S+1)
    # A path goes on to the next state, or over a blank to the next character if it is another one.
    may_skip = F.pad((states[:, 2:] != BLANK) & (states[:, 2:] != states[:, :-2]), (2, 0), value=False)
    number = torch.arange(states.shape[1], device=states.device)
    last = 2 * labels.lengths[:, None]
    scores = log_probs.gather(2, states[:, None].expand(-1, frames, -1))  # (B, T, 2S+1)

    reached = torch.where(number < 2, scores[:, 0], IMPOSSIBLE)
    forward = [reached]
    for frame in scores[:, 1:].unbind(dim=1):
        skipped = torch.where(may_skip, F.pad(reached, (2, 0), value=IMPOSSIBLE)[:, :-2], IMPOSSIBLE)
        moved = F.pad(reached, (1, 0), value=IMPOSSIBLE)[:, :-1]
        reached = torch.stack([reached, moved, skipped]).logsumexp(dim=0) + frame
        forward.append(reached)

    left = torch.where((number == last) | (number == last - 1), 0.0, IMPOSSIBLE).expand(batch, -1)
    backward = [left]
    for frame in scores[:, 1:].flip(1).unbind(dim=1):
        after = left + frame
        skipped = F.pad(torch.where(may_skip, after, IMPOSSIBLE), (0, 2), value=IMPOSSIBLE)[:, 2:]
        moved = F.pad(after, (0, 1), value=IMPOSSIBLE)[:, 1:]
        left = torch.stack([after, moved, skipped]).logsumexp(dim=0)
        backward.append(left)

    joint = torch.stack(forward, dim=1) + torch.stack(backward[::-1], dim=1)  # (B, T, 2S+1)
    total = joint[:, :1].logsumexp(dim=2, keepdim=True)  # log p(text | image), the same in all frames
    posterior = (joint - total.clamp(min=torch.finfo(total.dtype).min)).exp().clamp(max=1.0)
    return posterior[:, :, 1::2].transpose(1, 2)  # (B, S, T)


def search(log_probs: Tensor, beam_size: int) -> Hypotheses:
    """Return the best path of log_probs (B, T, V) if `beam_size` is 1, else the text of a prefix beam search."""
    return best_path(log_probs) if beam_size == 1 else prefix_beam_search(log_probs, beam_size)


def best_path(log_probs: Tensor) -> Hypotheses:
    """Collapse the most probable path of log_probs (B, T, V): first merge repeated classes, then remove blanks.

    `log_prob` is the log probability of this single path. No operation depends on values, so the meta device works too.
    """
    batch, frames, _ = log_probs.shape
    scores, path = log_probs.max(dim=-1)  # (B, T)
    previous = F.pad(path, (1, 0), value=BLANK)[:, :-1]  # (B, T)
    kept = (path != BLANK) & (path != previous)
    # Move kept symbols to the front, in order. All others go to one extra column, which is cut off.
    position = torch.where(kept, kept.cumsum(dim=1) - 1, frames)
    ids = path.new_zeros(batch, frames + 1).scatter_(1, position, path - 1)[:, :frames]
    lengths = kept.sum(dim=1)
    return Hypotheses(ids, lengths, scores.sum(dim=1))


def prefix_beam_search(log_probs: Tensor, beam_size: int) -> Hypotheses:
    """Search for the most probable text of log_probs (B, T, V), keeping `beam_size` prefixes per frame.

    The probabilities of all paths that collapse to the same prefix are added, separately for paths that end in blank
    and for other paths. The whole batch advances together. K beams: prefixes (B, K, T), scores (B, K).
    """
    batch, frames, classes = log_probs.shape
    prefixes = torch.full((batch, beam_size, frames), -1, dtype=torch.int64, device=log_probs.device)
    lengths = prefixes.new_zeros(batch, beam_size)
    blank_end = log_probs.new_full((batch, beam_size), IMPOSSIBLE)  # mass of paths that end in blank
    blank_end[:, 0] = 0.0
    symbol_end = torch.full_like(blank_end, IMPOSSIBLE)  # mass of paths that end in the last symbol

    for frame in log_probs.unbind(dim=1):  # (B, V)
        total = torch.logaddexp(blank_end, symbol_end)  # (B, K)
        last = last_symbol(prefixes, lengths)  # (B, K), -1 for the empty prefix
        symbols = frame[:, None, 1:].expand(batch, beam_size, classes - 1)  # (B, K, V-1)
        extended = total[:, :, None] + symbols
        # A repeated symbol starts a new character only after a blank.
        repeated = F.one_hot(last + 1, classes)[:, :, 1:].bool()
        extended = torch.where(repeated, blank_end[:, :, None] + symbols, extended)

        last_score = symbols.gather(2, last.clamp(min=0)[:, :, None]).squeeze(2)
        stay_symbol = torch.where(last >= 0, symbol_end + last_score, IMPOSSIBLE)
        stay_blank = total + frame[:, BLANK, None]

        # If prefix i plus a symbol equals prefix j of the beam, that mass belongs to j.
        joins = find_extensions(prefixes, lengths, total)  # (B, i, j)
        arriving = extended.gather(2, last.clamp(min=0)[:, None, :].expand(-1, beam_size, -1))  # (B, i, j)
        arriving = torch.where(joins, arriving, IMPOSSIBLE)
        stay_symbol = torch.logaddexp(stay_symbol, arriving.logsumexp(dim=1))
        moved = (F.one_hot(last + 1, classes)[:, None, :, 1:].bool() & joins[..., None]).any(dim=2)  # (B, i, V-1)
        extended = extended.masked_fill(moved, IMPOSSIBLE)

        candidates = torch.cat([torch.logaddexp(stay_blank, stay_symbol), extended.flatten(1)], dim=1)
        _, chosen = candidates.topk(beam_size, dim=1)  # (B, K)
        grows = chosen >= beam_size
        grown = (chosen - beam_size).clamp(min=0)
        parent = torch.where(grows, grown // (classes - 1), chosen)
        symbol = grown % (classes - 1)

        blank_end = torch.where(grows, IMPOSSIBLE, stay_blank.gather(1, parent))
        symbol_end = torch.where(grows, extended.flatten(1).gather(1, grown), stay_symbol.gather(1, parent))
        prefixes = prefixes.gather(1, parent[:, :, None].expand(-1, -1, frames))
        lengths = lengths.gather(1, parent)
        end = lengths.clamp(max=frames - 1)[:, :, None]
        prefixes = torch.where(grows[:, :, None], prefixes.scatter(2, end, symbol[:, :, None]), prefixes)
        lengths = lengths + grows.long()

    log_prob, best = torch.logaddexp(blank_end, symbol_end).max(dim=1)
    rows = torch.arange(batch, device=best.device)
    return Hypotheses(prefixes[rows, best].clamp(min=0), lengths[rows, best], log_prob)


def last_symbol(prefixes: Tensor, lengths: Tensor) -> Tensor:
    """Return the last symbol of each prefix, (B, K); -1 for an empty prefix."""
    last = prefixes.gather(2, (lengths - 1).clamp(min=0)[:, :, None]).squeeze(2)
    return torch.where(lengths > 0, last, -1)


def find_extensions(prefixes: Tensor, lengths: Tensor, total: Tensor) -> Tensor:
    """Return a mask (B, i, j): true if prefix j equals prefix i plus one symbol, and both have probability mass."""
    shortened = prefixes.scatter(2, (lengths - 1).clamp(min=0)[:, :, None], -1)  # (B, K, T)
    same = (prefixes[:, :, None] == shortened[:, None]).all(dim=-1)
    live = total > IMPOSSIBLE
    return same & (lengths > 0)[:, None] & live[:, :, None] & live[:, None]
