"""The data audit: what is wrong with labels and images, found before anything is trained.

Nothing is dropped or repaired silently. A problem is refused unless its code is allowed by name; an allowed one
takes its samples out of training, is counted under every table, and never shrinks the denominator of a score,
except that an image which cannot be decoded cannot be scored. No torch here.
"""

from __future__ import annotations

import json
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from decoderbench.datasets import SPLITS, Sample, Split
from decoderbench.errors import ConfigError, DataError, did_you_mean
from decoderbench.labels import Charset
from decoderbench.specs import LabelSpec, ctc_frames_needed

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from decoderbench.images import ImageStore

Code = Literal[
    "outside_charset",
    "too_long",
    "empty_label",
    "control_character",
    "unreadable_image",
    "duplicate_across_splits",
    "conflicting_labels",
]
CODES: tuple[Code, ...] = get_args(Code)
INVISIBLE = {"Cc", "Cf", "Cs", "Zl", "Zp"}  # Unicode categories: control, format, surrogate, line separators
SHOWN = 10
BARS = 8  # of the histogram of label lengths


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


@dataclass(frozen=True)
class Audit:
    """What was found; `dataclasses.asdict` of it can be written as JSON.

    Attributes:
        counts: split -> samples that are trained on (train) or scored (val, test).
        characters: the charset.
        max_length: longest label allowed.
        frames_needed: most frames that CTC needs for a label that can be spelt.
        lengths: label length -> samples, ascending.
        problems: what was found and allowed.
        notes: sentences for a person; nothing to allow.
        left_out: rows that are not trained on or, being unreadable, not scored; ascending.
        unspellable: rows with a label outside the charset or too long, which no decoder can write; ascending.
        allow: the codes that were allowed.
    """

    counts: dict[Split, int]
    characters: str
    max_length: int
    frames_needed: int
    lengths: dict[int, int]
    problems: tuple[Problem, ...]
    notes: tuple[str, ...]
    left_out: tuple[int, ...]
    unspellable: tuple[int, ...]
    allow: tuple[Code, ...]

    @property
    def label_spec(self) -> LabelSpec:
        """What decoders are built for."""
        return LabelSpec(charset=Charset(self.characters), max_length=self.max_length, frames_needed=self.frames_needed)

    def rows(self, store: ImageStore, split: Split) -> NDArray[np.int64]:
        """Return the rows of `store` to train on (train) or to score (val, test), ascending."""
        return np.setdiff1d(store.indices(split), np.asarray(self.left_out, dtype=np.int64))

    def with_images(self, store: ImageStore) -> Audit:
        """Return the audit with what the pixels show: unreadable images and the same image twice.

        Raises:
            DataError: a problem that is not allowed, or a split without a sample left.
        """
        found = _Findings(store.keys, store.splits)
        for row, reason in store.unreadable.items():
            found.add("unreadable_image", row, f"an image cannot be decoded, as {store.keys[row]!r}: {reason}")
        same: defaultdict[str, list[int]] = defaultdict(list)
        for row, pixel_hash in enumerate(store.pixel_hashes):
            if row not in store.unreadable:
                same[pixel_hash].append(row)
        for rows in same.values():
            found.compare("duplicate_across_splits", rows, store.splits, "in")
            found.compare("conflicting_labels", rows, store.labels, "labelled")
        problems = found.allowed_by(self.allow)
        left_out = {*self.left_out, *found.left_out()}
        return replace(
            self,
            counts=_counts(store.splits, left_out),
            problems=self.problems + problems,
            left_out=tuple(sorted(left_out)),
        )

    def footnotes(self) -> list[str]:
        """Return a sentence for each allowed problem, to stand under every table."""
        total = sum(self.lengths.values())
        return [f"{p.code}: allowed, in {p.count:,} of {total:,} samples" for p in self.problems]

    def summary(self) -> list[str]:
        """Return what the data are: how many samples, how long their labels, of which characters."""
        counts = ", ".join(f"{count:,} {split}" for split, count in self.counts.items())
        without = f" ({len(self.left_out):,} left out)" if self.left_out else ""
        return [
            f"samples  {counts}{without}",
            f"labels   {_histogram(self.lengths)}; max_length {self.max_length}; CTC needs {self.frames_needed} frames",
            f"charset  {len(self.characters)} characters: {self.characters!r}",
        ]

    def lines(self) -> list[str]:
        """Return what to print before the first step."""
        return [
            *self.summary(),
            *(f"allowed  {problem}" for problem in self.problems),
            *(f"note     {note}" for note in self.notes),
        ]


def audit(
    samples: Sequence[Sample],
    *,
    charset: Charset | None = None,
    max_length: int | None = None,
    allow: Iterable[str] = frozenset(),
    notes: Sequence[str] = (),
) -> Audit:
    """Audit the labels alone; nothing is decoded.

    Args:
        samples: all samples of a dataset.
        charset: what labels may hold; default: the characters that they hold.
        max_length: the most characters of a label; default: the longest label.
        allow: codes of problems to accept.
        notes: what the dataset has to say, to be kept with the audit's own notes.

    Raises:
        ConfigError: an unknown code in `allow`.
        DataError: an empty split, or problems that are not allowed; all of them are listed.
    """
    allowed = _known_codes(allow)
    _counts([sample.split for sample in samples], set())
    labels = [sample.label for sample in samples]
    used = Charset.of(labels)
    characters = charset or used
    limit = max(map(len, labels)) if max_length is None else max_length
    # A character that the experiment names in its charset is wanted, however invisible.
    invisible = {c for c in used.characters if unicodedata.category(c) in INVISIBLE}
    invisible -= set(charset.characters if charset else "")
    found = _Findings([sample.key for sample in samples], [sample.split for sample in samples])
    for row, label in enumerate(labels):
        if missing := characters.missing(label):
            found.add("outside_charset", row, f"the charset lacks {_named(missing)}, which {label!r} holds")
        if len(label) > limit:
            found.add("too_long", row, f"{label!r} has {len(label)} characters, max_length is {limit}")
        if not label:
            found.add("empty_label", row, "a label has at least one character")
        if not invisible.isdisjoint(label):
            named = _named(invisible & set(label))
            found.add(
                "control_character", row, f"{label!r} holds {named}, unseen on a page; if wanted, name it in charset"
            )
    problems = found.allowed_by(allowed)
    unspellable = found.rows["outside_charset"] | found.rows["too_long"]
    left_out = found.left_out()
    return Audit(
        counts=_counts([sample.split for sample in samples], left_out),
        characters=characters.characters,
        max_length=limit,
        frames_needed=max(
            (ctc_frames_needed(label) for row, label in enumerate(labels) if row not in unspellable), default=0
        ),
        lengths=dict(sorted(Counter(map(len, labels)).items())),
        problems=problems,
        notes=(*notes, *_notes(samples, used, charset)),
        left_out=tuple(sorted(left_out)),
        unspellable=tuple(sorted(unspellable)),
        allow=allowed,
    )


class _Findings:
    """Gathers the rows of each problem, and an example of the first."""

    def __init__(self, keys: Sequence[str], splits: Sequence[Split]) -> None:
        self.keys = keys
        self.splits = splits
        self.rows: defaultdict[Code, set[int]] = defaultdict(set)
        self.sentences: dict[Code, str] = {}

    def add(self, code: Code, rows: int | Sequence[int], sentence: str) -> None:
        self.rows[code].update([rows] if isinstance(rows, int) else rows)
        self.sentences.setdefault(code, sentence)

    def compare(self, code: Code, rows: Sequence[int], column: Sequence[str], word: str) -> None:
        """Add `rows`, which hold the same pixels, unless `column` is the same in all of them."""
        first = rows[0]
        other = next((row for row in rows if column[row] != column[first]), None)
        if other is not None:
            pair = f"{self.keys[first]!r} and {self.keys[other]!r} are one image"
            self.add(code, rows, f"{pair}, {word} {column[first]!r} and {column[other]!r}")

    def left_out(self) -> set[int]:
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
                f"{len(refused)} kinds of problems in the data:\n  {listed}\n"
                f"correct the data, or accept them by name: allow = {json.dumps(codes)} in the experiment, or "
                f"--allow {' --allow '.join(codes)}; they are then left out of training, and every table says so"
            )
        return tuple(problems)


def _known_codes(allow: Iterable[str]) -> tuple[Code, ...]:
    allow = set(allow)
    if unknown := sorted(allow - set(CODES)):
        known = ", ".join(CODES)
        raise ConfigError([f"allow: unknown code {c!r}{did_you_mean(c, CODES)}; known: {known}" for c in unknown])
    return tuple(code for code in CODES if code in allow)


def _histogram(lengths: Mapping[int, int]) -> str:
    """Return how many labels have how many characters, lengths in at most eight ranges of one width."""
    shortest, longest = min(lengths), max(lengths)
    width = -(-(longest - shortest + 1) // BARS)
    bars: Counter[int] = Counter()
    for length, count in lengths.items():
        bars[(length - shortest) // width] += count
    parts = []
    for bar, count in sorted(bars.items()):
        first = shortest + bar * width
        last = min(first + width - 1, longest)
        parts.append(f"{count:,} of {first if first == last else f'{first} to {last}'}")
    return f"{', '.join(parts)} characters"


def _counts(splits: Sequence[Split], left_out: Collection[int]) -> dict[Split, int]:
    counts = Counter(split for row, split in enumerate(splits) if row not in left_out)
    for split in SPLITS:
        if not counts[split]:
            why = "has no sample left to use" if split in splits else "has no samples"
            raise DataError(f"split {split!r} {why}; an experiment needs train, val and test")
    return {split: counts[split] for split in SPLITS}


def _notes(samples: Sequence[Sample], used: Charset, charset: Charset | None) -> list[str]:
    notes = []
    trained = set().union(*(sample.label for sample in samples if sample.split == "train"))
    if unseen := set(used.characters) - trained:
        rows = sum(not trained.issuperset(sample.label) for sample in samples)
        notes.append(f"labels of val and test with characters that train never shows: {rows:,} ({_named(unseen)})")
    if charset and (unused := used.missing(charset.characters)):
        notes.append(f"characters of the charset that no label holds: {_named(unused)}")
    if decomposed := sum(not unicodedata.is_normalized("NFC", sample.label) for sample in samples):
        notes.append(f"labels taken as they stand, not in Unicode normal form C: {decomposed:,}")
    return notes


def _named(characters: Iterable[str]) -> str:
    named = [
        repr(c) if c.isascii() and c.isprintable() else f"{c!r} (U+{ord(c):04X} {unicodedata.name(c, 'unnamed')})"
        for c in sorted(characters)
    ]
    return ", ".join(named[:SHOWN]) + (f" and {len(named) - SHOWN} more" if len(named) > SHOWN else "")
