"""Everything that a report states, as frames that are computed when they are asked for. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from decoderbench.analysis.frame import ExtraColumns, Results, load_results
from decoderbench.analysis.samples import Samples
from decoderbench.metrics import Definition
from decoderbench.records import Plan
from decoderbench.results_directory import ResultsDirectory


@dataclass(frozen=True, eq=False)
class Analysis:
    """The data of a report. Each frame is computed once, when it is asked for."""

    results: Results

    @cached_property
    def samples(self) -> Samples:
        """The predictions of the cells that are done."""
        return Samples(self.results)


def load_report(
    path: str | Path | ResultsDirectory,
    *,
    plan: Plan | None = None,
    extra_columns: ExtraColumns | None = None,
    metrics: Mapping[str, Definition] | None = None,
) -> Analysis:
    """Read a results directory, as `load_results` does, for all that a report states.

    Raises:
        DataError: the directory has no plan, or its plan is corrupt.
    """
    return Analysis(load_results(path, plan=plan, extra_columns=extra_columns, metrics=metrics))
