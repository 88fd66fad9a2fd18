"""The part of the data audit that looks at labels: characters and lengths. No torch here."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from decoderbench.data.label_normalizer import LabelNormalizer, strip_blanks
from decoderbench.data.problems import Findings, list_characters, quote

INVISIBLE = {"Cc", "Cf", "Cs", "Zl", "Zp"}  # Unicode categories: control, format, surrogate, line separators


def check_lengths(
    found: Findings,
    given: Sequence[str],
    raw: Sequence[str],
    normalized: Sequence[str],
    *,
    max_length: int | None,
    width: int | None,
) -> None:
    """Add labels that are too long or empty, as they are in the data or once normalized."""
    for row, (label, text) in enumerate(zip(raw, normalized, strict=True)):
        length = max(len(label), len(text))
        if max_length is not None and length > max_length:
            once = " once normalized" * (len(label) <= max_length)
            found.add("too_long", row, f"{quote(label)} has {length:,} characters{once}, max_length is {max_length}")
        elif width is not None and len(text) > width:
            found.add(
                "too_narrow",
                row,
                f"{quote(found.keys[row])} is at most image.width = {width} columns wide after resizing, fewer than "
                f"the {len(text):,} characters of its label {quote(text)}",
            )
        elif not given[row]:
            found.add("empty_label", row, "a label needs at least one character")
        elif not text and row not in found.rows["outside_charset"]:
            found.add("empty_after_normalizing", row, f"normalizing removes every character of {quote(given[row])}")


def check_charset(found: Findings, raw: Sequence[str], charset: str, normalize: LabelNormalizer) -> None:
    """Add labels with characters outside the charset."""
    inside = set(charset)
    for row, label in enumerate(raw):
        if missing := set(label) - inside:
            found.add("outside_charset", row, f"the charset lacks {list_characters(missing)} of label {quote(label)}")
    outside = set().union(*raw) - inside
    if inside_once_normalized := sorted(c for c in outside if inside.issuperset(normalize.convert(c))):
        found.sentences["outside_charset"] += (
            f"; labels.charset is checked before labels are normalized: "
            f"add {''.join(inside_once_normalized)!r} to it too"
        )


def check_invisible(found: Findings, raw: Sequence[str], accepted: str) -> None:
    """Add labels with invisible characters, apart from `accepted` ones, which the experiment lists."""
    used = set().union(*raw) - set(accepted)
    invisible = {character for character in used if unicodedata.category(character) in INVISIBLE}
    for row, label in enumerate(raw):
        if not invisible.isdisjoint(label):
            listed = list_characters(invisible & set(label))
            at_end = invisible & (set(label) - set(strip_blanks(label)))
            strip = "; labels.normalize.strip removes those around labels" if at_end else ""
            found.add(
                "control_character",
                row,
                f"{quote(label)} has invisible characters: {listed}; to accept them, add them to "
                f"labels.extra_characters, or to labels.charset if it is set{strip}",
            )
