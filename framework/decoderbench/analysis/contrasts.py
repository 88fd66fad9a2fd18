"""Paired differences between rows that were tested on the same images. No torch here."""

from __future__ import annotations

import pandas as pd

from decoderbench.analysis.frame import VARIANT
from decoderbench.analysis.samples import Samples
from decoderbench.statistics import all_pairs

_DTYPES = {
    "metric": "str",
    "image_set": "int64",
    "axis": "str",
    "row_a": "str",
    "row_b": "str",
    "index_a": "int64",
    "index_b": "int64",
    **dict.fromkeys(("difference", "low", "high", "p", "p_holm"), "float64"),
    "num_seeds": "int64",
    "num_images": "int64",
    "num_units": "int64",
    "scope": "str",
}


def find_contrasts(samples: Samples) -> pd.DataFrame:
    """Return one line per metric and pair of rows of one image set, a before b in the order of the rows.

    `difference` is a - b with its 95 % interval, in the unit of the metric, over the `num_seeds` seeds that both rows
    have; that of two proportions ends at -1 and 1. `p` is two-sided; `p_holm` is adjusted over all pairs of the image
    set for this metric. `axis` is the stage or setting in which the rows differ, empty if they differ in several.
    `index_a` and `index_b` are positions in `Analysis.rows`. Rows without a common seed, and metrics without numbers
    per image, have no line.
    """
    lines = []
    for metric in samples.metrics:
        for image_set in _numbers(samples):
            rows = samples.rows_of(image_set)
            scores = samples.scores(metric, rows)
            for pair in all_pairs(scores) if scores else []:
                a, b, estimate = rows[pair.a], rows[pair.b], pair.estimate
                lines.append(
                    {
                        "metric": metric,
                        "image_set": image_set,
                        "axis": _axis_between(samples.variants[a], samples.variants[b]),
                        "row_a": samples.titles[a],
                        "row_b": samples.titles[b],
                        "index_a": a,
                        "index_b": b,
                        "difference": estimate.value,
                        "low": estimate.low,
                        "high": estimate.high,
                        "p": pair.p,
                        "p_holm": pair.p_holm,
                        "num_seeds": estimate.seeds,
                        "num_images": estimate.images,
                        "num_units": estimate.units,
                        "scope": estimate.scope,
                    }
                )
    return pd.DataFrame(lines, columns=list(_DTYPES)).astype(_DTYPES)


def _numbers(samples: Samples) -> list[int]:
    return sorted({number for number in samples.image_sets if number is not None})


def _axis_between(a: tuple[str, ...], b: tuple[str, ...]) -> str:
    differing = [axis for axis, one, other in zip(VARIANT, a, b, strict=True) if one != other]
    return differing[0] if len(differing) == 1 else ""
