"""Everything that a report states, as frames that are computed when they are asked for. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd

from decoderbench.alignments import Alignment
from decoderbench.analysis.agreement import Agreement, find_agreement
from decoderbench.analysis.calibration import Calibration, find_calibration
from decoderbench.analysis.contrasts import find_contrasts
from decoderbench.analysis.effects import find_effects, find_interactions
from decoderbench.analysis.errors import Errors, find_errors
from decoderbench.analysis.frame import ExtraColumns, Results, load_results
from decoderbench.analysis.gallery import Picture, alignments_of_rows, choose_pictures, find_wanted_images, keys_of
from decoderbench.analysis.health import find_health
from decoderbench.analysis.marks import find_learning, find_marks
from decoderbench.analysis.plateaus import find_plateaus
from decoderbench.analysis.readings import readings_of
from decoderbench.analysis.rows import find_rows
from decoderbench.analysis.samples import Samples
from decoderbench.analysis.tuning import summarize_trials
from decoderbench.metrics import Definition
from decoderbench.records.results_directory import ResultsDirectory
from decoderbench.records.schema import Plan


@dataclass(frozen=True, eq=False)
class Analysis:
    """The data of a report. Each frame is computed once, when it is asked for."""

    results: Results

    @cached_property
    def tuning(self) -> pd.DataFrame:
        """One line per row and tried value; empty without tuning. See `summarize_trials`."""
        return summarize_trials(self.results.trials)

    @cached_property
    def samples(self) -> Samples:
        """The predictions of the cells that are done."""
        return Samples(self.results)

    @cached_property
    def rows(self) -> pd.DataFrame:
        """One line per variant: see `find_rows`, and for the last columns `find_marks`."""
        return find_rows(self.samples, self.contrasts).join(self.marks)

    @cached_property
    def contrasts(self) -> pd.DataFrame:
        """All pairs of rows that were tested on the same images: see `find_contrasts`."""
        return find_contrasts(self.samples)

    @cached_property
    def effects(self) -> pd.DataFrame:
        """Each level of a stage against its first level, over matched rows: see `find_effects`."""
        return find_effects(self.samples)

    @cached_property
    def interactions(self) -> pd.DataFrame:
        """How effects of two stages depend on each other: see `find_interactions`."""
        return find_interactions(self.samples)

    @cached_property
    def readings(self) -> pd.DataFrame:
        """One line per row, seed and image of the test split: see `analysis.readings`."""
        return readings_of(self.samples)

    @cached_property
    def error_frames(self) -> Errors:
        """Kinds of errors, exact match by length, accuracy by position, confusions."""
        return find_errors(self.readings, self.samples.titles, self.samples.groups, self.samples.folds)

    @cached_property
    def agreement_frames(self) -> Agreement:
        """Pairs of rows on the same images, rows alone, and the images on which all rows are wrong."""
        return find_agreement(self.readings, self.samples.titles)

    @cached_property
    def calibration_frames(self) -> Calibration:
        """Calibration of each row, and its risk-coverage curve."""
        return find_calibration(self.readings, self.samples.titles)

    @cached_property
    def learning(self) -> pd.DataFrame:
        """One line per cell that is done, and whether it learned anything: see `find_learning`."""
        return find_learning(self.samples)

    @cached_property
    def marks(self) -> pd.DataFrame:
        """One line per row: whether it was still rising, and how many seeds did not learn: see `find_marks`."""
        return find_marks(self.samples, self.learning)

    @cached_property
    def plateaus(self) -> pd.DataFrame:
        """One line per cell that did not learn, with the reason and what its curve suggests: see `find_plateaus`."""
        return find_plateaus(self.samples, self.learning)

    @cached_property
    def health(self) -> pd.DataFrame:
        """One line per row: see `find_health`."""
        return find_health(self.samples)

    @cached_property
    def alignments(self) -> list[list[Alignment]]:
        """The alignments that each row has kept."""
        return alignments_of_rows(self.samples)

    @cached_property
    def pictures(self) -> list[Picture]:
        """The test images to look at: see `choose_pictures`."""
        return choose_pictures(self.samples, keys_of(self.alignments))

    @cached_property
    def wanted_images(self) -> list[tuple[str, str]]:
        """Data hash and key of the images that a page shows: see `find_wanted_images`."""
        return find_wanted_images(self.samples, self.pictures, keys_of(self.alignments))

    @property
    def errors(self) -> pd.DataFrame:
        """See `Errors.anatomy`."""
        return self.error_frames.anatomy

    @property
    def by_length(self) -> pd.DataFrame:
        """See `Errors.by_length`."""
        return self.error_frames.by_length

    @property
    def by_position(self) -> pd.DataFrame:
        """See `Errors.by_position`."""
        return self.error_frames.by_position

    @property
    def confusions(self) -> pd.DataFrame:
        """See `Errors.confusions`."""
        return self.error_frames.confusions

    @property
    def agreement(self) -> pd.DataFrame:
        """See `Agreement.pairs`."""
        return self.agreement_frames.pairs

    @property
    def all_wrong(self) -> pd.DataFrame:
        """See `Agreement.all_wrong`."""
        return self.agreement_frames.all_wrong

    @property
    def calibration(self) -> pd.DataFrame:
        """See `Calibration.rows`."""
        return self.calibration_frames.rows

    @property
    def risk_coverage(self) -> pd.DataFrame:
        """See `Calibration.risk_coverage`."""
        return self.calibration_frames.risk_coverage


def load_report(
    path: str | Path | ResultsDirectory,
    *,
    plan: Plan | None = None,
    extra_columns: ExtraColumns | None = None,
    metrics: Mapping[str, Definition] | None = None,
) -> Analysis:
    """Read a results directory, as `load_results` does, for all that a report states.

    Raises:
        DataError: the directory has no plan, or its plan is corrupt.
    """
    return Analysis(load_results(path, plan=plan, extra_columns=extra_columns, metrics=metrics))
