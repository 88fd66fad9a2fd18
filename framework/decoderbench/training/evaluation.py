"""Transcription and scoring of rows of a dataset: one function for validation and test."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from decoderbench.data.resident_dataset import ResidentDataset
from decoderbench.deadline import NO_DEADLINE, Deadline
from decoderbench.errors import DivergedError
from decoderbench.metrics import Definition, Evaluation, Transcriptions, built_in_definitions
from decoderbench.model.recognizer import Recognizer
from decoderbench.model.stages import Hypotheses
from decoderbench.options import EvaluationOptions
from decoderbench.training.returned_texts import ReturnedTexts

if TYPE_CHECKING:
    from numpy.typing import NDArray


def evaluate(
    recognizer: Recognizer,
    dataset: ResidentDataset,
    rows: NDArray[np.int64],
    options: EvaluationOptions,
    metrics: Mapping[str, Definition] | None = None,
    *,
    normalize: Callable[[str], str] = str,
    deadline: Deadline = NO_DEADLINE,
    with_details: bool = False,
    drawn: Collection[int] = (),
) -> Evaluation:
    """Transcribe and score `rows`. Transcription sees images only; labels are used for the nll and the scores.

    `metrics` defaults to the built-in ones.
    A transcription is normalized like a label, so two code points that NFC composes into one are no error.

    Where widths vary, the rows of the result are grouped by bucket, the narrowest first.

    With details, the returned texts are scored by the nll and aligned with the frames too, which about doubles the
    time; the alignments of the `drawn` rows are kept.

    Raises:
        DivergedError: a score is not a finite number.
        ValueError: the decoder returned tensors of other shapes, ids outside the charset or impossible weights.
        PendingCellsError: the deadline has passed.
    """
    hypotheses: list[str] = []
    log_prob: list[float] = []
    nll: list[float] = []
    recognizer.eval()
    returned = ReturnedTexts(recognizer, dataset.charset, drawn) if with_details else None
    batches = list(dataset.in_order(rows, options.batch_size))
    rows = np.concatenate(batches)
    with torch.inference_mode():
        for batch_rows in batches:
            deadline.check("in an evaluation")
            images, labels, columns = dataset.gather(batch_rows).to_float()
            memory = recognizer.memory(images, columns)
            on_device = recognizer.decoder.transcribe(memory, beam_size=options.beam_size)
            read, scored = copy_to_host(on_device, recognizer.decoder.nll(memory, labels))
            _refuse_misshapen(read, scored, len(batch_rows), len(dataset.charset))
            for ids, length in zip(read.ids.tolist(), read.lengths.tolist(), strict=True):
                hypotheses.append(normalize(dataset.charset.decode(ids[:length])))
            log_prob += read.log_prob.tolist()
            nll += scored.tolist()
            if returned is not None:
                returned.add(batch_rows, memory, on_device, read)
    _refuse_not_finite(np.array(log_prob), "log_prob of a transcription")
    spellable = dataset.spellable[rows]
    _refuse_not_finite(np.array(nll)[spellable], "nll of a label")

    references = [dataset.labels[row] for row in rows]
    nll_or_none = [value if can else None for value, can in zip(nll, spellable, strict=True)]
    texts = Transcriptions(references, hypotheses, nll_or_none)
    definitions = built_in_definitions() if metrics is None else metrics
    scored_texts = Evaluation(
        keys=[dataset.store.keys[row] for row in rows],
        references=references,
        hypotheses=hypotheses,
        log_prob=log_prob,
        nll=nll_or_none,
        scores={name: definition.score(texts) for name, definition in definitions.items()},
    )
    if returned is None:
        return scored_texts
    groups = [dataset.audit.groups[row] for row in rows]
    return replace(
        scored_texts,
        details={"group": groups, **returned.columns()},
        alignments=returned.alignments(dataset.store.keys),
    )


def copy_to_host(read: Hypotheses, nll: Tensor) -> tuple[Hypotheses, Tensor]:
    """Return the results of a batch on the CPU: the only part of an evaluation that waits for the device."""
    ended = None if read.ended is None else read.ended.cpu()
    return Hypotheses(read.ids.cpu(), read.lengths.cpu(), read.log_prob.cpu(), ended), nll.cpu()


def _refuse_misshapen(read: Hypotheses, nll: Tensor, batch: int, num_characters: int) -> None:
    """Raise `ValueError` if a decoder breaks the contract of `Hypotheses` or `nll`."""
    rows = [read.lengths, read.log_prob, nll, *([] if read.ended is None else [read.ended])]
    shapes = [tuple(tensor.shape) for tensor in rows]
    if read.ids.ndim != 2 or len(read.ids) != batch or set(shapes) != {(batch,)}:
        raise ValueError(
            f"the decoder must return ids (B, S) and lengths, log_prob, nll and ended (B,), B = {batch}; it returned "
            f"{tuple(read.ids.shape)} and {', '.join(map(str, shapes))}; decoderbench check finds the cause"
        )
    inside = torch.arange(read.ids.shape[1], device=read.ids.device) < read.lengths[:, None]  # (B, S)
    wrong_length = (read.lengths < 0) | (read.lengths > read.ids.shape[1])
    wrong_id = inside & ((read.ids < 0) | (read.ids >= num_characters))
    if bool(wrong_length.any()) or bool(wrong_id.any()):
        raise ValueError(
            f"a transcription must have ids from 0 to {num_characters - 1} and lengths from 0 to {read.ids.shape[1]}; "
            f"the decoder returned others; decoderbench check finds the cause"
        )


def _refuse_not_finite(values: NDArray[np.float64], what: str) -> None:
    if len(bad := np.flatnonzero(~np.isfinite(values))):
        raise DivergedError(f"{what} is {values[bad[0]]} for {len(bad)} of {len(values)} images")
