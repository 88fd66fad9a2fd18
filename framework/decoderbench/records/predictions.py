"""Predictions as a file: the transcriptions of a split, one row per image. No torch here."""

from __future__ import annotations

import pandas as pd

from decoderbench.alignments import MEASURES
from decoderbench.metrics import Evaluation

COLUMNS = {
    "sample": "str",
    "reference": "str",
    "hypothesis": "str",
    "log_prob": "float64",
    "nll": "float64",
    "edit_distance": "int64",
    "text_log_prob": "float64",
    "group": "str",
    "ended": "boolean",
    "frames": "Int64",
    **dict.fromkeys(MEASURES, "float64"),
}
"""The columns of `predictions.parquet` and `val_predictions.parquet`, and their types in pandas. `log_prob`, `nll` and
`text_log_prob` are in nats; null stands for what a decoder does not offer. `Evaluation` says what each one is."""


def encode_predictions(evaluation: Evaluation) -> bytes:
    """Return the transcriptions of a split as the bytes of a Parquet file; what the evaluation lacks is null."""
    frame = pd.DataFrame(evaluation.columns()).reindex(columns=list(COLUMNS))
    return frame.astype(COLUMNS).to_parquet(index=False)
