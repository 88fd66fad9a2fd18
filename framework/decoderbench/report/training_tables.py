"""Tables of what training and decoders say of themselves: the trials of tuning, and the health of readings.

No torch here.
"""

from __future__ import annotations

from decoderbench.alignments import MEASURES
from decoderbench.analysis import Analysis
from decoderbench.analysis.frame import VARIANT
from decoderbench.analysis.health import TIGHT
from decoderbench.report.main_table import row_labels
from decoderbench.report.tables import MISSING, Table, format_fixed, format_significant

_HEALTH = {
    **{measure: (measure.replace("_", " ").removeprefix("alignment ").capitalize(), 1) for measure in MEASURES},
    "ended": ("Ended (%)", 100),
    "nll_gap": ("Gap (nats)", 1),
    "search_errors": ("Search errors (%)", 100),
    "frames_ratio": ("Least T / need", 1),
    "tight": ("Tight (%)", 100),
}
"""The headers and factors of the columns of `find_health`."""

_NOTES = {
    "nll_gap": "gap: nats by which the label is less probable than the text that was read",
    "search_errors": "search errors: wrong texts whose label is more probable than the text that was read",
    "frames_ratio": f"T / need: frames per frame that CTC needs for the label; tight: less than {TIGHT:g} of them",
}


def tuning_tables(analysis: Analysis) -> list[Table]:
    """Return the table of all values that were tried; none without tuning."""
    labels = dict(zip(analysis.samples.variants, row_labels(analysis), strict=True))
    folded = bool(analysis.tuning["fold"].notna().any())
    rows = [
        [
            labels.get(tuple(line[axis] for axis in VARIANT), ""),
            *([str(line["fold"])] if folded else []),
            line["values"],
            format_fixed(100 * line["exact_match"], 1),
            format_fixed(line["nats_per_char"], 3),
            format_significant(line["train_seconds"]),
            "; ".join(filter(None, ["chosen" if line["chosen"] else "", line["reasons"]])),
        ]
        for line in analysis.tuning.to_dict("records")
    ]
    table = Table(
        "tuning",
        "values that were tried for each row, on validation images",
        ["Row", *(["Fold"] if folded else []), "Values", "Exact match (%)", "Nats/char", "Training (s)", "Remarks"],
        rows,
        num_labels=2 + folded,
        notes=["means over the seeds of tuning; the test images were not read; tables/tuning.csv has every seed"],
        num_remarks=1,
    )
    return [table] if rows else []


def health_tables(analysis: Analysis) -> list[Table]:
    """Return the table of how decoders read, with the columns that any row has a number for; none if there are none."""
    health = analysis.health
    columns = [name for name in _HEALTH if health[name].notna().any()]
    labels = row_labels(analysis)
    rows = [
        [labels[line["index"]], *(format_fixed(line[name] * _HEALTH[name][1], 2) for name in columns)]
        for line in health[health["num_seeds"] > 0].to_dict("records")
    ]
    table = Table(
        "health",
        "how the decoders read the test images",
        ["Row", *(_HEALTH[name][0] for name in columns)],
        rows,
        num_labels=1,
        notes=[
            "medians over images and seeds; shares and gaps over all of them; "
            f"{MISSING}: the decoder does not say; tables/health.csv has quartiles and seeds",
            *(note for name, note in _NOTES.items() if name in columns),
        ],
    )
    return [table] if rows and columns else []
