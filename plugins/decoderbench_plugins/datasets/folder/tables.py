"""Tables of file names and labels: how one is recognized, and its rows."""

import json
import re
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from posixpath import basename, dirname, normpath
from typing import NamedTuple

from decoderbench import DataError

from .columns import HEAD, Columns, find_columns, is_header
from .files import looks_like_image, show
from .formats import Content, Field, NotText, Record, read_contents
from .labels import Row
from .names import ImageNames
from .split_words import word_in

TWO_FIELDS = {
    "first tab": "file name, tab, label",
    "quotes": "file name, comma, label in quotes",
    "blank": "file name, blank, label",
    "json": "file name: label",
}


class Table(NamedTuple):
    """A file of labels: how to read it, or why it cannot be read."""

    file: str  # relative to the root
    content: Content | None = None
    header: Sequence[str] | None = None
    columns: Columns = Columns(None, None)
    named: int = 0  # how many of the first records name an image
    seen: int = 0  # number of those first records
    problem: str = ""  # why it cannot be read; empty if it can

    def describe(self) -> str:
        """Return how the file is read, for people, such as "columns file and text"."""
        assert self.content is not None
        if self.header is not None:
            return f"columns {self._column(self.columns.name)} and {self._column(self.columns.label)}"
        return TWO_FIELDS.get(self.content.form, f"file name, {self.content.form}, label")

    def _column(self, at: int | None) -> str:
        return self.header[at] if self.header is not None and at is not None else "?"


def open_table(
    root: Path,
    file: str,
    names: ImageNames,
    *,
    name_column: str | None = None,
    label_column: str | None = None,
    form: str | None = None,
) -> Table:
    """Return how to read a file of labels; if that cannot be told, a `Table` with a `problem`.

    Of all ways to split the file into fields, the one is chosen by which its first records name most images.

    Args:
        root: the folder of the dataset.
        file: name of the file, relative to the root.
        names: the images.
        name_column: the option of the same name.
        label_column: the option of the same name.
        form: the only way to read it, if given: "first tab" for example.
    """

    try:
        contents = read_contents(root / file)
    except DataError as error:
        return Table(file, problem=str(error))
    found = [
        (rank, table)
        for content in contents
        if form in (None, content.form)
        for rank, table in [_interpret(file, content, names, name_column, label_column, forced=form is not None)]
    ]
    return max(found, key=lambda pair: pair[0])[1] if found else Table(file, problem="it is not read")


def read_rows(table: Table, names: ImageNames, problems: list[str]) -> Iterator[Row]:
    """Yield the labeled images of a table.

    Records with another number of fields, with a name or label that is not text, or with an ambiguous name are added
    to `problems`.

    Raises:
        DataError: the file cannot be split into records, or has two columns of one name.
    """
    file, header, (name_at, label_at, _) = table.file, table.header, table.columns
    assert table.content is not None
    assert name_at is not None
    assert label_at is not None
    width = None if header is None else len(header)
    records = iter(table.content.read())
    if header is not None:
        if twice := [column for column in header if column and header.count(column) > 1]:
            raise DataError(f"{file} has several columns {twice[0]!r}; its columns: {', '.join(header)}; rename one")
        next(records)
    for number, fields in records:
        place = f"{file} {number}"
        width = width or len(fields)
        if len(fields) != width:
            other = "the header" if header is not None else "the first line"
            problems.append(f"{place} has a different number of fields than {other}; quote fields with delimiters")
            continue
        name, label = fields[name_at], fields[label_at]
        if isinstance(name, NotText) or isinstance(label, NotText):
            what, field = ("file name", name) if isinstance(name, NotText) else ("label", label)
            problems.append(f"{place}: the {what} is {field}, not text; correct the table")
            continue
        images = names.find(name, file)
        if len(images) > 1 and (part := word_in(basename(file))):  # train.csv names what is below train/
            images = [one for one in images if part in map(word_in, dirname(one).split("/"))] or images
        if len(images) > 1:
            same_folder = len({dirname(image) for image in images}) == 1
            move = "write the suffix too" if same_folder else "write the folder too, or set dataset.images"
            problems.append(f"{place}: {show(name)} could be {' or '.join(map(repr, images[:3]))}; {move}")
            continue
        columns = {} if header is None else dict(zip(header, map(str, fields), strict=True))
        yield Row(images[0] if images else normpath(name), label, place, file, columns)


def _interpret(
    file: str, content: Content, names: ImageNames, name_column: str | None, label_column: str | None, *, forced: bool
) -> tuple[tuple[int, bool, bool], Table]:
    """Return one way to read a file, and its rank: by the images named, by a known start, by fields of equal number."""

    def image_of(field: Field) -> str | None:
        found = names.find(field, file) if isinstance(field, str) else []
        return found[0] if found and looks_like_image(found[0]) else None

    records, error = _read_head(content)
    if (error and not records and (forced or content.form not in TWO_FIELDS)) or (content.form == "json" and error):
        return (0, False, False), Table(file, content, problem=error)
    if not records or len(records[0].fields) < 2:
        return (-1, False, False), Table(file, content, problem="it is no table of file names and labels")
    first = records[0].fields
    starts_with_image = any(looks_like_image(str(field)) for field in first)
    starts_with_image = starts_with_image or (not is_header(first) and any(map(image_of, first)))
    has_header = content.header
    if has_header is None:
        has_header = content.form not in TWO_FIELDS and not starts_with_image
    header = [field if isinstance(field, str) else "" for field in first] if has_header else None
    body = records[1:] if has_header else records
    columns = find_columns(header, body, image_of, name_column, label_column) if body or header else Columns(0, 1)
    at = range(len(first)) if columns.name is None else [columns.name]
    named = max(sum(image_of(field) is not None for field in _column(body, each)) for each in at)
    problem = error or columns.problem
    labels = [] if columns.label is None else _column(body, columns.label)
    if not forced and content.form in ("first tab", "blank") and _has_columns(content.form, labels):
        named, problem = 0, "it has more than two columns and no header; set dataset.labels_file to one with a header"
    if labels and all(map(_is_detection, labels)):
        problem = "its labels are lists, as of text detection; crop the words first"
    known = starts_with_image if header is None else is_header(first)
    even = not error and len({len(record.fields) for record in records}) == 1
    even = even and not any(isinstance(label, NotText) for label in labels)
    return (named, known, even), Table(file, content, header, columns, named, len(body), problem)


def _has_columns(form: str, labels: Sequence[Field]) -> bool:
    """Return whether labels are several columns: all with the same number of tabs, or of blanks around numbers."""
    parts = [str(label).split("\t" if form == "first tab" else " ") for label in labels]
    if len(labels) < 2 or len({len(fields) for fields in parts}) > 1 or len(parts[0]) < 2:
        return False
    columns = [*zip(*parts, strict=True)]
    numbers = sum(all(map(str.isdecimal, column)) for column in columns)
    scores = any(all(re.fullmatch(r"[0-9]*[.][0-9]+", field) for field in column) for column in columns)
    return form == "first tab" or numbers > 1 or scores


def _is_detection(label: Field) -> bool:
    """Return whether a label is a list of words and their places in JSON."""
    try:
        value = json.loads(str(label)) if str(label).startswith(("[{", "[[")) else None
    except (json.JSONDecodeError, RecursionError):
        return False
    return isinstance(value, list) and bool(value) and bool(value[0])


def _column(records: Sequence[Record], at: int) -> list[Field]:
    return [record.fields[at] for record in records if len(record.fields) > at]


def _read_head(content: Content) -> tuple[list[Record], str]:
    """Return the first records, up to the first that cannot be read, and why it cannot."""
    records: list[Record] = []
    try:
        records.extend(islice(content.read(), HEAD + 1))  # keeps what comes before an error
    except DataError as error:
        return records, str(error)
    return records, ""
