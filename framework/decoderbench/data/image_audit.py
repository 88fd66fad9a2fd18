"""The part of the data audit that looks at images: problems and notes. No torch here."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING

from decoderbench.data.problems import Findings

if TYPE_CHECKING:
    from decoderbench.data.image_store import ImageStore

MAX_WARNINGS = 3  # kinds that are noted one by one


def check_images(
    found: Findings,
    store: ImageStore,
    labels: Sequence[str],
    unspellable: Collection[int],
    parts: Iterable[Sequence[str]],
) -> None:
    """Add the problems of images: unreadable, nothing to read, too narrow for the label, identical to another one.

    `parts` are names of the part of the data that each row is in: its split, or with folds several of them.
    """
    for row, reason in store.unreadable.items():
        found.add("unreadable_image", row, f"image {store.keys[row]!r} cannot be decoded: {reason}")
    for row, reason in store.no_contrast.items():
        found.add("no_contrast", row, f"image {store.keys[row]!r} shows nothing to read: {reason}")
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
    for row in sorted(readable - store.no_contrast.keys()):  # empty images are identical, but that is not their fault
        rows_of_hash[store.pixel_hashes[row]].append(row)
    parts = tuple(parts)
    for rows in (rows for rows in rows_of_hash.values() if len(rows) > 1):
        for part in parts:
            found.add_if_different("duplicate_across_splits", rows, part, "in")
        found.add_if_different("conflicting_labels", rows, labels, "labeled")


def image_notes(store: ImageStore) -> list[str]:
    """Return notes on how images were converted."""
    notes, total = [], f"{len(store):,} images"
    if store.squeezed:
        notes.append(
            f"squeezed to image.width, because they would be wider at their aspect ratio: "
            f"{len(store.squeezed):,} of {total}, such as {store.keys[store.squeezed[0]]!r}"
        )
    if store.transparent:
        notes.append(
            f"transparent images are composited on white: {len(store.transparent):,} of {total}, such as "
            f"{store.keys[store.transparent[0]]!r}"
        )
    return notes + _notes_of_warnings(store)


def _notes_of_warnings(store: ImageStore) -> list[str]:
    """Return a note for each of the most frequent warnings; those that differ in numbers only are counted as one."""
    rows_of_kind: defaultdict[str, list[int]] = defaultdict(list)
    for row, warning in store.warned.items():
        rows_of_kind[re.sub(r"\d+", "0", warning)].append(row)
    kinds = sorted(rows_of_kind.values(), key=len, reverse=True)
    notes = [
        f"read with a warning: {len(rows):,} of {len(store):,} images, such as {store.keys[rows[0]]!r}: "
        f"{store.warned[rows[0]]}"
        for rows in kinds[:MAX_WARNINGS]
    ]
    if others := sum(map(len, kinds[MAX_WARNINGS:])):
        notes.append(f"read with other warnings: {others:,} of {len(store):,} images")
    return notes
