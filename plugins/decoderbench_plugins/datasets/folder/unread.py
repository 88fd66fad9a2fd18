"""Files that look like label tables: to be read, or to be named where they are not."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from posixpath import basename, splitext
from typing import NamedTuple

from decoderbench import ARCHIVE_SUFFIXES

from .files import suffix_of
from .formats import SUFFIXES, TEXT_SUFFIXES
from .names import ImageNames
from .split_words import word_in

SPREADSHEETS = {".xlsx", ".xlsm", ".xls", ".ods", ".numbers"}
DATABASES = {".mdb", ".lmdb", ".tfrecord", ".tfrecords", ".arrow", ".feather", ".sqlite", ".sqlite3", ".db", ".rec"}
_OTHERS = """.xml .mat .npy .npz .pkl .pickle .yaml .yml .toml .h5 .hdf5 .html .hocr .odt .docx .rtf .dat
    .orc .avro .idx .box .lab .gt"""
_LABELS = """label labels gt gts groundtruth truth annotation annotations transcription transcriptions transcript
    transcripts metadata caption captions solution solutions answer answers result results text texts words"""
_NO_LABELS = """readme license licence copying notice changelog citation authors requirements charset charsets chars
    characters alphabet vocab vocabulary dict dictionary keys lexicon coords classes names fonts pyproject"""
SYSTEM_FILES = {"thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini"}  # of Windows, in any folder of images
UNREAD_SUFFIXES = SPREADSHEETS | DATABASES | ARCHIVE_SUFFIXES | set(_OTHERS.split())
LABEL_WORDS, NO_LABELS = set(_LABELS.split()), set(_NO_LABELS.split())
MAX_SCANNED = 64 * 2**20
SEPARATORS = re.compile(rb"[\s\"'<>,;:|=\[\](){}\0]+")


def words_of(file: str) -> set[str]:
    """Return the words in the name of a file, in lower case and without its suffix."""
    return set(re.findall(r"[^\W\d_]+", splitext(basename(file))[0].lower()))


def may_hold_labels(file: str) -> bool:
    """Return whether a file has the kind and the name of a file that may hold labels."""
    suffix = suffix_of(file)
    if basename(file).lower() in SYSTEM_FILES:
        return False
    if suffix == "" and not words_of(file) & LABEL_WORDS and word_in(basename(file)) is None:
        return False
    return suffix in SUFFIXES | UNREAD_SUFFIXES and not words_of(file) & NO_LABELS


def is_called_labels(file: str) -> bool:
    """Return whether a file is called as labels are."""
    return bool(words_of(file) & LABEL_WORDS) or "groundtruth" in basename(file).lower().replace("_", "")


class Sidecars(NamedTuple):
    """Files of one suffix that have the names of images."""

    suffix: str
    files: list[str]


def find_sidecars(files: Iterable[str], images: Iterable[str]) -> list[Sidecars]:
    """Return the files that may hold the label of the image with the same name, such as `a.txt` of `a.png`."""
    names = {name for image in images for name in (basename(image), splitext(basename(image))[0])}
    found: dict[str, list[str]] = {}
    for file in sorted(files):
        suffix = ".gt.txt" if file.lower().endswith(".gt.txt") else suffix_of(file)
        if suffix in SUFFIXES | UNREAD_SUFFIXES | {".gt.txt"} and suffix:
            name = basename(file)[: -len(suffix)]
            if name in names or name.removeprefix("gt_") in names:
                found.setdefault(suffix, []).append(file)
    return [Sidecars(suffix, those) for suffix, those in found.items()]


def is_list_of_names(root: Path, file: str, names: ImageNames) -> bool:
    """Return whether a file holds names of images and nothing else, as lists of a split do."""
    text = _read_start(root / file).decode("utf-8-sig", errors="replace")
    entries: Sequence[object] = []
    if suffix_of(file) == ".json":
        with suppress(json.JSONDecodeError, RecursionError):
            value = json.loads(text)
            lists = list(value.values()) if isinstance(value, dict) else [value]
            entries = [name for one in lists if isinstance(one, list) for name in one]
    elif suffix_of(file) in TEXT_SUFFIXES:
        entries = [line.strip() for line in text.split("\n") if line.strip()]
    return 2 * sum(isinstance(one, str) and bool(names.find(one, file)) for one in entries) > len(entries)


def mentions_images(root: Path, file: str, names: ImageNames, basenames: Mapping[bytes, str]) -> bool:
    """Return whether the bytes of a file hold the name of an image."""
    data = _read_start(root / file)
    tokens = {token.replace(b"\\", b"/").rpartition(b"/")[2] for token in SEPARATORS.split(data)}
    if not tokens.isdisjoint(basenames) or any(one.encode() in data for one in map(basename, names.images[:20])):
        return True
    stems = {one.rpartition(b".")[0] for one in basenames}
    return 2 * len(tokens & stems) > len(stems)


def _read_start(file: Path) -> bytes:
    try:
        if not file.is_file():
            return b""  # a pipe would block
        with file.open("rb") as stream:
            return stream.read(MAX_SCANNED)
    except OSError:
        return b""
