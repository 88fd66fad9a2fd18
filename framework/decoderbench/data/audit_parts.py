"""The parts of data that an audit looks at: train, val and test, or with folds those of each. No torch here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from decoderbench.data.dataset import SPLITS, ReportProblem, Split
from decoderbench.data.folds import folds_text


@dataclass(frozen=True)
class Part:
    """Data with one split: a fold, or all data without folds.

    Attributes:
        splits: the split of each row.
        counts: split -> number of samples that are trained on (train) or scored (val, test).
        excluded: rows that are not trained on or, if unreadable, not scored; ascending.
    """

    splits: tuple[Split, ...]
    counts: dict[Split, int]
    excluded: tuple[int, ...]


def make_part(splits: tuple[Split, ...], excluded: set[int], report_problem: ReportProblem, where: str = "") -> Part:
    """Return a part without its excluded rows; report a split that has no sample. `where` is as " of fold 2"."""
    return Part(splits, _count_splits(splits, excluded, report_problem, where), tuple(sorted(excluded)))


def excluded_in_any(parts: Sequence[Part]) -> tuple[int, ...]:
    """Return the rows that any part excludes, ascending."""
    return tuple(sorted({row for part in parts for row in part.excluded}))


def names_of_parts(folds: Sequence[Part]) -> Iterator[Sequence[str]]:
    """Yield names of what each row is in, which identical images must share: the fold that tests it, and the parts."""
    tested = [""] * len(folds[0].splits)
    for number, fold in enumerate(folds):
        for row, split in enumerate(fold.splits):
            if split == "test":
                tested[row] = f"fold {number}"
    yield tested
    for number, fold in enumerate(folds):
        names = {split: f"{split} of fold {number}" for split in SPLITS}
        yield [names[split] for split in fold.splits]


def counts_text(counts: dict[Split, int]) -> str:
    """Return the number of samples per split, as in "764 train, 92 val, 214 test"."""
    return ", ".join(f"{count:,} {split}" for split, count in counts.items())


def counts_of_folds(folds: Sequence[Part]) -> str:
    """Return the number of samples per split of each fold, as in "folds 0 to 4: 764 train, 92 val, 214 test"."""
    found: dict[str, list[int]] = {}
    for number, fold in enumerate(folds):
        found.setdefault(counts_text(fold.counts), []).append(number)
    return "; ".join(f"{folds_text(numbers)}: {text}" for text, numbers in found.items())


def _count_splits(
    splits: Sequence[Split], excluded: Collection[int], report_problem: ReportProblem, where: str = ""
) -> dict[Split, int]:
    """Return the number of samples per split without the excluded rows; report a split that has none."""
    counts = Counter(split for row, split in enumerate(splits) if row not in excluded)
    for split in SPLITS:
        if not counts[split]:
            why = "has no samples left" if split in splits else "has no samples"
            report_problem(f"split {split!r}{where} {why}; an experiment needs train, val and test")
    return {split: counts[split] for split in SPLITS}
