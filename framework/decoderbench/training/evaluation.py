"""Transcription and scoring of rows of a dataset: one function for validation and test."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from decoderbench.data.resident_dataset import ResidentDataset
from decoderbench.deadline import NO_DEADLINE, Deadline
from decoderbench.errors import DivergedError
from decoderbench.metrics import Definition, Evaluation, Transcriptions, built_in_definitions
from decoderbench.model.recognizer import Recognizer
from decoderbench.options import EvaluationOptions
from decoderbench.training.returned_texts import ReturnedTexts
from decoderbench.training.transcription import copy_to_host, read_batch, texts_of

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
            images, labels, columns = dataset.gather(batch_rows)
            memory, on_device = read_batch(recognizer, images, columns, beam_size=options.beam_size)
            read, scored = copy_to_host(on_device, recognizer.decoder.nll(memory, labels))
            hypotheses += texts_of(read, scored, len(batch_rows), dataset.charset, normalize)
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


def _refuse_not_finite(values: NDArray[np.float64], what: str) -> None:
    if len(bad := np.flatnonzero(~np.isfinite(values))):
        raise DivergedError(f"{what} is {values[bad[0]]} for {len(bad)} of {len(values)} images")
