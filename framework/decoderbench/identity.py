"""The options that determine a result, as part of the identity of a cell. No torch here.

An option is omitted while it has the default that it was introduced with, so adding an option changes no identity.
The other part, source code, is in `sources.py`.
"""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, Union, get_args, get_origin, runtime_checkable

from pydantic import BaseModel
from pydantic_core import to_jsonable_python


@dataclass(frozen=True)
class Introduced:
    """Marks an option whose default has changed since, and records the default that it was introduced with.

    Example: `steps: Annotated[int, Introduced(1000)] = 2000`
    """

    default: Any


@runtime_checkable
class HasIdentity(Protocol):
    """A value of an option that says itself what determines a result, such as a component."""

    def identity(self) -> dict[str, Any]:
        """Return it as JSON data."""


class NotDecisive:
    """Marks an option that cannot change a result, such as the number of workers or a timeout.

    Example: `workers: Annotated[int, NotDecisive()] = 1`
    """


def identity_of(options: BaseModel) -> dict[str, Any]:
    """Return the options that determine a result, as JSON data.

    An option without a default is always included. Any other option is included unless it has the default that it was
    introduced with: the default given by `Introduced`, else its current default. An option that is marked
    `NotDecisive` is never included.
    """
    decisive = {}
    for name, field in type(options).model_fields.items():
        if name in not_decisive(type(options)):
            continue
        choice = _is_choice_of_models(field.annotation)
        value = _encode(getattr(options, name), choice)
        if not field.is_required():
            changed = next((mark for mark in field.metadata if isinstance(mark, Introduced)), None)
            given = options.model_dump(include=set(type(options).model_fields))  # for defaults that depend on others
            default = changed.default if changed else field.get_default(call_default_factory=True, validated_data=given)
            if _same(value, _encode(default, choice)):
                continue
        decisive[name] = value
    return decisive


def not_decisive(config_class: type[BaseModel]) -> set[str]:
    """Return the names of the options that are marked `NotDecisive`."""
    return {
        name
        for name, field in config_class.model_fields.items()
        if any(isinstance(mark, NotDecisive) or mark is NotDecisive for mark in field.metadata)
    }


def sort_keys(value: Any) -> Any:
    """Return JSON data with the keys of all dictionaries sorted, so that equal options have equal text."""
    if isinstance(value, dict):
        return {key: sort_keys(value[key]) for key in sorted(value)}
    return [sort_keys(item) for item in value] if isinstance(value, list) else value


def _encode(value: Any, choice: bool) -> Any:
    """Return a value as JSON data; where an option is a choice of models, the name of the model counts too."""
    if isinstance(value, HasIdentity):
        return value.identity()
    if isinstance(value, BaseModel):
        return {"model": type(value).__name__} | identity_of(value) if choice else identity_of(value)
    if _holds_identity(value):
        if isinstance(value, Mapping):
            return {str(key): _encode(item, choice) for key, item in value.items()}
        return [_encode(item, choice) for item in value]
    return to_jsonable_python(value)


def _holds_identity(value: Any) -> bool:
    """Return whether a value says what determines a result itself, or one in a list, a table or a model does."""
    if isinstance(value, BaseModel):
        value = [getattr(value, name) for name in type(value).model_fields]
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    return isinstance(value, HasIdentity) or any(map(_holds_identity, inner))


def _is_choice_of_models(annotation: Any) -> bool:
    """Return whether a type allows several models, as in `A | B`."""
    inner = get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else ()
    return sum(isinstance(one, type) and issubclass(one, BaseModel) for one in inner) > 1


def _same(value: Any, default: Any) -> bool:
    """Return whether two values are equal as options: True is not 1, at any depth."""
    if isinstance(value, list) and isinstance(default, list):
        return len(value) == len(default) and all(map(_same, value, default))
    if isinstance(value, dict) and isinstance(default, dict):
        return value.keys() == default.keys() and all(_same(value[key], default[key]) for key in value)
    return bool(value == default) and isinstance(value, bool) == isinstance(default, bool)
