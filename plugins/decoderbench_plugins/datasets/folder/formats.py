"""The files that hold labels, as records of text: csv, tab-separated, json, jsonl, parquet, xlsx."""

import csv
import io
import json
import re
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from decoderbench import DataError

from .files import MAX_BYTES, read_text, require_file, show, suffix_of

TEXT_SUFFIXES = {".csv", ".tsv", ".tab", ".txt", ".lst", ".list", ""}
SUFFIXES = TEXT_SUFFIXES | {".json", ".jsonl", ".ndjson", ".parquet", ".xlsx", ".xlsm"}
QUOTED = re.compile(r'([^,]+), "(.*)"')  # of ICDAR: word_1.png, "Tiredness"; a backslash stands before " and \
DELIMITERS = {"comma": ",", "tab": "\t", "semicolon": ";", "bar": "|"}
FORMS = ("quotes", "first tab", *DELIMITERS, "blank")
FORMS_FIRST = {".csv": "comma", ".tsv": "first tab"}


class NotText(NamedTuple):
    """A value that is not text, such as null or a date."""

    text: str  # for people

    def __str__(self) -> str:
        return self.text


class Number(str):
    """A number that became text: as it is shown, without the zeros at its start that a table program drops."""

    __slots__ = ()


Field = str | NotText


class Record(NamedTuple):
    """One row of a file, or its header."""

    place: str  # such as "line 3"
    fields: Sequence[Field]


class Content(NamedTuple):
    """One way to read a file as records."""

    form: str  # for people, such as "tab"
    header: bool | None  # whether the first record is a header; None if that is to be found out
    read: Callable[[], Iterable[Record]]


def read_contents(file: Path) -> list[Content]:
    """Return all ways to read a file as records, the likelier ones first; raise `DataError` if there is none."""
    suffix = suffix_of(file.name)
    require_file(file)
    if suffix in (".json", ".jsonl", ".ndjson"):
        return _json_contents(file, lines=suffix != ".json")
    if suffix == ".parquet":
        return [Content("parquet", True, lambda: _read_parquet(file))]
    if suffix in (".xlsx", ".xlsm"):
        return [Content("xlsx", None, lambda: _read_xlsx(file))]
    text = read_text(file)
    forms = sorted(FORMS, key=lambda form: form != FORMS_FIRST.get(suffix))
    return [Content(form, None, _split_of(file, text, form)) for form in forms]


def _split_of(file: Path, text: str, form: str) -> Callable[[], Iterable[Record]]:
    if form in DELIMITERS:
        return lambda: _split_csv(file, text, DELIMITERS[form])
    return lambda: _split_lines(file, text, form)


def _split_csv(file: Path, text: str, delimiter: str) -> Iterator[Record]:
    reader, last = csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=delimiter), 0
    try:
        for fields in reader:
            last = reader.line_num
            if fields:
                yield Record(f"line {last}", fields)
    except csv.Error as error:
        raise DataError(f"{file} line {last + 1} is not CSV: {error}") from error


def _split_lines(file: Path, text: str, form: str) -> Iterator[Record]:
    for number, line in enumerate(text.replace("\r\n", "\n").replace("\r", "\n").split("\n"), start=1):
        if not line:
            continue
        if form == "quotes":
            match = QUOTED.fullmatch(line)
            fields = [match[1], re.sub(r'\\(["\\])', r"\1", match[2])] if match else []
        else:
            fields = line.split("\t" if form == "first tab" else " ", maxsplit=1)
        if len(fields) < 2:
            wanted = {"quotes": 'a comma and a label in "quotes"', "first tab": "a tab and a label"}
            raise DataError(
                f"{file} line {number} is not a file name, {wanted.get(form, 'a blank and a label')}: {show(line)}; "
                "check dataset.labels"
            )
        yield Record(f"line {number}", fields)


def _json_contents(file: Path, *, lines: bool) -> list[Content]:
    text = read_text(file)
    if lines:
        numbered = [(f"line {n}", line) for n, line in enumerate(text.split("\n"), start=1) if line.strip()]
        entries = [(place, _parse_json(f"{file} {place}", line)) for place, line in numbered]
        return [Content("json lines", True, lambda: _records_of(file, entries))]
    value = _parse_json(str(file), text)
    if isinstance(value, dict):
        lists = [one for one in value.values() if isinstance(one, list) and one and isinstance(one[0], dict)]
        if len(lists) == 1:
            value = lists[0]  # such as {"version": ..., "data": [...]}
    if isinstance(value, list):
        return [Content("json", True, lambda: _records_of(file, _numbered(value)))]
    if not isinstance(value, dict):
        raise DataError(f"{file} is neither a list nor a mapping")
    contents = [Content("json", False, lambda: _pairs(value))]
    columns = [list(one.values()) if isinstance(one, dict) else one for one in value.values()]
    if all(isinstance(one, list) and len(one) == len(columns[0]) for one in columns):
        keys = [list(one) for one in value.values() if isinstance(one, dict)]
        if all(one == keys[0] for one in keys):  # columns
            rows = [dict(zip(value, row, strict=True)) for row in zip(*columns, strict=True)]
            contents.insert(0, Content("json", True, lambda: _records_of(file, _numbered(rows))))
    if value and all(isinstance(one, dict) for one in value.values()):  # {name: {key: value}}
        named = [{"filename": name, **entry} for name, entry in value.items()]
        contents.append(Content("json", True, lambda: _records_of(file, _numbered(named))))
    return contents


def _numbered(entries: Iterable[Any]) -> list[tuple[str, Any]]:
    return [(f"entry {number}", entry) for number, entry in enumerate(entries, start=1)]


def _pairs(value: dict[str, Any]) -> Iterator[Record]:
    for place, (name, label) in _numbered(value.items()):
        yield Record(place, [name, _json_field(label)])


def _records_of(file: Path, entries: Sequence[tuple[str, Any]]) -> Iterator[Record]:
    if not all(isinstance(entry, dict) for _, entry in entries):
        raise DataError(f"{file} has entries that are not mappings")
    header = list(dict.fromkeys(key for _, entry in entries for key in entry))
    yield Record("keys", header)
    for place, entry in entries:
        yield Record(place, [_json_field(entry[key]) if key in entry else NotText("missing") for key in header])


def _json_field(value: Any) -> Field:
    if isinstance(value, str):
        return value
    text = json.dumps(value)
    return NotText(text if len(text) < 40 else f"{text[:40]}...")


def _parse_json(place: str, text: str) -> Any:
    """Return JSON as data: numbers as the text that they are, and no key twice."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        entries = dict(pairs)
        if len(entries) < len(pairs):
            keys = [key for key, _ in pairs]
            twice = next(key for key in keys if keys.count(key) > 1)
            raise DataError(f"{place}: the key {show(twice)} is there twice")
        return entries

    try:
        return json.loads(text, object_pairs_hook=unique, parse_int=str, parse_float=str)
    except (json.JSONDecodeError, RecursionError) as error:
        raise DataError(f"{place} is not JSON: {error}") from error


def _read_parquet(file: Path) -> Iterator[Record]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(file)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{file} is not parquet: {error}") from error
    columns: list[list[Field]] = []
    for column in table.columns:
        kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
        if pa.types.is_string(kind) or pa.types.is_large_string(kind):
            columns.append([NotText("null") if value is None else value for value in column.to_pylist()])
        elif pa.types.is_integer(kind):
            columns.append([NotText("null") if value is None else Number(value) for value in column.to_pylist()])
        else:
            columns.append([NotText(f"a value of type {kind}")] * len(column))
    yield Record("columns", table.column_names)
    for number, fields in enumerate(zip(*columns, strict=True), start=1):
        yield Record(f"row {number}", fields)


def _read_xlsx(file: Path) -> Iterator[Record]:
    try:
        import openpyxl
        from openpyxl.utils.exceptions import InvalidFileException
    except ModuleNotFoundError as error:
        raise DataError(f"{file} needs openpyxl: pip install 'decoderbench[xlsx]', or save the table as csv") from error
    try:
        with zipfile.ZipFile(file) as archive:
            if (size := sum(member.file_size for member in archive.infolist())) > MAX_BYTES:
                raise DataError(f"{file} unpacks to {size:,} bytes; a table may have {MAX_BYTES:,}: save it as csv")
        book = openpyxl.load_workbook(file, read_only=True, data_only=True)
        sheets = [[(n, row) for n, row in enumerate(sheet.rows, start=1) if any(c.value is not None for c in row)]
                  for sheet in book.worksheets]  # fmt: skip
    except (InvalidFileException, OSError, KeyError, ValueError, SyntaxError, zipfile.BadZipFile) as error:
        raise DataError(f"{file} cannot be read as xlsx: {error}") from error
    filled = [sheet for sheet in sheets if sheet]
    if len(filled) != 1:
        raise DataError(f"{file} has {len(filled)} sheets with cells; keep the one with the labels, or save it as csv")
    for number, row in filled[0]:
        yield Record(f"row {number}", [_xlsx_field(cell) for cell in row])


def _xlsx_field(cell: Any) -> Field:
    value, shown_as = cell.value, cell.number_format
    if isinstance(value, str) and cell.data_type != "e":
        return value
    if value is None:
        return NotText("an empty cell")
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e11:
        value = int(value)
    if type(value) is int and shown_as in ("General", "@"):
        return Number(value)
    if type(value) is int and set(shown_as) == {"0"}:
        return Number(f"{value:0{len(shown_as)}}")
    return NotText(f"{value!r} in the format {shown_as!r}")
