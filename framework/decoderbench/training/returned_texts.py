"""What a decoder says about the texts that it has returned: their probability, and where it has read each character."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from decoderbench.alignments import MEASURES, Alignment
from decoderbench.labels import Charset
from decoderbench.model.memory import Memory
from decoderbench.model.recognizer import Recognizer
from decoderbench.model.stages import Hypotheses
from decoderbench.training.alignment_measures import measure_alignments

if TYPE_CHECKING:
    from numpy.typing import NDArray


class ReturnedTexts:
    """Scores the transcriptions of one batch after the other; results stay on the device until all are asked for.

    The ids count that the decoder returned, not the text that a normalizer made of them.

    Args:
        recognizer: in eval mode.
        charset: that of the ids.
        drawn: the rows whose alignments are kept.
    """

    def __init__(self, recognizer: Recognizer, charset: Charset, drawn: Collection[int]) -> None:
        self._decoder, self._charset, self._drawn = recognizer.decoder, charset, frozenset(drawn)
        self._left_to_right = recognizer.bridge.memory.left_to_right
        self._ended: list[bool | None] = []
        self._frames: list[int] = []
        self._scores: list[Tensor] = []  # (B,) each
        self._measures: list[Tensor] = []  # (B, 5) each
        self._wrong: list[Tensor] = []  # (), whether an alignment has an impossible weight
        self._alignments: dict[int, tuple[str, Tensor]] = {}

    def add(self, rows: NDArray[np.int64], memory: Memory, read: Hypotheses, on_host: Hypotheses) -> None:
        """Score the transcriptions `read` of a memory, a copy of which is on the host, of these rows (B,).

        Raises:
            ValueError: the decoder returned an alignment of another shape.
        """
        self._ended += [None] * len(rows) if on_host.ended is None else on_host.ended.tolist()
        self._frames += [memory.length] * len(rows)
        lengths = on_host.lengths.tolist()
        labels = read.labels(lengths)
        self._scores.append(-self._decoder.nll(memory, labels))
        weights = self._decoder.alignment(memory, labels)
        if weights is None:
            self._measures.append(torch.full((memory.batch, len(MEASURES)), math.nan, device=memory.device))
            return
        expected = (memory.batch, labels.longest, memory.length)
        if weights.shape != expected:
            raise ValueError(
                f"the alignment of the decoder must be (B, S, T) = {expected}, it is {tuple(weights.shape)}; "
                f"decoderbench check finds the cause"
            )
        self._wrong.append((labels.mask()[:, :, None] & ~(weights >= 0)).any())
        self._measures.append(measure_alignments(weights, read.lengths, left_to_right=self._left_to_right))
        for place, row in enumerate(rows.tolist()):
            if row in self._drawn:
                text = self._charset.decode(on_host.ids[place, : lengths[place]].tolist())
                self._alignments[row] = text, weights[place, : lengths[place]]

    def columns(self) -> dict[str, Sequence[object]]:
        """Return the details of an `Evaluation` by name, of all rows, but for their groups.

        Raises:
            ValueError: the decoder returned weights that are negative or not a number.
        """
        scores, measures, wrong = copy_to_host(self._scores, self._measures, self._wrong)
        if wrong:
            raise ValueError(
                "the alignment of the decoder has weights below 0, or that are not a number; decoderbench check finds "
                "the cause"
            )
        by_name = {"text_log_prob": scores, **dict(zip(MEASURES, measures.T.tolist(), strict=True))}
        numbers = {name: list(map(_or_none, values)) for name, values in by_name.items()}
        return {"ended": self._ended, "frames": self._frames, **numbers}

    def alignments(self, keys: Sequence[str]) -> tuple[Alignment, ...]:
        """Return the alignments of the drawn rows, in order of the rows; `keys` are those of all rows."""
        return tuple(
            Alignment(keys[row], text, weights.float().cpu().numpy())
            for row, (text, weights) in sorted(self._alignments.items())
        )


def copy_to_host(scores: list[Tensor], measures: list[Tensor], wrong: list[Tensor]) -> tuple[list[float], Tensor, bool]:
    """Return the results of all batches on the CPU, after the one wait for the device."""
    any_wrong = bool(torch.stack(wrong).any()) if wrong else False
    return torch.cat(scores).tolist(), torch.cat(measures).cpu(), any_wrong


def _or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None
