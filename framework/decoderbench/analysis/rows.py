"""One line per variant: its scores with intervals, what is wrong with it, and what it costs. No torch here."""

from __future__ import annotations

from typing import Any

import pandas as pd

from decoderbench.analysis.frame import COSTS, VARIANT, summarize, values_of_seeds
from decoderbench.analysis.samples import Samples
from decoderbench.records.schema import FAILED
from decoderbench.statistics import ALPHA, Estimate, row


def find_rows(samples: Samples, contrasts: pd.DataFrame) -> pd.DataFrame:
    """Return one line per variant, in the order of the plan.

    Besides the columns of `summarize` for a variant and its costs: `title`, `num_failed` cells, `infeasible`,
    `num_folds` (missing without folds),
    `image_set` (rows with the same number were tested on the same images with the same labels; missing without
    samples), `num_images` and `num_units` (groups of images, or images if each is independent), and `scope`:
    `architecture`, or `this trained model` if there is one seed. Then for each metric its value, the mean over the
    seeds that are done; `_low` and `_high`, the 95 % interval of the mean over training runs and images; `_df`, its
    degrees of freedom; and `_bold`: no row of the image set beats it with p at most .05, adjusted by Holm over all
    pairs. Nothing is bold in an image set in which fewer than two rows have two seeds.

    The interval is missing if any seed has no samples or the metric no numbers per image.
    """
    cells = samples.results.cells
    counts = cells.assign(failed=cells["status"].isin(FAILED), infeasible=cells["status"] == "infeasible")
    counts = counts.groupby(VARIANT, sort=False, as_index=False).agg(
        num_failed=("failed", "sum"),
        infeasible=("infeasible", "any"),
        num_folds=("folds", "first"),
        tuned=("tuned", lambda texts: "; ".join(filter(None, dict.fromkeys(texts)))),
        **{name: (name, "first") for name in ("train_limit", "tuning_seconds")},
    )
    summary = summarize(cells)
    columns = [*VARIANT, "name", "num_seeds", "num_planned_seeds", "num_cells", "status", "reasons", *COSTS]
    rows = summary[columns].assign(
        title=samples.titles,
        **{str(name): counts[name] for name in counts.columns.difference(VARIANT, sort=False)},
        image_set=pd.array(samples.image_sets, dtype="Int64"),
    )
    found = {metric: _scored(samples, metric) for metric in samples.metrics}
    first: dict[int, Estimate] = {}
    for estimates in found.values():
        first = {**estimates, **first}
    return rows.assign(
        num_images=_column(first, rows, "images", "Int64"),
        num_units=_column(first, rows, "units", "Int64"),
        scope=_column(first, rows, "scope", "str"),
    ).join(
        pd.DataFrame(
            {
                name: values
                for metric, estimates in found.items()
                for name, values in _columns(metric, estimates, rows, samples, contrasts).items()
            },
            index=rows.index,
        )
    )


def _scored(samples: Samples, metric: str) -> dict[int, Estimate]:
    """Return the estimate of each row all of whose values have numbers per image."""
    found = {}
    for image_set in sorted({number for number in samples.image_sets if number is not None}):
        rows = samples.rows_of(image_set)
        scores = samples.scores(metric, rows)
        if scores is None:
            continue
        proportion = scores.proportion
        for position, index in enumerate(rows):
            valued = [
                samples.is_done(index, seed)
                and all(record.metrics.get(metric) is not None for record in samples.records(index, seed))
                for seed in samples.seeds
            ]
            if any(valued) and scores.present[position].tolist() == valued:
                found[index] = row(scores, position, proportion=proportion)
    return found


def _columns(
    metric: str, estimates: dict[int, Estimate], rows: pd.DataFrame, samples: Samples, contrasts: pd.DataFrame
) -> dict[str, pd.Series[Any]]:
    cells = samples.results.cells
    of_seeds = values_of_seeds(cells, [metric]) if metric in cells else cells.assign(**{metric: float("nan")})
    values = of_seeds.groupby(VARIANT, sort=False)[metric].mean().reset_index(drop=True)
    estimated = _column(estimates, rows, "value", "float64")
    return {
        metric: estimated.fillna(values.astype("float64")),
        f"{metric}_low": _column(estimates, rows, "low", "float64"),
        f"{metric}_high": _column(estimates, rows, "high", "float64"),
        f"{metric}_df": _column(estimates, rows, "df", "float64"),
        f"{metric}_bold": _bold(metric, estimates, rows, samples, contrasts),
    }


def _bold(
    metric: str, estimates: dict[int, Estimate], rows: pd.DataFrame, samples: Samples, contrasts: pd.DataFrame
) -> pd.Series[bool]:
    definition = samples.results.definitions.get(metric)
    able = pd.Series([index in estimates and estimates[index].seeds > 1 for index in range(len(rows))])
    competitors = able.groupby(rows["image_set"], dropna=False).transform("sum")
    bold = able & (competitors > 1)
    if definition is not None:
        own = contrasts[(contrasts["metric"] == metric) & (contrasts["scope"] == "architecture")]
        for pair in own[own["p_holm"] <= ALPHA].to_dict("records"):
            a_is_better = (pair["difference"] > 0) == definition.higher_is_better
            bold[pair["index_b" if a_is_better else "index_a"]] = False
    return bold


def _column(estimates: dict[int, Estimate], rows: pd.DataFrame, name: str, dtype: Any) -> pd.Series[Any]:
    values = {index: getattr(estimate, name) for index, estimate in estimates.items()}
    column: pd.Series[Any] = pd.Series(values, dtype=dtype).reindex(rows.index)
    return column
