"""The edits that turn references into texts that were read instead, as arrays. No torch here.

A pair of texts may have several alignments with the fewest edits. The one that counts matches the common beginning and
the common end of both texts first. Of the alignments of what is between, it is the one that, from the end backwards,
takes a deletion before an insertion before a match or substitution (`rapidfuzz.distance.Levenshtein.editops`): `AB`
read as `BA` is an insertion and a deletion, and of `ABCCD` read as `ABCD` the second C is deleted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np
from rapidfuzz.distance import Levenshtein

if TYPE_CHECKING:
    from numpy.typing import NDArray

SUBSTITUTION, INSERTION, DELETION = range(3)
_KINDS = {"replace": SUBSTITUTION, "insert": INSERTION, "delete": DELETION}


@dataclass(frozen=True)
class Edits:
    """All edits of P distinct pairs of a reference and a text that differs from it; E edits in the order of pairs."""

    num_pairs: int

    pair: NDArray[np.int64]
    """Number of the pair, (E,)."""

    kind: NDArray[np.int64]
    """`SUBSTITUTION`, `INSERTION` or `DELETION`, (E,)."""

    position: NDArray[np.int64]
    """Position in the reference, from 0, (E,); an insertion has that of the character that follows it."""

    reference: tuple[str, ...]
    """The character of the reference, empty for an insertion, E of them."""

    hypothesis: tuple[str, ...]
    """The character that was read, empty for a deletion, E of them."""

    repeat: NDArray[np.bool_]
    """Whether the edit drops a repeat, (E,): it deletes a character of a run of equal characters, of which another one
    is read."""

    def count(self, of: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Return the number of edits of each pair, (P,), of those where `of` is true."""
        return np.bincount(self.pair[of], minlength=self.num_pairs)


def align(pairs: Sequence[tuple[str, str]]) -> Edits:
    """Return the edits of pairs of a reference and a hypothesis."""
    found: list[tuple[int, int, int, str, str, bool]] = []
    for number, (reference, hypothesis) in enumerate(pairs):
        edits = cast("list[tuple[str, int, int]]", Levenshtein.editops(reference, hypothesis).as_list())
        repeats = _dropped_repeats(reference, edits)
        for name, source, destination in edits:
            kind = _KINDS[name]
            before = "" if kind == INSERTION else reference[source]
            after = "" if kind == DELETION else hypothesis[destination]
            found.append((number, kind, source, before, after, kind == DELETION and source in repeats))
    return Edits(
        num_pairs=len(pairs),
        pair=np.array([edit[0] for edit in found], np.int64),
        kind=np.array([edit[1] for edit in found], np.int64),
        position=np.array([edit[2] for edit in found], np.int64),
        reference=tuple(edit[3] for edit in found),
        hypothesis=tuple(edit[4] for edit in found),
        repeat=np.array([edit[5] for edit in found], np.bool_),
    )


def _dropped_repeats(reference: str, edits: Sequence[tuple[str, int, int]]) -> set[int]:
    """Return the positions of deleted characters of a run of equal characters of which another one is read."""
    lost = {source for name, source, _ in edits if name != "insert"}
    dropped = set()
    for name, source, _ in edits:
        if name == "delete":
            first, last = source, source
            while first > 0 and reference[first - 1] == reference[source]:
                first -= 1
            while last + 1 < len(reference) and reference[last + 1] == reference[source]:
                last += 1
            if any(position not in lost for position in range(first, last + 1)):
                dropped.add(source)
    return dropped
