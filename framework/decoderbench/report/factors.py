"""The effect of each stage in a grid in which several stages vary.

The stages are the factors of a factorial design; the labels of a stage are its levels. No torch here.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from decoderbench.analysis.frame import VARIANT, Results
from decoderbench.config.cell import shown_axes
from decoderbench.report.footnotes import footnotes_of
from decoderbench.report.tables import MISSING, Table, format_fixed, format_mean_std

EFFECT_METRICS = ["exact_match", "cer"]
"""The metrics that effects are computed for."""

NOT_ALIKE = "some of these cells were made under other conditions than the rest: see the notes of the main table"


def factor_effects(frame: pd.DataFrame) -> pd.DataFrame:
    """Return one row per stage, level and metric, from the frame of one experiment; stages with one level are excluded.

    The levels of a stage are compared on matched cells only: combinations of the other stages and seeds for which
    every level is done. Seeds are averaged within each combination, and combinations have equal weight in `mean`.
    `difference` is the mean difference to `reference`, the stage's first level. `difference_std` is its sample
    standard deviation over the combinations (missing for one combination). `num_combinations` of `num_planned`
    combinations are matched, with `num_cells` cells per level. Rates are fractions of 1, and missing if no
    combination is matched.
    """
    done = _done_cells(frame)
    rows = []
    for stage in _varying_stages(frame):
        others = [axis for axis in VARIANT if axis != stage]
        levels = list(frame[stage].unique())
        wide = done.pivot(index=[*others, "seed"], columns=stage, values=EFFECT_METRICS)
        # A row is one combination and seed. It has a gap for each level that is not done.
        matched = wide.reindex(columns=pd.MultiIndex.from_product([EFFECT_METRICS, levels])).dropna()
        combinations = matched.groupby(level=others).mean()
        counts = {
            "num_combinations": len(combinations),
            "num_planned": len(frame[others].drop_duplicates()),
            "num_cells": len(matched),
        }
        for level in levels:
            for metric in EFFECT_METRICS:
                values = combinations[metric]
                difference = values[level] - values[levels[0]]
                row = {"stage": stage, "level": level, "reference": levels[0], "metric": metric}
                row |= {"mean": values[level].mean(), "difference": difference.mean()}
                rows.append(row | {"difference_std": difference.std()} | counts)
    return pd.DataFrame(rows)


def factor_tables(results: Results) -> list[Table]:
    """Return the tables of stage effects and of decoders by preceding stages; none if fewer than two stages vary."""
    varying = _varying_stages(results.cells)
    if len(varying) < 2:
        return []
    notes = [NOT_ALIKE] if footnotes_of(results.cells, shown_axes(results.plan.cells)).unlike else []
    decoders = [_decoder_table(results, notes)] if "decoder" in varying else []
    return [_stage_table(results.cells, notes), *decoders]


def _stage_table(cells: pd.DataFrame, notes: Sequence[str]) -> Table:
    rows = []
    for (stage, level), metrics in factor_effects(cells).groupby(["stage", "level"], sort=False):
        row = [str(stage), str(level)]
        for effect in metrics.to_dict("records"):
            spread = format_mean_std(100 * effect["difference"], 100 * effect["difference_std"], 1, sign="+")
            row += [format_fixed(100 * effect["mean"], 1), "reference" if level == effect["reference"] else spread]
        counts = effect["num_combinations"], effect["num_planned"]
        row += [" of ".join(map(str, dict.fromkeys(counts))), str(effect["num_cells"])]
        rows.append(row)
    return Table(
        "effect of each stage, with the other stages and seeds matched",
        ["Stage", "Level", "Exact match (%)", "Difference", "CER (%)", "Difference", "Combinations", "Cells"],
        rows,
        num_labels=2,
        notes=[
            "the levels of a stage are compared on matched cells only: combinations of the other stages and seeds for "
            "which every level is done; combinations have equal weight in a mean",
            "± is the sample standard deviation of the difference over these combinations: it shows how much the "
            "difference depends on the other stages and on chance; it is not a confidence interval",
            *notes,
        ],
    )


def _decoder_table(results: Results, notes: Sequence[str]) -> Table:
    cells = results.cells
    preceding = [axis for axis in VARIANT if axis != "decoder"]
    shown = [axis for axis in shown_axes(results.plan.cells) if axis in preceding]
    decoders = list(cells["decoder"].unique())
    seeds = _done_cells(cells).pivot(index=[*preceding, "seed"], columns="decoder", values="exact_match")
    seeds = 100 * seeds.reindex(columns=decoders)
    planned = pd.MultiIndex.from_frame(cells[preceding].drop_duplicates())
    means = seeds.groupby(level=preceding).mean().reindex(planned)
    differences = seeds.sub(seeds[decoders[0]], axis="index").groupby(level=preceding).mean().reindex(planned)
    rows = []
    for variant in planned:
        row = [label for axis, label in zip(preceding, variant, strict=True) if axis in shown]
        for decoder in decoders:
            mean, difference = means.loc[variant, decoder], differences.loc[variant, decoder]
            bracket = f" ({format_fixed(difference, 1, sign='+')})" if decoder != decoders[0] and pd.notna(mean) else ""
            row.append(format_fixed(mean, 1) + bracket)
        rows.append(row)
    return Table(
        "exact match (%) of each decoder, by preceding stages",
        [*map(str.capitalize, shown), *decoders],
        rows,
        num_labels=len(shown),
        notes=[
            f"means are over all seeds that are done; in brackets the difference to {decoders[0]}, over the seeds that "
            f"are done for both, {MISSING} if there are none",
            *notes,
        ],
    )


def _varying_stages(frame: pd.DataFrame) -> list[str]:
    return [axis for axis in VARIANT if frame[axis].nunique() > 1]


def _done_cells(frame: pd.DataFrame) -> pd.DataFrame:
    return frame[(frame["status"] == "done") & frame[EFFECT_METRICS].notna().all(axis="columns")]
