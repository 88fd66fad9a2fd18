"""The rules that the record of a trainer must fulfill before it is published. No torch here."""

from __future__ import annotations

import math
from collections.abc import Iterator

from decoderbench.config.cell import Cell
from decoderbench.exception_text import MAX_TEXT, describe_error, to_printable_line
from decoderbench.records import Cost, RunRecord
from decoderbench.scalars import to_plain

FRACTIONS = ("exact_match", "one_minus_ned")


def accept_record(record: object, cell: Cell, num_test: int) -> RunRecord:
    """Return the record as it will be read again, with a reason that can be printed.

    Raises:
        ValueError: it is not the record of the cell, or breaks a rule.
    """
    if not isinstance(record, RunRecord):
        raise ValueError(
            f"{_short(record)} instead of this cell's record; return this cell's RunRecord, or None to let another "
            f"plugin run it; a wrapper returns the result of its `yield`"
        )
    record = _with_plain_numbers(record).model_copy(update={"reason": to_printable_line(str(record.reason))})
    if broken := next(_broken_rules(record, num_test), None):
        raise ValueError(f"a record with {broken}; return context.finish(...)")
    try:
        again = RunRecord.model_validate_json(record.model_dump_json(warnings="error"))
    except Exception as error:
        raise ValueError(f"a record that cannot be written and read: {describe_error(error)}") from error
    if record.cell != cell:
        raise ValueError("the record of another cell; return the record of the cell that it was called with")
    return again


def _with_plain_numbers(record: RunRecord) -> RunRecord:
    """Return the record with numbers of any class as Python's; a value that is no number stays, to be refused."""
    costs = {name: _plain_or_same(getattr(record.cost, name)) for name in Cost.model_fields}
    return record.model_copy(
        update={
            "metrics": {name: _plain_or_same(value) for name, value in record.metrics.items()},
            "cost": record.cost.model_copy(update=costs),
            "num_test": _plain_or_same(record.num_test),
            "kept_step": _plain_or_same(record.kept_step),
        }
    )


def _plain_or_same(value: object) -> object:
    try:
        return to_plain(value)
    except ValueError:
        return value


def _broken_rules(record: RunRecord, num_test: int) -> Iterator[str]:
    """Yield what is wrong with a record, as in "exact_match = 5.0, which must be in 0..1"."""
    numbers = {**record.metrics, **{name: getattr(record.cost, name) for name in Cost.model_fields}}
    for name, value in numbers.items():
        if value is not None and not (_is_number(value) and math.isfinite(value)):
            yield f"{name} = {_short(value)}, which must be a finite number or None"
    for name in Cost.model_fields:
        if (value := getattr(record.cost, name)) is not None and value < 0:
            yield f"{name} = {value}, which must be at least 0"
    for name in FRACTIONS:
        if (value := record.metrics.get(name)) is not None and not 0 <= value <= 1:
            yield f"{name} = {value}, which is a fraction of 1 and must be in 0..1"
    if (value := record.metrics.get("cer")) is not None and value < 0:
        yield f"cer = {value}, which must be at least 0"
    for name in ("device", *record.environment):
        text = record.device if name == "device" else record.environment[name]
        if not isinstance(text, str) or len(text) > MAX_TEXT:
            yield f"{_short(name)} = {_short(text)}, which must be text of at most {MAX_TEXT} characters"
    if record.kept_step is not None and not (_is_number(record.kept_step) and record.kept_step >= 0):
        yield f"kept_step = {_short(record.kept_step)}, which must be at least 0"
    if record.status != "done":
        if not record.reason:
            yield f"the status {record.status} and no reason, which must say why there is no result"
        return
    if record.num_test != num_test:
        given = _short(record.num_test)
        yield f"the status done and num_test = {given}, which must be {num_test}, the images of the test split"
    if record.metrics.get("exact_match") is None:
        yield "the status done and no exact_match, which must be a fraction of 1"


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _short(value: object) -> str:
    """Return the start of a value's `repr`; a plugin's object may raise in it."""
    try:
        return to_printable_line(repr(value), 80)
    except KeyboardInterrupt:
        raise
    except BaseException:  # noqa: BLE001 - as above
        return f"an object of class {type(value).__name__}"
