"""Which column of a table holds file names, and which holds labels."""

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from .formats import Field, Record

_NAMES = """filename file files image images img imgs path key id name fname imagefile imagefilename imageid imageids
    imagename imagepath imagepaths imgfile imgid imgname imgpath filepath filepaths filenames relativepath relpath"""
_LABELS = """label labels text texts word words transcription transcriptions transcript transcripts gt gttext gts
    groundtruth groundtruthtext caption captions identity value values plate platenumber platetext licenseplate solution
    solutions captcha captchatext answer code string sentence content target truth ocr ocrtext annotation latex formula
    imagetext imagelabel"""
NAME_HEADERS, LABEL_HEADERS = set(_NAMES.split()), set(_LABELS.split())
HEAD = 100  # records by which columns are recognized


class Columns(NamedTuple):
    """The positions of the columns, from 0; None and a reason where they cannot be told."""

    name: int | None
    label: int | None
    problem: str = ""


def find_columns(
    header: Sequence[str] | None,
    head: Sequence[Record],
    image_of: Callable[[Field], str | None],
    name_column: str | None,
    label_column: str | None,
) -> Columns:
    """Return the columns of names and labels: those the options name, else known headers if one reading is possible.

    Args:
        header: the first record of the table; None if it has no header.
        head: the first records after the header.
        image_of: the image that a field names, or None.
        name_column: the option: a header, or the number of a column if there is no header.
        label_column: the same for labels.
    """
    width = len(header if header is not None else head[0].fields)
    names = [*map(str, range(1, width + 1))] if header is None else list(header)
    listed = f"its columns: {', '.join(names)}" if header is not None else f"it has {width} columns and no header"
    if name_column is not None:
        name, problem = _position(name_column, names, "name_column", listed)
    elif header is None:
        name = next((at for at, field in enumerate(head[0].fields) if image_of(field)), 0)
        problem = (
            "" if name == 0 else f"{listed}, and column {name + 1} names images; set dataset.name_column to say so"
        )
    else:
        name, problem = _guess_name(names, head, image_of, listed)
    if label_column is not None:
        label, label_problem = _position(label_column, names, "label_column", listed)
    elif header is None:
        others = [at for at in range(width) if at != name]
        label = others[0] if len(others) == 1 else None
        label_problem = (
            "" if len(others) == 1 else f"{listed}; set dataset.label_column to the number of the column of labels"
        )
    else:
        known = [at for at, text in enumerate(names) if _plain(text) in LABEL_HEADERS and at != name]
        label = known[0] if len(known) == 1 else None
        label_problem = _several(known, names, "labels", "label_column", listed)
    if name is not None and name == label:
        return Columns(name, None, "name_column and label_column are the same column")
    return Columns(name, label, problem or label_problem)


def is_header(fields: Sequence[Field]) -> bool:
    """Return whether a field is a known header of a column."""
    return any(isinstance(field, str) and _plain(field) in NAME_HEADERS | LABEL_HEADERS for field in fields)


def _position(column: str, names: Sequence[str], option: str, listed: str) -> tuple[int | None, str]:
    found = [at for at, text in enumerate(names) if text == column]
    found = found or [at for at, text in enumerate(names) if _plain(text) == _plain(column)]
    if len(found) == 1:
        return found[0], ""
    return (
        None,
        f"it has {len(found) or 'no'} column{'s' * (len(found) > 1)} {column!r}, as dataset.{option} says; {listed}",
    )


def _guess_name(
    names: Sequence[str], head: Sequence[Record], image_of: Callable[[Field], str | None], listed: str
) -> tuple[int | None, str]:
    """Return the column with a known header, verified by content if there are several, or that of image files."""
    known = [at for at, text in enumerate(names) if _plain(text) in NAME_HEADERS]
    images = {
        at: [image_of(record.fields[at]) for record in head if at < len(record.fields)] for at in range(len(names))
    }
    if len(known) > 1:
        named = [at for at in known if images[at] and None not in images[at]]
        if named and all(images[at] == images[named[0]] for at in named):
            return named[0], ""
    elif not known:
        known = [at for at in range(len(names)) if images[at] and None not in images[at]]
        known = [at for at in known if _plain(names[at]) not in LABEL_HEADERS]
    return (known[0] if len(known) == 1 else None), _several(known, names, "file names", "name_column", listed)


def _several(known: Sequence[int], names: Sequence[str], what: str, option: str, listed: str) -> str:
    if len(known) == 1:
        return ""
    if known:
        found = " or ".join(repr(names[at]) for at in known)
        if len({names[at] for at in known}) == 1:
            return f"{len(known)} columns are called {names[known[0]]!r}; rename one"
        return f"the {what} could be in {found}; set dataset.{option} to one of them"
    return f"no header is known to be that of {what}; set dataset.{option}; {listed}"


def _plain(text: str) -> str:
    return re.sub(r"[\s_.-]+", "", text).casefold()
