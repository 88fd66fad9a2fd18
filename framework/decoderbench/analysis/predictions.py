"""Files of predictions, read only if they are those of their record. No torch here."""

from __future__ import annotations

import hashlib
import io

import pandas as pd

from decoderbench.errors import DataError
from decoderbench.integrity import read_bytes
from decoderbench.records import RunRecord
from decoderbench.results_directory import ResultsDirectory

TEST, VALIDATION = "predictions.parquet", "val_predictions.parquet"


def read_predictions(directory: ResultsDirectory, record: RunRecord, name: str = TEST) -> pd.DataFrame:
    """Return one row per image of a split, with the columns that the file has: earlier versions wrote fewer.

    A record of format 3 may state no digest of the file: whether it is that of the record, its numbers must tell.

    Raises:
        DataError: the file is missing, damaged, or not that of the record. The message gives the reason alone.
    """
    try:
        content = read_bytes(directory.cell_directory(record.cell) / name)
    except FileNotFoundError:
        raise DataError("it is missing") from None
    except DataError:
        raise DataError("it cannot be read") from None
    stated = record.artifacts[name].sha256 if name in record.artifacts else record.predictions_digest
    if not hashlib.sha256(content).hexdigest().startswith(stated):
        raise DataError("it is not the file that the record was made with")
    try:
        frame = pd.read_parquet(io.BytesIO(content))
        texts = {*map(type, frame["reference"].tolist()), *map(type, frame["hypothesis"].tolist())}
        frame["nll"] = frame["nll"].astype("float64")
    except Exception:  # noqa: BLE001 - pyarrow raises many kinds for a damaged file
        raise DataError("it is damaged") from None
    if not texts <= {str} or (name == TEST and len(frame) != record.num_test):
        raise DataError("it is not that of the record")
    return frame
