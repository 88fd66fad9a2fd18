"""LabelOptions: limits on labels, and how labels are normalized. No torch here."""

from __future__ import annotations

from typing import Self

from pydantic import Field, field_validator, model_validator

from decoderbench.data.label_normalizer import LabelNormalizer
from decoderbench.errors import DataError
from decoderbench.labels import Charset
from decoderbench.options import Options


class LabelOptions(Options):
    """Limits on labels, and how labels are normalized; limits that are not set are taken from the data."""

    charset: str | None = None
    """Characters that labels in the data may contain, in the order of their ids; if not set, all that the data contain.
    It is checked before labels are normalized: upper-case labels need upper-case letters here, even if they are then
    lower-cased. Decoders are built for the normalized charset."""

    extra_characters: str = ""
    """Characters to add to those in the data if charset is not set, invisible ones such as U+200C (`"\\u200c"`) too."""

    max_length: int | None = Field(default=None, ge=1)
    """Largest number of characters of a label, before and after normalizing; if not set, that of the longest label in
    the data that can be spelled."""

    normalize: LabelNormalizer = LabelNormalizer()
    """How accepted labels are normalized before training and scoring; not at all if not set."""

    @field_validator("charset")
    @classmethod
    def _refuse_invalid_charset(cls, given: str | None) -> str | None:
        if given is not None:
            try:
                Charset(given)
            except DataError as error:
                raise ValueError(str(error)) from None
        return given

    @model_validator(mode="after")
    def _refuse_two_lists_of_characters(self) -> Self:
        if self.charset is not None and self.extra_characters:
            raise ValueError(
                f"extra_characters {self.extra_characters!r} are added to the characters in the data, and charset "
                f"lists all that labels may contain; add them to charset, and remove extra_characters"
            )
        return self
