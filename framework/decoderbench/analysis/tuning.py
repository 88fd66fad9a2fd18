"""Trials of tuning as frames, and what a table says of them. No torch here."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pandas as pd

from decoderbench.files.integrity import UnreadableError
from decoderbench.files.storage import StorageError
from decoderbench.kinds import VARIANT
from decoderbench.records.results_directory import ResultsDirectory
from decoderbench.records.schema import Plan, RunRecord

if TYPE_CHECKING:
    from decoderbench.config.cell import Cell

_DTYPES = {
    **dict.fromkeys(VARIANT, "str"),
    "name": "str",
    "fold": "Int64",
    "values": "str",
    "seed": "int64",
    "status": "str",
    "reason": "str",
    "exact_match": "float64",
    "nats_per_char": "float64",
    "chosen": "bool",
    "train_seconds": "float64",
    "steps": "int64",
    "kept_step": "Int64",
    "cell_id": "str",
}

NOT_TUNED = "tuned for none: one setting for all rows"


def load_trials(directory: ResultsDirectory, plan: Plan) -> pd.DataFrame:
    """Return one line per trial of a plan, in its order; scores are fractions of 1 and nats, on validation images.

    `values` are those that it tries, `chosen` whether its row is tested with them. A trial without a record is pending.
    """
    chosen = {(cell.variant, cell.fold, _key(cell)) for cell in plan.cells if cell.purpose == "test"}
    lines = [
        _line(trial, _read(directory, trial), (trial.variant, trial.fold, _key(trial)) in chosen)
        for trial in plan.tuning
    ]
    return pd.DataFrame(lines, columns=list(_DTYPES)).astype(_DTYPES)


def summarize_trials(trials: pd.DataFrame) -> pd.DataFrame:
    """Return one line per row, fold and value: means over the seeds of tuning, and the sum of `train_seconds`.

    A value with a trial that has no score has none either; `reasons` says why. `exact_match_by_seed` lists all scores.
    """
    return (
        trials.assign(
            by_seed=[
                f"{seed}: {_percent(score)}" for seed, score in zip(trials["seed"], trials["exact_match"], strict=True)
            ],
            why=(trials["status"] + ": " + trials["reason"])
            .mask(trials["status"] == "done", "")
            .str.removesuffix(": "),
        )
        .groupby([*VARIANT, "fold", "values"], sort=False, as_index=False, dropna=False)
        .agg(
            name=("name", "first"),
            exact_match=("exact_match", _mean_of_all),
            nats_per_char=("nats_per_char", _mean_of_all),
            exact_match_by_seed=("by_seed", ", ".join),
            reasons=("why", lambda reasons: "; ".join(filter(None, dict.fromkeys(reasons)))),
            chosen=("chosen", "first"),
            train_seconds=("train_seconds", _sum_of_known),
        )
    )


def seconds_of_tuning(trials: pd.DataFrame) -> dict[tuple[str, ...], float]:
    """Return the seconds of training of each row's trials, without those that failed; missing where none is known.

    With folds, those of all folds together.
    """
    found: dict[tuple[str, ...], float] = {}
    for row, seconds in zip(_rows_of(trials), trials["train_seconds"], strict=True):
        if not pd.isna(seconds):
            found[row] = found.get(row, 0.0) + seconds
    return found


def state_of_tuning(trials: pd.DataFrame, cell: Cell) -> str:
    """Return why a cell waits for tuning, as in "tuning: 2 of 4 trials of this row done"; empty if it does not."""
    if cell.purpose != "undecided" or cell.infeasible:
        return ""
    places = zip(_rows_of(trials), trials["fold"], trials["status"], strict=True)
    own = [status for row, fold, status in places if row == cell.variant and (cell.fold is None or fold == cell.fold)]
    of = "this row" if cell.fold is None else f"this row and fold {cell.fold}"
    return f"tuning: {len(own) - own.count('pending')} of {len(own)} trials of {of} done"


def notes_on_tuning(plan: Plan, trials: pd.DataFrame) -> Iterator[str]:
    """Yield the footnotes of a table: what was tuned for every row, how far that is, and which trials have no score."""
    if trials.empty:
        if any(cell.setting for cell in plan.cells):
            yield "tuned for none: each row has the values of its setting"
        else:
            yield NOT_TUNED
        return
    tried: dict[str, dict[str, None]] = {}
    for trial in plan.tuning:
        for option, value in trial.tuned.items():
            tried.setdefault(option, {})[_shown(value)] = None
    axes = "; ".join(f"{option} of {', '.join(values)}" for option, values in tried.items())
    seeds = ", ".join(map(str, dict.fromkeys(trials["seed"])))
    steps = ", ".join(f"{count:,}" for count in dict.fromkeys(trials["steps"]))
    number = len(trials) // len(trials[[*VARIANT, "fold"]].drop_duplicates())
    fold = " and fold, whose own validation images choose," if trials["fold"].notna().any() else ""
    yield (
        f"tuned for every row alike, by exact match on validation images: {axes}; {number} trials per row{fold} of "
        f"{steps} steps, seed{'s' * (trials['seed'].nunique() > 1)} {seeds}"
    )
    if pending := int((trials["status"] == "pending").sum()):
        yield f"tuning: {len(trials) - pending} of {len(trials)} trials done; rows that have not chosen are not tested"
    failed = trials[~trials["status"].isin(["done", "pending"])]
    if len(failed):
        counts = ", ".join(f"{number} {status}" for status, number in failed["status"].value_counts().items())
        yield (
            f"tuning: {len(failed)} of {len(trials)} trials have no score, so a row did not choose their values: "
            f"{counts}; their time is not counted"
        )


def _read(directory: ResultsDirectory, trial: Cell) -> RunRecord | None:
    try:
        return directory.read(trial)
    except (UnreadableError, StorageError):
        return None


def _line(trial: Cell, record: RunRecord | None, chosen: bool) -> dict[str, Any]:
    line: dict[str, Any] = {
        **dict(zip(VARIANT, trial.variant, strict=True)),
        "name": trial.name,
        "fold": trial.fold,
        "values": trial.tuned_text,
        "seed": trial.seed,
        "status": "pending",
        "reason": "",
        "chosen": chosen,
        "steps": trial.training.steps,
        "cell_id": trial.cell_id,
    }
    if record is not None:
        line |= {"status": record.status, "reason": record.reason, "train_seconds": record.cost.train_seconds}
        if record.status == "done":
            scores = {name: record.metrics.get(name) for name in ("exact_match", "nats_per_char")}
            line |= {**scores, "kept_step": record.kept_step}
    return line


def _rows_of(trials: pd.DataFrame) -> list[tuple[str, ...]]:
    return list(trials[list(VARIANT)].itertuples(index=False, name=None))


def _key(cell: Cell) -> str:
    return json.dumps(cell.tuned)


def _mean_of_all(values: pd.Series[float]) -> float:
    return values.mean(skipna=False)


def _sum_of_known(values: pd.Series[float]) -> float:
    return values.sum(min_count=1)


def _percent(score: float) -> str:
    return "none" if pd.isna(score) else f"{100 * score:.1f} %"


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
