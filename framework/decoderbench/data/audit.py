"""The data audit: what is wrong with labels and images, found before anything is trained.

Nothing is dropped or repaired silently. A problem is refused unless its code is allowed by name; an allowed one
takes its samples out of training, is counted under every table, and never shrinks the denominator of a score,
except that an image which cannot be decoded cannot be scored. Labels are judged as they stand in the data, in the
Unicode form that was asked for; what is accepted is normalized afterwards, and only that. No torch here.
"""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from decoderbench.data.dataset import SPLITS, Sample, Split
from decoderbench.data.label_normalizer import LabelNormalizer, convert_each
from decoderbench.data.problems import CODES as CODES
from decoderbench.data.problems import Code, Findings, Problem, known_codes, named
from decoderbench.errors import DataError
from decoderbench.labels import Charset
from decoderbench.specs import LabelSpec, ctc_frames_needed

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from decoderbench.data.image_store import ImageStore

INVISIBLE = {"Cc", "Cf", "Cs", "Zl", "Zp"}  # Unicode categories: control, format, surrogate, line separators
BARS = 8  # of the histogram of label lengths
AS_IT_STANDS = LabelNormalizer()


@dataclass(frozen=True)
class Audit:
    """What was found; `dataclasses.asdict` of it can be written as JSON.

    Attributes:
        counts: split -> samples that are trained on (train) or scored (val, test).
        labels: the label of each row as it is trained on and scored, normalized; that of an unspellable row as it was
            judged, so that what the charset filtered out stays wrong.
        characters: the charset of normalized labels.
        max_length: longest normalized label allowed.
        frames_needed: most frames that CTC needs for a label that can be spelled.
        lengths: length -> how many of `labels` have it, ascending.
        normalizing: what is done to labels and how many it changed, or an empty text if nothing is done.
        problems: what was found and allowed.
        notes: sentences for a person; nothing to allow.
        excluded: rows that are not trained on or, being unreadable, not scored; ascending.
        unspellable: rows with a label outside the charset, too long, or longer than its image has columns, which no
            decoder can be asked for; ascending.
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
        """What decoders are built for."""
        return LabelSpec(charset=Charset(self.characters), max_length=self.max_length, frames_needed=self.frames_needed)

    @property
    def digest(self) -> str:
        """Digest of what is trained on and scored, as far as labels decide it."""
        content = json.dumps([self.labels, self.excluded, self.unspellable])
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    def rows(self, store: ImageStore, split: Split) -> NDArray[np.int64]:
        """Return the rows of `store` to train on (train) or to score (val, test), ascending."""
        return np.setdiff1d(store.indices(split), np.asarray(self.excluded, dtype=np.int64))

    def with_images(self, store: ImageStore) -> Audit:
        """Return the audit with what the pixels show: unreadable or too narrow images, and the same image twice.

        Labels conflict if they differ as they are trained on and scored: `Ab` and `ab` do not in lower case.

        Raises:
            DataError: a problem that is not allowed, or a split without a sample left.
        """
        found = Findings(store.keys, store.splits)
        for row, reason in store.unreadable.items():
            found.add("unreadable_image", row, f"an image cannot be decoded, as {store.keys[row]!r}: {reason}")
        readable = set(range(len(store))) - store.unreadable.keys() - set(self.unspellable)
        narrow = [row for row in sorted(readable) if store.widths[row] < len(self.labels[row])]
        for row in narrow:
            columns, characters = int(store.widths[row]), len(self.labels[row])
            found.add(
                "too_narrow",
                row,
                f"{store.keys[row]!r} is {columns} column{'s' * (columns != 1)} wide after resizing, fewer than the "
                f"{characters} characters of its label",
            )
        same: defaultdict[str, list[int]] = defaultdict(list)
        for row, pixel_hash in enumerate(store.pixel_hashes):
            if row not in store.unreadable:
                same[pixel_hash].append(row)
        for rows in same.values():
            found.compare("duplicate_across_splits", rows, store.splits, "in")
            found.compare("conflicting_labels", rows, self.labels, "labeled")
        problems = found.allowed_by(self.allow)
        excluded = {*self.excluded, *found.excluded()}
        squeezed = (
            f"wider than image.width if they kept their shape, and squeezed to it: {len(store.squeezed):,} of "
            f"{len(store):,} images, as {store.keys[store.squeezed[0]]!r}"
            for _ in store.squeezed[:1]
        )
        return replace(
            self,
            notes=(*self.notes, *squeezed),
            counts=_counts(store.splits, excluded),
            problems=self.problems + problems,
            excluded=tuple(sorted(excluded)),
            unspellable=tuple(sorted({*self.unspellable, *narrow})),
        )

    def frames_needed_of(self, store: ImageStore) -> NDArray[np.int64]:
        """Return the frames that CTC needs for each row of `store`, (N,); 0 where a row is not to be read."""
        unread = {*self.unspellable, *store.unreadable}
        needed = (0 if row in unread else ctc_frames_needed(label) for row, label in enumerate(self.labels))
        return np.fromiter(needed, dtype=np.int64, count=len(self.labels))

    def footnotes(self) -> list[str]:
        """Return a sentence for each allowed problem, to stand under every table."""
        total = sum(self.lengths.values())
        return [f"{p.code}: allowed, in {p.count:,} of {total:,} samples" for p in self.problems]

    def summary(self) -> list[str]:
        """Return what the data are: how many samples, how long their labels, of which characters."""
        counts = ", ".join(f"{count:,} {split}" for split, count in self.counts.items())
        without = f" ({len(self.excluded):,} left out)" if self.excluded else ""
        return [
            f"samples  {counts}{without}",
            f"labels   {_histogram(self.lengths)}; max_length {self.max_length}; CTC needs {self.frames_needed} frames",
            f"charset  {len(self.characters)} characters: {self.characters!r}",
            *([f"normalize  {self.normalizing}"] if self.normalizing else []),
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
    normalize: LabelNormalizer = AS_IT_STANDS,
    allow: Iterable[str] = frozenset(),
    notes: Sequence[str] = (),
) -> Audit:
    """Audit the labels alone; nothing is decoded.

    Args:
        samples: all samples of a dataset.
        charset: what labels may hold before they are normalized; default: the characters that they hold.
        max_length: the most characters of a label, before and after; default: the longest label.
        normalize: what is made of the labels that were accepted.
        allow: codes of problems to accept.
        notes: what the dataset has to say, to be kept with the audit's own notes.

    Raises:
        ConfigError: an unknown code in `allow`.
        DataError: an empty split, or problems that are not allowed; all of them are listed.
    """
    allowed = known_codes(allow)
    splits = [sample.split for sample in samples]
    _counts(splits, set())
    judged = [normalize.form(sample.label) for sample in samples]
    normalized = list(map(normalize, judged))
    used = set().union(*judged)
    wanted = None if charset is None else convert_each(charset.characters, normalize.form)
    found = Findings([sample.key for sample in samples], splits)
    _judge(found, judged, normalized, used=used, wanted=wanted, max_length=max_length)
    inside = set(wanted or used)
    if mended := sorted(c for c in used - inside if inside.issuperset(normalize(c))):
        found.sentences["outside_charset"] += (
            f"; labels.charset is judged before labels are normalized: name {''.join(mended)!r} in it too"
        )
    problems = found.allowed_by(allowed)
    excluded = found.excluded()
    counts = _counts(splits, excluded)

    unspellable = found.rows["outside_charset"] | found.rows["too_long"]
    labels = tuple(judged[row] if row in unspellable else text for row, text in enumerate(normalized))
    spellable = [text for row, text in enumerate(labels) if row not in unspellable]
    if wanted is None:
        characters = Charset.of(normalized).characters
    else:
        characters = convert_each(wanted, normalize)
        # Parts that only a change of case brings together may compose, as j and a caron do in NFC.
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
        notes=(*notes, *_notes(labels, splits, None if wanted is None else characters, normalize)),
        excluded=tuple(sorted(excluded)),
        unspellable=tuple(sorted(unspellable)),
        allow=allowed,
    )


def _judge(
    found: Findings,
    judged: Sequence[str],
    normalized: Sequence[str],
    *,
    used: set[str],
    wanted: str | None,
    max_length: int | None,
) -> None:
    """Add what is wrong with the labels as they stand, and with what normalizing would make of the good ones."""
    charset = set(wanted or used)
    # A character that the experiment names in its charset is wanted, however invisible.
    invisible = {c for c in used if unicodedata.category(c) in INVISIBLE} - set(wanted or "")
    for row, (label, text) in enumerate(zip(judged, normalized, strict=True)):
        if missing := set(label) - charset:
            found.add("outside_charset", row, f"the charset lacks {named(missing)}, which {label!r} holds")
        if max_length is not None and max(len(label), len(text)) > max_length:
            length = f"{max(len(label), len(text))} characters{' once normalized' * (len(label) <= max_length)}"
            found.add("too_long", row, f"{label!r} has {length}, max_length is {max_length}")
        elif label and not text and not missing:
            found.add("empty_after_normalizing", row, f"normalizing leaves nothing of {label!r}")
        if not label:
            found.add("empty_label", row, "a label has at least one character")
        if not invisible.isdisjoint(label):
            seen = named(invisible & set(label))
            found.add(
                "control_character", row, f"{label!r} holds {seen}, unseen on a page; if wanted, name it in charset"
            )


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


def _counts(splits: Sequence[Split], excluded: Collection[int]) -> dict[Split, int]:
    counts = Counter(split for row, split in enumerate(splits) if row not in excluded)
    for split in SPLITS:
        if not counts[split]:
            why = "has no sample left to use" if split in splits else "has no samples"
            raise DataError(f"split {split!r} {why}; an experiment needs train, val and test")
    return {split: counts[split] for split in SPLITS}


def _notes(labels: Sequence[str], splits: Sequence[Split], wanted: str | None, normalize: LabelNormalizer) -> list[str]:
    """Return what a person should know about the labels as they are trained on and scored."""
    notes = []
    used = set().union(*labels)
    trained = set().union(*(label for label, split in zip(labels, splits, strict=True) if split == "train"))
    if unseen := used - trained:
        rows = sum(not trained.issuperset(label) for label in labels)
        notes.append(f"labels of val and test with characters that train never shows: {rows:,} ({named(unseen)})")
    if unused := set(wanted or "") - used:
        notes.append(f"characters of the charset that no label holds: {named(unused)}")
    decomposed = sum(not unicodedata.is_normalized("NFC", label) for label in labels)
    if decomposed and normalize.unicode_form == "none":
        notes.append(f"labels taken as they stand, not in Unicode normal form C: {decomposed:,}")
    return notes
