"""What a pilot says about the seeds and images of the experiment to come. No torch here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from decoderbench.analysis.baselines import RowPair, why_not_comparable
from decoderbench.analysis.marks import count_not_learned
from decoderbench.analysis.samples import Samples
from decoderbench.errors import ConfigError
from decoderbench.statistics import Estimate, Scores, SeedsNeeded, contrast, half_width, seeds_needed

METRIC = "exact_match"
IMAGES = (200, 500, 2_000, 10_000)
"""Numbers of test images for which the seeds are named, besides that of the pilot."""


class ImagePlan(NamedTuple):
    """The seeds that a number of test images takes, and half the width of the interval with the pilot's seeds."""

    needed: SeedsNeeded
    half_width: float


@dataclass(frozen=True)
class PairPlan:
    """What it takes to find a difference between two rows.

    Attributes:
        row, baseline: positions in `Analysis.rows`.
        why: why this pair is shown; empty if it was asked for.
        estimate: the difference in the pilot.
        plans: by number of test images; empty if the rows agree on every image, so their variation is not known.
        not_learned: how many of the pilot's seeds, with folds of its models, did not learn, of a row of which any did
            not.
    """

    row: int
    baseline: int
    why: str
    estimate: Estimate
    plans: dict[int, ImagePlan]
    not_learned: dict[int, int]

    @property
    def folds(self) -> int:
        """The number of folds; 1 for one split. What is planned has as many."""
        return len(self.estimate.components.fold_sizes)


def plan_pairs(samples: Samples, effect: float, pairs: list[RowPair] | None = None) -> list[PairPlan]:
    """Return for pairs of rows how many seeds find a difference with 80 % power at two-sided .05.

    Args:
        samples: what the rows of the pilot have read.
        effect: the difference of exact match to find, above 0, as a fraction.
        pairs: the pairs of interest. Without them, of all pairs that vary, the median and the one whose difference has
            the largest variance.

    Raises:
        ConfigError: no pair has two seeds in common, or the effect is no such difference.
    """
    if not 0 < effect <= 1:
        raise ConfigError([f"--effect {100 * effect:g}: must be above 0 and at most 100, in points of exact match"])
    found = _estimates(samples, pairs if pairs is not None else _all_pairs(samples))
    if not found and pairs is not None:
        scores: dict[int, Scores] = {}
        reasons = dict.fromkeys(why_not_comparable(samples, METRIC, *pair, scores) for pair in pairs)
        raise ConfigError([f"nothing to plan with: {'; '.join(reasons)}"])
    if not found:
        raise ConfigError(["no two rows have a result on the same images for the same seeds; a pilot needs two rows"])
    several = {pair: estimate for pair, estimate in found.items() if estimate.seeds > 1}
    if not several:
        raise ConfigError(["the rows of the pilot have one seed in common, which cannot show how seeds vary; run two"])
    several = {pair: estimate for pair, estimate in several.items() if not np.isnan(estimate.low)}
    if not several:
        one = "one image, or one per fold"
        raise ConfigError([f"the rows of the pilot were tested on {one}, which cannot show how images vary"])
    if pairs is not None:
        return [_plan(samples, pair, "", estimate, effect) for pair, estimate in several.items()]
    ordered = sorted(several, key=lambda pair: several[pair].variance if _varies(several[pair]) else -1.0)
    varying = [pair for pair in ordered if _varies(several[pair])] or ordered[-1:]
    chosen = {varying[(len(varying) - 1) // 2]: "median pair", varying[-1]: "worst pair"}
    if len(varying) == 1:
        chosen = {varying[0]: "only pair that varies" if len(several) > 1 else "only pair"}
    return [_plan(samples, pair, why, several[pair], effect) for pair, why in chosen.items()]


def _plan(samples: Samples, pair: RowPair, why: str, estimate: Estimate, effect: float) -> PairPlan:
    pilot, per_image = estimate.components, estimate.units / estimate.images
    plans = {}
    for images in sorted({*IMAGES, estimate.images}) if _varies(estimate) else ():
        units = max(2, round(images * per_image))
        width = half_width(pilot, seeds=estimate.seeds, units=units)
        plans[images] = ImagePlan(seeds_needed(pilot, effect, units=units), width)
    return PairPlan(*pair, why, estimate, plans, count_not_learned(samples, pair))


def _varies(estimate: Estimate) -> bool:
    return estimate.components.seed + estimate.components.unit > 0


def _estimates(samples: Samples, pairs: list[RowPair]) -> dict[RowPair, Estimate]:
    """Return the contrasts of the pairs that can be compared."""
    found: dict[RowPair, Estimate] = {}
    for row, base in pairs:
        if samples.image_sets[row] is None or samples.image_sets[row] != samples.image_sets[base]:
            continue
        scores = samples.scores(METRIC, [row, base])
        if scores is not None and scores.present.all(axis=0).any():
            found[row, base] = contrast(scores, [1, -1])
    return found


def _all_pairs(samples: Samples) -> list[RowPair]:
    rows = range(len(samples.variants))
    return [(row, base) for base in rows for row in rows if row > base]
