"""`dataset.folds`: which images each fold tests, validates on and trains on. No torch here."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence

from decoderbench.data.dataset import Sample, Split
from decoderbench.errors import DataError


def divide_into_folds(
    samples: Sequence[Sample], number: int, *, val_share: float, seed: int
) -> tuple[tuple[Split, ...], ...]:
    """Return for each fold the split of every sample: each is in test in one fold, and in train or val in the others.

    Images of a group are never divided. The largest groups come first, each into the fold that has the fewest images by
    then, as scikit-learn's GroupKFold does it; equal ones are in an order that a hash of the seed and of their names
    decides. So folds of single images differ in size by one at most, and the order of samples does not matter. What a
    fold does not test is divided into train and val in such an order of its own, at least one group or image each.

    Args:
        samples: all samples.
        number: of folds, K.
        val_share: the share of val in train and val together.
        seed: another one gives other folds.

    Raises:
        DataError: there are fewer than K groups or images, or a fold leaves fewer than two to train and validate on.
    """
    units = list(map(_unit_of, samples))
    sizes = Counter(units)
    what = "groups" if any(sample.group for sample in samples) else "images"
    if number > len(sizes):
        raise DataError(f"folds is {number:,}, and the data have {len(sizes):,} {what}; lower it")
    counts = [0] * number
    fold_of: dict[str, int] = {}
    for unit in sorted(_shuffled(sizes, f"{seed}"), key=lambda unit: -sizes[unit]):
        fold = fold_of[unit] = counts.index(min(counts))
        counts[fold] += sizes[unit]
    found: list[tuple[Split, ...]] = []
    for fold in range(number):
        rest = [unit for unit in sizes if fold_of[unit] != fold]
        if len(rest) < 2:
            raise DataError(
                f"folds is {number:,}, and fold {fold} leaves {len(rest)} of {len(sizes):,} {what} to train and "
                f"validate on, which takes 2; raise it, or add {what}"
            )
        in_val = _choose_val(_shuffled(rest, f"{seed} fold {fold}"), sizes, val_share)
        split_of: dict[str, Split] = {unit: "test" if fold_of[unit] == fold else "train" for unit in sizes}
        split_of |= dict.fromkeys(in_val, "val")
        found.append(tuple(split_of[unit] for unit in units))
    return tuple(found)


def share_of_val(train: float, val: float) -> float:
    """Return the share of val in train and val together; raise `DataError` if either is empty."""
    if not (train > 0 and val > 0):
        empty = "train" if train <= 0 else "val"
        raise DataError(
            f"folds divide what they do not test as the dataset divides train and val, and it has no {empty}; set its "
            f"options so that both have samples"
        )
    return val / (train + val)


def folds_text(folds: Iterable[int]) -> str:
    """Return numbers of folds for people, as in "fold 2" or "folds 0 to 2, 4"; they are counted from 0, as seeds."""
    numbers = sorted(set(folds))
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    parts = (f"{run[0]} to {run[-1]}" if len(run) > 2 else ", ".join(map(str, run)) for run in runs)
    return f"fold{'s' * (len(numbers) > 1)} {', '.join(parts)}"


def _unit_of(sample: Sample) -> str:
    return f"group {sample.group}" if sample.group else f"image {sample.key}"


def _shuffled(units: Iterable[str], seed: str) -> list[str]:
    """Return units in an order that the seed and their names decide."""
    return sorted(units, key=lambda unit: (hashlib.sha256(f"{seed} {unit}".encode("utf-8", "replace")).digest(), unit))


def _choose_val(units: Sequence[str], sizes: Counter[str], share: float) -> Sequence[str]:
    """Return the first units, so many that their images come nearest to the share; one at least, and not all."""
    wanted = share * sum(sizes[unit] for unit in units)
    best, images, distance = 1, 0, float("inf")
    for count, unit in enumerate(units[:-1], start=1):
        images += sizes[unit]
        if abs(images - wanted) < distance:
            best, distance = count, abs(images - wanted)
    return units[:best]
