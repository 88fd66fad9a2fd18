"""Which texts to keep so that few of those kept are wrong: a threshold on confidence, with an exact bound.

Whether the `n` most confident images are wrong at most at a rate is tested by the binomial tail, for growing `n`, until
a test fails. The order of the tests depends on the confidences alone, so all of them together hold at the level of one
(fixed-sequence testing; Angelopoulos et al. 2021, "Learn then Test"). Given the confidences, images are right or wrong
independently with probabilities of their own, for which the binomial tail at their mean is conservative (Hoeffding
1956). Geifman & El-Yaniv 2017 name the problem selective classification.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import bdtr, betaincinv

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Kept:
    """The most confident images, of which few are wrong.

    Attributes:
        images: how many they are.
        wrong: how many of them are wrong.
        least: the least log probability among them.
        bound: the upper end of the one-sided interval of the rate of wrong ones (Clopper & Pearson 1934).
    """

    images: int
    wrong: int
    least: float
    bound: float


def images_needed(risk: float, *, level: float = 0.95) -> int:
    """Return how many images it takes to show that at most `risk` of them are wrong if none is."""
    return math.ceil(math.log(1 - level) / math.log1p(-risk))


def keep_confident(
    log_prob: NDArray[np.float64], right: NDArray[np.bool_], risk: float, *, level: float = 0.95
) -> Kept | None:
    """Return as many of the most confident images as can be shown to be wrong at most at a rate, or None.

    The first test is that of half of the images, or of as many as a test needs.

    Args:
        log_prob: (N,) the confidence of each image, on any scale.
        right: (N,) whether its text is right.
        risk: the rate, between 0 and 1.
        level: of the test.
    """
    order = np.argsort(-log_prob, kind="stable")
    log_prob, wrong = log_prob[order], np.cumsum(~right[order])
    ends = (
        np.flatnonzero(np.append(log_prob[1:] != log_prob[:-1], True)) + 1
    )  # images of equal confidence stay together
    first = max(images_needed(risk, level=level), -(-len(order) // 2))
    kept = None
    for images in ends[ends >= first].tolist():
        count = int(wrong[images - 1])
        if bdtr(count, images, risk) > 1 - level:
            break
        bound = 1.0 if count == images else float(betaincinv(count + 1, images - count, level))
        kept = Kept(images, count, float(log_prob[images - 1]), bound)
    return kept
