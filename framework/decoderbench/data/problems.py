"""Problems of data: their codes, to allow them by, and what gathers them and refuses the others. No torch here."""

from __future__ import annotations

import json
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from decoderbench.data.dataset import Split
from decoderbench.errors import ConfigError, DataError, did_you_mean

Code = Literal[
    "outside_charset",
    "too_long",
    "empty_label",
    "empty_after_normalizing",
    "control_character",
    "unreadable_image",
    "too_narrow",
    "duplicate_across_splits",
    "conflicting_labels",
]
CODES: tuple[Code, ...] = get_args(Code)
SHOWN = 10


@dataclass(frozen=True)
class Problem:
    """Something wrong with some samples.

    Attributes:
        code: its name, to allow it by.
        count: how many samples have it.
        keys: the first ten of them.
        sentence: the rule, and one example.
    """

    code: Code
    count: int
    keys: tuple[str, ...]
    sentence: str

    def __str__(self) -> str:
        more = f" and {self.count - len(self.keys):,} more" if self.count > len(self.keys) else ""
        return f"{self.code}: {self.sentence}; {self.count:,} in all: {', '.join(map(repr, self.keys))}{more}"


class Findings:
    """Gathers the rows of each problem, and an example of the first."""

    def __init__(self, keys: Sequence[str], splits: Sequence[Split]) -> None:
        self.keys = keys
        self.splits = splits
        self.rows: defaultdict[Code, set[int]] = defaultdict(set)
        self.sentences: dict[Code, str] = {}

    def add(self, code: Code, rows: int | Sequence[int], sentence: str) -> None:
        """Add rows that have a problem; the sentence of the first ones is kept."""
        self.rows[code].update([rows] if isinstance(rows, int) else rows)
        self.sentences.setdefault(code, sentence)

    def compare(self, code: Code, rows: Sequence[int], column: Sequence[str], word: str) -> None:
        """Add `rows`, which hold the same pixels, unless `column` is the same in all of them."""
        first = rows[0]
        other = next((row for row in rows if column[row] != column[first]), None)
        if other is not None:
            pair = f"{self.keys[first]!r} and {self.keys[other]!r} are one image"
            self.add(code, rows, f"{pair}, {word} {column[first]!r} and {column[other]!r}")

    def excluded(self) -> set[int]:
        """Return the rows that are not to be used: of train all, of val and test what cannot be scored."""
        trained = {row for rows in self.rows.values() for row in rows if self.splits[row] == "train"}
        return trained | self.rows["unreadable_image"]

    def allowed_by(self, allow: Sequence[Code]) -> tuple[Problem, ...]:
        """Return the problems; raise `DataError` if one of them is not allowed."""
        problems = []
        for code, sentence in self.sentences.items():
            rows = sorted(self.rows[code])
            keys = tuple(self.keys[row] for row in rows[:SHOWN])
            problems.append(Problem(code, len(rows), keys, sentence))
        if refused := [problem for problem in problems if problem.code not in allow]:
            listed = "\n  ".join(map(str, refused))
            codes = [problem.code for problem in refused]
            raise DataError(
                f"{len(refused)} kind{'s' * (len(refused) > 1)} of problems in the data:\n  {listed}\n"
                f"correct the data, or accept them by name: allow = {json.dumps(codes)} in the experiment, or "
                f"--allow {' --allow '.join(codes)}; they are then left out of training, and every table says so"
            )
        return tuple(problems)


def known_codes(allow: Iterable[str]) -> tuple[Code, ...]:
    """Return the codes in their order; raise `ConfigError` if one is unknown."""
    allow = set(allow)
    if unknown := sorted(allow - set(CODES)):
        known = ", ".join(CODES)
        raise ConfigError([f"allow: unknown code {c!r}{did_you_mean(c, CODES)}; known: {known}" for c in unknown])
    return tuple(code for code in CODES if code in allow)


def named(characters: Iterable[str]) -> str:
    """Return how to call characters in a message: those that a page may hide by code point and name too."""
    names = [
        repr(c) if c.isascii() and c.isprintable() else f"{c!r} (U+{ord(c):04X} {unicodedata.name(c, 'unnamed')})"
        for c in sorted(characters)
    ]
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
