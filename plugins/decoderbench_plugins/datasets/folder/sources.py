"""Where the labels of a folder are: what the options ask for, or the only tables, sidecar files or names there."""

import re
from collections.abc import Sequence
from pathlib import Path
from posixpath import basename, dirname, splitext
from typing import TYPE_CHECKING, NamedTuple

from decoderbench import ARCHIVE_SUFFIXES, DataError

from .file_names import find_doubt, find_lexicon, list_readings
from .files import Tree, find_problem, is_image, list_some, suffix_of
from .formats import SUFFIXES, Number
from .labels import Progress, Report, Row, read_file_names, read_folder_names, read_sidecars, sidecars_of
from .names import ImageNames
from .split_lists import assigns_parts
from .split_words import word_in
from .tables import Table, open_table, read_rows
from .unread import (
    DATABASES,
    SPREADSHEETS,
    find_sidecars,
    is_called_labels,
    is_list_of_names,
    may_hold_labels,
    mentions_images,
)

if TYPE_CHECKING:
    from .dataset import Folder

TAB_FILES = ("labels.txt", "labels.tsv", "label.txt", "gt.txt")
USUAL_STEMS = {"labels", "label", "gt", "metadata"}  # of a table in the root that comes before all others
SHOWN = 5  # files listed in a message


class Place(NamedTuple):
    """A folder of labeled images and the files in it."""

    root: Path
    folder: Path  # of images
    tree: Tree  # of the root
    images: Tree  # of the folder of images
    names: ImageNames


class Source(NamedTuple):
    """The labeled images of a folder, and where the labels were found."""

    rows: list[Row]
    description: str  # for people
    files: frozenset[str] = frozenset()  # that were read, relative to the root, or to the folder of images for sidecars
    notes: tuple[str, ...] = ()
    unread: frozenset[str] = frozenset()  # files that look like labels and are named in a note


def find_labels(config: "Folder.Config", place: Place, progress: Progress, report: Report) -> Source:
    """Return the labels that the options ask for; `report` is called with problems that leave other labels usable.

    Raises:
        DataError: there are none, a table cannot be read, or with `labels = "auto"` it cannot be told which are meant.
    """
    kind = config.labels
    if config.labels_file:
        form = {"csv": "comma", "tab": "first tab"}.get(kind)
        return _read_tables([_open(config, place, file, form=form) for file in config.labels_file], place, report)
    if kind == "csv":
        file = _actual(place, "labels.csv") or "labels.csv"
        return _read_tables([_open(config, place, file, "filename", "label", form="comma")], place, report)
    if kind == "tab":
        file = next(filter(None, (_actual(place, name) for name in TAB_FILES)), TAB_FILES[0])
        return _read_tables([_open(config, place, file, form="first tab")], place, report)
    if kind in ("gt_txt", "txt"):
        return _read_sidecars(place, f".{kind.replace('_', '.')}", progress, report)
    if kind == "folder":
        return Source(list(read_folder_names(filter(is_image, place.images.files), report)), "names of folders")
    if kind == "filename":
        return _read_names(config, place, report)
    return _choose(config, place, progress, report)


def _choose(config: "Folder.Config", place: Place, progress: Progress, report: Report) -> Source:
    sidecars = find_sidecars(place.tree.files, place.names.images)
    tables, unread = _find_tables(config, place, {file for found in sidecars for file in found.files})
    gt_files = sidecars_of(place.images.files, ".gt.txt")
    if tables and gt_files:
        raise DataError(
            f"{place.root} has labels in {_list([table.file for table in tables])} and in {len(gt_files):,} .gt.txt "
            'files; set dataset.labels = "table" or "gt_txt" to say which to read'
        )
    if tables:
        source, others = _pick(tables, place, report)
        if config.labels == "auto" and (doubt := find_lexicon(source.rows)):
            raise DataError(f'{source.description}: {doubt}, or dataset.labels = "table" to keep these labels')
        unread = {**dict.fromkeys(others, "which names images too"), **unread}
    elif config.labels == "table":
        reasons = "".join(f"\n  {file}: {reason}" for file, reason in list(unread.items())[:SHOWN])
        raise DataError(f"{place.root} has no table of file names and labels; set dataset.labels_file{reasons}")
    elif gt_files:
        source = _read_sidecars(place, ".gt.txt", progress, report)
    else:
        for suffix, files in sidecars:
            move = '; dataset.labels = "txt" reads a.txt beside a.png' if suffix == ".txt" else ""
            unread[files[0]] = f"{len(files):,} {suffix} files have names of images{move}"
        if unread and place.names.images:
            listed = "".join(f"\n  {file}: {reason}" for file, reason in list(unread.items())[:SHOWN])
            raise DataError(
                f"{place.root}: labels would come from the file names, but files that look like labels are not read; "
                f'set dataset.labels_file to the table, or dataset.labels = "filename" to use the file names:{listed}'
            )
        return _read_names(config, place, report)
    if not unread:
        return source
    listed = ", ".join(f"{file} ({reason})" for file, reason in list(unread.items())[:SHOWN])
    more = f" and {len(unread) - SHOWN:,} more" if len(unread) > SHOWN else ""
    note = f"files that look like labels and are not read: {listed}{more}"
    return source._replace(notes=(*source.notes, note), unread=frozenset(unread))


def _find_tables(config: "Folder.Config", place: Place, sidecars: set[str]) -> tuple[list[Table], dict[str, str]]:
    """Return the tables that can be read, and the other files that look like labels, each with a reason."""
    names = place.names
    basenames = {basename(name).encode(errors="replace"): name for name in names.images}
    tables, unread = [], dict[str, str]()
    prefix = _prefix(place)
    for file in sorted(place.tree.files, key=lambda file: (file.count("/"), file)):
        usual = _is_usual(file, prefix)
        if not may_hold_labels(file) or file.lower().endswith(".gt.txt"):
            continue
        if not place.tree.files[file]:
            if is_called_labels(file):
                unread[file] = find_problem(place.root, file, follow_links=config.follow_links) or "is a link"
            continue
        if (file in sidecars and not usual) or assigns_parts(place.root / file):
            continue
        suffix = suffix_of(file)
        readable = suffix in SUFFIXES
        table = _open(config, place, file) if readable else Table(file, problem=f"{suffix} files are not read")
        few = not usual and 2 * table.named < max(table.seen, 1)
        if not table.problem and not few:
            tables.append(table)
            continue
        if is_list_of_names(place.root, file, names):
            continue
        if usual and readable and suffix_of(file) != "" and table.problem and splitext(basename(file))[0] != "metadata":
            if "set dataset." in table.problem:
                raise DataError(_with_file(table))
            raise DataError(
                f"{_with_file(table)}; correct it, set dataset.labels_file to the table, or "
                'dataset.labels = "filename" to use the file names'
            )
        few_named = f"only {table.named} of its first {table.seen} records name an image that is here"
        problem = table.problem or (few_named if table.named else "it is no table of file names and labels")
        binary = not readable or "not UTF-8" in problem
        told = binary and suffix not in ARCHIVE_SUFFIXES and word_in(basename(file)) is not None
        called = is_called_labels(file) or told
        certain = suffix in SPREADSHEETS | DATABASES | {".parquet"}
        if called or certain or mentions_images(place.root, file, names, basenames):
            unread[file] = problem.removeprefix(f"{place.root / file} ")
    return tables, unread


def _pick(tables: Sequence[Table], place: Place, report: Report) -> tuple[Source, list[str]]:
    """Return the labels of the one table, or the one series of tables, that labels the images, and the tables left."""
    series: dict[tuple[object, ...], list[Table]] = {}
    for table in tables:
        series.setdefault(_series_of(table), []).append(table)
    if len(series) == 1:
        return _read_tables(tables, place, report), []
    prefix = _prefix(place)
    usual = [group for group in series.values() if any(_is_usual(table.file, prefix) for table in group)]
    if len(usual) == 1:
        chosen = usual[0]
        others = [table for table in tables if table not in chosen]
        source, bad = _read_tables(chosen, place, report), list[str]()
        named = {row.name for row in source.rows}
        told = any(word_in(basename(table.file)) for table in others)  # the split
        if not told and all(row.name in named for table in others for row in read_rows(table, place.names, bad)):
            return source, [table.file for table in others]
    raise DataError(
        f"{place.root} has several tables of labels: {_list([table.file for table in tables])}; "
        "set dataset.labels_file to the one to read, or to a list of them"
    )


def _series_of(table: Table) -> tuple[object, ...]:
    """Return what the tables of one data set have in common: all but a split and numbers in the file names."""
    stem = splitext(basename(table.file))[0].lower()
    words = [word for word in re.split(r"[\W\d_]+", stem) if word_in(word) is None]
    header = None if table.header is None else tuple(table.header)
    return tuple(words), suffix_of(table.file), header, table.columns


def _read_tables(tables: Sequence[Table], place: Place, report: Report) -> Source:
    for table in tables:
        if table.problem:
            raise DataError(_with_file(table))
    rows, problems = list[Row](), list[str]()
    for table in tables:
        try:
            rows += read_rows(table, place.names, problems)
        except DataError as error:
            problems.append(str(error))
    if problems:
        report(list_some(problems, "rows of labels cannot be read"))
    numbers = [row for row in rows if isinstance(row.label, Number)]
    notes: tuple[str, ...] = ()
    if numbers:
        notes = (
            "labels that are numbers in the table, read as they are shown there (zeros typed at their start are lost): "
            f"{len(numbers):,} ({numbers[0].place}: {numbers[0].label})",
        )
        rows = [row._replace(label=str(row.label)) for row in rows]
    groups: dict[str, list[str]] = {}
    for table in tables:
        groups.setdefault(table.describe(), []).append(table.file)
    description = "; ".join(f"{_list(files)} ({how})" for how, files in groups.items())
    return Source(rows, description, frozenset(table.file for table in tables), notes)


def _read_sidecars(place: Place, suffix: str, progress: Progress, report: Report) -> Source:
    rows = list(read_sidecars(place.folder, place.images.files, suffix, progress, report))
    return Source(rows, f"{len(rows):,} {suffix} files beside the images", frozenset(row.table for row in rows))


def _read_names(config: "Folder.Config", place: Place, report: Report) -> Source:
    pattern = config.filename_pattern
    rows = list(read_file_names(filter(is_image, place.images.files), re.compile(pattern), report))
    chosen = config.labels == "filename" or "filename_pattern" in config.model_fields_set
    if not chosen and (doubt := find_doubt(rows)):
        ways = "".join(f"\n  {line}" for line in list_readings(rows))
        raise DataError(
            f"{place.root}: no table of labels is there, and with names such as {rows[0].name!r} {doubt}; choose a "
            f'way to read them, or set dataset.labels = "filename" to keep these labels:{ways}'
        )
    return Source(rows, f"file names (pattern {pattern!r})")


def _open(
    config: "Folder.Config",
    place: Place,
    file: str,
    name_column: str | None = None,
    label_column: str | None = None,
    *,
    form: str | None = None,
) -> Table:
    name_column, label_column = config.name_column or name_column, config.label_column or label_column
    return open_table(place.root, file, place.names, name_column=name_column, label_column=label_column, form=form)


def _actual(place: Place, name: str) -> str | None:
    """Return the file in the root that has this name in upper or lower case."""
    return next((file for file in sorted(place.tree.files) if file.lower() == name), None)


def _is_usual(file: str, prefix: str | None) -> bool:
    return dirname(file) in {"", (prefix or "").rstrip("/")} and splitext(basename(file))[0].lower() in USUAL_STEMS


def _prefix(place: Place) -> str | None:
    """Return the folder of images relative to the root, with a slash at its end; None if it is elsewhere."""
    root, folder = place.names.root, place.names.folder
    return f"{folder}/"[len(root) + 1 :] if f"{folder}/".startswith(f"{root}/") else None


def _with_file(table: Table) -> str:
    return table.problem if table.file in table.problem else f"{table.file}: {table.problem}"


def _list(files: Sequence[str]) -> str:
    more = f" and {len(files) - SHOWN:,} more" if len(files) > SHOWN else ""
    return ", ".join(files[:SHOWN]) + more
