"""The plan of a prepared experiment as its results folder keeps it: `plan.json`."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from decoderbench.config.cell import Cell
from decoderbench.planning.prepare import Prepared
from decoderbench.records.schema import Plan, sizes_key


def plan_of(
    prepared: Prepared, cells: tuple[Cell, ...], folder: Path, *, command: str, origin: str, recipe: Sequence[str]
) -> Plan:
    """Return the plan of an experiment.

    Args:
        prepared: the experiment.
        cells: its cells, with what tuning has chosen so far.
        folder: that of the results.
        command: the command line that asks for it.
        origin: digest of the path of the experiment file or of the compared folder; empty if it has none.
        recipe: how settings were chosen from the data.
    """
    return Plan(
        experiment=prepared.experiment.name,
        question=prepared.experiment.question,
        command=command,
        cells=cells,
        tuning=prepared.trials,
        settings={label: str(setting) for label, setting in prepared.experiment.grid.settings.items()},
        data_summary=tuple(prepared.data_summary()),
        data_notes=tuple(prepared.data_notes()),
        definition=json.dumps(
            {
                "experiment": prepared.experiment.as_given(),
                "base_dir": os.path.relpath(prepared.base_dir.resolve(), folder.resolve()),
            }
        ),
        origin=origin,
        recipe=tuple(recipe),
        split_sizes=next(iter(prepared.data.values())).audit.counts,
        sizes={
            sizes_key(key, fold): inputs.audit.of_fold(fold).counts
            for key, inputs in prepared.data.items()
            for fold in inputs.folds
        },
    )
