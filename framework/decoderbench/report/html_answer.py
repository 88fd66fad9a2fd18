"""The answer of the page: in one sentence what the statistics carry about exact match. No torch here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from decoderbench.analysis import Analysis
from decoderbench.analysis.samples import Samples
from decoderbench.report.html_tables import is_number
from decoderbench.report.metric_texts import in_unit, metric_text
from decoderbench.statistics import ALPHA, contrast, seeds_needed

PRIMARY = "exact_match"
"""The metric that the answer is about."""

NO_RESULT = "No row has a result yet."
EFFECTS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1)
"""Differences of exact match, of which the smallest is named that a feasible number of seeds would resolve."""

FEASIBLE = 20
"""The most seeds that are named as a way to resolve a difference."""


def answer_of(analysis: Analysis, labels: Sequence[str]) -> str:
    """Return what the table can claim about its best rows, and how sure it is.

    Only rows that were tested on the same images are compared; if there are several such groups, the largest is meant.

    Args:
        analysis: all that is known.
        labels: of the rows.
    """
    rows = analysis.rows
    scored = rows[rows[PRIMARY].notna()]
    if scored.empty:
        return NO_RESULT
    known = scored["image_set"].dropna()
    group = scored[scored["image_set"] == known.mode().iloc[0]] if len(known) else scored
    ordered = group.sort_values(PRIMARY, ascending=False, kind="stable")
    remarks = _remarks(rows, scored, group)
    best = int(ordered.index[0])
    if len(ordered) == 1:
        return f"{labels[best]} reads {_estimate(ordered.iloc[0])} of the test images without an error{remarks}."
    second = int(ordered.index[1])
    pairs = _pairs_of(analysis.contrasts, best)
    if second not in pairs.index:
        return (
            f"{labels[best]} reads {_estimate(ordered.iloc[0])} of the test images without an error, but it cannot be "
            f"compared with the next row, {labels[second]}: they have no seeds in common or no predictions{remarks}."
        )
    beaten = int((pairs["p_holm"] <= ALPHA).sum())
    others = len(ordered) - 1
    pair = pairs.loc[[second]].to_dict("records")[0]
    ends = [metric_text(PRIMARY, pair[end], sign="+") for end in ("low", "high")]
    claim = f"{metric_text(PRIMARY, pair['difference'], sign='+')} points"
    claim += f", 95 % interval {ends[0]} to {ends[1]}" if is_number(pair["low"]) else ", without an interval"
    if pair["p_holm"] <= ALPHA:
        rest = f", and than {_number_of(beaten, others)} other rows" if others > 1 else ""
        return f"{labels[best]} reads better than the next best, {labels[second]}: {claim}{rest}{remarks}."
    rest = (
        f"; {beaten} of the other {others} rows {'is' if beaten == 1 else 'are'} shown to be worse"
        if others > 1 and beaten
        else ""
    )
    more = _resolution(analysis.samples, best, second)
    return f"{labels[best]} and {labels[second]} cannot be told apart here: {claim}{more}{rest}{remarks}."


def _number_of(beaten: int, others: int) -> str:
    if beaten < others:
        return f"{beaten} of {others}"
    return "both" if others == 2 else f"all {others}"


def _remarks(rows: pd.DataFrame, scored: pd.DataFrame, group: pd.DataFrame) -> str:
    parts = []
    if (group["scope"] == "this trained model").all():
        parts.append("with one seed per row this is about these trained models, not about the architectures")
    if others := len(scored) - len(group):
        was, is_ = ("row was", "is") if others == 1 else ("rows were", "are")
        parts.append(f"{others} {was} tested on other images and {is_} not compared with these")
    if missing := len(rows) - len(scored):
        parts.append(f"{missing} of {len(rows)} rows {'has' if missing == 1 else 'have'} no result")
    return f" ({'; '.join(parts)})" if parts else ""


def _estimate(row: pd.Series[Any]) -> str:
    text = f"{metric_text(PRIMARY, row[PRIMARY])} %"
    ends = [metric_text(PRIMARY, float(row[f"{PRIMARY}_{end}"])) for end in ("low", "high")]
    return f"{text} (95 % interval {' to '.join(ends)})" if is_number(row[f"{PRIMARY}_low"]) else text


def _pairs_of(contrasts: pd.DataFrame, row: int) -> pd.DataFrame:
    """Return the contrasts of a row with others, by these: how much better it is."""
    own = contrasts[contrasts["metric"] == PRIMARY]
    first, second = own[own["index_a"] == row], own[own["index_b"] == row]
    turned = second.assign(difference=-second["difference"], low=-second["high"], high=-second["low"])
    return pd.concat([first.set_index("index_b"), turned.set_index("index_a")])


def _resolution(samples: Samples, a: int, b: int) -> str:
    """Return how many seeds would resolve a small difference of two rows, on as many images, with a power of .8."""
    scores = samples.scores(PRIMARY, [a, b])
    assert scores is not None  # they have a contrast
    found = contrast(scores, np.array([1.0, -1.0]))
    number = len(found.components.fold_sizes)
    folds = f" in {number} folds" if number > 1 else ""
    for effect in EFFECTS:
        try:
            needed = seeds_needed(found.components, effect, units=found.units).seeds
        except ValueError:  # one seed, or rows that agree on every image
            return ""
        if needed is not None and needed <= FEASIBLE:
            return f"; {needed} seeds{folds} would resolve {_points(effect)}"
    return f"; {FEASIBLE} seeds{folds} would not resolve {_points(EFFECTS[-1])}"


def _points(effect: float) -> str:
    points = in_unit(PRIMARY, effect)
    return f"{points:g} point{'s' * (points != 1)}"
