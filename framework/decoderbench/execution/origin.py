"""The origin of a record: the conditions that its cell ran under. No torch here."""

from __future__ import annotations

from collections.abc import Mapping

from decoderbench.conditions import GIVEN
from decoderbench.records.schema import RunRecord


def with_origin(record: RunRecord, environment: Mapping[str, str]) -> RunRecord:
    """Return a record that states its origin, whatever the trainer that made it has stated.

    Where a component or trainer has changed a condition of the run, such as the threads, both values are stated.
    """
    if record.status == "infeasible":
        return record
    stated = record.environment
    given = {f"{GIVEN}{name}": value for name, value in environment.items() if stated.get(name, value) != value}
    return record.model_copy(
        update={
            "device": record.device or environment.get("machine", ""),
            "environment": {**environment, **stated, **given},
        }
    )
