"""Tables of what differs: pairs of rows, stages and settings, and how the effects of two of them interact.

No torch here.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from decoderbench.analysis import Analysis
from decoderbench.config.cell import shown_axes
from decoderbench.report.footnotes import footnotes_of
from decoderbench.report.main_table import row_labels
from decoderbench.report.metric_texts import metric_name, metric_text, metric_with_interval
from decoderbench.report.tables import Table, format_p

METRIC = "exact_match"
"""The metric of the tables of pairs and interactions; the files have all."""

METRICS = (METRIC, "cer")
"""The metrics of the table of effects."""

MANY = 15
"""With more pairs of rows, only those with the observed best are shown; of more interactions, the clearest."""

NOT_ALIKE = "some of these cells were made under other conditions than the rest: see the notes of the main table"


def contrast_tables(analysis: Analysis) -> list[Table]:
    """Return a table of pairs of rows for each set of images: all pairs, or if these are many, the best with each."""
    labels = row_labels(analysis)
    own = analysis.contrasts[analysis.contrasts["metric"] == METRIC]
    return [
        _contrast_table(analysis, pairs, labels, _part(number, own["image_set"].nunique()))
        for number, (_, pairs) in enumerate(own.groupby("image_set"), start=1)
    ]


def _contrast_table(analysis: Analysis, pairs: pd.DataFrame, labels: Sequence[str], part: str) -> Table:
    chosen, which = pairs, "all pairs of rows"
    if len(pairs) > MANY:
        values = analysis.rows.loc[sorted({*pairs["index_a"], *pairs["index_b"]}), METRIC]
        best = int(values.idxmax())
        chosen = _against(pairs, best)
        which = f"{labels[best]}, the observed best, with every other row"
    rows = [
        [
            labels[pair["index_a"]],
            labels[pair["index_b"]],
            metric_with_interval(METRIC, pair, "difference", "low", "high", sign="+"),
            format_p(pair["p"]),
            format_p(pair["p_holm"]),
            str(pair["num_seeds"]),
            f"{pair['num_images']:,}",
        ]
        for pair in chosen.to_dict("records")
    ]
    return Table(
        f"contrasts{part}",
        "paired differences of exact match between rows, in points",
        ["Row", "Compared with", "Difference", "p", "p (Holm)", "Seeds", "Images"],
        rows,
        num_labels=2,
        notes=[
            f"{which}; the first row minus the second, on the same images and over the seeds that both have, with the "
            "95 % interval",
            f"p (Holm) is adjusted over {_all(len(pairs), 'pair')} of rows; tables/contrasts.csv has all pairs and "
            "metrics",
            *_notes_on_scope(chosen),
            *_notes_on_conditions(analysis),
        ],
    )


def _all(count: int, what: str) -> str:
    return f"the one {what}" if count == 1 else f"all {count} {what}s"


def _against(pairs: pd.DataFrame, row: int) -> pd.DataFrame:
    """Return the pairs of a row, turned so that it comes first."""
    first, second = pairs[pairs["index_a"] == row], pairs[pairs["index_b"] == row]
    turned = second.rename(columns={"index_a": "index_b", "index_b": "index_a", "low": "high", "high": "low"})
    turned = turned.assign(difference=-turned["difference"], low=-turned["low"], high=-turned["high"])
    return pd.concat([first, turned]).sort_values("index_b", kind="stable")


def effect_tables(analysis: Analysis) -> list[Table]:
    """Return the tables of effects and interactions of each set of images in which several axes vary."""
    found = []
    effects = analysis.effects
    for number, (image_set, own) in enumerate(effects.groupby("image_set"), start=1):
        if own["stage"].nunique() > 1:
            part = _part(number, effects["image_set"].nunique())
            found.append(_effect_table(analysis, own, part))
            interactions = analysis.interactions[analysis.interactions["image_set"] == image_set]
            found += _interaction_table(analysis, interactions, part)
    return found


def _effect_table(analysis: Analysis, effects: pd.DataFrame, part: str) -> Table:
    metrics = [metric for metric in METRICS if (effects["metric"] == metric).any()]
    rows = []
    for (stage, level), lines in effects.groupby(["stage", "level"], sort=False):
        by_metric = {line["metric"]: line for line in lines.to_dict("records")}
        row = [str(stage), str(level)]
        for metric in metrics:
            line = by_metric[metric]
            difference = metric_with_interval(metric, line, "difference", "low", "high", sign="+")
            is_reference = level == line["reference"]
            row += [
                metric_text(metric, line["mean"]),
                "reference" if is_reference else difference,
                "" if is_reference else format_p(line["p_holm"]),
            ]
        line = by_metric[metrics[0]]
        counts = " of ".join(dict.fromkeys(map(str, (line["num_combinations"], line["num_planned"]))))
        rows.append([*row, counts, str(line["num_seeds"])])
    return Table(
        f"effects{part}",
        "effect of each stage, with the other stages matched",
        [
            "Stage",
            "Level",
            *(header for metric in metrics for header in (metric_name(metric), "Difference", "p (Holm)")),
            "Combinations",
            "Seeds",
        ],
        rows,
        num_labels=2,
        notes=[
            "the levels of a stage are compared on matched rows only: combinations of the other stages for which every "
            "level has a result, with equal weight, and the seeds that all of these rows have",
            "differences are to the first level of the stage, with their 95 % intervals; p (Holm) is adjusted over all "
            "differences of the column; tables/effects.csv has p, and all metrics",
            *_notes_on_scope(effects),
            *_notes_on_conditions(analysis),
        ],
    )


def _interaction_table(analysis: Analysis, interactions: pd.DataFrame, part: str) -> list[Table]:
    own = interactions[(interactions["metric"] == METRIC) & (interactions["num_combinations"] > 0)]
    if own.empty:
        return []
    shown = own.sort_values("p", kind="stable").head(MANY).sort_index()
    which = f"the {MANY} with the smallest p of {len(own)} interactions; " if len(own) > MANY else ""
    rows = [
        [
            f"{line['level_a']} (not {line['reference_a']})",
            f"{line['level_b']} (not {line['reference_b']})",
            metric_with_interval(METRIC, line, "difference", "low", "high", sign="+"),
            format_p(line["p"]),
            format_p(line["p_holm"]),
            str(line["num_combinations"]),
            str(line["num_seeds"]),
        ]
        for line in shown.to_dict("records")
    ]
    table = Table(
        f"interactions{part}",
        "interactions of two stages in exact match, in points",
        ["Effect of", "With", "Difference", "p", "p (Holm)", "Combinations", "Seeds"],
        rows,
        num_labels=2,
        notes=[
            f"{which}by how many points the effect of the first is larger with the second than without it, with the "
            "95 % interval; rows are matched as in the table of effects",
            f"p (Holm) is adjusted over {_all(len(own), 'interaction')}; tables/interactions.csv has all metrics",
            *_notes_on_scope(shown),
            *_notes_on_conditions(analysis),
        ],
    )
    return [table]


def _part(number: int, count: int) -> str:
    return f"-{number}" if count > 1 else ""


def _notes_on_scope(lines: pd.DataFrame) -> list[str]:
    if not (lines["scope"] == "this trained model").any():
        return []
    return ["differences over one seed hold for these trained models on new images, not for the architectures"]


def _notes_on_conditions(analysis: Analysis) -> list[str]:
    results = analysis.results
    return [NOT_ALIKE] if footnotes_of(results.cells, shown_axes(results.plan.cells)).unlike else []
