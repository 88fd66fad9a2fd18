"""The conditions that a result was made under, and which of them differ between two results. No torch here.

A condition that a record does not state is empty, and differs from nothing.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

CONDITIONS = {
    "device": "device",
    "threads": "threads",
    "jobs": "jobs",
    "measured": "measured",
    "cpu_capability": "CPU capability",
    "compute_capability": "compute capability",
    "cuda": "CUDA",
    "cudnn": "cuDNN",
    "driver": "driver",
    "float32": "float32",
    "auto_precision": "precision auto",
    "torch": "torch",
    "timm": "timm",
    "sources": "decoderbench sources",
    "dataset_source": "dataset source",
    "wrappers": "plugins around run_cell",
    "decoderbench": "decoderbench",
    "python": "Python",
    "commit": "commit",
}
"""What a record states about its origin: the name of each condition, and the words for it in messages."""

DECISIVE = frozenset(CONDITIONS) - {"jobs", "measured", "decoderbench", "python", "commit"}
"""The conditions that can change the numbers of a cell. The digest of the sources stands for version and commit."""

_COSTLY = DECISIVE - {"timm", "sources", "dataset_source"}

COSTLY = {
    "latency_ms": _COSTLY | {"measured"},
    "train_samples_per_sec": _COSTLY | {"jobs"},
    "train_seconds": _COSTLY | {"jobs"},
    "infer_samples_per_sec": _COSTLY | {"measured"},
    "train_peak_memory_mb": _COSTLY,
    "infer_peak_memory_mb": _COSTLY,
}
"""The measured costs of a cell, and the conditions without which each of them cannot be compared."""

ALONE = "alone"
"""The value of `measured` if no other cell was trained on the machine while latency and throughput were measured."""

GIVEN = "given_"
"""Begins the name of a condition of the run that a component or trainer has changed for its cell."""

SOURCE_OF_DATASET = "dataset_source of "
"""Begins the name under which a run with several datasets states the source of each."""


def environment_of(dataset: str, environment: Mapping[str, str]) -> dict[str, str]:
    """Return the conditions of a run for a cell with this dataset: of several sources of datasets, that of its own."""
    own = {name: value for name, value in environment.items() if not name.startswith(SOURCE_OF_DATASET)}
    if (source := environment.get(f"{SOURCE_OF_DATASET}{dataset}")) is not None:
        own["dataset_source"] = source
    return own


def given_conditions_of(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the conditions of the run that made a record, before its components changed any."""
    given = {name.removeprefix(GIVEN): value for name, value in environment.items() if name.startswith(GIVEN)}
    return conditions_of({**environment, **given})


def conditions_of(environment: Mapping[str, str]) -> dict[str, str]:
    """Return every condition that the environment of a record states; the device is its machine."""
    known = {name: environment.get(name, "") for name in CONDITIONS}
    # Records made before 2026-11-27 state the number of threads after the name of a CPU too.
    return known | {"device": re.sub(r", \d+ threads?$", "", environment.get("machine", ""))}


def differing(one: Mapping[str, str], other: Mapping[str, str], names: Collection[str]) -> list[str]:
    """Return those of the named conditions that both state and that differ, in a fixed order."""
    return [name for name in CONDITIONS if name in names and one[name] and other[name] and one[name] != other[name]]
