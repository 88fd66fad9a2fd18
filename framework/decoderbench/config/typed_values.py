"""Values typed on a command line: the text beside its TOML value, until it is known which of them an option wants.

`labels.charset=0123` and `training.steps=500` look alike; only the type of an option tells text from numbers. No torch
here.
"""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError

from decoderbench.config.mistakes import Location
from decoderbench.config.toml_lines import split_assignment


@dataclass(frozen=True)
class Typed:
    """A value that is no string in TOML, and the characters that were typed."""

    value: Any
    """A number, a boolean, a date, or a list or a table of them, of strings and of `Typed`."""

    text: str


def read_typed(text: str) -> str | Typed:
    """Return what was typed: a string if it is in quotes as in TOML, the text itself if it is not TOML, else both."""
    value = _parse(text)
    if value is None or isinstance(value, str):
        return text if value is None else value
    items: dict[Any, str] = {}
    if isinstance(value, list):
        items = dict(enumerate(_split(text, list)))
        value = [_with_text(item, items.get(index)) for index, item in enumerate(value)]
    elif isinstance(value, dict):
        assignments = filter(None, map(split_assignment, _split(text, dict)))
        items = {keys[0]: item for keys, item in assignments if len(keys) == 1}
        value = {key: _with_text(item, items.get(key)) for key, item in value.items()}
    return Typed(value, text)


def value_of(given: Any) -> Any:
    """Return the TOML value of what was typed, and anything else as it is. A list or a table may hold `Typed`."""
    return given.value if isinstance(given, Typed) else given


def plain(data: Any) -> Any:
    """Return nested data with the TOML values of all that was typed."""
    return _resolve(data, ())


def text_of(given: Any) -> Any:
    """Return the text of what was typed, and anything else as it is."""
    return given.text if isinstance(given, Typed) else given


def put(data: Any, place: Location, value: Any) -> Any:
    """Return nested tables with another value at a place."""
    if not place:
        return value
    table = value_of(data)
    return {**table, place[0]: put(table[place[0]], place[1:], value)}


def decide(data: Mapping[str, Any], model: type[BaseModel]) -> dict[str, Any]:
    """Return plain data: what was typed is text where `model` wants text, else its TOML value.

    The model itself tells which: where it refuses the value, it is asked about the text.
    """
    values: dict[str, Any] = _resolve(data, ())
    if values == data:
        return values  # nothing was typed
    refused = _refusals(values, data, model)
    texts = _resolve(data, refused)
    still_refused = _refusals(texts, data, model)
    wanted = [place for place, kind in refused.items() if kind == "string_type" or place not in still_refused]
    decided: dict[str, Any] = _resolve(data, wanted)
    return decided


def _resolve(data: Any, texts: Collection[Location], place: Location = ()) -> Any:
    """Return plain data: what was typed as text at the places `texts`, elsewhere as its TOML value."""
    if isinstance(data, Typed) and place in texts:
        return data.text
    data = value_of(data)
    if isinstance(data, Mapping):
        return {key: _resolve(value, texts, (*place, key)) for key, value in data.items()}
    if isinstance(data, list):
        return [_resolve(value, texts, (*place, index)) for index, value in enumerate(data)]
    return data


def _refusals(values: Mapping[str, Any], data: Mapping[str, Any], model: type[BaseModel]) -> dict[Location, str]:
    """Return the places where `values` hold something that was typed and that the model refuses, and pydantic's why."""
    try:
        model.model_validate(values)
    except ValidationError as error:
        found = [(_typed_at(data, details["loc"]), details["type"]) for details in error.errors()]
        return {place: kind for place, kind in found if place is not None}
    except Exception:  # noqa: BLE001 - a validator of a plugin may raise anything; the check of the options reports it
        pass
    return {}


def _typed_at(data: Any, location: Location) -> Location | None:
    """Return the innermost place on the way to a location of pydantic that was typed; None if there is none."""
    place: Location = ()
    typed = None
    for key in location:
        inner = value_of(data)
        items = dict(enumerate(inner)) if isinstance(inner, list) else inner
        if not (isinstance(items, Mapping) and key in items):
            break  # pydantic's own words, such as the members of a union
        data, place = items[key], (*place, key)
        typed = place if isinstance(data, Typed) else typed
    return typed


def _with_text(value: Any, text: str | None) -> Any:
    """Return an item of a list or of a table with its text, if that is what was found."""
    typed = value if text is None else read_typed(text.strip())
    return typed if repr(_resolve(typed, ())) == repr(value) else value


def _parse(text: str) -> Any:
    """Return a TOML value; None if the text is not one. A comment behind a value belongs to the text."""
    try:
        (_,) = tomllib.loads(f"value = [{text}]")["value"]
        data = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):  # also raised for numbers of thousands of digits
        return None
    return data["value"] if len(data) == 1 else None


def _split(text: str, kind: type) -> list[str]:
    """Return the items of a TOML list or inline table, as they were typed."""
    opening, closing = "[]" if kind is list else "{}"
    items, item = [], ""
    for part in text.strip()[1:-1].split(","):
        item = f"{item},{part}" if item else part
        value = _parse(f"{opening}{item}{closing}")
        if isinstance(value, list | dict) and len(value) == 1:
            items.append(item)
            item = ""
    return items
