"""Signs of a split that is given with the images: columns, names of tables, list files, folders, names of images."""

import re
from collections.abc import Mapping, Sequence
from itertools import takewhile
from posixpath import basename, dirname, splitext
from typing import NamedTuple

from decoderbench import Split

from .labels import Row
from .split_words import SPLITS, Word, meaning, short_word, word_in

CERTAIN = {"split", "partition"}  # columns that cannot be anything else
COLUMNS = {"split", "subset", "partition", "fold", "set", "usage", "mode", "phase", "part", "stage", "traintest"}
TRUE, FALSE = {"1", "true", "yes", "x"}, {"0", "false", "no", ""}
MOST_NAMED = 6

Names = Sequence[Sequence[str]]
"""For each sample, the names that may name its part."""


class Sign(NamedTuple):
    """What names of one kind say about the samples, such as those of their folders."""

    kind: str
    names: Sequence[str]  # for each sample, the name that says its part; empty if there is none
    splits: Sequence[Split | None]
    source: str  # for people: the kind and its names
    problem: str  # why the sign cannot be followed; mostly empty

    @property
    def parts(self) -> list[Split]:
        """The parts that are named."""
        return [split for split in SPLITS if split in self.splits]

    @property
    def divides(self) -> bool:
        """Whether it says more than one part for all samples, which is what a folder named `train` around them says."""
        return None in self.splits or len(self.parts) > 1


def find_signs(rows: Sequence[Row], lists: Mapping[str, Sequence[str]]) -> list[Sign]:
    """Return the signs that name the part of at least one sample, the most explicit ones first.

    Args:
        rows: all labeled images.
        lists: the list files that name each image.
    """
    paths = [row.name for row in rows]
    if all(row.label == basename(dirname(row.name)) for row in rows):
        paths = [dirname(path) for path in paths]  # the last folder is the label
    tables = [row.table for row in rows]
    columns = split_columns(rows)
    signs = [
        *(column_sign(rows, column) for column in columns),
        *(_flag_sign(rows, column) for column in _columns(rows) if column not in columns),
        _sign("lists", [lists.get(row.name, ()) for row in rows]),
        _sign("files", [() if _is_sidecar(row) else (row.table,) for row in rows]),
        _folder_sign("folders", paths),
        _folder_sign("folders of label files", tables),
    ]
    found = [sign for sign in signs if sign]
    if not any(sign.divides for sign in found) and (named := _file_name_sign(rows)):
        return [named]
    return found


def column_sign(rows: Sequence[Row], column: str) -> Sign | None:
    """Return what a column of the tables says; None if it names no part."""
    tables = {row.table for row in rows if column in row.columns}
    kind = f"column {column}" + (f" of {tables.pop()}" if len(tables) == 1 else "")
    values = [row.columns.get(column, "").strip() for row in rows]
    sign = _read(kind, [(value,) for value in values], {value: word_of_value(value) for value in values})
    return sign and sign._replace(source=kind)


def word_of_value(value: str) -> Word | None:
    """Return the part that a value in a split column names."""
    return word_in(value) or short_word(value.strip())


def split_columns(rows: Sequence[Row]) -> list[str]:
    """Return the columns that look like a split, by their name or else by all of their values."""
    labels = [row.label for row in rows]
    found = []
    for column in _columns(rows):
        values = [row.columns.get(column, "") for row in rows]
        by_name = bool(COLUMNS & _tokens(column))
        different = {value.strip() for value in values}
        by_values = len(different) > 1 and all(value.isalpha() and word_in(value) for value in different)
        if (by_name or by_values) and values != labels:
            found.append(column)
    return found


def unread_split_columns(rows: Sequence[Row]) -> list[tuple[str, bool]]:
    """Return the columns that are called like a split, but name no part; true if they cannot be anything else."""
    found = [column for column in split_columns(rows) if column_sign(rows, column) is None]
    return [(column, bool(CERTAIN & _tokens(column))) for column in found]


def _tokens(column: str) -> set[str]:
    return {*re.findall("[a-z]+", column.lower()), re.sub("[^a-z]", "", column.lower())}


def _columns(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(column for row in rows for column in row.columns))


def _flag_sign(rows: Sequence[Row], column: str) -> Sign | None:
    """Return the sign of a column such as is_test, which marks one part and says nothing of the others."""
    word = word_in(column)
    marks = [row.columns.get(column, "").strip().lower() for row in rows]
    if word is None or not set(marks) <= TRUE | FALSE or not set(marks) & TRUE:
        return None
    part = meaning({word})[word]
    splits = [part if mark in TRUE else None for mark in marks]
    problem = "it marks one part; write the parts of all samples in one column, and name it by split_column"
    return Sign(f"column {column}", marks, splits, f"column {column}", problem)


def _folder_sign(kind: str, paths: Sequence[str]) -> Sign | None:
    folders = [path.split("/")[:-1] for path in paths]
    common = list(takewhile(lambda level: len({*level}) == 1, zip(*folders, strict=False)))
    inner = [folder[len(common) :] for folder in folders]
    return _sign(kind, inner) or _sign(kind, [level[:1] for level in common[-1:]] * len(paths))


def _file_name_sign(rows: Sequence[Row]) -> Sign | None:
    """Return the sign that most images are named after a part, such as `train_001.png`; else None."""
    words = [word_in(splitext(basename(row.name))[0]) for row in rows]
    if 2 * sum(word is not None for word in words) < len(words):
        return None
    sign = _sign("names of images", [[word] if word else [] for word in words])
    return sign if sign and len(sign.parts) > 1 else None


def _is_sidecar(row: Row) -> bool:
    return basename(row.table).split(".")[0] == basename(row.name).split(".")[0]


def _sign(kind: str, names: Names) -> Sign | None:
    """Return what names say: in words, or else in short forms if every sample has one; None if they say nothing."""
    sign = _read(kind, names, {name: word_in(basename(name)) for found in names for name in found})
    if sign is None:
        sign = _read(kind, names, {name: short_word(name) for found in names for name in found})
        return sign if sign and sign.divides and None not in sign.splits else None
    return sign


def _read(kind: str, names: Names, words: Mapping[str, Word | None]) -> Sign | None:
    present = {word for word in words.values() if word}
    if not present:
        return None
    means = {name: meaning(present)[word] for name, word in words.items() if word}
    told = [[name for name in found if name in means] for found in names]
    problem = ""
    if {"eval", "val", "test"} <= present:
        problem = "eval may mean val or test, and both are named too; rename it"
    elif contradicting := next((found for found in told if len({means[name] for name in found}) > 1), None):
        problem = " and ".join(map(repr, contradicting)) + " name two parts for one sample; correct them"
    said = [found[0] if found else "" for found in told]
    shown = sorted(dict.fromkeys(filter(None, said)), key=lambda name: (SPLITS.index(means[name]), name))
    return Sign(kind, said, [means.get(name) for name in said], f"{kind} {_join(shown)}", problem)


def _join(names: Sequence[str]) -> str:
    if len(names) > MOST_NAMED:
        return f"{', '.join(names[:MOST_NAMED])} and {len(names) - MOST_NAMED} more"
    return " and ".join(names) if len(names) < 3 else ", ".join(names)
