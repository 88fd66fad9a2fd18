"""Validation during training, as a frame. No torch here."""

from __future__ import annotations

import pandas as pd

from decoderbench.analysis.frame import VARIANT, Results
from decoderbench.records.schema import read_lines

VALIDATED = ["val_exact_match", "val_cer", "val_nats_per_char", "train_loss"]
"""What is measured at each validation; rates are fractions of 1."""


def validation_curves(results: Results) -> pd.DataFrame:
    """Return one row per validation of a done cell: the columns of its variant, seed, fold, step, and `VALIDATED`.

    The fold is -1 without folds.
    """
    rows = []
    for cell, row in zip(results.plan.cells, results.cells.to_dict("records"), strict=True):
        if row["status"] == "done":
            known = {name: row[name] for name in [*VARIANT, "seed"]} | {"fold": -1 if cell.fold is None else cell.fold}
            rows += [known | line for line in read_lines(results.directory.cell_directory(cell) / "history.jsonl")]
    curves = pd.DataFrame(rows, columns=[*VARIANT, "seed", "fold", "step", *VALIDATED]).dropna(subset="val_exact_match")
    # A cell that was interrupted and restarted has written its first steps twice.
    return curves.drop_duplicates([*VARIANT, "seed", "fold", "step"], keep="last").reset_index(drop=True)
