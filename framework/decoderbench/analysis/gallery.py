"""Which test images a reader should look at, the same for all rows, and where their pixels are kept. No torch here."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from decoderbench.alignments import Alignment, decode_alignments
from decoderbench.analysis.samples import Samples
from decoderbench.errors import DataError
from decoderbench.files.integrity import read_bytes

logger = logging.getLogger("decoderbench")

ALIGNMENTS = "alignments.npz"
MAX_WEIGHTS = 100_000
"""The most weights of an alignment that is shown."""

KINDS = {
    "disagree": "rows disagree",
    "confident": "confident errors",
    "wrong": "all wrong",
    "right": "all right",
    "drawn": "alignments",
}
"""Why an image is shown, with the words for it. An image has the first reason that is true."""

_WANTED = {"disagree": 20, "confident": 10, "wrong": 14, "right": 6}
_MAX_SETS = 4
"""The most image sets of which images are shown."""


@dataclass(frozen=True)
class Picture:
    """A test image to look at.

    Attributes:
        image_set: of its rows.
        position: in the frames of this image set.
        sample: its key.
        reference: its label.
        kind: why it is shown, one of `KINDS`.
    """

    image_set: int
    position: int
    sample: str
    reference: str
    kind: str


def choose_pictures(samples: Samples, drawn: Iterable[str] = ()) -> list[Picture]:
    """Return the test images to look at, by image set and kind: always the same ones for the same predictions.

    Args:
        samples: the predictions of all rows.
        drawn: keys of images whose alignments are known; they are shown too.
    """
    sets = [number for number in dict.fromkeys(samples.image_sets) if number is not None][:_MAX_SETS]
    drawn = frozenset(drawn)
    return [picture for number in sets for picture in _choose(samples, number, len(sets), drawn)]


def _choose(samples: Samples, number: int, num_sets: int, drawn: frozenset[str]) -> list[Picture]:
    read = [
        (row, frame)
        for row in samples.rows_of(number)
        for seed in samples.seeds
        if (frame := samples.frame(row, seed)) is not None
    ]
    if not read:
        return []
    keys = read[0][1]["sample"].astype(str).tolist()
    references = read[0][1]["reference"].tolist()
    right = np.stack([(frame["reference"] == frame["hypothesis"]).to_numpy(dtype=bool) for _, frame in read])
    of_rows = [row for row, _ in read]
    shares = np.stack([right[[one == row for one in of_rows]].mean(axis=0) for row in dict.fromkeys(of_rows)])
    order = np.array([hashlib.sha256(key.encode("utf-8", "replace")).hexdigest() for key in keys])
    spread = (shares if len(shares) > 1 else right.astype(np.float64)).var(axis=0)
    confidence = np.stack([_ranks(frame) for _, frame in read])
    surest = np.where(right, -1.0, confidence).max(axis=0)
    share = right.mean(axis=0)
    agreed = _agreement_on_errors([frame["hypothesis"].tolist() for _, frame in read], right)
    candidates = {
        "disagree": (spread > 0, -spread),
        "confident": (surest >= 0, -surest),
        "wrong": (share == 0, -agreed),
        "right": (share == 1, confidence.min(axis=0)),
    }
    taken: dict[int, str] = {}
    for kind, (allowed, priority) in candidates.items():
        ranked = [int(place) for place in np.lexsort((order, priority)) if allowed[place] and int(place) not in taken]
        taken |= dict.fromkeys(ranked[: max(2, _WANTED[kind] // num_sets)], kind)
    taken |= {place: "drawn" for place, key in enumerate(keys) if key in drawn and place not in taken}
    return [Picture(number, place, keys[place], references[place], kind) for place, kind in taken.items()]


def _ranks(frame: pd.DataFrame) -> NDArray[np.float64]:
    """Return how sure a model was of each text, as its rank among the model's own from 0 to 1.

    Only ranks can be compared, since the log p of a decoder is not that of another.
    """
    known = [name for name in ("text_log_prob", "log_prob") if name in frame and frame[name].notna().any()]
    if not known:
        return np.zeros(len(frame))
    own = frame[known[0]].groupby(frame["fold"]) if "fold" in frame else frame[known[0]]
    return np.asarray(own.rank(pct=True).fillna(0), dtype=np.float64)


def _agreement_on_errors(readings: Sequence[Sequence[str]], right: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return for each image the share of all readings that are the most frequent error."""
    found = np.zeros(right.shape[1])
    for place in np.flatnonzero(~right.any(axis=0)).tolist():
        texts = [texts[place] for texts in readings]
        found[place] = max(texts.count(text) for text in dict.fromkeys(texts)) / len(texts)
    return found


def find_wanted_images(
    samples: Samples, pictures: Sequence[Picture], drawn: Iterable[str] = ()
) -> list[tuple[str, str]]:
    """Return data hash and key of each image to keep, the most needed first.

    An image set is shown as its first row saw it. Images with alignments are kept as every row saw them.
    """
    hashes = {number: list(dict.fromkeys(_hashes(samples, number))) for number in set(_numbers(samples))}
    drawn = list(drawn)
    aligned = [(name, key) for of_set in hashes.values() for name in of_set for key in drawn]
    chosen = [(hashes[picture.image_set][0], picture.sample) for picture in pictures]
    return list(dict.fromkeys([*aligned, *chosen]))


def data_hash_of(samples: Samples, image_set: int) -> str:
    """Return the data hash whose images are shown for an image set; empty if it has none."""
    return next(iter(_hashes(samples, image_set)), "")


def _numbers(samples: Samples) -> list[int]:
    return [number for number in samples.image_sets if number is not None]


def _hashes(samples: Samples, image_set: int) -> list[str]:
    rows = samples.rows_of(image_set)
    return [cell.data_hash for row in rows for seed in samples.seeds for cell in samples.models(row, seed)]


def alignments_of_rows(samples: Samples) -> list[list[Alignment]]:
    """Return the alignments that each row has kept: those of its first seed, and fold of it, that has any."""
    folder = samples.results.directory.path / "cells"
    found = []
    for row in range(len(samples.titles)):
        records = (record for seed in samples.seeds for record in samples.records(row, seed))
        drawn = (_read_alignments(folder / record.cell.cell_id) for record in records)
        found.append(next(filter(None, drawn), []))
    return found


def keys_of(alignments: Sequence[Sequence[Alignment]]) -> list[str]:
    """Return the keys of the images of which any row has kept an alignment."""
    return list(dict.fromkeys(one.sample for of_row in alignments for one in of_row))


def _read_alignments(folder: Path) -> list[Alignment]:
    """Return the alignments of a cell's folder; none, with a warning, if the file is damaged."""
    try:
        found = decode_alignments(read_bytes(folder / ALIGNMENTS))
    except FileNotFoundError:
        return []
    except (OSError, ValueError, DataError):
        logger.warning("%s: cannot be read; no alignments are shown", folder / ALIGNMENTS)
        return []
    return [one for one in found if one.weights.ndim == 2 and 0 < one.weights.size <= MAX_WEIGHTS]
