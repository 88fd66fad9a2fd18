"""List files, such as `train.txt`: the names of the images of one part, and no labels."""

import json
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from posixpath import basename, splitext
from typing import NamedTuple, TypeGuard

from decoderbench import DataError

from .files import first_names, read_text, show, suffix_of
from .names import ImageNames
from .split_words import word_in

SUFFIXES = {".txt", ".lst", ".list", ".csv", ".tsv", ".json", ""}


class Lists(NamedTuple):
    """What list files say about images."""

    naming: Mapping[str, Sequence[str]] = {}  # for each image, the lists that name it
    notes: Sequence[str] = ()
    problem: str = ""  # why the lists cannot be followed


def read_lists(root: Path, files: Iterable[str], names: ImageNames, tables: Collection[str]) -> Lists:
    """Return which images are named in the list files of a folder.

    A list file has the name of a part, holds no labels, and names at least one image, by name or without suffix.

    Args:
        root: the folder of the dataset.
        files: all files in it, by name relative to it.
        names: the images.
        tables: the files that hold labels.
    """
    entries: dict[str, list[str]] = {}
    notes, problem = [], ""
    for file in sorted(files):
        stem = splitext(basename(file))[0]
        if (
            suffix_of(file) in SUFFIXES
            and (word_in(stem) or _is_called_splits(file))
            and file not in tables
            and not names.find(stem, file)
        ):
            try:
                entries |= _entries_of(root / file, file)
            except DataError as error:
                notes.append(f"not read as the list of a split: {error}")
    naming, unknown = defaultdict[str, list[str]](list), []
    words = {word_in(basename(file)) for file in entries}
    for file, listed in entries.items():
        if word_in(basename(file)) == "trainval" and {"train", "val"} <= words:
            continue  # the union of the others
        found = {entry: names.find(entry, file) for entry in listed}
        several = [
            f"{show(entry)} may be {' or '.join(sorted(images)[:3])}"
            for entry, images in found.items()
            if len(images) > 1
        ]
        if several:
            problem = problem or f"{file}: {several[0]}; write the folder too"
        if missing := [entry for entry, images in found.items() if not images]:
            inside = _images_in(missing, names.images)
            found |= inside
            missing = [entry for entry in missing if not inside[entry]]
        if len(missing) == len(found):
            unknown.append(file)
        elif missing and not (suffix_of(file) in (".csv", ".tsv") and missing == listed[:1]):  # not a header
            notes.append(f"{file} names {len(missing):,} files that are not there ({first_names(missing, 3)})")
        for image in {image for images in found.values() for image in images}:
            naming[image].append(file)
    if len({word_in(basename(file)) for file in unknown}) > 1:
        lists = " and ".join(unknown)
        problem = problem or f"{lists} are called like lists of a split, but name no image; correct them"
    notes += [f"{file} is called like the list of a split, but names no image" for file in unknown]
    return Lists(naming, notes, problem)


def _images_in(folders: Collection[str], images: Iterable[str]) -> dict[str, list[str]]:
    """Return the images in each folder, given by its name or its path."""
    found: dict[str, list[str]] = {folder: [] for folder in folders}
    for image in images:
        parts = image.split("/")[:-1]
        for name in {*parts, *("/".join(parts[: end + 1]) for end in range(len(parts)))} & found.keys():
            found[name].append(image)
    return found


def assigns_parts(path: Path) -> bool:
    """Return whether a file, called `splits` or the like, says the part of each image and nothing else."""
    if not _is_called_splits(path.stem) or suffix_of(path.name) not in SUFFIXES:
        return False
    try:
        return bool(_by_part(read_text(path), path.name))
    except DataError:
        return False


def _is_called_splits(stem: str) -> bool:
    return bool({"split", "splits", "partition", "partitions"} & {*re.findall("[a-z]+", stem.lower())})


def _entries_of(path: Path, file: str) -> dict[str, list[str]]:
    """Return the names in a file by the list that they are in: the file, or a part in it."""
    text = read_text(path)
    if _is_called_splits(path.stem) and (lists := _by_part(text, file)):
        return lists
    if suffix_of(file) == ".json":
        value = _parse_json(text, file)
        return {file: value} if _is_names(value) else {}
    mark = "," if suffix_of(file) == ".csv" else "\t"  # what follows it is of no interest here
    return {file: [line.split(mark)[0].strip(' "\r') for line in text.split("\n") if line.strip()]}


def _by_part(text: str, file: str) -> dict[str, list[str]]:
    """Return the names that a text assigns to parts, in lines such as `a.png,train` or in JSON, by file and part."""
    lists: dict[str, list[str]] = {}
    if suffix_of(file) == ".json":
        value = _parse_json(text, file)
        if not isinstance(value, dict):
            return {}
        if all(isinstance(part, str) and word_in(part) for part in value.values()):
            for name, part in value.items():
                lists.setdefault(f"{file} {part}", []).append(name)
            return lists
        return {f"{file} {part}": names for part, names in value.items() if word_in(part) and _is_names(names)}
    for number, line in enumerate(filter(None, map(str.strip, text.split("\n")))):
        match = re.fullmatch(r'"?(.+?)"?[,;\t ]\s*"?([^,;\t"]+)"?', line)
        if match and word_in(match[2]):
            lists.setdefault(f"{file} {match[2]}", []).append(match[1])
        elif number > 0:  # the first line may be a header
            return {}
    return lists


def _parse_json(text: str, file: str) -> object:
    try:
        return json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise DataError(f"{file} is not JSON: {error}") from error


def _is_names(value: object) -> TypeGuard[list[str]]:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)
