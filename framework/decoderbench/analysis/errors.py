"""What kinds of errors each row makes, where in a text, and on which characters. No torch here.

All numbers are over images and seeds: each text that a done cell of the row has read counts once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from decoderbench.analysis.edits import DELETION, INSERTION, SUBSTITUTION, Edits, align
from decoderbench.analysis.rates import Codes, no_codes, rates_of
from decoderbench.statistics import Estimate

if TYPE_CHECKING:
    from numpy.typing import NDArray

PER_100 = ["substitutions", "insertions", "deletions", "repeats_dropped"]
"""Columns of edits per 100 reference characters; a dropped repeat is one of the deletions too."""

OUTCOMES = ["right", "same_length", "too_long", "too_short", "truncated", "empty"]
"""Columns of what became of a text, as shares of 1; each text counts in one of them."""

MOST_CONFUSED = 20
"""The number of confusions of a row that are listed."""


@dataclass(frozen=True)
class Errors:
    """The frames of one analysis; `index` is the position of a row in `Analysis.rows`."""

    anatomy: pd.DataFrame
    """One line per row of the report: `num_seeds`, `num_texts`, `num_characters` (of the references), the columns of
    `PER_100`, and those of `OUTCOMES`: right, or wrong and as long as the reference, longer, a proper beginning of it
    (truncated), empty, or shorter in another way. A row without a result has no numbers. Each of these columns has
    `_low` and `_high`, its 95 % interval over images and seeds."""

    by_length: pd.DataFrame
    """Per row and number of characters of the reference: `num_texts`, and `exact_match` with the ends of its 95 %
    interval over images and seeds, `exact_match_low` and `exact_match_high`."""

    by_position: pd.DataFrame
    """Per row and position in the reference, from 1: `num_characters` and `accuracy`, the share of them that the
    alignment neither deletes nor substitutes. Insertions count at no position."""

    confusions: pd.DataFrame
    """Per row the most frequent edits of characters: `reference` (empty: inserted), `hypothesis` (empty: deleted),
    `count`, and `share`: of the occurrences of the reference's character, missing for insertions."""


def find_errors(readings: pd.DataFrame, titles: list[str], groups: Codes = no_codes, folds: Codes = no_codes) -> Errors:
    """Return the errors in the texts of all rows.

    Args:
        readings: one line per text, as `readings_of` returns them.
        titles: the title of each row.
        groups: returns the groups of the images of an image set.
        folds: returns the folds in which they were tested.
    """
    references, hypotheses = readings["reference"].tolist(), readings["hypothesis"].tolist()
    numbers: dict[tuple[str, str], int] = {}
    wrong = np.fromiter(map(str.__ne__, references, hypotheses), np.bool_, len(references))
    texts = zip(references, hypotheses, wrong, strict=True)
    pair = np.array([numbers.setdefault((a, b), len(numbers)) if differ else -1 for a, b, differ in texts], np.int64)
    edits = align(list(numbers))
    table = pd.DataFrame(
        {
            "index": readings["index"].to_numpy(np.int64),
            "seed": readings["seed"].to_numpy(np.int64),
            "pair": pair,
            "length": np.fromiter(map(len, references), np.int64, len(references)),
            "right": ~wrong,
        }
    )
    per_row = [table[table["index"] == index] for index in range(len(titles))]
    outcome = np.array([_outcome(*texts) for texts in numbers] + [OUTCOMES.index("right")], np.int64)  # -1: right
    frequency = [np.bincount(own["pair"][~own["right"]], minlength=edits.num_pairs) for own in per_row]
    characters = _character_counts(readings, len(titles))
    kinds = _count_kinds(edits)[:, pair].astype(np.float64)
    outcomes = np.eye(len(OUTCOMES))[outcome[pair]].T
    rates = {
        **rates_of(
            readings,
            dict(zip(PER_100, kinds, strict=True)),
            table["length"].to_numpy(np.float64) / 100,
            groups,
            folds,
            proportion=False,
        ),
        **rates_of(
            readings,
            dict(zip(OUTCOMES, outcomes, strict=True)),
            np.ones(len(pair)),
            groups,
            folds,
            proportion=True,
        ),
    }
    return Errors(
        anatomy=pd.DataFrame(
            [
                {"index": index, "title": title} | _anatomy(index, own, rates)
                for index, (title, own) in enumerate(zip(titles, per_row, strict=True))
            ]
        ),
        by_length=_by_length(readings, table, titles, groups, folds),
        by_position=_concat(
            [_by_position(own, edits, times) for own, times in zip(per_row, frequency, strict=True)],
            titles,
            ["position", "num_characters", "accuracy"],
        ),
        confusions=_concat(
            [_confusions(edits, times, own) for times, own in zip(frequency, characters, strict=True)],
            titles,
            ["reference", "hypothesis", "count", "share"],
        ),
    )


def _outcome(reference: str, hypothesis: str) -> int:
    """Return the place in `OUTCOMES` of a wrong text."""
    if len(hypothesis) >= len(reference):
        name = "same_length" if len(hypothesis) == len(reference) else "too_long"
    elif not hypothesis:
        name = "empty"
    else:
        name = "truncated" if reference.startswith(hypothesis) else "too_short"
    return OUTCOMES.index(name)


def _count_kinds(edits: Edits) -> NDArray[np.int64]:
    """Return the number of edits of each kind in `PER_100`, (4, P + 1); the last column is that of right texts."""
    kinds = [*(edits.kind == kind for kind in (SUBSTITUTION, INSERTION, DELETION)), edits.repeat]
    return np.pad(np.stack([edits.count(kind) for kind in kinds]), ((0, 0), (0, 1)))


def _anatomy(index: int, own: pd.DataFrame, rates: Mapping[tuple[int, str], Estimate]) -> dict[str, object]:
    found: dict[str, object] = {
        "num_seeds": own["seed"].nunique(),
        "num_texts": len(own),
        "num_characters": int(own["length"].sum()),
    }
    for name in (*PER_100, *OUTCOMES):
        rate = rates.get((index, name))
        for end, attribute in (("", "value"), ("_low", "low"), ("_high", "high")):
            found[name + end] = np.nan if rate is None else getattr(rate, attribute)
    return found


def _by_length(
    readings: pd.DataFrame, table: pd.DataFrame, titles: list[str], groups: Codes, folds: Codes
) -> pd.DataFrame:
    lines = []
    keys = readings[["image_set"]].assign(length=table["length"].to_numpy())
    for of, places in keys.groupby(["image_set", "length"]).indices.items():
        image_set, length = map(int, of)  # type: ignore[call-overload]
        own = table.iloc[places]
        images, codes = np.unique(readings["image"].to_numpy()[places], return_inverse=True)
        found = rates_of(
            readings.iloc[places].assign(image=codes),
            {"right": own["right"].to_numpy(np.float64)},
            np.ones(len(own)),
            _of_images(groups(image_set), images),
            _of_images(folds(image_set), images),
            proportion=True,
        )
        counts = own["index"].value_counts()
        for (index, _), rate in found.items():
            place = {"index": index, "title": titles[index], "length": length, "num_texts": int(counts[index])}
            value = {"exact_match": rate.value, "exact_match_low": rate.low, "exact_match_high": rate.high}
            lines.append(place | value)
    columns = ["index", "title", "length", "num_texts", "exact_match", "exact_match_low", "exact_match_high"]
    return pd.DataFrame(lines, columns=columns).sort_values(["index", "length"], ignore_index=True)


def _of_images(codes: NDArray[np.intp] | None, images: NDArray[np.int64]) -> Codes:
    """Return codes of some images of an image set, as `rates_of` asks for them."""
    chosen = None if codes is None else codes[images]
    return lambda image_set: chosen


def _by_position(own: pd.DataFrame, edits: Edits, times: NDArray[np.int64]) -> pd.DataFrame:
    lengths = np.bincount(own["length"].to_numpy())
    reached = lengths[::-1].cumsum()[::-1][1:]  # the number of references with a character at each position
    lost = edits.kind != INSERTION
    errors = np.bincount(edits.position[lost], weights=times[edits.pair[lost]], minlength=len(reached))[: len(reached)]
    return pd.DataFrame(
        {"position": np.arange(1, len(reached) + 1), "num_characters": reached, "accuracy": 1 - errors / reached}
    )


def _character_counts(readings: pd.DataFrame, num_rows: int) -> list[Counter[str]]:
    """Return how often each character occurs in the references of each row."""
    counts = readings.groupby(["index", "reference"], as_index=False).size()
    found: list[Counter[str]] = [Counter() for _ in range(num_rows)]
    for index, reference, times in zip(counts["index"], counts["reference"], counts["size"], strict=True):
        for character in reference:
            found[index][character] += times
    return found


def _confusions(edits: Edits, times: NDArray[np.int64], characters: Mapping[str, int]) -> pd.DataFrame:
    names = list(zip(edits.reference, edits.hypothesis, strict=True))
    positions = {name: position for position, name in enumerate(dict.fromkeys(names))}
    codes = np.array([positions[name] for name in names], np.int64)
    counts = np.bincount(codes, weights=times[edits.pair], minlength=len(positions)).astype(np.int64)
    rows = sorted((-count, *name) for name, count in zip(positions, counts, strict=True) if count)[:MOST_CONFUSED]
    return pd.DataFrame(
        [(before, after, -count, -count / characters[before] if before else np.nan) for count, before, after in rows],
        columns=["reference", "hypothesis", "count", "share"],
    )


def _concat(frames: list[pd.DataFrame], titles: list[str], columns: list[str]) -> pd.DataFrame:
    """Return the frames of all rows as one, with index and title of the row."""
    parts = [
        frame.assign(index=index, title=title)[["index", "title", *columns]]
        for index, (frame, title) in enumerate(zip(frames, titles, strict=True))
        if not frame.empty
    ]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=["index", "title", *columns])
