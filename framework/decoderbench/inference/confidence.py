"""How sure a reader is of a text, calibrated on validation images, and which texts to reject. No torch here.

The confidence is exp(log p / T), with log p the probability that the decoder gives to its text, the `text_log_prob` of
a run, and T a temperature (Guo et al. 2017, "On Calibration of Modern Neural Networks"). T minimizes the log loss of
being right on validation images, with Platt's targets (1999), which keep it finite where all texts are right. It is
used where it lowers the expected calibration error there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import minimize_scalar

from decoderbench.analysis.calibration import expected_calibration_error, sort_by_confidence
from decoderbench.errors import DataError
from decoderbench.statistics import Kept, images_needed, keep_confident

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

OF_FOLDS = "test images of the folds"
"""What stands in the place of validation images for a model that is trained on all images."""

_LOG_RANGE = (-5.0, 5.0)
"""Of log T: beyond, nothing changes any more."""

_SUREST = -1e-9
"""The largest log p that is counted: a text that is certain and wrong would have an infinite loss."""


@dataclass(frozen=True)
class Confidence:
    """What validation images say of log p.

    Attributes:
        log_prob: (N,) of their texts, those without a log p left out.
        right: (N,) whether each text is the label.
        temperature: T.
        images: what these images are, in the plural.
    """

    log_prob: NDArray[np.float64]
    right: NDArray[np.bool_]
    temperature: float = 1.0
    images: str = "validation images"

    @classmethod
    def of(cls, log_prob: Sequence[float], right: Sequence[bool], images: str = "validation images") -> Confidence:
        """Return the confidence that validation images support."""
        own = cls(np.asarray(log_prob, dtype=np.float64), np.asarray(right, dtype=bool), images=images)
        if not len(own.log_prob):
            return own
        fitted = replace(own, temperature=_fit(own.log_prob, own.right))
        return fitted if fitted.calibration_error < own.calibration_error else own

    @classmethod
    def of_predictions(cls, validation: pd.DataFrame | None) -> Confidence:
        """Return the same for the transcriptions of a validation split, as `predictions.COLUMNS` says it, if any."""
        if validation is None or "text_log_prob" not in validation:  # an earlier version wrote it
            return cls.of([], [])
        scored = validation[validation["text_log_prob"].notna()]
        return cls.of(scored["text_log_prob"].tolist(), (scored["reference"] == scored["hypothesis"]).tolist())

    def __call__(self, log_prob: float) -> float:
        """Return the confidence, from 0 to 1, in a text with this log p."""
        return math.exp(min(log_prob, 0.0) / self.temperature)

    @property
    def calibration_error(self) -> float:
        """The expected calibration error on the validation images."""
        log_prob, right = sort_by_confidence(self.log_prob, self.right.astype(np.float64))
        return expected_calibration_error(np.exp(np.minimum(log_prob, 0.0) / self.temperature), right)

    def describe(self) -> str:
        """Return what the confidence means, as a sentence."""
        images = f"{len(self.log_prob):,} {self.images}"
        if not len(self.log_prob):
            return f"the probability that the decoder gives to its text; no {self.images} say how right that is"
        error = f"{100 * self.calibration_error:.1f} %"
        if self.temperature == 1:
            return f"the probability that the decoder gives to its text: calibration error {error} on {images}"
        before = replace(self, temperature=1.0).calibration_error
        fitted = f"exp(log p / {self.temperature:.2f}), fitted on {images}"
        return f"{fitted}: calibration error {error} there, {100 * before:.1f} % before"

    def keep(self, risk: float) -> Kept:
        """Return which validation images are kept so that at most `risk` of those are wrong.

        Args:
            risk: between 0 and 1.

        Raises:
            DataError: the validation images are too few, or too many of the most confident are wrong.
        """
        needed, given = images_needed(risk), len(self.right)
        if given < needed:
            raise DataError(
                f"--reject {risk:g}: {given:,} validation images cannot show that, even if all are right; it takes "
                f"{needed:,}; train with more, or accept a larger share"
            )
        if (kept := keep_confident(self.log_prob, self.right, risk)) is None:
            raise DataError(
                f"--reject {risk:g}: too many of the {given:,} validation images are wrong, those with much confidence "
                f"too; accept a larger share"
            )
        return kept


def _fit(log_prob: NDArray[np.float64], right: NDArray[np.bool_]) -> float:
    """Return the temperature with the least log loss."""
    wins = int(right.sum())
    losses = len(right) - wins
    target = np.where(right, (wins + 1) / (wins + 2), 1 / (losses + 2))
    capped = np.minimum(log_prob, _SUREST)

    def loss(log_temperature: float) -> float:
        scaled = capped / math.exp(log_temperature)
        return float(-(target * scaled + (1 - target) * np.log(-np.expm1(scaled))).mean())

    return math.exp(float(minimize_scalar(loss, bounds=_LOG_RANGE, method="bounded").x))
