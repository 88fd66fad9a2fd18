"""How the images of a folder are assigned to train, val and test."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from decoderbench import DataError, Split

from .files import first_names
from .labels import Row

if TYPE_CHECKING:
    from .dataset import Folder

SPLITS: tuple[Split, ...] = ("train", "val", "test")
SPLIT_NAMES: dict[str, Split] = {**{split: split for split in SPLITS}, "valid": "val", "validation": "val"}


def assign_splits(rows: Sequence[Row], config: "Folder.Config", deal: Callable[..., list[Split]]) -> list[Split]:
    """Return the split of each row; `deal` is `Dataset.deal_splits`."""
    column, groups = config.split_column, _groups_of(rows, config.group_column)
    if column is None:
        return deal(groups, config.fractions, seed=config.split_seed)
    _refuse_missing_column(rows, column)
    for row in rows:
        if row.columns[column].lower() not in SPLIT_NAMES:
            allowed = ", ".join(SPLIT_NAMES)
            raise DataError(f"{row.place}: column {column!r} has value {row.columns[column]!r}; allowed: {allowed}")
    given = [SPLIT_NAMES[row.columns[column].lower()] for row in rows]
    train, val, _ = config.fractions
    if "val" not in given and val > 0:
        of_train = [group for group, split in zip(groups, given, strict=True) if split == "train"]
        shares = (train / (train + val), val / (train + val), 0.0)
        dealt = iter(deal(of_train, shares, seed=config.split_seed))
        given = [next(dealt) if split == "train" else split for split in given]
    first: dict[str, Split] = {}  # the first split of each group
    pairs = zip(groups, given, strict=True)
    if divided := sorted({group for group, split in pairs if first.setdefault(group, split) != split}):
        raise DataError(
            f"{len(divided):,} groups of column {config.group_column!r} are in several splits of column "
            f"{column!r}: {first_names(divided)}; set only one of split_column and group_column"
        )
    return given


def _groups_of(rows: Sequence[Row], column: str | None) -> list[str]:
    if column is None:
        return [row.group or row.name for row in rows]
    _refuse_missing_column(rows, column)
    return [row.columns[column] for row in rows]


def _refuse_missing_column(rows: Sequence[Row], column: str) -> None:
    if missing := next((row for row in rows if column not in row.columns), None):
        known = ", ".join(missing.columns) or "none"
        raise DataError(f"{missing.place}: there is no column {column!r}; columns: {known}")
