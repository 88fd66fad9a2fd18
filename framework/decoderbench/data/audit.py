"""The data audit: finds what is wrong with labels and images before anything is trained.

Nothing is dropped or repaired silently. A problem is an error unless its code is allowed. The samples of an allowed
problem are excluded from training and counted in a footnote of every table. They stay in the denominator of scores,
except for images that cannot be decoded. Labels are checked as they are in the data, after the requested Unicode form
was applied and blanks were stripped; only accepted labels are normalized further. No torch here.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from decoderbench.data.audit_parts import Part, counts_of_folds, counts_text, excluded_in_any, make_part, names_of_parts
from decoderbench.data.dataset import ReportProblem, Sample, Split, refuse
from decoderbench.data.image_audit import check_images, image_notes
from decoderbench.data.label_audit import check_charset, check_invisible, check_lengths
from decoderbench.data.label_normalizer import LabelNormalizer, convert_each
from decoderbench.data.label_notes import label_notes
from decoderbench.data.problems import Code, Findings, Problem, merge_problems, quote, validate_codes
from decoderbench.exception_text import to_printable_line
from decoderbench.labels import Charset
from decoderbench.specs import LabelSpec, ctc_frames_needed

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from decoderbench.data.image_store import ImageStore

MAX_HISTOGRAM_BARS = 8
NUM_EXAMPLES = 3
UNCHANGED = LabelNormalizer()


@dataclass(frozen=True)
class Audit:
    """The results of an audit; `dataclasses.asdict` of it can be written as JSON.

    Attributes:
        label_source: where the labels come from, for people.
        split_source: how samples were assigned to the splits, for people.
        examples: key and label of three samples, as they are in the data.
        counts: split -> number of samples that are trained on (train) or scored (val, test); with folds, those of
            the first one.
        labels: the normalized label of each row, as it is trained on and scored. The label of an unspellable row is not
            normalized, so that a label that the charset rejects cannot become a correct one.
        groups: the group of each row, as `Sample` defines it, in the order of `labels`.
        characters: the charset of the normalized labels.
        max_length: largest allowed length of a normalized label.
        frames_needed: frames that CTC needs for the most demanding label that can be spelled.
        lengths: length -> number of `labels` that have it, ascending.
        normalizing: the active steps of the normalizer and how many labels they changed; empty if there are none.
        problems: the problems that were found and allowed.
        notes: sentences for people to read; they need no permission.
        excluded: rows that are not trained on or, if unreadable, not scored; ascending. With folds, in any of them.
        unspellable: rows whose label no decoder can spell: it is outside the charset, too long, or longer than its
            image has columns; ascending.
        allow: the codes that were allowed.
        splits: the split of each row; with folds, that of the first one.
        folds: what each fold trains and tests on; empty without folds.
    """

    label_source: str
    split_source: str
    examples: tuple[tuple[str, str], ...]
    counts: dict[Split, int]
    labels: tuple[str, ...]
    groups: tuple[str, ...]
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
    splits: tuple[Split, ...]
    folds: tuple[Part, ...] = ()

    def of_fold(self, number: int | None) -> Audit:
        """Return the audit of what one fold trains and tests on; of data without folds, by None, itself.

        Raises:
            ValueError: there is no such fold.
        """
        if number is None and not self.folds:
            return self
        if number is None or number not in range(len(self.folds)):
            raise ValueError(f"fold {number} of data with {len(self.folds)} folds")
        return replace(self, **vars(self.folds[number]), folds=())

    def parts(self) -> list[Audit]:
        """Return the audit of each fold; without folds, itself alone."""
        return [self.of_fold(number) for number in range(len(self.folds))] or [self]

    @property
    def label_spec(self) -> LabelSpec:
        """The spec that decoders are built for."""
        return LabelSpec(charset=Charset(self.characters), max_length=self.max_length, frames_needed=self.frames_needed)

    @property
    def digest(self) -> str:
        """Digest of the labels and of the rows that are trained on and scored, in each fold if there are some."""
        folds = [[fold.splits for fold in self.folds]] if self.folds else []
        content = json.dumps([self.labels, self.excluded, self.unspellable, *folds])
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    def rows(self, store: ImageStore, split: Split) -> NDArray[np.int64]:
        """Return the rows of `store` to train on (train) or to score (val, test), ascending.

        Raises:
            ValueError: only a single fold has such rows.
        """
        if self.folds:
            raise ValueError("data with folds have splits within a fold only")
        without = {*self.excluded, *store.unreadable}
        rows = (row for row, own in enumerate(self.splits) if own == split and row not in without)
        return np.fromiter(rows, dtype=np.int64)

    def with_images(self, store: ImageStore, report_problem: ReportProblem = refuse) -> Audit:
        """Return the audit extended by the images: unreadable, too narrow and identical ones.

        Identical images conflict if their labels differ after normalizing: `Ab` and `ab` do not in lower case.

        Raises:
            DataError: a problem is not allowed, or a split has no samples left; the latter by `report_problem`.
        """
        found = Findings(store.keys)
        parts_of_rows = names_of_parts(self.folds) if self.folds else [self.splits]
        check_images(found, store, self.labels, self.unspellable, parts_of_rows)
        problems = found.require_allowed(self.allow)
        before = self.folds or (Part(self.splits, self.counts, self.excluded),)
        parts = [
            make_part(
                part.splits,
                {*part.excluded, *found.excluded(part.splits)},
                report_problem,
                f" of fold {number}" * bool(self.folds),
            )
            for number, part in enumerate(before)
        ]
        return replace(
            self,
            notes=(*self.notes, *image_notes(store)),
            counts=parts[0].counts,
            problems=merge_problems(self.problems, problems),
            excluded=excluded_in_any(parts),
            unspellable=tuple(sorted({*self.unspellable, *found.rows["too_narrow"]})),
            folds=tuple(parts) if self.folds else (),
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

    def summary(self, settings: Sequence[str] = ()) -> list[str]:
        """Return lines with the origin of labels and splits, the number of samples, label lengths and the charset.

        The settings that have these data come first, if there are others.
        """
        examples = ", ".join(f"{quote(key)} is {quote(label)}" for key, label in self.examples)
        lengths = _histogram(self.lengths, self.max_length)
        counts = counts_text(self.counts)
        if self.folds:
            counts = f"{len(self.labels):,} in {len(self.folds)} folds; {counts_of_folds(self.folds)}"
        without = f" ({len(self.excluded):,} excluded)" if self.excluded else ""
        return [
            *([f"settings {', '.join(settings)}"] if settings else []),
            f"labels   from {self.label_source}: {examples}",
            f"splits   {self.split_source}",
            f"samples  {counts}{without}",
            f"lengths  {lengths}; max_length {self.max_length}; CTC needs {self.frames_needed} frames",
            f"charset  {len(self.characters)} characters: {self.characters!r}",
            *([f"normalize  {self.normalizing}"] if self.normalizing else []),
        ]

    def lines(self, settings: Sequence[str] = ()) -> list[str]:
        """Return the summary, the allowed problems and the notes, as lines to print before training."""
        return [
            *self.summary(settings),
            *(f"allowed  {problem}" for problem in self.problems),
            *(f"note     {note}" for note in self.notes),
        ]


def audit(
    samples: Sequence[Sample],
    *,
    charset: Charset | None = None,
    extra_characters: str = "",
    max_length: int | None = None,
    width: int | None = None,
    normalize: LabelNormalizer = UNCHANGED,
    allow: Iterable[str] = frozenset(),
    notes: Sequence[str] = (),
    label_source: str = "the dataset",
    split_source: str = "given by the dataset",
    folds: Sequence[Sequence[Split]] = (),
    report_problem: ReportProblem = refuse,
) -> Audit:
    """Audit the labels; no image is decoded.

    Args:
        samples: all samples of a dataset.
        charset: the characters that labels may contain before they are normalized; default: all in the data.
        extra_characters: without a charset, characters to add to those in the data; they may be invisible.
        max_length: largest length of a label, before and after normalizing; default: that of the longest label that
            can be spelled.
        width: columns of the widest image; a label with more characters cannot be spelled.
        normalize: how accepted labels are normalized.
        allow: codes of problems to accept.
        notes: notes of the dataset, to which those of the audit are added.
        label_source: where the labels come from, for people.
        split_source: how samples were assigned to the splits, for people.
        folds: the splits of each fold, which replace those of the samples; none without folds.
        report_problem: called with problems that no code allows: a split is empty, no label can be spelled.

    Raises:
        ConfigError: `allow` has an unknown code.
        DataError: there are no samples, or problems are not allowed; all of them are listed.
    """
    allowed = validate_codes(allow)
    divided = [tuple(splits) for splits in folds] or [tuple(sample.split for sample in samples)]
    for splits in divided:
        make_part(splits, set(), report_problem if samples else refuse)
    given = [sample.label for sample in samples]
    raw = list(map(normalize.read, given))
    normalized = list(map(normalize, raw))
    raw_charset = None if charset is None else convert_each(charset.characters, normalize.form)
    accepted = raw_charset if raw_charset is not None else convert_each(extra_characters, normalize.form)
    found = Findings([sample.key for sample in samples])
    if raw_charset is not None:
        check_charset(found, raw, raw_charset, normalize)
    check_lengths(found, given, raw, normalized, max_length=max_length, width=width)
    check_invisible(found, raw, accepted)
    problems = found.require_allowed(allowed)
    parts = [
        make_part(splits, found.excluded(splits), report_problem, f" of fold {number}" * bool(folds))
        for number, splits in enumerate(divided)
    ]

    unspellable = found.rows["outside_charset"] | found.rows["too_long"] | found.rows["too_narrow"]
    labels = tuple(raw[row] if row in unspellable else text for row, text in enumerate(normalized))
    spellable = [text for row, text in enumerate(labels) if row not in unspellable]
    if raw_charset is None:
        characters = "".join(sorted({*convert_each(accepted, normalize.convert)}.union(*spellable)))
        if not characters:
            report_problem("no label has a character that can be trained on; correct the labels")
    else:
        characters = convert_each(raw_charset, normalize.convert)
        # Characters that become adjacent to a mark by a change of case may compose, as j and a caron do in NFC.
        characters += "".join(sorted(set().union(*spellable) - set(characters)))
    changed = sum(label != text for label, text in zip(labels, given, strict=True))
    steps = ", ".join(normalize.steps())
    return Audit(
        label_source=to_printable_line(label_source),
        split_source=to_printable_line(split_source),
        examples=tuple((samples[row].key, samples[row].label) for row in _spread(len(samples))),
        counts=parts[0].counts,
        labels=labels,
        groups=tuple(sample.group for sample in samples),
        characters=characters,
        max_length=max(map(len, spellable), default=0) if max_length is None else max_length,
        frames_needed=max(map(ctc_frames_needed, spellable), default=0),
        lengths=dict(sorted(Counter(map(len, labels)).items())),
        normalizing=steps and f"{steps}: {changed:,} of {len(labels):,} labels changed",
        problems=problems,
        notes=(
            *notes,
            *label_notes(
                samples, labels, characters if accepted else "", normalize, label_source, divided if folds else ()
            ),
        ),
        excluded=excluded_in_any(parts),
        unspellable=tuple(sorted(unspellable)),
        allow=allowed,
        splits=divided[0],
        folds=tuple(parts) if folds else (),
    )


def _spread(count: int) -> list[int]:
    """Return up to three rows, spread over all."""
    return sorted({place * (count - 1) // (NUM_EXAMPLES - 1) for place in range(NUM_EXAMPLES)})


def _histogram(lengths: Mapping[int, int], max_length: int) -> str:
    """Return the number of labels per range of lengths, as text; at most eight ranges of equal width.

    Labels longer than `max_length`, which are problems, are counted as one.
    """
    longer = sum(count for length, count in lengths.items() if length > max_length)
    lengths = {length: count for length, count in lengths.items() if length <= max_length}
    if not lengths:
        return f"{longer:,} of more characters than max_length"
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
    return f"{', '.join(parts)} characters{f' and {longer:,} of more' if longer else ''}"
