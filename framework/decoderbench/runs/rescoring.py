"""Metrics of done cells, computed again from their predictions: what a metric's number is depends on its source.

Each record states the source of its numbers. A number that is missing, or whose source is not the loaded one, is
computed from `predictions.parquet`, which holds what the metric saw: normalized references and hypotheses, and the
nll. Nothing is trained. `history.jsonl` stays: its numbers chose the weights that were tested. No torch here.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Mapping, Sequence

from decoderbench.analysis.predictions import TEST, read_predictions, transcriptions_of
from decoderbench.config.cell import Cell
from decoderbench.errors import DataError
from decoderbench.files.integrity import UnreadableError
from decoderbench.files.storage import StorageError
from decoderbench.metrics import BUILT_IN, Definition, Transcriptions, built_in_definitions, sources_of
from decoderbench.records.results_directory import ResultsDirectory
from decoderbench.records.schema import RunRecord

logger = logging.getLogger("decoderbench")

LEASE_SECONDS = 5.0
"""How long to wait for another process that holds a cell, such as another report."""


def rescore(directory: ResultsDirectory, cells: Sequence[Cell], definitions: Mapping[str, Definition]) -> None:
    """Bring the metrics of done cells up to date with these definitions, and log how many numbers were computed.

    A metric without a definition here keeps its numbers. So does a cell whose predictions are missing, or in a record
    of format 3 not its own; one warning per reason says which metrics those are. Damaged files are renamed, and their
    cells have no result any more.
    """
    computed: Counter[str] = Counter()
    kept: dict[str, list[tuple[Cell, list[str]]]] = {}
    for cell in cells:
        record = _read(directory, cell)
        if record is None or not _stale(record, definitions):
            continue
        with directory.lease(cell, timeout=LEASE_SECONDS) as held:
            record = directory.check(cell) if held else None
            if record is None or not (stale := _stale(record, definitions)):
                continue
            try:
                texts = _read_texts(directory, record)
            except DataError as error:
                if names := [name for name in stale if _is_known_to_be_stale(record, definitions[name])]:
                    kept.setdefault(str(error), []).append((cell, names))
                continue
            scores = {name: definitions[name].score(texts) for name in stale}
            sources = {name: source for name, source in record.metric_sources.items() if name not in stale}
            sources |= sources_of(definitions[name] for name in stale)
            changed = record.model_copy(update={"metrics": record.metrics | scores, "metric_sources": sources})
            if changed != record:
                directory.update(changed)
            computed.update(name for name in stale if _is_news(record, definitions[name], scores[name]))
    for name, number in computed.items():
        logger.info("metric %s: computed again for %s from their predictions", name, _count(number))
    for reason, cases in kept.items():
        metrics = ", ".join(dict.fromkeys(name for _, stale in cases for name in stale))
        where = f"{_count(len(cases))} (first: {directory.cell_directory(cases[0][0])})"
        logger.warning("predictions.parquet of %s: %s; not computed again: %s", where, reason, metrics)


def _read(directory: ResultsDirectory, cell: Cell) -> RunRecord | None:
    try:
        return directory.read(cell)
    except (UnreadableError, StorageError):
        return None  # the report names the file


def _read_texts(directory: ResultsDirectory, record: RunRecord) -> Transcriptions:
    """Return the predictions that the metrics of a record were computed from.

    Raises:
        DataError: the file is missing, damaged, or not that of the record. The message gives the reason alone.
    """
    texts = transcriptions_of(read_predictions(directory, record))
    if TEST not in record.artifacts and not record.predictions_digest:
        _refuse_other_numbers(texts, record)
    return texts


def _refuse_other_numbers(texts: Transcriptions, record: RunRecord) -> None:
    """Raise `DataError` if a record without a digest of its predictions has numbers that they do not give."""
    given = {name: value for name in BUILT_IN if (value := record.metrics.get(name)) is not None}
    found = {name: built_in_definitions()[name].score(texts) for name in given}
    if not given or not all(_has_number(record, name, value) for name, value in found.items()):
        raise DataError("it is not that of the record, whose numbers differ")


def _stale(record: RunRecord, definitions: Mapping[str, Definition]) -> list[str]:
    """Return the metrics of a record that have no number, or one that is not known to be of the given definition."""
    if record.status != "done":
        return []
    return [
        name
        for name, definition in definitions.items()
        if record.metrics.get(name) is None  # or it failed, for want of a file that is there now
        or not definition.source
        or record.metric_sources.get(name) != definition.source
    ]


def _is_known_to_be_stale(record: RunRecord, definition: Definition) -> bool:
    if definition.name not in record.metrics:
        return definition.name not in BUILT_IN  # a trainer of its own may have left out a built-in one
    return bool(definition.source) and record.metric_sources.get(definition.name) not in (None, definition.source)


def _is_news(record: RunRecord, definition: Definition, score: float | None) -> bool:
    """Return whether a score replaces a number of another definition, or differs from what the record has."""
    if score is None and record.metrics.get(definition.name) is None:
        return False
    return _is_known_to_be_stale(record, definition) or not _has_number(record, definition.name, score)


def _has_number(record: RunRecord, name: str, value: float | None) -> bool:
    """Return whether a record has this value of a metric, up to rounding."""
    before = record.metrics.get(name)
    if before is None or value is None:
        return name in record.metrics and before is value
    return math.isclose(before, value, rel_tol=1e-9, abs_tol=1e-12)


def _count(number: int) -> str:
    return f"{number} cell{'s' * (number != 1)}"
