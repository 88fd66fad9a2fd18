"""Problems of data: their codes, their collection, and the error for those that are not allowed. No torch here."""

from __future__ import annotations

import json
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
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
    "no_contrast",
    "too_narrow",
    "duplicate_across_splits",
    "conflicting_labels",
]
CODES: tuple[Code, ...] = get_args(Code)
MAX_EXAMPLES = 10  # keys or characters that a message lists
MAX_QUOTED = 60  # characters of a label or key in a message


@dataclass(frozen=True)
class Problem:
    """A kind of problem that some samples have.

    Attributes:
        code: its name, by which it can be allowed.
        count: how many samples have it.
        keys: the keys of the first ten of them.
        sentence: the rule and one example.
    """

    code: Code
    count: int
    keys: tuple[str, ...]
    sentence: str

    def __str__(self) -> str:
        more = f" and {self.count - len(self.keys):,} more" if self.count > len(self.keys) else ""
        return f"{self.code}: {self.sentence}; {self.count:,} in all: {', '.join(map(repr, self.keys))}{more}"


class Findings:
    """Collects the rows that have each problem, and one example per problem."""

    def __init__(self, keys: Sequence[str]) -> None:
        self.keys = keys
        self.rows: defaultdict[Code, set[int]] = defaultdict(set)
        self.sentences: dict[Code, str] = {}

    def add(self, code: Code, rows: int | Sequence[int], sentence: str) -> None:
        """Add rows that have a problem; the sentence of the first call is kept."""
        self.rows[code].update([rows] if isinstance(rows, int) else rows)
        self.sentences.setdefault(code, sentence)

    def add_if_different(self, code: Code, rows: Sequence[int], column: Sequence[str], word: str) -> None:
        """Add `rows`, whose images are identical, if their values in `column` differ."""
        first = rows[0]
        other = next((row for row in rows if column[row] != column[first]), None)
        if other is not None:
            pair = f"{self.keys[first]!r} and {self.keys[other]!r} are identical images"
            self.add(code, rows, f"{pair}, {word} {column[first]!r} and {column[other]!r}")

    def excluded(self, splits: Sequence[Split]) -> set[int]:
        """Return the rows to exclude: in train all that have a problem, in val and test only unreadable images."""
        in_train = {row for rows in self.rows.values() for row in rows if splits[row] == "train"}
        return in_train | self.rows["unreadable_image"]

    def require_allowed(self, allow: Sequence[Code]) -> tuple[Problem, ...]:
        """Return the problems; raise `DataError` if any of them is not allowed."""
        problems = []
        for code, sentence in self.sentences.items():
            rows = sorted(self.rows[code])
            keys = tuple(self.keys[row] for row in rows[:MAX_EXAMPLES])
            problems.append(Problem(code, len(rows), keys, sentence))
        if refused := [problem for problem in problems if problem.code not in allow]:
            listed = "\n  ".join(map(str, refused))
            codes = [problem.code for problem in refused]
            raise DataError(
                f"{len(refused)} kind{'s' * (len(refused) > 1)} of problems in the data:\n  {listed}\n"
                f"correct the data, or accept them: allow = {json.dumps(codes)} in the experiment, or "
                f"--allow {' --allow '.join(codes)}; their samples are then excluded from training, and a footnote of "
                f"every table counts them"
            )
        return tuple(problems)


def merge_problems(first: Sequence[Problem], second: Sequence[Problem]) -> tuple[Problem, ...]:
    """Return the problems of two searches, which found them in different samples, with each code once."""
    merged = {problem.code: problem for problem in first}
    for problem in second:
        if known := merged.get(problem.code):
            keys = (*known.keys, *problem.keys)[:MAX_EXAMPLES]
            merged[problem.code] = replace(known, count=known.count + problem.count, keys=keys)
        else:
            merged[problem.code] = problem
    return tuple(merged.values())


def validate_codes(codes: Iterable[str]) -> tuple[Code, ...]:
    """Return the codes in the order of `CODES`; raise `ConfigError` if one is unknown."""
    given = set(codes)
    if unknown := sorted(given - set(CODES)):
        known = ", ".join(CODES)
        raise ConfigError([f"allow: unknown code {c!r}{did_you_mean(c, CODES)}; known: {known}" for c in unknown])
    return tuple(code for code in CODES if code in given)


def quote(text: str) -> str:
    """Return text from data in quotes for a message: escaped where it is not printable, cut off where it is long."""
    return repr(text) if len(text) <= MAX_QUOTED else f"{text[:MAX_QUOTED]!r}... ({len(text):,} characters)"


def list_characters(characters: Iterable[str]) -> str:
    """Return characters as text for a message; all but printable ASCII with code point and name."""
    names = [
        repr(c) if c.isascii() and c.isprintable() else f"{c!r} (U+{ord(c):04X} {unicodedata.name(c, 'unnamed')})"
        for c in sorted(characters)
    ]
    more = f" and {len(names) - MAX_EXAMPLES} more" if len(names) > MAX_EXAMPLES else ""
    return ", ".join(names[:MAX_EXAMPLES]) + more
