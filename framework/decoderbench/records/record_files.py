"""The files of records: plan.json and result.json as bytes, and the artifacts that a result stands for. No torch here.

Both state their own sha256 (`integrity.seal`), and a result the size and sha256 of every other file of its cell. Format
3, of earlier versions, states neither.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from decoderbench.errors import DataError
from decoderbench.files.integrity import (
    DIGEST,
    Artifact,
    DamagedError,
    artifact_of,
    check_content,
    check_size,
    has_own_digest,
    parse,
    read_bytes,
    seal,
)
from decoderbench.files.storage import delete
from decoderbench.records.schema import FORMAT, UNVERIFIED_FORMAT, VERIFIED_FORMATS, Plan, RunRecord

logger = logging.getLogger("decoderbench")

RESULT, PLAN = "result.json", "plan.json"
MAX_RESULT, MAX_PLAN = 2**26, 2**28
"""Sizes in bytes that no record and no plan has; a larger file is not read."""

READ_BY_REPORTS = ("predictions.parquet", "val_predictions.parquet", "history.jsonl", "alignments.npz")
"""The artifacts whose content a run and a report check; `decoderbench verify` checks all."""

_NOT_ARTIFACTS = {RESULT, "lock", "holder", "progress.json", "output.txt"}
"""Files of a cell that no result stands for; what its process prints may reach its file after the result is there."""

CHECKPOINTS = "checkpoint"
"""The folder of a cell under way with its checkpoints; it goes when the cell has a result."""

_SET_ASIDE = ".damaged"

_Record = TypeVar("_Record", Plan, RunRecord)
_IN_ALL_FORMATS: dict[type[Plan | RunRecord], set[str]] = {
    Plan: {"experiment", "cells"},
    RunRecord: {"cell", "status"},
}


class OtherFormatError(DataError):
    """A results file has a format that this version cannot read; the file is left unchanged."""


def encode(record: Plan | RunRecord) -> bytes:
    """Return a plan or record as the bytes of its file; one of an earlier format gets no field of a later one."""
    if record.format == UNVERIFIED_FORMAT:
        return record.model_dump_json(indent=1, exclude_unset=True).encode()
    return seal(json.loads(record.model_dump_json(exclude_unset=record.format != FORMAT)))


def read_plan(path: Path) -> Plan:
    """Read a `plan.json`.

    Raises:
        FileNotFoundError: there is none.
        OtherFormatError: it was written by another version of decoderbench.
        DamagedError: it is not as it was written.
    """
    return _decode(path, read_bytes(path, limit=MAX_PLAN), Plan)


def read_result(folder: Path) -> RunRecord:
    """Read the `result.json` of a cell's folder, whose name is the cell's id; the other files are not looked at.

    Raises:
        FileNotFoundError: there is none.
        OtherFormatError: it was written by another version of decoderbench.
        DamagedError: it is not as it was written, or that of another cell.
    """
    path = folder / RESULT
    record = _decode(path, read_bytes(path, limit=MAX_RESULT), RunRecord)
    if record.cell.cell_id != folder.name:
        raise DamagedError(path, f"the record of another cell, {record.cell.cell_id}")
    return record


def read_and_check(
    folder: Path, find_damage: Callable[[RunRecord], Sequence[DamagedError]]
) -> tuple[RunRecord | None, Sequence[DamagedError]]:
    """Return the record of a cell's folder, if it has one, and the damage of it and of its files.

    Args:
        folder: that of the cell.
        find_damage: returns the damage of the files of a record.
    """
    try:
        record = read_result(folder)
    except FileNotFoundError:
        return None, []
    except DamagedError as error:
        return None, [error]
    return record, find_damage(record)


def collect_artifacts(folder: Path) -> dict[str, Artifact]:
    """Return size and sha256 of every file of a cell's folder that a result stands for, by its path in the folder.

    Locks, temporary and damaged files and those of a running cell are no artifacts.
    """
    found = {}
    for path in sorted(_artifact_paths(folder)):
        name = path.relative_to(folder).as_posix()
        try:
            name.encode()
            found[name] = artifact_of(path)
        except UnicodeEncodeError:
            logger.warning("%r: not recorded, its name is not UTF-8", str(path))
        except DamagedError as error:
            logger.warning("%s: not recorded: %s", path, error.damage)
        except FileNotFoundError:
            continue  # a temporary file of a component
    return found


def damaged_artifacts(folder: Path, record: RunRecord, *, thoroughly: bool = False) -> list[DamagedError]:
    """Return the damage of the artifacts of a record; one that is missing is not damaged.

    Args:
        folder: that of the cell.
        record: its record.
        thoroughly: compare the content of all artifacts, not only of those that reports read. Of weights, only the
            size is compared else, and nothing of files that a plugin has written.
    """
    found = []
    for name, artifact in record.artifacts.items():
        if not thoroughly and name not in (*READ_BY_REPORTS, "weights.safetensors"):
            continue
        check = check_content if thoroughly or name in READ_BY_REPORTS else check_size
        try:
            check(folder / name, artifact)
        except DamagedError as error:
            found.append(error)
        except FileNotFoundError:
            continue
    return found


def missing_artifacts(folder: Path, record: RunRecord) -> list[str]:
    """Return the names of the artifacts of a record that are not there."""
    return [name for name in record.artifacts if not (folder / name).exists()]


def files_of_result(folder: Path, record: RunRecord) -> list[str]:
    """Return the names of the files that a record stands for; one of format 3 does not name them."""
    if record.format == UNVERIFIED_FORMAT:
        return sorted(path.relative_to(folder).as_posix() for path in _artifact_paths(folder))
    return list(record.artifacts)


def set_aside_files(folder: Path) -> list[str]:
    """Return the names of the damaged files in a folder that were renamed."""
    return sorted(path.name for path in folder.glob(f"*{_SET_ASIDE}*"))


def delete_checkpoints(folder: Path) -> None:
    """Delete the checkpoints of a cell's folder; those that were renamed because they are damaged stay."""
    checkpoints = folder / CHECKPOINTS
    if checkpoints.is_dir():
        delete(*(path for path in checkpoints.iterdir() if _SET_ASIDE not in path.name and not path.is_dir()))
        with suppress(OSError):  # not empty
            checkpoints.rmdir()


def name_aside(path: Path) -> Path:
    """Return the unused path that a damaged file is renamed to: its name with `.damaged`, and a number if need be."""
    name, number = path.with_name(path.name + _SET_ASIDE), 1
    while os.path.lexists(name):
        number += 1
        name = path.with_name(f"{path.name}{_SET_ASIDE}-{number}")
    return name


def _artifact_paths(folder: Path) -> Iterator[Path]:
    for place, folders, files in os.walk(folder):
        top = Path(place) == folder
        folders[:] = [name for name in folders if not ((top and name == CHECKPOINTS) or _SET_ASIDE in name)]
        for name in files:
            if not ((top and name in _NOT_ARTIFACTS) or name.startswith(".") or _SET_ASIDE in name):
                yield Path(place, name)


def _decode(path: Path, content: bytes, kind: type[_Record]) -> _Record:
    data = parse(path, content)
    _check_digest(path, content, data, kind)
    data.pop(DIGEST, None)
    try:
        return kind.model_validate_json(json.dumps(data))
    except (ValidationError, RecursionError):
        raise DamagedError(path, f"not a {path.stem}") from None


def _check_digest(path: Path, content: bytes, data: dict[str, object], kind: type[_Record]) -> None:
    """Raise if a file has another format, or not the digest that it states."""
    given = data.get("format", 1)
    if DIGEST not in data:
        if given == UNVERIFIED_FORMAT:
            return
        if given in VERIFIED_FORMATS:
            raise DamagedError(path, "it states no sha256")
    elif given in VERIFIED_FORMATS and has_own_digest(content):
        return
    elif given in VERIFIED_FORMATS or "format" not in data or _is_of_known_format(content):
        raise DamagedError(path, "sha256 mismatch")
    if not data.keys() >= _IN_ALL_FORMATS[kind]:
        raise DamagedError(path, f"not a {path.stem}")
    raise OtherFormatError(
        f"{path}: has format {given!r:.40}, this decoderbench reads format {FORMAT}; the file is left unchanged; use "
        f"the decoderbench that wrote it, or run the experiment again with --results FOLDER"
    )


def _is_of_known_format(content: bytes) -> bool:
    """Return whether only the format that a file states is damaged."""
    return any(has_own_digest(content, format=known) for known in VERIFIED_FORMATS)
