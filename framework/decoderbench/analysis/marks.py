"""Whether rows were trained for long enough, and which cells learned nothing: from their validations. No torch here."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from decoderbench.analysis.samples import Samples
from decoderbench.config.cell import Cell
from decoderbench.records.schema import unpack_flags
from decoderbench.statistics import Estimate, Scores, contrast

if TYPE_CHECKING:
    from numpy.typing import NDArray

logger = logging.getLogger("decoderbench")

NOT_LEARNED = 0.8
"""Share of the unigram entropy of the labels from which on a validation nll per character says: nothing was learned."""

READS = 0.5
"""CER up to which a model reads, however sure it is of its errors."""


def find_marks(samples: Samples, learning: pd.DataFrame) -> pd.DataFrame:
    """Return one line per row, in the order of the plan; `learning` is that of `find_learning`.

    - rise: exact match on the validation images at the end minus that at nine tenths of the steps, paired by image,
      mean over the seeds; `rise_low` and `rise_high` are its 95 % interval. Missing if it is not known: the history of
      earlier versions, and of trainers that do not give their evaluations, does not say which images were right.
    - still_rising: the interval is above 0; False where it is missing.
    - not_learned: the number of seeds, with folds of models, that did not learn.
    """
    not_learned = Counter(learning.loc[learning["learned"].eq(False), "index"])
    rows = []
    for index in range(len(samples.titles)):
        rise = _rise(samples, index)
        low = math.nan if rise is None else rise.low
        rows.append(
            {
                "rise": math.nan if rise is None else rise.value,
                "rise_low": low,
                "rise_high": math.nan if rise is None else rise.high,
                "still_rising": low > 0,
                "not_learned": not_learned[index],
            }
        )
    dtypes = {
        **dict.fromkeys(("rise", "rise_low", "rise_high"), "float64"),
        "still_rising": "bool",
        "not_learned": "int64",
    }
    return pd.DataFrame(rows, columns=list(dtypes)).astype(dtypes)


def find_learning(samples: Samples, indices: Iterable[int] | None = None) -> pd.DataFrame:
    """Return one line per cell that is done, by `index` of its row, `seed`, `fold`; of all rows or those at `indices`.

    - val_nats_per_char: the nll per character of the validation labels after the last step.
    - unigram_entropy: of the characters of these labels, in nats: the nll of a decoder that only knows how frequent
      each character is.
    - val_cer: the CER of the validation images after the last step.
    - learned: whether the nll is at most 0.8 of the entropy, or else the CER at most 0.5, as of one that reads but is
      too sure of its errors; missing if the nll or the entropy is not known or the entropy is 0.
    """
    rows = []
    for index in range(len(samples.titles)) if indices is None else indices:
        for record in (record for seed in samples.seeds for record in samples.records(index, seed)):
            cell = record.cell
            last = _line_after(samples, index, cell, cell.training.steps)
            end, cer = (_number(last.get(name)) for name in ("val_nats_per_char", "val_cer"))
            entropy = _unigram_entropy(samples.validation(index, cell))
            known = math.isfinite(end) and entropy > 0
            place: dict[str, Any] = {"index": index, "seed": cell.seed, "fold": cell.fold}
            learned = (end <= NOT_LEARNED * entropy or cer <= READS) if known else None
            rows.append(
                place | {"val_nats_per_char": end, "val_cer": cer, "unigram_entropy": entropy, "learned": learned}
            )
    dtypes = {
        "index": "int64",
        "seed": "int64",
        "fold": "Int64",
        "val_nats_per_char": "float64",
        "val_cer": "float64",
        "unigram_entropy": "float64",
        "learned": "boolean",
    }
    return pd.DataFrame(rows, columns=list(dtypes)).astype(dtypes)


def count_not_learned(samples: Samples, indices: Collection[int]) -> dict[int, int]:
    """Return how many of the models that rows have in common did not learn, of each row of which any did not."""
    learning = find_learning(samples, indices)
    common = learning.groupby(["seed", "fold"], dropna=False)["index"].transform("count").eq(len(indices))
    return dict(Counter(learning.loc[common & learning["learned"].eq(False), "index"].tolist()))


def _rise(samples: Samples, index: int) -> Estimate | None:
    """Return the difference of a row's exact match between the end and nine tenths of its steps, if it is known.

    With folds, an image that several of them validate on counts in each of them.
    """
    found = {
        (cell.seed, cell.fold): (frame, flags)
        for cell in samples.cells(index)
        if (frame := samples.validation(index, cell)) is not None
        and (flags := _flags(samples, index, cell, len(frame))) is not None
    }
    if not found:
        return None
    folds = list(dict.fromkeys(fold for _, fold in found))
    seeds = [seed for seed in samples.seeds if all((seed, fold) in found for fold in folds)]
    keys = [[found[seed, fold][0]["sample"].tolist() for fold in folds] for seed in seeds]
    if seeds and all(own == keys[0] for own in keys):
        first = [found[seeds[0], fold][0] for fold in folds]
        joined = (
            pd.concat(first, keys=range(len(folds)), names=["fold"]).reset_index(level="fold").reset_index(drop=True)
        )
        numerator = np.stack(
            [np.concatenate([found[seed, fold][1] for fold in folds], axis=1) for seed in seeds], axis=1
        )
        codes = joined["fold"].to_numpy(np.intp) if len(folds) > 1 else None
        scores = Scores(numerator, np.ones(1), groups=_groups(joined), folds=codes)
    else:  # each model has validation images of its own, so models are the units
        means = np.stack([flags.mean(axis=1) for _, flags in found.values()], axis=1)
        scores = Scores(means[:, None], np.ones(1))
    return contrast(scores, (1.0, -1.0))


def _flags(samples: Samples, index: int, cell: Cell, count: int) -> NDArray[np.float64] | None:
    """Return whether each validation image was right at the end and at nine tenths of the steps, (2, N), if known."""
    steps = cell.training.steps, cell.training.nine_tenths
    if steps[0] == steps[1]:
        return None
    packed = [_line_after(samples, index, cell, step).get("val_correct", "") for step in steps]
    if "" in packed:
        return None
    try:
        return np.stack([unpack_flags(text, count) for text in packed]).astype(np.float64)
    except (TypeError, ValueError) as error:
        logger.warning("%s: val_correct of its history.jsonl cannot be read: %s", cell.title, error)
        return None


def _line_after(samples: Samples, index: int, cell: Cell, step: int) -> dict[str, Any]:
    """Return the line of a cell's history after a step, the last one if it has two; {} if there is none."""
    return next((line for line in reversed(samples.history(index, cell)) if line.get("step") == step), {})


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _groups(frame: pd.DataFrame) -> NDArray[np.intp] | None:
    """Return codes (N,) of the groups of images, of each fold its own; None if each image is its own."""
    names = frame["group"].fillna("") if "group" in frame else pd.Series("", index=frame.index)
    named = frame["fold"].astype(str) + " " + names
    groups = named.where(names != "", pd.Series(frame.index, index=frame.index).map("image {}".format))
    return None if groups.is_unique else groups.factorize()[0]


def _unigram_entropy(frame: pd.DataFrame | None) -> float:
    """Return the entropy of the characters of the labels that can be spelled, in nats; NaN if they are not known."""
    if frame is None:
        return math.nan
    counts = Counter("".join(frame.loc[frame["nll"].notna(), "reference"]))
    total = counts.total()
    return -sum(count / total * math.log(count / total) for count in counts.values()) if total else math.nan
