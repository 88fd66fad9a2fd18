"""Metrics as text for people: names, units, decimals. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from decoderbench.report.tables import format_fixed, format_interval

PERCENT = ("exact_match", "cer", "one_minus_ned")
"""Metrics that are shown in percent; others are shown as they are, with three decimals."""

_NAMES = {
    "exact_match": "Exact match (%)",
    "cer": "CER (%)",
    "one_minus_ned": "1-NED (%)",
    "nats_per_char": "Nats/char",
}


def metric_name(metric: str) -> str:
    """Return the name of a metric for people, with its unit."""
    return _NAMES.get(metric, metric)


def in_unit(metric: str, value: float) -> float:
    """Return a metric in the unit in which it is shown."""
    return 100 * value if metric in PERCENT else value


def decimals_of(metric: str) -> int:
    """Return the number of decimals with which a metric is shown in its unit."""
    return 1 if metric in PERCENT else 3


def metric_text(metric: str, value: float, *, sign: str = "") -> str:
    """Return a metric as text; `sign` is that of a format spec."""
    return format_fixed(in_unit(metric, value), decimals_of(metric), sign=sign)


def metric_with_interval(
    metric: str, row: Mapping[Any, Any], value: str, low: str, high: str, *, sign: str = ""
) -> str:
    """Return `value [low, high]` from the columns of these names of a row."""
    middle, *ends = (in_unit(metric, row[name]) for name in (value, low, high))
    return format_interval(middle, (ends[0], ends[1]), decimals_of(metric), sign=sign)
