"""The data audit: finds what is wrong with labels and images before anything is trained.

Nothing is dropped or repaired silently. A problem is an error unless its code is allowed. The samples of an allowed
problem are excluded from training and counted in a footnote of every table. They stay in the denominator of scores,
except for images that cannot be decoded. Labels are checked as they are in the data, after the requested Unicode form
was applied; only accepted labels are normalized further. No torch here.
"""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from decoderbench.data.dataset import SPLITS, Sample, Split
from decoderbench.data.image_audit import check_images, image_notes
from decoderbench.data.label_normalizer import LabelNormalizer, convert_each
from decoderbench.data.problems import Code, Findings, Problem, list_characters, validate_codes
from decoderbench.errors import DataError
from decoderbench.labels import Charset
from decoderbench.specs import LabelSpec, ctc_frames_needed

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from decoderbench.data.image_store import ImageStore

INVISIBLE = {"Cc", "Cf", "Cs", "Zl", "Zp"}  # Unicode categories: control, format, surrogate, line separators
MAX_HISTOGRAM_BARS = 8
UNCHANGED = LabelNormalizer()


@dataclass(frozen=True)
class Audit:
    """The results of an audit; `dataclasses.asdict` of it can be written as JSON.

    Attributes:
        counts: split -> number of samples that are trained on (train) or scored (val, test).
        labels: the normalized label of each row, as it is trained on and scored. The label of an unspellable row is not
            normalized, so that a label that the charset rejects cannot become a correct one.
        characters: the charset of the normalized labels.
        max_length: largest allowed length of a normalized label.
        frames_needed: frames that CTC needs for the most demanding label that can be spelled.
        lengths: length -> number of `labels` that have it, ascending.
        normalizing: the active steps of the normalizer and how many labels they changed; empty if there are none.
        problems: the problems that were found and allowed.
        notes: sentences for people to read; they need no permission.
        excluded: rows that are not trained on or, if unreadable, not scored; ascending.
        unspellable: rows whose label no decoder can spell: it is outside the charset, too long, or longer than its
            image has columns; ascending.
        allow: the codes that were allowed.
    """

    counts: dict[Split, int]
    labels: tuple[str, ...]
    characters: str
    max_length: int
    frames_needed: int
    lengths: dict[int, int]
    normalizing: str
    problems: tuple[Problem, ...]
    notes: tuple[str, ...]
    excluded: tuple[int, ...]
    unspellable: tuple[int, ...]
    allow: tuple[Code, ...]

    @property
    def label_spec(self) -> LabelSpec:
        """The spec that decoders are built for."""
        return LabelSpec(charset=Charset(self.characters), max_length=self.max_length, frames_needed=self.frames_needed)

    @property
    def digest(self) -> str:
        """Digest of the labels and of the rows that are trained on and scored."""
        content = json.dumps([self.labels, self.excluded, self.unspellable])
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    def rows(self, store: ImageStore, split: Split) -> NDArray[np.int64]:
        """Return the rows of `store` to train on (train) or to score (val, test), ascending."""
        return np.setdiff1d(store.indices(split), np.asarray(self.excluded, dtype=np.int64))

    def with_images(self, store: ImageStore) -> Audit:
        """Return the audit extended by the images: unreadable, too narrow and identical ones.

        Identical images conflict if their labels differ after normalizing: `Ab` and `ab` do not in lower case.

        Raises:
            DataError: a problem is not allowed, or a split has no samples left.
        """
        found = Findings(store.keys, store.splits)
        check_images(found, store, self.labels, self.unspellable)
        problems = found.require_allowed(self.allow)
        excluded = {*self.excluded, *found.excluded()}
        return replace(
            self,
            notes=(*self.notes, *image_notes(store)),
            counts=_count_splits(store.splits, excluded),
            problems=self.problems + problems,
            excluded=tuple(sorted(excluded)),
            unspellable=tuple(sorted({*self.unspellable, *found.rows["too_narrow"]})),
        )

    def frames_needed_of(self, store: ImageStore) -> NDArray[np.int64]:
        """Return the frames that CTC needs for each row of `store`, (N,); 0 for rows that no decoder has to spell."""
        skipped = {*self.unspellable, *store.unreadable}
        needed = (0 if row in skipped else ctc_frames_needed(label) for row, label in enumerate(self.labels))
        return np.fromiter(needed, dtype=np.int64, count=len(self.labels))

    def footnotes(self) -> list[str]:
        """Return one sentence per allowed problem, for the footnotes of tables."""
        total = sum(self.lengths.values())
        return [f"{p.code}: allowed, in {p.count:,} of {total:,} samples" for p in self.problems]

    def summary(self) -> list[str]:
        """Return lines with the number of samples, the lengths of labels and the charset."""
        counts = ", ".join(f"{count:,} {split}" for split, count in self.counts.items())
        without = f" ({len(self.excluded):,} excluded)" if self.excluded else ""
        return [
            f"samples  {counts}{without}",
            f"labels   {_histogram(self.lengths)}; max_length {self.max_length}; CTC needs {self.frames_needed} frames",
            f"charset  {len(self.characters)} characters: {self.characters!r}",
            *([f"normalize  {self.normalizing}"] if self.normalizing else []),
        ]

    def lines(self) -> list[str]:
        """Return the summary, the allowed problems and the notes, as lines to print before training."""
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
    normalize: LabelNormalizer = UNCHANGED,
    allow: Iterable[str] = frozenset(),
    notes: Sequence[str] = (),
) -> Audit:
    """Audit the labels; no image is decoded.

    Args:
        samples: all samples of a dataset.
        charset: the characters that labels may contain before they are normalized; default: all in the data.
        max_length: largest length of a label, before and after normalizing; default: that of the longest label.
        normalize: how accepted labels are normalized.
        allow: codes of problems to accept.
        notes: notes of the dataset, to which those of the audit are added.

    Raises:
        ConfigError: `allow` has an unknown code.
        DataError: a split is empty, or problems are not allowed; all of them are listed.
    """
    allowed = validate_codes(allow)
    splits = [sample.split for sample in samples]
    _count_splits(splits, set())
    raw = [normalize.form(sample.label) for sample in samples]
    normalized = list(map(normalize, raw))
    used = set().union(*raw)
    raw_charset = None if charset is None else convert_each(charset.characters, normalize.form)
    found = Findings([sample.key for sample in samples], splits)
    _check_labels(found, raw, normalized, used=used, charset=raw_charset, max_length=max_length)
    inside = set(raw_charset or used)
    if inside_once_normalized := sorted(c for c in used - inside if inside.issuperset(normalize(c))):
        found.sentences["outside_charset"] += (
            f"; labels.charset is checked before labels are normalized: "
            f"add {''.join(inside_once_normalized)!r} to it too"
        )
    problems = found.require_allowed(allowed)
    excluded = found.excluded()
    counts = _count_splits(splits, excluded)

    unspellable = found.rows["outside_charset"] | found.rows["too_long"]
    labels = tuple(raw[row] if row in unspellable else text for row, text in enumerate(normalized))
    spellable = [text for row, text in enumerate(labels) if row not in unspellable]
    if raw_charset is None:
        characters = Charset.of(normalized).characters
    else:
        characters = convert_each(raw_charset, normalize)
        # Characters that become adjacent to a mark by a change of case may compose, as j and a caron do in NFC.
        characters += "".join(sorted(set().union(*spellable) - set(characters)))
    changed = sum(label != sample.label for label, sample in zip(labels, samples, strict=True))
    steps = ", ".join(normalize.steps())
    return Audit(
        counts=counts,
        labels=labels,
        characters=characters,
        max_length=max(map(len, normalized)) if max_length is None else max_length,
        frames_needed=max(map(ctc_frames_needed, spellable), default=0),
        lengths=dict(sorted(Counter(map(len, labels)).items())),
        normalizing=steps and f"{steps}: {changed:,} of {len(labels):,} labels changed",
        problems=problems,
        notes=(*notes, *_label_notes(labels, splits, None if raw_charset is None else characters, normalize)),
        excluded=tuple(sorted(excluded)),
        unspellable=tuple(sorted(unspellable)),
        allow=allowed,
    )


def _check_labels(
    found: Findings,
    raw: Sequence[str],
    normalized: Sequence[str],
    *,
    used: set[str],
    charset: str | None,
    max_length: int | None,
) -> None:
    """Add the problems of labels as they are in the data, and those that normalizing would cause."""
    inside = set(charset or used)
    # An invisible character is accepted if the experiment lists it in its charset.
    invisible = {c for c in used if unicodedata.category(c) in INVISIBLE} - set(charset or "")
    for row, (label, text) in enumerate(zip(raw, normalized, strict=True)):
        if missing := set(label) - inside:
            found.add("outside_charset", row, f"the charset lacks {list_characters(missing)} of label {label!r}")
        if max_length is not None and max(len(label), len(text)) > max_length:
            length = f"{max(len(label), len(text))} characters{' once normalized' * (len(label) <= max_length)}"
            found.add("too_long", row, f"{label!r} has {length}, max_length is {max_length}")
        elif label and not text and not missing:
            found.add("empty_after_normalizing", row, f"normalizing removes every character of {label!r}")
        if not label:
            found.add("empty_label", row, "a label needs at least one character")
        if not invisible.isdisjoint(label):
            listed = list_characters(invisible & set(label))
            sentence = f"{label!r} has invisible characters: {listed}; to accept them, add them to labels.charset"
            found.add("control_character", row, sentence)


def _count_splits(splits: Sequence[Split], excluded: Collection[int]) -> dict[Split, int]:
    """Return the number of samples per split; raise `DataError` if a split is empty."""
    counts = Counter(split for row, split in enumerate(splits) if row not in excluded)
    for split in SPLITS:
        if not counts[split]:
            why = "has no samples left" if split in splits else "has no samples"
            raise DataError(f"split {split!r} {why}; an experiment needs train, val and test")
    return {split: counts[split] for split in SPLITS}


def _label_notes(
    labels: Sequence[str], splits: Sequence[Split], charset: str | None, normalize: LabelNormalizer
) -> list[str]:
    """Return notes on the labels as they are trained on and scored."""
    notes = []
    used = set().union(*labels)
    trained = set().union(*(label for label, split in zip(labels, splits, strict=True) if split == "train"))
    if unseen := used - trained:
        count = sum(not trained.issuperset(label) for label in labels)
        notes.append(
            f"labels of val and test with characters that are not in train: {count:,} ({list_characters(unseen)})"
        )
    if unused := set(charset or "") - used:
        notes.append(f"characters of the charset that are in no label: {list_characters(unused)}")
    decomposed = sum(not unicodedata.is_normalized("NFC", label) for label in labels)
    if decomposed and normalize.unicode_form == "none":
        notes.append(f"labels that are not in Unicode normal form C, and are kept so: {decomposed:,}")
    return notes


def _histogram(lengths: Mapping[int, int]) -> str:
    """Return the number of labels per range of lengths, as text; at most eight ranges of equal width."""
    shortest, longest = min(lengths), max(lengths)
    width = -(-(longest - shortest + 1) // MAX_HISTOGRAM_BARS)
    bars: Counter[int] = Counter()
    for length, count in lengths.items():
        bars[(length - shortest) // width] += count
    parts = []
    for bar, count in sorted(bars.items()):
        first = shortest + bar * width
        last = min(first + width - 1, longest)
        parts.append(f"{count:,} of {first if first == last else f'{first} to {last}'}")
    return f"{', '.join(parts)} characters"
