"""Rows against a baseline, matched on the other stages and settings. No torch here."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from decoderbench.analysis.frame import VARIANT
from decoderbench.analysis.samples import Samples
from decoderbench.errors import ConfigError, did_you_mean
from decoderbench.statistics import Estimate, Scores, family, holm

RowPair = tuple[int, int]
"""A row and its baseline, as positions in `Analysis.rows`."""


@dataclass(frozen=True)
class Difference:
    """A row minus its baseline, over the seeds that both have; `p_holm` is adjusted over all that are asked for."""

    row: int
    baseline: int
    estimate: Estimate
    p_holm: float


def find_pairs(samples: Samples, baseline: str, axis: str | None = None) -> list[RowPair]:
    """Return the rows to compare, each with its baseline.

    Args:
        samples: what the rows have read.
        baseline: the title or name of a row, with which all others are compared; or a label of an axis, where each row
            that has it is the baseline of the rows that differ from it in this axis only.
        axis: compare only rows that differ from their baseline in this axis and nothing else; default: all.

    Raises:
        ConfigError: an axis or a baseline that does not exist, or no row to compare.
    """
    variants, axes = samples.variants, [axis for axis in VARIANT if len(_labels(samples, axis)) > 1]
    if axis is not None and axis not in axes:
        same = "is the same in all rows; " if axis in VARIANT else ""
        rule = f"must be one of {', '.join(axes)}{did_you_mean(axis, axes)}" if axes else "no axis varies"
        raise ConfigError([f"--axis {axis!r}: {same}{rule}"])
    if not baseline:
        raise ConfigError(["--baseline '': is empty; give the title or name of a row, or a label of an axis"])
    rows = range(len(variants))
    own = [row for row in rows if baseline == samples.titles[row]]
    own = own or [row for row in rows if baseline == samples.names[row]]
    if len(own) > 1:
        titles = "; ".join(samples.titles[row] for row in own)
        raise ConfigError([f"--baseline {baseline}: is the name of several rows, give the title of one: {titles}"])
    if own:
        pairs = [(row, own[0]) for row in rows if row != own[0]]
    else:
        axis = _axis_of(samples, baseline, axis)
        place = VARIANT.index(axis)
        pairs = [(row, base) for base in rows if variants[base][place] == baseline for row in rows if row != base]
    if axis:
        pairs = [(row, base) for row, base in pairs if _differ_in(variants[row], variants[base]) == [axis]]
    if not pairs:
        where = f" differs from it in {axis} only" if axis else " is there to compare with it"
        raise ConfigError([f"--baseline {baseline}: no other row{where}"])
    return pairs


def compare(samples: Samples, metric: str, pairs: list[RowPair]) -> tuple[list[Difference], list[str]]:
    """Return the differences of pairs in a metric, one family, and why some pairs have none.

    Raises:
        ConfigError: a metric that no cell has, or no pair that can be compared.
    """
    if metric not in samples.metrics:
        known = ", ".join(samples.metrics)
        raise ConfigError([f"--metric {metric}: must be one of {known}{did_you_mean(metric, samples.metrics)}"])
    able: dict[int, list[RowPair]] = {}
    reasons: dict[str, list[str]] = {}
    all_scores: dict[int, Scores] = {}
    for row, base in pairs:
        if reason := why_not_comparable(samples, metric, row, base, all_scores):
            reasons.setdefault(reason, []).append(samples.titles[row])
        else:
            able.setdefault(_set_of(samples, row), []).append((row, base))
    left_out = [f"not compared, {reason}: {'; '.join(dict.fromkeys(titles))}" for reason, titles in reasons.items()]
    if not able:
        raise ConfigError([f"nothing to compare in {metric}: {'; '.join(reasons)}"])
    found: dict[RowPair, Estimate] = {}
    for image_set, own in able.items():
        rows = samples.rows_of(image_set)
        weights = np.zeros((len(own), len(rows)))
        for line, (row, base) in enumerate(own):
            weights[line, rows.index(row)], weights[line, rows.index(base)] = 1, -1
        estimates = [each.estimate for each in family(all_scores[image_set], weights)]
        found.update(zip(own, estimates, strict=True))
    chosen = [pair for pair in pairs if pair in found]
    adjusted = holm([found[pair].p for pair in chosen]).tolist()
    return [Difference(*pair, found[pair], p) for pair, p in zip(chosen, adjusted, strict=True)], left_out


def why_not_comparable(samples: Samples, metric: str, row: int, base: int, all_scores: dict[int, Scores]) -> str:
    """Return why a row cannot be compared with its baseline; empty if it can. Adds to the scores of image sets."""
    for each, what in ((base, f"the baseline {samples.titles[base]}"), (row, "the row")):
        if samples.image_sets[each] is None:
            return f"{what} has no result ({_statuses(samples, each)})"
    if samples.image_sets[row] != samples.image_sets[base]:
        folds = [{cell.folds for cell in samples.cells(each)} for each in (row, base)]
        what = "on other images or labels" if folds[0] == folds[1] else "in other folds"
        return f"tested {what} than {samples.titles[base]}"
    image_set = _set_of(samples, row)
    if image_set not in all_scores:
        scores = samples.scores(metric, samples.rows_of(image_set))
        if scores is None:
            return "the metric has no numbers per image"
        all_scores[image_set] = scores
    places = [samples.rows_of(image_set).index(each) for each in (row, base)]
    present = all_scores[image_set].present[places]
    return "" if present.all(axis=0).any() else f"no seed in common with {samples.titles[base]}"


def _set_of(samples: Samples, row: int) -> int:
    number = samples.image_sets[row]
    assert number is not None
    return number


def _statuses(samples: Samples, row: int) -> str:
    """Return the states of a row's cells, as in "failed, pending"."""
    ids = {cell.cell_id for cell in samples.cells(row)}
    cells = samples.results.cells
    found = sorted(set(cells.loc[cells["cell_id"].isin(ids), "status"]))
    return ", ".join(found) if found != ["done"] else "its predictions cannot be used"


def _axis_of(samples: Samples, label: str, axis: str | None) -> str:
    """Return the axis that has a label, or raise `ConfigError`."""
    having = [each for each in VARIANT if label in _labels(samples, each)]
    if not having:
        known = [*samples.titles, *samples.names, *(label for each in VARIANT for label in _labels(samples, each))]
        raise ConfigError([f"--baseline {label}: is no title, name or label of a row{did_you_mean(label, known)}"])
    if axis and axis not in having:
        raise ConfigError([f"--baseline {label}: is a label of {', '.join(having)}, not of {axis}"])
    if not axis and len(having) > 1:
        raise ConfigError([f"--baseline {label}: is a label of {' and of '.join(having)}; say which by --axis"])
    return axis or having[0]


def _labels(samples: Samples, axis: str) -> list[str]:
    place = VARIANT.index(axis)
    return list(dict.fromkeys(variant[place] for variant in samples.variants))


def _differ_in(one: tuple[str, ...], other: tuple[str, ...]) -> list[str]:
    return [axis for axis, a, b in zip(VARIANT, one, other, strict=True) if a != b]
