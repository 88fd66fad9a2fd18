"""Signs that labels read from file names are not labels, and other ways to read the names."""

import re
from collections.abc import Sequence
from posixpath import basename, dirname, splitext

from .labels import Row
from .split_words import word_in

READINGS = {
    "the part before the first underscore": r"^(?P<label>[^_]+)_",
    "the part after the last underscore": r"_(?P<label>[^_]+)$",
    "the parts between the first and the last underscore": r"^[^_]+_(?P<label>.+)_[^_]+$",
    "all after the first underscore": r"^[^_]+_(?P<label>.+)$",
    "the part before the first hyphen": r"^(?P<label>[^-]+)-",
    "the part after the last hyphen": r"-(?P<label>[^-]+)$",
    "the whole name": r"^(?P<label>.+)$",
}
FEWEST = 3  # labels; fewer show no pattern
DENSITY = 0.9  # share of all numbers of a range from which on labels count up


def find_doubt(rows: Sequence[Row]) -> str | None:
    """Return why labels from file names are probably not meant, or None."""
    labels = [row.label for row in rows]
    if len(rows) < FEWEST:
        return None
    if len(set(labels)) == 1:
        return f"all {len(rows):,} labels would be {labels[0]!r}"
    if all(label.isalpha() and word_in(label) for label in labels):
        return f"every label would be the name of a part of a split, such as {labels[0]!r}"
    if _count_up([(dirname(row.name), row.label) for row in rows]):
        return f"the labels would only count up: {', '.join(sorted(set(labels), key=_natural)[:FEWEST])}, ..."
    stems = [_stem(row.name) for row in rows]
    rests = [stem.replace(label, "", 1) for stem, label in zip(stems, labels, strict=True)]
    if all(label.isdecimal() for label in labels) and all(re.search(r"[^\W\d_]", rest) for rest in rests):
        return f"the labels would be numbers only ({', '.join(labels[:FEWEST])}), although the names hold other text"
    return None


def find_lexicon(rows: Sequence[Row]) -> str | None:
    """Return why the labels of a table are indices, as in the lists of MJSynth: 1_Lube_45484.jpg 45484; None if not."""
    found = [re.fullmatch(r"[^_]+_[^_]*[^\W\d_][^_]*_(\d+)", _stem(row.name)) for row in rows]
    if len(rows) > 1 and all(match and match[1] == row.label for match, row in zip(found, rows, strict=True)):
        return (
            f"every label is the number at the end of its file name, such as {rows[0].label!r} of {rows[0].name!r}; "
            "set dataset.labels = \"filename\" and dataset.filename_pattern = '_(?P<label>[^_]+)_' to read the texts"
        )
    return None


def list_readings(rows: Sequence[Row]) -> list[str]:
    """Return, per other way to read the same file names, its option and three examples."""
    lines = []
    seen = {tuple(row.label for row in rows)}
    for what, pattern in READINGS.items():
        found = [re.search(pattern, _stem(row.name)) for row in rows]
        labels = tuple(match["label"] for match in found if match)
        if len(labels) == len(rows) and labels not in seen and len(set(labels)) > 1:
            seen.add(labels)
            lines.append(f"dataset.filename_pattern = '{pattern}' ({what}): {', '.join(map(repr, labels[:3]))}")
    folders = [basename(dirname(row.name)) for row in rows]
    if all(folders) and len(set(folders)) > 1:
        lines.append(
            f'dataset.labels = "folder" (the folder of each image): {", ".join(map(repr, sorted(set(folders))[:3]))}'
        )
    return lines


def _stem(name: str) -> str:
    return splitext(basename(name))[0]


def _count_up(labels: Sequence[tuple[str, str]]) -> bool:
    """Return whether the labels of each folder are one text with numbers that hardly leave any out."""
    if len(set(labels)) < len(labels):
        return False  # numbers of files are different
    prefixes, numbers = set(), set[int]()
    for _, label in labels:
        match = re.fullmatch(r"(.*?)(\d{1,18})", label, re.DOTALL)
        if match is None:
            return False
        prefixes.add(match[1])
        numbers.add(int(match[2]))
    return len(prefixes) == 1 and len(numbers) >= DENSITY * (max(numbers) - min(numbers) + 1)


def _natural(label: str) -> tuple[int, str]:
    return len(label), label
