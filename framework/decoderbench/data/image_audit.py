"""The part of the data audit that looks at images: problems and notes. No torch here."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from decoderbench.data.problems import Findings

if TYPE_CHECKING:
    from decoderbench.data.image_store import ImageStore


def check_images(found: Findings, store: ImageStore, labels: Sequence[str], unspellable: Collection[int]) -> None:
    """Add the problems of images: unreadable, too narrow for the label, identical to another one."""
    for row, reason in store.unreadable.items():
        found.add("unreadable_image", row, f"image {store.keys[row]!r} cannot be decoded: {reason}")
    readable = set(range(len(store))) - store.unreadable.keys()
    for row in sorted(readable - set(unspellable)):
        columns, characters = int(store.widths[row]), len(labels[row])
        if columns < characters:
            found.add(
                "too_narrow",
                row,
                f"{store.keys[row]!r} is {columns} column{'s' * (columns != 1)} wide after resizing, fewer than the "
                f"{characters} characters of its label",
            )
    rows_of_hash: defaultdict[str, list[int]] = defaultdict(list)
    for row in sorted(readable):
        rows_of_hash[store.pixel_hashes[row]].append(row)
    for rows in rows_of_hash.values():
        found.add_if_different("duplicate_across_splits", rows, store.splits, "in")
        found.add_if_different("conflicting_labels", rows, labels, "labeled")


def image_notes(store: ImageStore) -> list[str]:
    """Return notes on how images were converted."""
    notes = []
    if store.squeezed:
        notes.append(
            f"squeezed to image.width, because they would be wider at their aspect ratio: "
            f"{len(store.squeezed):,} of {len(store):,} images, such as {store.keys[store.squeezed[0]]!r}"
        )
    return notes
