"""Tuning: the trials of each row, and the values that it chooses by them. Nothing is run or read here.

Every row has the same candidates, each with one trial per seed of tuning. A row chooses once all of its trials have a
record, so an interrupted run chooses what it would have chosen uninterrupted. With folds, each row chooses in each fold
by trials of that fold, so that no choice has seen the images that it is tested on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from statistics import fmean
from typing import Any

from decoderbench.config.cell import Cell
from decoderbench.config.experiment import Experiment
from decoderbench.config.tuning import TUNABLE, TuningOptions
from decoderbench.options import Options
from decoderbench.records.schema import RunRecord

ReadRecord = Callable[[Cell], RunRecord | None]
"""A function that returns the record of a cell; None if it has none."""

DIGITS = 12
"""Decimals of a mean of exact matches that count: fewer than a float has, so that equal means are equal."""


@dataclass(frozen=True)
class Candidate:
    """Values that a row may choose.

    Attributes:
        cells: the cells to test with these values, one per seed of the grid; with folds, those of one fold.
        trials: the cells that try them, one per seed of tuning.
    """

    cells: tuple[Cell, ...]
    trials: tuple[Cell, ...]


@dataclass(frozen=True)
class Tuning:
    """The candidates of each row, in grid order; with folds, of each row and fold."""

    rows: tuple[tuple[Candidate, ...], ...]

    @property
    def trials(self) -> tuple[Cell, ...]:
        """The trials of all rows that have something to choose: not of one that is infeasible with all values."""
        rows = [row for row in self.rows if not _is_infeasible(row)]
        return tuple(trial for row in rows for candidate in row for trial in candidate.trials)

    def summary(self, trials: Sequence[Cell]) -> str:
        """Return the number of `trials`, which are all or some of these, and what each row chooses of, as one line."""
        of_row = [trial for candidate in self.rows[0] for trial in candidate.trials]
        values = " | ".join(dict.fromkeys(trial.tuned_text for trial in of_row))
        seeds = dict.fromkeys(str(trial.seed) for trial in of_row)
        steps = dict.fromkeys(f"{trial.training.steps:,}" for trial in self.trials)
        fold = " and fold" if any(trial.folds for trial in self.trials) else ""
        return (
            f"{len(trials)} trials of tuning, {len(of_row)} per row{fold}, {', '.join(steps)} steps, "
            f"seed{'s' * (len(seeds) > 1)} {', '.join(seeds)}: each row chooses {values}"
        )

    def decide(self, read: ReadRecord) -> tuple[Cell, ...]:
        """Return the cells to test in grid order, with the values that each row has chosen.

        Those of a row that has not chosen yet are undecided. If no candidate can be chosen, they stay so, and
        `infeasible` says why. A row that is infeasible with all values has nothing to choose.
        """
        return tuple(cell for row in self.rows for cell in _decide(row, read))


def plan_tuning(
    experiment: Experiment, tuning: TuningOptions, plan_cells: Callable[[Experiment], Sequence[Cell]]
) -> Tuning:
    """Return the candidates of each row of an experiment.

    Args:
        experiment: what was asked for.
        tuning: its tuning.
        plan_cells: returns the cells of an experiment. What is planned depends on the size of batches alone, of all
            options that can be tuned, so it is called once per size.
    """
    planned: dict[int, Sequence[Cell]] = {}
    rows: dict[tuple[tuple[str, ...], int | None], list[Candidate]] = {}
    for values in tuning.candidates():
        changed = experiment.with_options(values)
        cells = planned.get(changed.training.batch_size)
        if cells is None:
            cells = planned[changed.training.batch_size] = plan_cells(changed)
        settings = changed.settings()
        for place, row in groupby(cells, key=lambda cell: (cell.variant, cell.fold)):
            variant, _ = place
            tables = {table: getattr(settings[variant[-1]], table) for table in TUNABLE}
            changes = {**tables, "tuned": {option: value_of(tables, option) for option in values}}
            candidate = candidate_of([cell.model_copy(update=changes) for cell in row], tuning)
            rows.setdefault(place, []).append(candidate)
    return Tuning(tuple(map(tuple, rows.values())))


def value_of(tables: Mapping[str, Options], option: str) -> Any:
    """Return the value of an option such as `training.learning_rate`."""
    table, _, name = option.partition(".")
    return getattr(tables[table], name)


def candidate_of(cells: Sequence[Cell], tuning: TuningOptions) -> Candidate:
    """Return a candidate for the cells of a row, one per seed, which have its values and state them as `tuned`."""
    steps = tuning.steps or cells[0].training.steps
    training = cells[0].training.model_copy(update={"steps": steps})
    trials = (
        cells[0].model_copy(update={"purpose": "tuning", "seed": seed, "training": training}) for seed in tuning.seeds
    )
    return Candidate(tuple(cells), tuple(trials))


def _decide(row: Sequence[Candidate], read: ReadRecord) -> Iterator[Cell]:
    """Yield the cells of a row."""
    if _is_infeasible(row):
        yield from (cell.model_copy(update={"tuned": {}}) for cell in row[0].cells)
        return
    records = [[read(trial) for trial in candidate.trials] for candidate in row]
    if any(record is None for trials in records for record in trials):
        yield from _undecided(row, None)
        return
    found = [[record for record in trials if record is not None] for trials in records]
    ranks = {index: rank for index, trials in enumerate(found) if (rank := _rank(trials)) is not None}
    if ranks:
        yield from row[max(ranks, key=ranks.__getitem__)].cells  # the first of equal ones
    else:
        failed = [record for trials in found for record in trials if record.status != "done"]
        reasons = "; ".join(dict.fromkeys(f"{record.status}: {record.reason}" for record in failed))
        yield from _undecided(row, f"tuning gave no value a score: {reasons or 'it is undefined'}")


def _is_infeasible(row: Sequence[Candidate]) -> bool:
    return all(candidate.cells[0].infeasible for candidate in row)


def _rank(trials: Sequence[RunRecord]) -> tuple[float, float] | None:
    """Return mean exact match and minus mean nats per character, the larger the better; None without a score."""
    scores = [record.metrics.get("exact_match") if record.status == "done" else None for record in trials]
    nats = [record.metrics.get("nats_per_char") for record in trials]
    if not all(score is not None for score in scores):
        return None
    known = [value for value in nats if value is not None]
    mean_nats = fmean(known) if len(known) == len(nats) else float("inf")
    return round(fmean(score for score in scores if score is not None), DIGITS), -mean_nats


def _undecided(row: Sequence[Candidate], infeasible: str | None) -> Iterator[Cell]:
    changes: dict[str, Any] = {"purpose": "undecided", "tuned": {}, "infeasible": infeasible}
    return (cell.model_copy(update=changes) for cell in row[0].cells)
