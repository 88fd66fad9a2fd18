"""Training a grid in this process, and an observer that records what happened."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from decoderbench import Experiment, hookimpl, run
from decoderbench.registry.registry import Registry
from helpers.commands import leave_out_figures


class RecordingObserver:
    """Records which cells were started, validated and finished.

    Attributes:
        started: decoder labels in the order of their start.
        finished: status by decoder label, in the order of their end.
        validated: the step of each validation.
    """

    def __init__(self) -> None:
        self.started: list[str] = []
        self.finished: dict[str, str] = {}
        self.validated: list[int] = []

    @hookimpl
    def cell_started(self, cell: Any) -> None:
        self.started.append(cell.decoder.label)

    @hookimpl
    def cell_validated(self, cell: Any, step: int, scores: Any) -> None:
        self.validated.append(step)

    @hookimpl
    def cell_finished(self, cell: Any, record: Any) -> None:
        self.finished[cell.decoder.label] = record.status


def observe(registry: Registry) -> RecordingObserver:
    """Register an observer for all later runs with this registry, and return it."""
    observer = RecordingObserver()
    registry.plugins.add(observer, "observer")
    return observer


def add_variant(registry: Registry, kind: str, base: type[Any], name: str, **overrides: Any) -> None:
    """Register a component derived from `base` with other methods."""
    registry[kind].add(type(name, (base,), {"name": name, "__module__": __name__} | overrides), "test", "test")


def train(
    tiny: dict[str, Any],
    registry: Registry,
    results: Path,
    *,
    report: bool = False,
    figures: bool = False,
    **options: Any,
) -> pd.DataFrame:
    """Run the experiment on the CPU and return the frame of its cells.

    Neither the report is written by default nor, with `report`, its figures: each takes longer than to train the cells.
    """
    with pytest.MonkeyPatch.context() as patch:
        if not (report or figures):
            patch.setattr("decoderbench.runs.runner.write_files", lambda analysis, command: None)
        elif not figures:
            leave_out_figures(patch)
        return run(Experiment(**tiny), registry=registry, results=results, device="cpu", **options)
