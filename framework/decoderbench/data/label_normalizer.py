"""LabelNormalizer: the normalization of labels, applied after the audit and on both sides of a comparison.

The charset and the normalizer are separate. The charset limits the characters that a label may contain in the data;
only accepted labels are normalized. The opposite order, lower-casing before filtering by charset, would silently lose
upper-case data. No torch here.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from typing import Literal

from decoderbench.options import Options

ZERO_WIDTH_BLANKS = "\u200b\u2060\ufeff"  # zero width space, word joiner, byte order mark


class LabelNormalizer(Options):
    """Turns a label into the text that is trained on and scored; by default the label is unchanged.

    The order is fixed: Unicode form and blanks, the audit of charset and length, case, removal of characters that are
    not alphanumeric, and the Unicode form again, because a change of case can leave it. Normalizing is idempotent.
    """

    strip: bool = False
    """Remove blanks from both ends of a label, before it is checked against the charset: white space, no-break spaces
    included, and the invisible U+200B, U+2060 and U+FEFF. Blanks within a label are kept."""

    case: Literal["keep", "lower", "upper"] = "keep"
    """lower, upper: apply Python's `str.lower` or `str.upper` to each character separately, so that the result does not
    depend on adjacent characters: a capital sigma becomes σ at the end of a word too. Where the other case has several
    code points, as in İ to i and a dot above, or ß to SS, the label becomes longer."""

    alphanumeric_only: bool = False
    """Keep only letters and numbers (Unicode categories L and N). Combining marks (M) are kept after a letter or number
    and removed after anything else, so that decomposed accents and vowel signs are kept."""

    unicode_form: Literal["none", "NFC", "NFD", "NFKC", "NFKD"] = "none"
    """Unicode normalization form (Standard Annex 15), applied before a label is checked against the charset, because it
    concerns the encoding of characters, not the text. C composes, D decomposes, K also replaces compatibility
    characters, such as full-width digits and ligatures."""

    def __call__(self, text: str) -> str:
        """Return `text` normalized."""
        return self._stripped(self.convert(self.read(text)))

    def read(self, text: str) -> str:
        """Return `text` in the Unicode form and stripped: the label as checked by the audit."""
        return self._stripped(self.form(text))

    def form(self, text: str) -> str:
        """Return `text` in the Unicode form, otherwise unchanged."""
        return text if self.unicode_form == "none" else unicodedata.normalize(self.unicode_form, text)

    def convert(self, text: str) -> str:
        """Return what the characters of `text` become, wherever in a label they are: normalized, but not stripped."""
        text = self.form(text)
        if self.case != "keep":
            text = "".join(map(str.lower if self.case == "lower" else str.upper, text))
        if self.alphanumeric_only:
            text = _keep_alphanumeric(text)
        return self.form(text)

    def steps(self) -> list[str]:
        """Return the active steps in order, for people to read; empty by default."""
        return [
            *([f"Unicode form {self.unicode_form}"] if self.unicode_form != "none" else []),
            *(["strip"] if self.strip else []),
            *([f"case {self.case}"] if self.case != "keep" else []),
            *(["alphanumeric only"] if self.alphanumeric_only else []),
        ]

    def _stripped(self, text: str) -> str:
        return strip_blanks(text) if self.strip else text


def convert_each(characters: str, convert: Callable[[str], str]) -> str:
    """Return the results of `convert` for each character separately, without repeats, in order of first appearance."""
    return "".join(dict.fromkeys("".join(map(convert, characters))))


def strip_blanks(text: str) -> str:
    """Return `text` without white space and zero-width blanks at both ends."""
    while (shorter := text.strip().strip(ZERO_WIDTH_BLANKS)) != text:
        text = shorter
    return text


def _keep_alphanumeric(text: str) -> str:
    kept = []
    base_is_kept = True  # marks at the very start follow no character, and are kept
    for character in text:
        category = unicodedata.category(character)[0]
        if category != "M":
            base_is_kept = category in "LN"
        if base_is_kept:
            kept.append(character)
    return "".join(kept)
