"""Which trained model of an experiment reads images: the best on validation images, or the one that is named.

Test images choose nothing, so the accuracy that the report states for a row holds for what is chosen. No torch here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from decoderbench.analysis import Analysis, load_report
from decoderbench.analysis.samples import Samples
from decoderbench.errors import ConfigError, DataError, did_you_mean
from decoderbench.files.integrity import check_content, read_bytes
from decoderbench.records.results_directory import ResultsDirectory
from decoderbench.records.schema import RunRecord

WEIGHTS = "weights.safetensors"


@dataclass(frozen=True)
class Score:
    """How well a model, or the mean of several, reads validation images.

    Attributes:
        exact_match: share of the images that are right.
        nats_per_char: nll of the labels in nats per character, which decides between equal shares.
    """

    exact_match: float
    nats_per_char: float

    @property
    def rank(self) -> tuple[float, float]:
        """The order of models: by exact match, then by nats per character, as training keeps the best weights."""
        return self.exact_match, -self.nats_per_char


@dataclass(frozen=True)
class Chosen:
    """A trained model of an experiment.

    Attributes:
        analysis: the results of the experiment.
        row: the number of its row in `analysis.rows`.
        record: its record.
        validation: its transcriptions of validation images, as `predictions.COLUMNS` says it; None without any.
        reasons: lines that say what was chosen and why.
        among: the number of rows that it was chosen from by validation images; 1 if the row or the cell was named.
    """

    analysis: Analysis
    row: int
    record: RunRecord
    validation: pd.DataFrame | None
    reasons: tuple[str, ...]
    among: int = 1

    def read_weights(self) -> bytes:
        """Return the bytes of its weights.

        Raises:
            DataError: they are missing, or damaged.
        """
        folder = self.analysis.results.directory.cell_directory(self.record.cell)
        artifact = self.record.artifacts.get(WEIGHTS)
        try:
            if artifact is not None:
                check_content(folder / WEIGHTS, artifact)
            return read_bytes(folder / WEIGHTS)
        except FileNotFoundError:
            move = "train the cell again, or choose another with --row or --cell"
            raise DataError(f"{folder}: no {WEIGHTS}; {move}") from None


def finished_models(path: str | Path, rows: Sequence[str] = ()) -> list[Chosen]:
    """Return every finished model of a results folder, of all rows or of those with these titles or names.

    Raises:
        ConfigError: no such row.
        DataError: the folder has no plan, or no finished cell of these rows.
    """
    analysis = load_report(path)
    samples = analysis.samples
    wanted = {_find_row(samples, row) for row in rows} or set(range(len(samples.titles)))
    found = [
        Chosen(analysis, row, record, samples.validation(row, record.cell), ())
        for row in sorted(wanted)
        for seed in samples.seeds
        for record in samples.records(row, seed)
    ]
    if not found:
        raise DataError(f"{path}: no finished cell of these rows; run the experiment to its end")
    return found


def best_of_each_row(path: str | Path, rows: Sequence[str] = ()) -> list[Chosen]:
    """Return, for every row or for those with these titles or names, its model that is best on validation images.

    Rows without a finished model that has validation images are left out.

    Raises:
        ConfigError: no such row.
        DataError: the folder has no plan, or there is no such model.
    """
    best: dict[int, tuple[tuple[float, float], Chosen]] = {}
    for chosen in finished_models(path, rows):
        if chosen.validation is not None and len(chosen.validation):
            rank = _score_of(chosen.validation).rank
            if chosen.row not in best or rank > best[chosen.row][0]:
                best[chosen.row] = rank, chosen
    if not best:
        raise DataError(f"{path}: no finished cell with validation images; run the experiment to its end")
    return [chosen for _, chosen in best.values()]


def choose_model(path: str | Path, *, row: str | None = None, cell: str | None = None) -> Chosen:
    """Return a trained model of a results folder.

    Args:
        path: the results folder.
        row: title or name of a row, of which the model that is best on validation images is taken; by default the row
            whose models are best on them in the mean.
        cell: the id of one cell, or its beginning.

    Raises:
        ConfigError: no such row or cell, or both are given.
        DataError: the folder has no plan, or no finished cell that has weights and validation images.
    """
    if row is not None and cell is not None:
        raise ConfigError(["--row and --cell: a cell is one model of a row; give one of them"])
    directory = ResultsDirectory(path)
    analysis = load_report(directory)
    samples = analysis.samples
    models = _models(samples)
    if not models:
        raise DataError(f"{directory.path}: no finished cell with validation images; run the experiment to its end")
    if cell is not None:
        chosen = _find_cell(models, cell)
        reasons, among = [f"model      {chosen.record.cell.title}"], 1
    else:
        number, among, why = _choose_row(samples, models, row)
        own = [model for model in models if model.row == number]
        chosen = max(own, key=lambda model: model.score.rank)
        apart = ", each on those of its own fold" if len({model.record.cell.fold for model in own}) > 1 else ""
        reasons = [
            f"row        {samples.titles[number]}{why}",
            f"model      {chosen.record.cell.model_title}{_best_of(len(own), 'model', chosen.score)}{apart}",
        ]
    return Chosen(analysis, chosen.row, chosen.record, chosen.validation, tuple(reasons), among)


@dataclass(frozen=True)
class _Model:
    row: int
    record: RunRecord
    validation: pd.DataFrame
    score: Score


def _models(samples: Samples) -> list[_Model]:
    """Return the models that are done and have read validation images, in the order of the plan."""
    return [
        _Model(row, record, validation, _score_of(validation))
        for row in range(len(samples.titles))
        for seed in samples.seeds
        for record in samples.records(row, seed)
        if (validation := samples.validation(row, record.cell)) is not None and len(validation)
    ]


def _score_of(validation: pd.DataFrame) -> Score:
    right = (validation["reference"] == validation["hypothesis"]).mean()
    spelled = validation[validation["nll"].notna()]
    characters = spelled["reference"].str.len().sum()
    return Score(float(right), float(spelled["nll"].sum() / characters) if characters else math.inf)


def _choose_row(samples: Samples, models: Sequence[_Model], wanted: str | None) -> tuple[int, int, str]:
    """Return the number of a row, from how many it was chosen by validation images, and why.

    Rows without a result for every seed are chosen from only if no row has all of them.
    """
    rows = list(dict.fromkeys(model.row for model in models))
    if wanted is not None:
        named = _find_row(samples, wanted)
        if named not in rows:
            move = "run the experiment to its end, or choose another"
            raise DataError(f"--row {wanted}: none of its cells is done; {move}")
        return named, 1, ""
    complete = [row for row in rows if all(samples.is_done(row, seed) for seed in samples.seeds)]
    rows = complete or rows
    own = {row: [model for model in models if model.row == row] for row in rows}
    if len({_images_of(models_of_row) for models_of_row in own.values()}) > 1:
        raise ConfigError(
            ["--best: the rows were validated on different images, which say nothing about which is best; give --row"]
        )
    scores = {row: _mean([model.score for model in own[row]]) for row in rows}
    best = max(rows, key=lambda row: scores[row].rank)
    left_out = len(samples.titles) - len(rows)
    others = f"; {left_out} without a result for every seed left out" if left_out else ""
    return best, len(rows), f"{_best_of(len(rows), 'row', scores[best])}{others}"


def _images_of(models: Sequence[_Model]) -> frozenset[tuple[str, str]]:
    """Return keys and labels of the images that models were validated on."""
    pairs = (zip(model.validation["sample"], model.validation["reference"], strict=True) for model in models)
    return frozenset(pair for of_model in pairs for pair in of_model)


def _find_row(samples: Samples, wanted: str) -> int:
    """Return the number of the row with a title or name."""
    named = [row for row, title in enumerate(samples.titles) if title == wanted]
    named = named or [row for row, name in enumerate(samples.names) if name == wanted]
    if len(named) > 1:
        titles = "; ".join(samples.titles[row] for row in named)
        raise ConfigError([f"--row {wanted}: is the name of several rows, give the title of one: {titles}"])
    if not named:
        known = [*samples.titles, *filter(None, samples.names)]
        titles = "; ".join(samples.titles)
        raise ConfigError([f"--row {wanted}: no such row{did_you_mean(wanted, known)}; the rows are: {titles}"])
    return named[0]


def _find_cell(models: Sequence[_Model], wanted: str) -> _Model:
    by_id = {model.record.cell.cell_id: model for model in models}
    return by_id[find_id(wanted, list(by_id), "finished cell")]


def find_id(wanted: str, ids: Sequence[str], what: str) -> str:
    """Return the id of a cell that is given by it or by its beginning.

    Args:
        wanted: what was given as `--cell`.
        ids: those to choose from.
        what: what has them, for the message, as in "finished cell".

    Raises:
        ConfigError: none begins so, or several do.
    """
    found = [wanted] if wanted in ids else [known for known in ids if known.startswith(wanted)]
    if len(found) == 1:
        return found[0]
    if found:
        raise ConfigError([f"--cell {wanted}: begins the ids of {len(found)} cells; give more of it"])
    raise ConfigError([f"--cell {wanted}: no {what} has this id{did_you_mean(wanted, ids)}"])


def _mean(scores: Sequence[Score]) -> Score:
    return Score(
        sum(score.exact_match for score in scores) / len(scores),
        sum(score.nats_per_char for score in scores) / len(scores),
    )


def _best_of(candidates: int, what: str, score: Score) -> str:
    if candidates == 1:
        return ""
    return f", best of {candidates} {what}s on validation images: {100 * score.exact_match:.1f} % exact match"
