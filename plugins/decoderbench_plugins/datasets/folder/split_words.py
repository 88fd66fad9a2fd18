"""Words that name a part of a split, and the short forms that do so only where they stand alone."""

from decoderbench import Split
from decoderbench import SplitWord as Word
from decoderbench import split_word_in as word_in
from decoderbench import splits_meant_by as meaning

__all__ = ["SPLITS", "Word", "meaning", "short_word", "word_in"]

SPLITS: tuple[Split, ...] = ("train", "val", "test")
SHORT: dict[str, Word] = {"tr": "train", "va": "val", "vl": "val", "te": "test", "ts": "test"}


def short_word(name: str) -> Word | None:
    """Return the part that a short form names: `tr`, `va`, `te` and the like, alone."""
    return SHORT.get(name.lower())
