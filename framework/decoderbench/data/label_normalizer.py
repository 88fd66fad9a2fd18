"""LabelNormalizer: what is made of a label after it was filtered, on both sides of every comparison. No torch here.

Charset and normalizer are two things. The charset says which characters a label may hold as it stands in the data;
only then is it normalized. The other order, lower case first and then a filter by charset, loses upper-case data
without a word.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from typing import Literal

from decoderbench.options import Options


class LabelNormalizer(Options):
    """Turns a label into the text that is trained on and scored; by default it is left as it stands.

    The order is fixed: Unicode form; then the audit judges charset and length; then case; then what is not
    alphanumeric; then the Unicode form again, as a change of case can leave it. Normalizing twice changes nothing.
    """

    case: Literal["keep", "lower", "upper"] = "keep"
    """lower, upper: Python's `str.lower` or `str.upper` of each character by itself, so that no character depends on
    its neighbors: a capital sigma becomes σ at the end of a word too. Where the other case is written with several
    code points, as in İ to i and a dot above, or ß to SS, the label takes all of them and grows."""

    alphanumeric_only: bool = False
    """Drop everything but letters and numbers (Unicode categories L and N). Combining marks (M) stay with the letter
    or number that they follow and go with anything else, so that decomposed accents and vowel signs are kept."""

    unicode_form: Literal["none", "NFC", "NFD", "NFKC", "NFKD"] = "none"
    """Normalization form of Unicode (Standard Annex 15), applied before the charset is held against a label: it is
    about how a character is coded, not about what is read. C composes, D decomposes, K also replaces compatibility
    characters, such as full-width digits and ligatures."""

    def __call__(self, text: str) -> str:
        """Return `text` normalized."""
        text = self.form(text)
        if self.case != "keep":
            text = "".join(map(str.lower if self.case == "lower" else str.upper, text))
        if self.alphanumeric_only:
            text = _alphanumeric(text)
        return self.form(text)

    def form(self, text: str) -> str:
        """Return `text` in the Unicode form alone: the label as the audit judges it."""
        return text if self.unicode_form == "none" else unicodedata.normalize(self.unicode_form, text)

    def steps(self) -> list[str]:
        """Return what is done, in order, as a person says it; nothing by default."""
        return [
            *([f"Unicode form {self.unicode_form}"] if self.unicode_form != "none" else []),
            *([f"case {self.case}"] if self.case != "keep" else []),
            *(["alphanumeric only"] if self.alphanumeric_only else []),
        ]


def convert_each(characters: str, convert: Callable[[str], str]) -> str:
    """Return what `convert` makes of each of `characters` by itself, without repeats, in order of first appearance."""
    return "".join(dict.fromkeys("".join(map(convert, characters))))


def _alphanumeric(text: str) -> str:
    kept = []
    base_stays = True  # marks at the very start follow nothing that could go
    for character in text:
        category = unicodedata.category(character)[0]
        if category != "M":
            base_stays = category in "LN"
        if base_stays:
            kept.append(character)
    return "".join(kept)
