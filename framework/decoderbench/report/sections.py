"""The tables of a report besides the main table, by section, and the frames that it writes as CSV. No torch here."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pandas as pd

from decoderbench.analysis import Analysis
from decoderbench.report.comparison_tables import contrast_tables, effect_tables
from decoderbench.report.error_tables import calibration_tables, error_tables
from decoderbench.report.tables import Table
from decoderbench.report.training_tables import health_tables, tuning_tables


class Section(NamedTuple):
    """Tables under one heading."""

    title: str
    tables: list[Table]


_SECTIONS: dict[str, Callable[[Analysis], list[Table]]] = {
    "Differences between rows": contrast_tables,
    "Effects of the stages": effect_tables,
    "Errors": error_tables,
    "Confidence": calibration_tables,
    "Health": health_tables,
    "Tuning": tuning_tables,
}


def sections_of(analysis: Analysis) -> list[Section]:
    """Return the sections that have a table, in the order of the report."""
    found = [Section(title, tables_of(analysis)) for title, tables_of in _SECTIONS.items()]
    return [section for section in found if section.tables]


def frames_of(analysis: Analysis) -> dict[str, pd.DataFrame]:
    """Return the frames of a report by the names of their files, without those that have no line."""
    frames = {
        "contrasts": analysis.contrasts,
        "effects": analysis.effects,
        "interactions": analysis.interactions,
        "errors": analysis.errors,
        "confusions": analysis.confusions,
        "by_length": analysis.by_length,
        "by_position": analysis.by_position,
        "agreement": analysis.agreement,
        "alone": analysis.agreement_frames.alone,
        "all_wrong": analysis.all_wrong,
        "all_wrong_texts": analysis.agreement_frames.readings,
        "calibration": analysis.calibration,
        "risk_coverage": analysis.risk_coverage,
        "health": analysis.health,
        "tuning": analysis.tuning,
    }
    own = {name: frame for name, frame in frames.items() if not frame.empty}
    return {"cells": analysis.results.recorded, "main": analysis.rows, **own}
