"""Worker: trains cells of a results folder that nobody holds, on any machine that sees the folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from decoderbench.analysis import Analysis
from decoderbench.deadline import NO_DEADLINE, Deadline
from decoderbench.errors import DataError
from decoderbench.planning.prepare import Prepared
from decoderbench.records.cell_differences import why_missing
from decoderbench.records.results_directory import ResultsDirectory
from decoderbench.records.schema import Plan
from decoderbench.registry.registry import Registry
from decoderbench.runs.reproduction import prepare_again
from decoderbench.runs.runner import execute


def work(
    source: str | Path,
    registry: Registry,
    *,
    device: torch.device,
    base_dir: str | Path | None = None,
    deadline: Deadline = NO_DEADLINE,
    **execution: Any,
) -> Analysis:
    """Train the cells of a results folder that have no result and that no other process is training.

    Cells that others are training are waited for, and taken over if their process dies. The report is written at the
    end, as by a run.

    Args:
        source: the results folder, in which a run has written its plan.
        registry: the components.
        device: where to train.
        base_dir: where relative paths of the experiment start; default: where they did.
        deadline: when training is saved and ends early; default: never.
        execution: options of `execute`.

    Raises:
        ConfigError: leases in the folder do not keep other processes away.
        DataError: the folder does not state its experiment, or the data, components or settings are others here.
    """
    directory = ResultsDirectory(source)
    directory.refuse_unsafe_leases()
    plan = directory.read_plan()
    prepared = prepare_again(directory, plan, registry, base_dir, deadline)
    _refuse_other_plan(directory, plan, prepared)
    return execute(prepared, directory, device, same_as=plan, **execution)


def _refuse_other_plan(directory: ResultsDirectory, plan: Plan, prepared: Prepared) -> None:
    """Raise `DataError` if the cells that are planned here are not those of the folder."""
    for there, here in ((plan.tuning, prepared.trials), (plan.cells, prepared.decide(directory.read))):
        ids = {cell.cell_id for cell in here}
        if missing := [cell for cell in there if cell.cell_id not in ids]:
            raise DataError(
                f"{missing[0].title} would be another cell here: {why_missing(missing[0], here)}; nothing was trained"
            )
