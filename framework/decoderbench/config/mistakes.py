"""Messages for mistakes in an experiment: file, line, key, and what to correct. No torch here."""

from collections.abc import Iterable, Mapping
from typing import get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from decoderbench.config.toml_lines import line_of
from decoderbench.errors import did_you_mean
from decoderbench.exception_text import to_printable_line
from decoderbench.options import ComponentConfig

Location = tuple[str | int, ...]
"""Keys of nested tables, and indices of lists, outermost first."""

MAX_GIVEN = 200
"""The most characters of a given value in a message."""


def describe_mistake(source: str, text: str, location: Location, message: str) -> str:
    """Return `file:line: key: message`; without the line if the key is not in the file, without the file if none is."""
    line = line_of(text, location)
    where = f"{source}:{line}" if line else source
    return ": ".join(filter(None, (where, ".".join(map(str, location)), message)))


def explain_mistakes(
    error: ValidationError, model: type[BaseModel], *, further: Iterable[str] = ()
) -> list[tuple[Location, str]]:
    """Return the location and the message of each mistake that `error` reports about data for `model`.

    `further` are keys at the top that are known beside those of `model`.
    """
    return [_explain(details, model, further) for details in error.errors()]


def _explain(details: ErrorDetails, model: type[BaseModel], further: Iterable[str]) -> tuple[Location, str]:
    location: Location = details["loc"]
    message, given = details["msg"], details["input"]
    if details["type"] == "extra_forbidden":
        known = sorted([*_keys_at(model, location[:-1]), *(further if len(location) == 1 else ())])
        return location, f"unknown key{did_you_mean(str(location[-1]), known)}; known: {', '.join(known) or 'none'}"
    if details["type"] == "missing":
        of_experiment = len(location) == 1 and not issubclass(model, ComponentConfig)
        return location, f"is missing; every {'experiment' if of_experiment else 'such table'} needs it"
    if details["type"] == "tuple_type":
        message = "Input should be a list, as in [...] or, for tables, [[...]]"
    if details["type"] in ("dict_type", "model_type"):
        message = "Input should be a table, as in { key = value }"
    ours = message.startswith("Value error, ")
    message = message.removeprefix("Value error, ")
    # In a message of pydantic the same characters may be those of a limit.
    says_given = (ours or details["type"] == "broken_rule") and repr(given) in message
    if not isinstance(given, Mapping | list | tuple) and not says_given:
        message = f"{message}, given {to_printable_line(repr(given), MAX_GIVEN)}"
    return location, message if ours else message[0].lower() + message[1:]


def _keys_at(model: type[BaseModel], location: Location) -> list[str]:
    """Return the known keys at a location of a model, sorted."""
    inside_dict = False
    for key in location:
        if isinstance(key, int) or inside_dict:
            inside_dict = False
            continue  # an item of a list, or under a label: `model` is already that of the items
        field = model.model_fields.get(key)
        types = (field.annotation, *get_args(field.annotation)) if field else ()
        inner = next((one for one in types if isinstance(one, type) and issubclass(one, BaseModel)), None)
        if field is None or inner is None:
            break
        model, inside_dict = inner, get_origin(field.annotation) is dict
    return sorted(model.model_fields)
