"""What each stage of a recognizer changes: the effects of a grid in which several stages vary.

The stages are the factors of a factorial design, the labels of a stage its levels. No torch here.
"""

from __future__ import annotations

import pandas as pd

from decoderbench.config.cell import shown_axes
from decoderbench.report.frame import VARIANT, Results
from decoderbench.report.tables import MISSING, Table, rounded, with_spread

METRICS = ["exact_match", "cer"]


def factor_effects(frame: pd.DataFrame) -> pd.DataFrame:
    """Return one row a stage, level and metric, from the frame of one experiment; a stage with one level has none.

    Levels are compared on the same combinations of the other stages: those with which every level of the stage is
    done, and of their seeds those that every level has. `mean` is over these combinations, each the mean of its
    seeds, each of the same weight. `difference` is that to `reference`, the stage's first level, and
    `difference_std` its sample standard deviation over the combinations (missing for one). `num_combinations` of
    `num_planned` take part, with `num_cells` cells a level. Rates are fractions of 1, missing if none takes part.
    """
    done = _done(frame)
    rows = []
    for stage in _varying(frame):
        others = [axis for axis in VARIANT if axis != stage]
        levels = list(frame[stage].unique())
        wide = done.pivot(index=[*others, "seed"], columns=stage, values=METRICS)
        # A level that is not done leaves a gap in the row of its combination and seed.
        matched = wide.reindex(columns=pd.MultiIndex.from_product([METRICS, levels])).dropna()
        combinations = matched.groupby(level=others).mean()
        counts = {
            "num_combinations": len(combinations),
            "num_planned": len(frame[others].drop_duplicates()),
            "num_cells": len(matched),
        }
        for level in levels:
            for metric in METRICS:
                values = combinations[metric]
                difference = values[level] - values[levels[0]]
                row = {"stage": stage, "level": level, "reference": levels[0], "metric": metric}
                row |= {"mean": values[level].mean(), "difference": difference.mean()}
                rows.append(row | {"difference_std": difference.std()} | counts)
    return pd.DataFrame(rows)


def factor_tables(results: Results) -> list[Table]:
    """Return what each stage changes, and what decoders do given the stages before; nothing if one stage varies."""
    varying = _varying(results.cells)
    if len(varying) < 2:
        return []
    return [_stage_table(results.cells), *([_decoder_table(results)] if "decoder" in varying else [])]


def _stage_table(cells: pd.DataFrame) -> Table:
    rows = []
    for (stage, level), metrics in factor_effects(cells).groupby(["stage", "level"], sort=False):
        row = [str(stage), str(level)]
        for effect in metrics.to_dict("records"):
            spread = with_spread(100 * effect["difference"], 100 * effect["difference_std"], 1, sign="+")
            row += [rounded(100 * effect["mean"], 1), "reference" if level == effect["reference"] else spread]
        part = effect["num_combinations"], effect["num_planned"]
        row += [" of ".join(map(str, dict.fromkeys(part))), str(effect["num_cells"])]
        rows.append(row)
    return Table(
        "what each stage changes, all else being equal",
        ["Stage", "Level", "Exact match (%)", "Difference", "CER (%)", "Difference", "Combinations", "Cells"],
        rows,
        num_labels=2,
        notes=[
            "levels of a stage are compared on the same combinations of the other stages, those with which all its "
            "levels are done, and on the seeds that all of them have; a mean is over combinations, each counted alike",
            "± is the sample standard deviation of the difference over these combinations: how much it depends on the "
            "other stages and on chance; it is not a confidence interval",
        ],
    )


def _decoder_table(results: Results) -> Table:
    cells = results.cells
    given = VARIANT[:-1]
    shown = [axis for axis in shown_axes(results.plan.cells) if axis in given]
    decoders = list(cells["decoder"].unique())
    seeds = _done(cells).pivot(index=[*given, "seed"], columns="decoder", values="exact_match")
    seeds = 100 * seeds.reindex(columns=decoders)
    planned = pd.MultiIndex.from_frame(cells[given].drop_duplicates())
    means = seeds.groupby(level=given).mean().reindex(planned)
    differences = seeds.sub(seeds[decoders[0]], axis="index").groupby(level=given).mean().reindex(planned)
    rows = []
    for variant in planned:
        row = [label for axis, label in zip(given, variant, strict=True) if axis in shown]
        for decoder in decoders:
            mean, difference = means.loc[variant, decoder], differences.loc[variant, decoder]
            bracket = f" ({rounded(difference, 1, sign='+')})" if decoder != decoders[0] and pd.notna(mean) else ""
            row.append(rounded(mean, 1) + bracket)
        rows.append(row)
    return Table(
        "exact match (%) of each decoder, given the stages before it",
        [*map(str.capitalize, shown), *decoders],
        rows,
        num_labels=len(shown),
        notes=[
            f"a mean is over the seeds that are done; in brackets the difference to {decoders[0]}, over the seeds "
            f"that both have, {MISSING} if there is none"
        ],
    )


def _varying(frame: pd.DataFrame) -> list[str]:
    return [axis for axis in VARIANT if frame[axis].nunique() > 1]


def _done(frame: pd.DataFrame) -> pd.DataFrame:
    return frame[(frame["status"] == "done") & frame[METRICS].notna().all(axis="columns")]
