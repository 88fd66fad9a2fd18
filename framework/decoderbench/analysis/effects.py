"""Effects of stages and settings over matched rows, and how they depend on each other. No torch here.

The axes are the factors of a factorial design; the labels of an axis are its levels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from decoderbench.analysis.frame import VARIANT
from decoderbench.analysis.image_sets import data_of
from decoderbench.analysis.samples import Samples
from decoderbench.statistics import Scores, family

Labels = tuple[str, ...]

_NUMBERS = {
    **dict.fromkeys(("difference", "low", "high", "p", "p_holm"), "float64"),
    **dict.fromkeys(("num_combinations", "num_planned", "num_seeds"), "int64"),
    "scope": "str",
}
_EFFECTS = {
    **dict.fromkeys(("stage", "level", "reference", "metric"), "str"),
    "image_set": "int64",
    "mean": "float64",
    **_NUMBERS,
}
_INTERACTIONS = {
    **dict.fromkeys(("stage_a", "level_a", "reference_a", "stage_b", "level_b", "reference_b", "metric"), "str"),
    "image_set": "int64",
    **_NUMBERS,
}


def find_effects(samples: Samples) -> pd.DataFrame:
    """Return one line per image set, metric, stage or setting that varies there, and level.

    The levels of a stage are compared on matched rows: combinations of the other axes for which every level has a
    result, `num_combinations` of `num_planned`, each with the same weight. The seeds are those that all of these rows
    have; combinations that would leave fewer results in all are not used. `mean` is that of a level. `difference` is to
    `reference`, the first level, whose own line has none, with its 95 % interval. `p_holm` is adjusted over all
    differences of the image set for this metric.
    """
    lines: list[dict[str, Any]] = []
    for design, metric, scores in _designs(samples):
        found = []
        for axis in design.varying:
            reference, *others = design.levels(axis)
            matched = _match(design, scores, (axis,), [(level,) for level in (reference, *others)])
            for position, level in enumerate((reference, *others)):
                weights = {} if level == reference else {position: 1, 0: -1}
                line = {"stage": axis, "level": level, "reference": reference, "metric": metric}
                found.append(line | {"mean": matched.mean(position)} | matched.contrast(weights))
        lines += _estimated(found, scores, design.image_set)
    return pd.DataFrame(lines, columns=list(_EFFECTS)).astype(_EFFECTS)


def find_interactions(samples: Samples) -> pd.DataFrame:
    """Return one line per image set, metric, pair of axes that vary there, and pair of levels that are no references.

    `difference` is how much larger the effect of `level_a` (against `reference_a`) is with `level_b` than with
    `reference_b`. Rows are matched as in `find_effects`, for the four combinations of these levels. `p_holm` is
    adjusted over all interactions of the image set for this metric.
    """
    lines: list[dict[str, Any]] = []
    for design, metric, scores in _designs(samples):
        found = []
        for one, other in combinations(design.varying, 2):
            (first, *rest), (second, *more) = design.levels(one), design.levels(other)
            for a, b in ((a, b) for a in rest for b in more):
                matched = _match(design, scores, (one, other), [(a, b), (a, second), (first, b), (first, second)])
                line = {"stage_a": one, "level_a": a, "reference_a": first}
                line |= {"stage_b": other, "level_b": b, "reference_b": second, "metric": metric}
                found.append(line | matched.contrast({0: 1, 1: -1, 2: -1, 3: 1}))
        lines += _estimated(found, scores, design.image_set)
    return pd.DataFrame(lines, columns=list(_INTERACTIONS)).astype(_INTERACTIONS)


@dataclass(frozen=True)
class _Design:
    """The rows that were, or are to be, tested on the images of one set."""

    image_set: int

    rows: dict[Labels, int]
    """The rows with samples, and their positions in the scores."""

    planned: Sequence[Labels]

    @property
    def varying(self) -> list[str]:
        return [axis for axis in VARIANT if len(self.levels(axis)) > 1]

    def levels(self, axis: str) -> list[str]:
        return list(dict.fromkeys(labels[VARIANT.index(axis)] for labels in self.planned))


def _designs(samples: Samples) -> Iterator[tuple[_Design, str, Scores]]:
    """Yield each image set with each metric that has numbers per image."""
    hashes = [{data_of(cell) for cell in samples.cells(row)} for row in range(len(samples.variants))]
    for image_set in dict.fromkeys(number for number in samples.image_sets if number is not None):
        rows = samples.rows_of(image_set)
        data = set().union(*(hashes[row] for row in rows))
        planned = [
            labels
            for row, (labels, number) in enumerate(zip(samples.variants, samples.image_sets, strict=True))
            if number == image_set or (number is None and hashes[row] <= data)
        ]
        design = _Design(image_set, {samples.variants[row]: place for place, row in enumerate(rows)}, planned)
        for metric in samples.metrics:
            if scores := samples.scores(metric, rows):
                yield design, metric, scores


@dataclass(frozen=True)
class _Matched:
    """Rows that differ in the levels that are compared, and in nothing else."""

    scores: Scores

    rows: np.ndarray[tuple[int, int], np.dtype[np.intp]]
    """(combinations, conditions): positions in the scores."""

    seeds: np.ndarray[tuple[int], np.dtype[np.intp]]
    num_planned: int

    def mean(self, condition: int) -> float:
        """Return the mean over combinations and seeds; NaN if no combination is matched."""
        if not len(self.rows):
            return float("nan")
        chosen = np.ix_(self.rows[:, condition], self.seeds)
        return float((self.scores.numerator[chosen].sum(-1) / self.scores.denominator[chosen].sum(-1)).mean())

    def contrast(self, weights: Mapping[int, int]) -> dict[str, Any]:
        """Return counts, and the weights of all rows in a contrast of conditions: None if nothing is compared."""
        of_rows = np.zeros(len(self.scores.numerator))
        for condition, weight in weights.items():
            of_rows[self.rows[:, condition]] += weight / max(1, len(self.rows))
        counts = {"num_combinations": len(self.rows), "num_planned": self.num_planned, "num_seeds": len(self.seeds)}
        return counts | {"weights": of_rows if of_rows.any() else None}


def _match(design: _Design, scores: Scores, axes: Labels, conditions: Sequence[Labels]) -> _Matched:
    """Return the combinations of the other axes that have a row for each condition, and the seeds of all of them."""
    places = [VARIANT.index(axis) for axis in axes]
    rests = dict.fromkeys(_without(labels, places) for labels in design.planned)
    present = scores.present
    found: list[tuple[list[int], frozenset[int]]] = []
    for rest in rests:
        rows = [design.rows.get(_fill(rest, places, levels)) for levels in conditions]
        if None not in rows:
            own = [row for row in rows if row is not None]
            found.append((own, frozenset(np.flatnonzero(present[own].all(axis=0)).tolist())))
    shared = frozenset.intersection(*(seeds for _, seeds in found)) if found else frozenset[int]()
    seeds = max([shared, *(seeds for _, seeds in found)], key=lambda chosen: _worth(chosen, found))
    matched = [rows for rows, own in found if seeds and seeds <= own]
    return _Matched(
        scores,
        np.array(matched, dtype=np.intp).reshape(-1, len(conditions)),
        np.array(sorted(seeds), dtype=np.intp),
        len(rests),
    )


def _worth(seeds: frozenset[int], found: Sequence[tuple[list[int], frozenset[int]]]) -> tuple[bool, int, int]:
    """Return what is better of two choices of seeds: two seeds at least, then more results, then more seeds."""
    number = sum(seeds <= own for _, own in found)
    return len(seeds) > 1, len(seeds) * number, len(seeds)


def _without(labels: Labels, places: Sequence[int]) -> Labels:
    return tuple(label for place, label in enumerate(labels) if place not in places)


def _fill(rest: Labels, places: Sequence[int], levels: Labels) -> Labels:
    labels = list(rest)
    for place, level in sorted(zip(places, levels, strict=True)):
        labels.insert(place, level)
    return tuple(labels)


def _estimated(lines: list[dict[str, Any]], scores: Scores, image_set: int) -> list[dict[str, Any]]:
    """Return the lines of a family with the estimates of those that have weights."""
    own = [line for line in lines if line["weights"] is not None]
    found = iter(family(scores, [line["weights"] for line in own]) if own else [])
    estimated = []
    for line in lines:
        numbers: dict[str, Any] = {"image_set": image_set, "scope": ""}
        if line["weights"] is not None:
            estimate, p, p_holm = next(found)
            numbers |= {"difference": estimate.value, "low": estimate.low, "high": estimate.high}
            numbers |= {"p": p, "p_holm": p_holm, "num_seeds": estimate.seeds, "scope": estimate.scope}
        estimated.append(line | numbers)
    return estimated
