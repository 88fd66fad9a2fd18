"""The loss of a transducer over all alignments of a text with the frames, by anti-diagonals, in little memory.

Graves 2012, "Sequence Transduction with Recurrent Neural Networks". At node (t, u) the first u characters are emitted
and frame t is read: the blank goes on to frame t + 1, character u to node (t, u + 1) in the same frame. A text of U
characters is a path from (0, 0) to (T, U), so it may have more characters than there are frames. A frame that is not
valid is skipped: there the blank is certain.

The joint network is tanh(frame + text) and a linear head. Its logits (B, T, U + 1, V) never exist as a whole: blocks of
frames are computed one after the other, reduced to the two log probabilities per node that paths need, and computed
again in the backward pass.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from decoderbench.labels import Labels
from decoderbench.model.ctc import BLANK, IMPOSSIBLE

VALUES_PER_BLOCK = 2**22  # hidden values and logits of a block of frames: 17 MB in float32


def transducer_nll(frames: Tensor, text: Tensor, labels: Labels, valid: Tensor, head: nn.Linear) -> Tensor:
    """Return -log p(text | image) in nats, (B,): minus the logarithm of the sum over all alignments.

    Args:
        frames: (B, T, J), the projected frames.
        text: (B, U + 1, J), the projected state of the prediction network before each character and after the last one,
            U = `labels.longest`.
        labels: the texts.
        valid: (B, T) bool, the frames that count.
        head: from J to V classes, the blank first.
    """
    blank, label = _by_antidiagonal(frames, text, labels, valid, head)
    nll: Tensor = _NegativeLogLikelihood.apply(blank, label, labels.lengths)
    return nll


def transducer_alignment(frames: Tensor, text: Tensor, labels: Labels, valid: Tensor, head: nn.Linear) -> Tensor:
    """Return p(character s is emitted at frame t | text, image), (B, S, T), S = `labels.longest`; see `transducer_nll`.

    The sum over the frames is 1 for each character of a text, and all entries past its end are 0.
    """
    blank, label = _by_antidiagonal(frames, text, labels, valid, head)
    _, emitted = _posterior(blank, label, labels.lengths, _reached(blank, label))
    longest = labels.longest
    nodes = torch.arange(frames.shape[1], device=frames.device)[:, None] + torch.arange(longest, device=frames.device)
    weights = emitted[:, :, :longest].gather(1, nodes.expand(len(frames), -1, -1)).transpose(1, 2)  # (B, S, T)
    return weights / weights.sum(dim=2, keepdim=True).clamp(min=torch.finfo(weights.dtype).tiny)


def _by_antidiagonal(
    frames: Tensor, text: Tensor, labels: Labels, valid: Tensor, head: nn.Linear
) -> tuple[Tensor, Tensor]:
    """Return log p of blank and of the next character at node (t, u) in row t + u, both (B, T + U, U + 1)."""
    batch, length, _ = frames.shape
    inside = F.pad(labels.mask()[:, : labels.longest], (0, 1), value=False)  # (B, U + 1): a character is left
    classes = torch.where(inside, F.pad(labels.ids[:, : labels.longest], (0, 1)) + 1, BLANK)
    blank, label = _JointLogProbs.apply(frames, text, classes, head.weight, head.bias)  # (B, T, U + 1)
    blank = torch.where(valid[:, :, None], blank, 0.0)
    label = torch.where(valid[:, :, None] & inside[:, None], label, IMPOSSIBLE)
    row = torch.arange(length + text.shape[1] - 1, device=frames.device)[:, None]
    frame = row - torch.arange(text.shape[1], device=frames.device)  # (T + U, U + 1)
    exists = (frame >= 0) & (frame < length)
    place = frame.clamp(0, length - 1).expand(batch, -1, -1)
    return tuple(torch.where(exists, part.gather(1, place), IMPOSSIBLE) for part in (blank, label))  # type: ignore[return-value]


class _JointLogProbs(torch.autograd.Function):
    """Log p of the blank and of the class (B, U + 1) that follows, at each node, both (B, T, U + 1)."""

    @staticmethod
    def forward(
        context: Any, frames: Tensor, text: Tensor, classes: Tensor, weight: Tensor, bias: Tensor
    ) -> tuple[Tensor, Tensor]:
        context.save_for_backward(frames, text, classes, weight, bias)
        blanks, labels = [], []
        for block in _blocks(frames, text, weight):
            logits = F.linear((block[:, :, None] + text[:, None]).tanh(), weight, bias)  # (B, t, U + 1, V)
            total = logits.logsumexp(dim=3)
            blanks.append(logits[..., BLANK] - total)
            labels.append(logits.gather(3, _as_index(classes, logits)).squeeze(3) - total)
        return torch.cat(blanks, dim=1), torch.cat(labels, dim=1)

    @staticmethod
    @once_differentiable
    def backward(context: Any, of_blank: Tensor, of_label: Tensor) -> tuple[Tensor | None, ...]:
        frames, text, classes, weight, bias = context.saved_tensors
        of_frames: list[Tensor] = []
        of_text, of_weight, of_bias = (torch.zeros_like(part) for part in (text, weight, bias))
        first = 0
        for block in _blocks(frames, text, weight):
            part = slice(first, first := first + block.shape[1])
            hidden = (block[:, :, None] + text[:, None]).tanh()  # (B, t, U + 1, J)
            blank, label = of_blank[:, part, :, None], of_label[:, part, :, None]
            logits = F.linear(hidden, weight, bias).softmax(dim=3).mul_(-(blank + label))  # now the gradient of logits
            logits[..., BLANK] += blank.squeeze(3)
            logits.scatter_add_(3, _as_index(classes, logits), label)
            of_weight += logits.flatten(0, 2).T @ hidden.flatten(0, 2)
            of_bias += logits.sum(dim=(0, 1, 2))
            of_sum = (logits @ weight).mul_(1 - hidden.square())  # (B, t, U + 1, J)
            of_frames.append(of_sum.sum(dim=2))
            of_text += of_sum.sum(dim=1)
        return torch.cat(of_frames, dim=1), of_text, None, of_weight, of_bias


def _blocks(frames: Tensor, text: Tensor, weight: Tensor) -> Sequence[Tensor]:
    """Return the frames (B, T, J) in blocks (B, t, J), such that hidden values and logits of a block are few."""
    per_frame = len(frames) * text.shape[1] * sum(weight.shape)
    return torch.split(frames, max(1, VALUES_PER_BLOCK // max(1, per_frame)), dim=1)


def _as_index(classes: Tensor, logits: Tensor) -> Tensor:
    """Return classes (B, U + 1) as an index into the last dimension of logits (B, t, U + 1, V)."""
    return classes[:, None, :, None].expand(-1, logits.shape[1], -1, 1)


def _reached(blank: Tensor, label: Tensor) -> Tensor:
    """Return log p of reaching each node, (B, T + U + 1, U + 1), with one more row for the ends of paths."""
    reached = torch.full_like(blank[:, 0], IMPOSSIBLE)
    reached[:, 0] = 0.0
    rows = [reached]
    for by_blank, by_label in zip(blank.unbind(dim=1), label.unbind(dim=1), strict=True):
        emitted = F.pad(reached + by_label, (1, -1), value=IMPOSSIBLE)
        reached = torch.logaddexp(reached + by_blank, emitted)
        rows.append(reached)
    return torch.stack(rows, dim=1)


def _posterior(blank: Tensor, label: Tensor, lengths: Tensor, reached: Tensor) -> tuple[Tensor, Tensor]:
    """Return the probabilities that a path of the text leaves each node by blank and by character, as `blank`."""
    ends = _ends(reached, lengths)
    left = torch.where(ends[:, -1], 0.0, IMPOSSIBLE).to(blank.dtype)
    by_blank, by_label = [], []
    for row in reversed(range(blank.shape[1])):
        by_blank.append(left + blank[:, row])
        by_label.append(F.pad(left, (-1, 1), value=IMPOSSIBLE) + label[:, row])
        left = torch.where(ends[:, row], 0.0, torch.logaddexp(by_blank[-1], by_label[-1]))
    before = reached[:, :-1] - left[:, :1, None]  # left is now log p(text | image) at node (0, 0)
    leaving = (torch.stack(steps[::-1], dim=1) for steps in (by_blank, by_label))
    of_blank, of_label = ((before + after).exp() for after in leaving)
    return of_blank, of_label


def _ends(reached: Tensor, lengths: Tensor) -> Tensor:
    """Return a mask like `reached`, true at the end of the paths of each text: node (T, U) in row T + U."""
    rows, columns = reached.shape[1:]
    row = torch.arange(rows, device=reached.device)[:, None]
    column = torch.arange(columns, device=reached.device)
    return (row - column == rows - columns) & (column == lengths[:, None, None])


class _NegativeLogLikelihood(torch.autograd.Function):
    """-log of the sum over all paths; its gradient is minus the probability that a path takes each step."""

    @staticmethod
    def forward(context: Any, blank: Tensor, label: Tensor, lengths: Tensor) -> Tensor:
        reached = _reached(blank, label)
        context.save_for_backward(blank, label, lengths, reached)
        return -torch.where(_ends(reached, lengths), reached, 0.0).sum(dim=(1, 2))

    @staticmethod
    @once_differentiable
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        of_blank, of_label = _posterior(*context.saved_tensors)
        scale = -gradient[:, None, None]
        return scale * of_blank, scale * of_label, None
