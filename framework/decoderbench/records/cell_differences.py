"""What differs between two cells that stand at the same place of a grid. No torch here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from decoderbench.config.cell import Cell
from decoderbench.identity import identity_of
from decoderbench.kinds import AXES


class Difference(NamedTuple):
    """One thing that differs.

    Attributes:
        kind: whether it concerns source code, images and labels, or settings.
        text: what it is, as a clause.
    """

    kind: Literal["code", "data", "settings"]
    text: str


def differences(before: Cell, now: Cell) -> Iterator[Difference]:
    """Yield what determines a result and differs in two cells, but for seeds and for which of the folds they test."""
    for axis in AXES:
        one, other = getattr(before, axis), getattr(now, axis)
        if one.source != other.source:
            yield Difference("code", f"the source code of {axis} {one.use!r} differs")
        elif one.identity() != other.identity():
            yield Difference("settings", f"{axis} {one.use!r} has other options")
    if before.data_hash != now.data_hash:
        yield Difference("data", "the images differ")
    if identity_of(before.labels) != identity_of(now.labels):
        yield Difference("data", "the labels, their split or their charset differ")
    if list(before.trainers.values()) != list(now.trainers.values()):
        yield Difference("code", "other plugins train it")
    if (before.start and before.start.digest) != (now.start and now.start.digest):
        yield Difference("settings", "the pack that it starts from differs")
    for part in ("image", "augmentation", "training", "evaluation"):
        if identity_of(getattr(before, part)) != identity_of(getattr(now, part)):
            yield Difference("settings", f"[{part}] differs")
    for part in ("train_limit", "folds", "purpose"):
        if getattr(before, part) != getattr(now, part):
            yield Difference("settings", f"{part} differs")


def why_missing(cell: Cell, planned: Sequence[Cell]) -> str:
    """Return why none of the planned cells is this one: what differs in the one at its place."""
    same = next((other for other in planned if other.place == cell.place), None)
    if same is None:
        return "the grid does not have it"
    return "; ".join(difference.text for difference in differences(cell, same)) or "its options differ"
