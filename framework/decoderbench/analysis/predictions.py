"""Files of predictions, read only if they are those of their record. No torch here."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from decoderbench.errors import DataError
from decoderbench.files.integrity import read_bytes
from decoderbench.metrics import Transcriptions
from decoderbench.records.results_directory import ResultsDirectory
from decoderbench.records.schema import RunRecord

if TYPE_CHECKING:
    import pyarrow

TEST, VALIDATION = "predictions.parquet", "val_predictions.parquet"


def read_predictions(directory: ResultsDirectory, record: RunRecord, name: str = TEST) -> pyarrow.Table:
    """Return one row per image of a split, with the columns that the file has: earlier versions wrote fewer.

    A record of format 3 may state no digest of the file: whether it is that of the record, its numbers must tell.

    Raises:
        DataError: the file is missing, damaged, or not that of the record. The message gives the reason alone.
    """
    import pyarrow as pa
    from pyarrow import parquet

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
        table = parquet.ParquetFile(pa.BufferReader(content)).read(use_threads=False)
        texts = [table[column] for column in ("sample", "reference", "hypothesis")]
        whole = all(pa.types.is_string(column.type) or pa.types.is_large_string(column.type) for column in texts)
        whole = whole and not any(column.null_count for column in texts)
        table["nll"].cast(pa.float64())
    except Exception:  # noqa: BLE001 - pyarrow raises many kinds for a damaged file
        raise DataError("it is damaged") from None
    if not whole or (name == TEST and len(table) != record.num_test):
        raise DataError("it is not that of the record")
    return table


def transcriptions_of(table: pyarrow.Table) -> Transcriptions:
    """Return what metrics are computed from."""
    import pyarrow as pa

    nll = (None if value is None or value != value else value for value in table["nll"].cast(pa.float64()).to_pylist())
    return Transcriptions(table["reference"].to_pylist(), table["hypothesis"].to_pylist(), list(nll))
