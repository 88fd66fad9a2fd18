"""The rules that the record of a trainer must fulfill before it is published. No torch here."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import ValidationError

from decoderbench.config.cell import Cell
from decoderbench.exception_text import MAX_TEXT, describe_error, to_printable_line
from decoderbench.records.record_files import MAX_RESULT
from decoderbench.records.schema import FORMAT, RunRecord

MAX_RECORD = MAX_RESULT // 2
"""Characters of a record; sizes and digests of its files are added, and a larger file is not read."""

FRACTIONS = ("exact_match", "one_minus_ned")
"""The metrics that are fractions of 1."""


def accept_record(record: object, cell: Cell, num_test: int) -> RunRecord:
    """Return the record as it will be read again, with a reason that can be printed.

    Args:
        record: what a trainer returned.
        cell: the cell that it trained.
        num_test: the number of images that metrics are computed over: of the test split, of a trial the validation.

    Raises:
        ValueError: it is not the record of the cell, or breaks a rule.
    """
    if not isinstance(record, RunRecord):
        raise ValueError(
            f"{_short(record)} instead of this cell's record; return this cell's RunRecord, or None to let another "
            f"plugin run it; a wrapper returns the result of its `yield`"
        )
    if record.cell != cell:
        raise ValueError("the record of another cell; return the record of the cell that it was called with")
    try:
        given = {**dict(record), "cost": dict(record.cost), "reason": to_printable_line(record.reason)}
        text = RunRecord.model_validate(given).model_dump_json()
        again = RunRecord.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        place, message = ".".join(map(str, first["loc"])), first["msg"].removeprefix("Value error, ")
        raise ValueError(to_printable_line(f"a record with {place} = {_short(first['input'])}: {message}")) from error
    except Exception as error:
        raise ValueError(f"a record that cannot be written and read: {describe_error(error)}") from error
    if len(text) > MAX_RECORD:
        raise ValueError(f"a record of {len(text):,} characters, which must have at most {MAX_RECORD:,}")
    if broken := next(_broken_rules(again, num_test), None):
        raise ValueError(f"a record with {broken}; return context.finish(...)")
    return again


def _broken_rules(record: RunRecord, num_test: int) -> Iterator[str]:
    """Yield what is wrong with a record, as in "exact_match = 5.0, which must be in 0..1"."""
    metrics, cost = record.metrics, record.cost.model_dump()
    cost |= {f"latency_ms of {length}": value for length, value in cost.pop("latency_ms_by_length").items()}
    if record.format != FORMAT:
        yield f"format = {record.format}, which must be {FORMAT}, or nothing could read it"
    for name in FRACTIONS:
        if (value := metrics.get(name)) is not None and not 0 <= value <= 1:
            yield f"{name} = {value}, which is a fraction of 1 and must be in 0..1"
    at_least_0 = {"cer": metrics.get("cer"), "kept_step": record.kept_step, **cost}
    for name, value in at_least_0.items():
        if value is not None and value < 0:
            yield f"{name} = {value}, which must be at least 0"
    for name, text in {"device": record.device, **record.environment}.items():
        if len(name + text) > MAX_TEXT:
            yield f"{_short(name)} of {len(text):,} characters, which must be text of at most {MAX_TEXT}"
    if record.status != "done":
        if not record.reason:
            yield f"the status {record.status} and no reason, which must say why there is no result"
        return
    if record.num_test != num_test:
        split = record.cell.scored_split
        yield f"num_test = {record.num_test}, which must be {num_test}, the images of the {split} split"
    if metrics.get("exact_match") is None:
        yield "the status done and no exact_match, which must be a fraction of 1"


def _short(value: object) -> str:
    """Return the start of a value's `repr`; a plugin's object may raise in it."""
    try:
        return to_printable_line(repr(value), 80)
    except KeyboardInterrupt:
        raise
    except BaseException:  # noqa: BLE001 - as above
        return f"an object of class {type(value).__name__}"
