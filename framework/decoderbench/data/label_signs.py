"""Signs that labels are not the texts in the images: file names, numbers of rows, a header, a wrong encoding.

Each of them can be right, so they are notes for people and change nothing. Labels are read as they are in the data. No
torch here.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from itertools import pairwise
from os.path import commonprefix
from posixpath import basename, splitext

from decoderbench.data.dataset import SPLITS, Sample
from decoderbench.data.image_formats import IMAGE_SUFFIXES
from decoderbench.data.problems import quote
from decoderbench.data.split_words import SPELLINGS

MOST = 0.9  # share of labels that must show a sign which a single label may well show
FEWEST = 3  # samples below which nothing can be said about all of them
LONG_PART = 3  # characters that all labels have in common
FEWEST_OF_A_PART = 10  # the same of half of them, or of one split

NUMBER = re.compile(r"[0-9]{1,18}")
HEADER_WORDS = {
    "file", "filename", "file_name", "filepath", "gt", "ground_truth", "id", "image", "image_name", "img", "label",
    "labels", "name", "path", "target", "text", "transcription", "word", "words",
}  # fmt: skip
EDGES = set(",;:|\"'`()[]{}<>/\\\u201c\u201d\u2018\u2019\u00ab\u00bb")

ANY = (
    ("look like file names", rf".+({'|'.join(map(re.escape, sorted({*IMAGE_SUFFIXES, '.txt', '.json', '.xml'})))})"),
    ("have a code of HTML", r".*&(#[0-9]+|#x[0-9a-f]+|amp|lt|gt|quot|apos|nbsp);.*"),
    ("have the code of a character", r".*(\\u[0-9a-f]{4}|\\x[0-9a-f]{2}).*"),
    ("are numbers as a spreadsheet writes them", r"[0-9](\.[0-9]+)?E\+[0-9]+"),
    ("are dates as a spreadsheet writes them", r"[0-9]{1,2}-(jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)"),
    ("may stand for a missing or unreadable text", r"#{3,}|<unk>|\[unk\]|n/a|nan|none|null|<na>"),
)
"""Signs of a single label."""

NEARLY_ALL = (
    (
        "is a digest or an identifier",
        r"(?=.*[a-f])(?=.*[0-9])([0-9a-f]{16,}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12})",
    ),
    ("ends in .0, as numbers of a table do that were read as fractions", r"[0-9]+\.0"),
    ("has a comma, semicolon, bar or tab, which may separate two fields", r".*[^,;|\t][,;|\t][^,;|\t].*"),
    (
        "ends with a blank, dot, hyphen or bracket and a number, as with a second column or the number of a copy",
        r".*[^\W\d_].*[\s.(-][0-9]+([.][0-9]+)?\)?",
    ),
    ("is the name of a split", "|".join(SPELLINGS.values())),
)
"""Signs of nearly all labels together."""


def doubtful_labels(samples: Sequence[Sample], *, named_by_files: bool = False) -> list[str]:
    """Return one sentence per sign that labels are not the texts of the images.

    Args:
        samples: all samples of a dataset, as it lists them.
        named_by_files: labels are taken from the names of files, so that it says nothing if they are equal.
    """
    labels = [sample.label for sample in samples]
    return [
        *_repeated(samples),
        *_counting(samples),
        *_names_of_files(samples, named_by_files),
        *_patterns(labels),
        *_edges(labels),
        *_common_parts(labels),
        *_headers(samples),
        *_encodings(labels),
        *_lost_zeros(labels),
        *_other_forms(samples),
    ]


def _repeated(samples: Sequence[Sample]) -> Iterator[str]:
    parts = {f" of {split}": [s.label for s in samples if s.split == split] for split in SPLITS}
    for of, labels in {"": [sample.label for sample in samples], **parts}.items():
        if len(labels) >= (FEWEST_OF_A_PART if of else FEWEST) and len(set(labels)) == 1:
            yield f"all {len(labels):,} labels{of} are {quote(labels[0])}"
            return  # what holds for all holds for the splits
    label, count = Counter(sample.label for sample in samples).most_common(1)[0]
    if len(samples) >= FEWEST_OF_A_PART and 2 * count >= len(samples):
        yield f"{count:,} of {len(samples):,} labels are {quote(label)}"


def _counting(samples: Sequence[Sample]) -> Iterator[str]:
    """Yield a note if labels such as `1` or `img1` number the images, at least of each folder."""
    runs: defaultdict[tuple[str, ...], list[tuple[list[int], int, str]]] = defaultdict(list)
    for sample in samples:
        if len(numbers := NUMBER.findall(sample.label)) == 1:
            folder, _, name = sample.key.rpartition("/")
            place = [int(number) for number in NUMBER.findall(name)]
            texts = NUMBER.sub("#", name), NUMBER.sub("#", sample.label)
            runs[folder, *texts].append((place, int(numbers[0]), sample.label))
    counting = list[str]()
    for run in runs.values():
        numbers = [number for _, number, _ in sorted(run)]
        rises = all(first < second for first, second in pairwise(numbers))
        if rises and len(run) >= FEWEST and numbers[-1] - numbers[0] < 2 * len(run):
            counting += (label for _, _, label in sorted(run))
    if 2 * len(counting) >= len(samples) and counting:
        shown = ", ".join(map(quote, counting[:3]))
        yield f"labels only count up in the order of the images, as numbers of files do: {shown} and so on"


def _names_of_files(samples: Sequence[Sample], named_by_files: bool) -> Iterator[str]:
    if named_by_files or len(samples) < FEWEST:
        return
    found: defaultdict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        label, name = sample.label, sample.key.rpartition("/")[2]
        stem = name.rpartition(".")[0] or name
        if label in (name, stem, sample.key):
            found["is its file's name"].append(sample)
        elif label.isdecimal() and int(label[:18]) in map(int, NUMBER.findall(stem)):
            found["is the number in its file's name"].append(sample)
        elif name in label:
            found["contains its file's name"].append(sample)
    for sign, those in found.items():
        if len(those) >= MOST * len(samples):
            every = _every(len(those), len(samples))
            yield f"{every} label {sign}, such as {quote(those[0].label)} of {quote(those[0].key)}"


def _patterns(labels: Sequence[str]) -> Iterator[str]:
    for sign, pattern in ANY:
        if those := _matching(labels, pattern):
            yield f"labels that {sign}: {len(those):,}, such as {quote(those[0])}"
    for sign, pattern in NEARLY_ALL:
        those = _matching(labels, pattern)
        if len(labels) >= FEWEST and len(those) >= MOST * len(labels):
            yield f"{_every(len(those), len(labels))} label {sign}, such as {quote(those[0])}"


def _matching(labels: Iterable[str], pattern: str) -> list[str]:
    matches = re.compile(pattern, re.IGNORECASE | re.DOTALL).fullmatch
    return [label for label in labels if matches(label)]


def _edges(labels: Sequence[str]) -> Iterator[str]:
    if len(labels) < FEWEST:
        return
    for verb, edges in (
        ("begins with", [label[:1] for label in labels]),
        ("ends with", [label[-1:] for label in labels]),
    ):
        edge, count = Counter(edges).most_common(1)[0]
        if count >= MOST * len(labels) and edge in EDGES:
            yield f"{_every(count, len(labels))} label {verb} {edge!r}"


def _common_parts(labels: Sequence[str]) -> Iterator[str]:
    """Yield a note if all labels share more than chance lets them: a prefix such as captcha, a time in seconds."""
    if len(set(labels)) < FEWEST_OF_A_PART:
        return
    start = commonprefix(labels)  # noqa: RUF071 - by characters, as labels are no paths
    end = commonprefix([label[::-1] for label in labels])[::-1]  # noqa: RUF071
    for verb, part in (("begins with", start), ("ends with", end)):
        if len(part) >= LONG_PART:
            yield f"every label {verb} {quote(part)}"


def _every(count: int, total: int) -> str:
    return "every" if count == total else "nearly every"


def _headers(samples: Sequence[Sample]) -> Iterator[str]:
    for row, sample in enumerate(samples):
        header = sample.label.strip().lower() in HEADER_WORDS
        if header and (row == 0 or splitext(basename(sample.key))[0].lower() in HEADER_WORDS):
            yield f"{quote(sample.key)} with label {quote(sample.label)} looks like the header of a table"


def _encodings(labels: Sequence[str]) -> Iterator[str]:
    if replaced := [label for label in labels if "\ufffd" in label]:
        yield (
            f"labels with U+FFFD, which replaces what could not be decoded: {len(replaced):,}, such as "
            f"{quote(replaced[0])}"
        )
    garbled = [(label, right) for label in labels if not label.isascii() and (right := _decoded_again(label))]
    if garbled:
        label, right = garbled[0]
        yield (
            f"labels that look like UTF-8 read in another encoding: {len(garbled):,}, such as {quote(label)}, which "
            f"may be {quote(right)}"
        )


def _decoded_again(label: str) -> str:
    """Return a label whose UTF-8 was read as Latin-1 or Windows-1252, as it was; empty if it was not."""
    for encoding in ("cp1252", "latin-1"):
        try:
            return label.encode(encoding).decode("utf-8")
        except UnicodeError:
            continue
    return ""


def _lost_zeros(labels: Sequence[str]) -> Iterator[str]:
    """Yield a note if numbers of nearly one length never begin with 0, but some are shorter: 0042 became 42."""
    lengths = Counter(map(len, labels))
    longest = max(lengths)
    numbers = all(label.isascii() and label.isdecimal() for label in labels)
    if not numbers or len(labels) < 50 or len(lengths) == 1 or lengths[longest] < 0.8 * len(labels):
        return
    if not any(label.startswith("0") and len(label) > 1 for label in labels):
        yield (
            f"no label begins with 0, and {len(labels) - lengths[longest]:,} of {len(labels):,} are shorter than "
            f"{longest} digits: a spreadsheet removes zeros in front"
        )


def _other_forms(samples: Sequence[Sample]) -> Iterator[str]:
    """Yield a note per split whose labels all differ from those of train in their kinds of characters or in length."""
    forms = {split: [(_form(s.label), len(s.label), s.label) for s in samples if s.split == split] for split in SPLITS}
    trained = forms["train"]
    if len(trained) < FEWEST_OF_A_PART:
        return
    kinds, lengths = {kind for kind, _, _ in trained}, [length for _, length, _ in trained]
    for split in SPLITS[1:]:
        part = forms[split]
        if len(part) < FEWEST_OF_A_PART:
            continue
        other = kinds.isdisjoint(kind for kind, _, _ in part)
        longer = min(length for _, length, _ in part) > max(lengths)
        shorter = max(length for _, length, _ in part) < min(lengths)
        if other or longer or shorter:
            what = "longer than" if longer else "shorter than" if shorter else "of another form than"
            examples = f"{quote(part[0][2])}, in train {quote(trained[0][2])}"
            yield f"labels of {split} are all {what} those of train: {examples}"


def _form(label: str) -> frozenset[str]:
    """Return the kinds of characters in a label."""
    return frozenset(map(_kind, label))


@cache
def _kind(character: str) -> str:
    if character.isdecimal():
        return "digit"
    return "upper" if character.isupper() else "letter" if character.isalpha() else "other"
