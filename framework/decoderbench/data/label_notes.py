"""Notes on labels, for people to read: suspicious labels are kept and counted.

No torch here.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import replace

from decoderbench.data.dataset import Sample, Split
from decoderbench.data.folds import folds_text
from decoderbench.data.label_normalizer import LabelNormalizer, strip_blanks
from decoderbench.data.label_signs import doubtful_labels
from decoderbench.data.problems import list_characters, quote

LETTERS = re.compile(r"[^\W\d_]+")


def label_notes(
    samples: Sequence[Sample],
    labels: Sequence[str],
    charset: str,
    normalize: LabelNormalizer,
    label_source: str,
    folds: Sequence[Sequence[Split]] = (),
) -> list[str]:
    """Return notes on labels.

    Args:
        samples: all samples, with their labels as they are in the data.
        labels: the labels as they are trained on and scored.
        charset: the characters that the experiment lists, once normalized; empty if it lists none.
        normalize: how the labels were normalized.
        label_source: where the labels come from, for people.
        folds: the splits of each fold, in place of those of the samples; a note that not all folds have names them.
    """
    parts = list(_in_folds(samples, folds))
    return [
        *_of_all_folds([doubtful_labels(part, named_by_files=label_source.startswith("file names")) for part in parts]),
        *_blanks(labels),
        *_of_all_folds([_characters(part, labels, charset) for part in parts]),
        *_unicode_forms(labels, normalize),
        *_twins(labels),
    ]


def _in_folds(samples: Sequence[Sample], folds: Sequence[Sequence[Split]]) -> Iterator[Sequence[Sample]]:
    """Yield the samples with the splits of each fold; as they are without folds."""
    if not folds:
        yield samples
    for splits in folds:
        yield [replace(sample, split=split) for sample, split in zip(samples, splits, strict=True)]


def _of_all_folds(notes: Sequence[Sequence[str]]) -> list[str]:
    """Return the notes of each fold, each once, with the folds that have it unless all do."""
    numbers: dict[str, list[int]] = {}
    for number, of_fold in enumerate(notes):
        for note in of_fold:
            numbers.setdefault(note, []).append(number)
    return [note if len(of) == len(notes) else f"{note} ({folds_text(of)})" for note, of in numbers.items()]


def _blanks(labels: Sequence[str]) -> list[str]:
    notes = []
    if around := [label for label in labels if label != strip_blanks(label)]:
        blanks = set[str]()
        for label in around:
            inner = strip_blanks(label)
            before, _, after = label.partition(inner) if inner else (label, "", "")
            blanks |= {*before, *after}
        notes.append(
            f"labels with blanks around them, which are kept (labels.normalize.strip = true removes them): "
            f"{len(around):,}, such as {quote(around[0])}; blanks: {list_characters(blanks)}"
        )
    unusual = {c for c in set().union(*labels) if unicodedata.category(c) == "Zs"} - {" "}
    if unusual:
        count = sum(not unusual.isdisjoint(label) for label in labels)
        notes.append(f"labels with other blanks than the space, which are kept: {count:,} ({list_characters(unusual)})")
    return notes


def _characters(samples: Sequence[Sample], labels: Sequence[str], charset: str) -> list[str]:
    notes = []
    used = set().union(*labels)
    trained = set().union(*(label for label, sample in zip(labels, samples, strict=True) if sample.split == "train"))
    if unseen := used - trained:
        count = sum(not trained.issuperset(label) for label in labels)
        notes.append(
            f"labels of val and test with characters that are not in train: {count:,} ({list_characters(unseen)})"
        )
    if unused := set(charset) - used:
        notes.append(f"characters of the charset that are in no label: {list_characters(unused)}")
    return notes


def _unicode_forms(labels: Sequence[str], normalize: LabelNormalizer) -> list[str]:
    decomposed = sum(not unicodedata.is_normalized("NFC", label) for label in labels)
    if decomposed and normalize.unicode_form == "none":
        return [f"labels that are not in Unicode normal form C, and are kept so: {decomposed:,}"]
    return []


def _twins(labels: Sequence[str]) -> list[str]:
    """Return notes on characters that look like others of the data, as keyboards of two languages write them."""
    notes = []
    used = set().union(*labels)
    wide = {c for c in used if unicodedata.decomposition(c).startswith(("<wide>", "<narrow>"))}
    twins = {c for c in wide if unicodedata.normalize("NFKC", c) in used}
    if twins:
        count = sum(not twins.isdisjoint(label) for label in labels)
        notes.append(
            f"labels with characters that differ from others by their width only: {count:,} ({list_characters(twins)})"
        )
    mixed = [label for label in labels if not label.isascii() and any(map(_mixes_scripts, LETTERS.findall(label)))]
    if mixed:
        notes.append(
            f"labels that mix Latin with Cyrillic or Greek letters in one word: {len(mixed):,}, "
            f"such as {quote(mixed[0])}"
        )
    return notes


def _mixes_scripts(word: str) -> bool:
    scripts = {unicodedata.name(letter, "").partition(" ")[0] for letter in word}
    return "LATIN" in scripts and not scripts.isdisjoint({"CYRILLIC", "GREEK"})
