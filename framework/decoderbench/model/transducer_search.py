"""The search of a transducer: all beams of all images take a step at a time, a blank or a character each.

Alignment-length synchronous decoding: Saon et al. 2020, "Alignment-Length Synchronous Decoding for RNN Transducer".
After as many steps, equal texts have read equally many frames, so their alignments can be added; T + L steps read T
frames and emit at most L characters. One beam is the greedy search.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from decoderbench.model.autoregressive import State, all_ended, select_rows
from decoderbench.model.ctc import BLANK, IMPOSSIBLE, find_extensions, last_symbol
from decoderbench.model.stages import Hypotheses

Predict = Callable[[Tensor, State | None], tuple[Tensor, State]]


@dataclass(frozen=True)
class TransducerSearch:
    """How a transducer is searched.

    Attributes:
        predict: reads the last character as a class (N,), the blank and no state at the start; returns the projected
            state of the prediction network (N, J) and its state, a tensor or tuple of tensors with N rows.
        head: from J to V classes, the blank first, then the charset.
        max_length: the most characters of a text.
        max_symbols_per_frame: the most characters that are emitted in a frame. Alignments of one text that emit
            different numbers in the current frame count as that with fewest.
    """

    predict: Predict
    head: nn.Linear
    max_length: int
    max_symbols_per_frame: int

    def run(self, frames: Tensor, valid: Tensor, beam_size: int) -> Hypotheses:
        """Transcribe projected frames (B, T, J), of which those count that are valid, (B, T).

        A text is finished when its last frame is read, and leaves the beams. An image is done when its best finished
        text is at least as probable as all its beams together. `log_prob` is that of all alignments that were kept, a
        lower bound of log p(text | image). It waits for the device after step T only, to learn whether all are done.
        """
        batch, length, width = frames.shape
        order = valid.to(torch.uint8).sort(dim=1, descending=True, stable=True).indices  # valid frames first
        frames = frames.gather(1, order[:, :, None].expand(-1, -1, width))
        last_frame = valid.sum(dim=1, keepdim=True) - 1  # (B, 1)
        beams = _Beams.start(batch, beam_size, self.max_length, frames)
        best = beams.finish(torch.ones_like(beams.frame, dtype=torch.bool))
        best = replace(best, log_prob=torch.full_like(best.log_prob, IMPOSSIBLE))
        first_row = torch.arange(batch, device=frames.device)[:, None] * beam_size
        blanks = torch.full((batch * beam_size,), BLANK, device=frames.device)
        prediction, state = self.predict(blanks, None)
        for step in range(1, length + self.max_length + 1):
            place = beams.frame.minimum(last_frame)[:, :, None].expand(-1, -1, width)
            joint = (frames.gather(1, place) + prediction.view(batch, beam_size, -1)).tanh()
            log_probs = self.head(joint).float().log_softmax(dim=2)  # (B, K, V)
            read = replace(beams, score=beams.score + log_probs[:, :, BLANK])
            ends = beams.frame == last_frame
            best = _better(best, read.finish(ends))
            parent, grows, beams = self._grow(beams, torch.where(ends, IMPOSSIBLE, read.score), log_probs[:, :, 1:])
            if step >= length and all_ended(best.log_prob >= beams.score.logsumexp(dim=1)):
                break
            rows = (first_row + parent).flatten()
            grown = self.predict(last_symbol(beams.text, beams.length).flatten() + 1, select_rows(state, rows))
            prediction, state = _choose(grows.flatten(), grown, select_rows((prediction, state), rows))
        return replace(best, ids=best.ids.clamp(min=0))

    def _grow(self, beams: "_Beams", stay: Tensor, characters: Tensor) -> tuple[Tensor, Tensor, "_Beams"]:
        """Return the best beams after a step, the beam (B, K) that each comes from, and whether it has emitted.

        Args:
            beams: those before the step.
            stay: (B, K), their scores after a blank.
            characters: (B, K, V - 1), the log probabilities of characters.
        """
        size, classes = characters.shape[1:]
        full = (beams.length >= self.max_length) | (beams.in_frame >= self.max_symbols_per_frame)
        emit = torch.where(full, IMPOSSIBLE, beams.score)[:, :, None] + characters
        if size > 1:
            # If text i plus a character equals text j, which has read one frame more, that mass belongs to j.
            joins = find_extensions(beams.text, beams.length, beams.score)  # (B, i, j)
            last = last_symbol(beams.text, beams.length)[:, None].expand(-1, size, -1)  # (B, i, j)
            arriving = torch.where(joins, emit.gather(2, last.clamp(min=0)), IMPOSSIBLE)
            stay = torch.logaddexp(stay, arriving.logsumexp(dim=1))
            spare = torch.cat([emit, torch.zeros_like(emit[:, :, :1])], dim=2)  # one more, for those that do not join
            emit = spare.scatter(2, torch.where(joins, last, classes), IMPOSSIBLE)[:, :, :classes]
        score, chosen = torch.cat([stay, emit.flatten(1)], dim=1).topk(size, dim=1)  # (B, K)
        grows = chosen >= size
        parent = torch.where(grows, (chosen - size) // classes, chosen)
        return parent, grows, beams.after(parent, grows, (chosen - size) % classes, score)


@dataclass(frozen=True)
class _Beams:
    """The K partial texts of each image.

    Attributes:
        text: (B, K, L), ids of the charset, -1 past the end; L is the most characters of a text.
        length: (B, K), the number of characters.
        frame: (B, K), the frame that is read next.
        in_frame: (B, K), the number of characters emitted there.
        score: (B, K), log p of the alignments that were kept; -inf where there is no beam.
    """

    text: Tensor
    length: Tensor
    frame: Tensor
    in_frame: Tensor
    score: Tensor

    @staticmethod
    def start(batch: int, size: int, max_length: int, frames: Tensor) -> "_Beams":
        text = torch.full((batch, size, max_length), -1, device=frames.device)
        zeros = torch.zeros(batch, size, dtype=torch.int64, device=frames.device)
        score = torch.full((batch, size), IMPOSSIBLE, device=frames.device)
        score[:, 0] = 0.0  # all beams start equal, so only one may count
        return _Beams(text, zeros, zeros, zeros, score)

    def finish(self, ends: Tensor) -> Hypotheses:
        """Return the most probable text of those that end, (B, K) bool; its score is -inf if there is none."""
        log_prob, best = torch.where(ends, self.score, IMPOSSIBLE).max(dim=1)
        rows = torch.arange(len(best), device=best.device)
        return Hypotheses(self.text[rows, best], self.length[rows, best], log_prob)

    def after(self, parent: Tensor, grows: Tensor, character: Tensor, score: Tensor) -> "_Beams":
        """Return the beams that come from `parent` (B, K) by a character where they grow, else by a blank."""
        text = self.text.gather(1, parent[:, :, None].expand_as(self.text))
        length, frame, in_frame = (part.gather(1, parent) for part in (self.length, self.frame, self.in_frame))
        limit = text.shape[2]  # beams that do not exist may have no place left
        grown = text.scatter(2, length.clamp(max=limit - 1)[:, :, None], character[:, :, None])
        return _Beams(
            torch.where(grows[:, :, None], grown, text),
            (length + grows.long()).clamp(max=limit),
            frame + (~grows).long(),
            torch.where(grows, in_frame + 1, 0),
            score,
        )


def _better(one: Hypotheses, other: Hypotheses) -> Hypotheses:
    """Return the more probable text of each image, the first if they are equal."""
    wins = other.log_prob > one.log_prob
    return Hypotheses(
        torch.where(wins[:, None], other.ids, one.ids),
        torch.where(wins, other.lengths, one.lengths),
        torch.where(wins, other.log_prob, one.log_prob),
    )


def _choose(rows: Tensor, one: State, other: State) -> State:
    """Return the state `one` where `rows` (N,) is true, else the other."""
    if isinstance(one, Tensor):
        return torch.where(rows[:, None], one, other)
    return tuple(_choose(rows, *pair) for pair in zip(one, other, strict=True))
