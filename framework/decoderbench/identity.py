"""The identity of a cell: the options and the source code that determine its result. No torch here.

Two rules keep results valid across versions. An option is omitted while it has the default that it was introduced
with, so adding an option changes no identity. Source code counts by its syntax tree, so editing a comment or a
docstring changes no identity.
"""

from __future__ import annotations

import ast
import hashlib
import json
import types
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import to_jsonable_python


@dataclass(frozen=True)
class Introduced:
    """Marks an option whose default has changed since, and records the default that it was introduced with.

    Example: `steps: Annotated[int, Introduced(1000)] = 2000`
    """

    default: Any


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


def source_digest(file: Path) -> str:
    """Return a digest of the syntax tree of a Python source file, without docstrings and comments.

    The digest is the same in every version of Python that can parse the file. For any other file, such as a compiled
    extension, return a digest of its bytes.
    """
    content = file.read_bytes()
    if file.suffix == ".py":
        with suppress(RecursionError):  # of an expression with hundreds of terms the bytes count
            content = json.dumps(_canonical(ast.parse(content))).encode()
    return hashlib.sha256(content).hexdigest()[:16]


def _encode(value: Any, choice: bool) -> Any:
    """Return a value as JSON data; where an option is a choice of models, the name of the model counts too."""
    if isinstance(value, BaseModel):
        return {"model": type(value).__name__} | identity_of(value) if choice else identity_of(value)
    return to_jsonable_python(value)


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


def _canonical(node: Any) -> Any:
    """Return a syntax tree as nested lists; the output of `ast.dump` differs between versions of Python."""
    if isinstance(node, ast.AST):
        fields = ((name, value) for name, value in ast.iter_fields(node) if value is not None and value != [])
        return [type(node).__name__, *([name, _canonical(value)] for name, value in fields)]
    if isinstance(node, list):
        return [_canonical(item) for item in node if not _is_text(item)]
    return node if isinstance(node, str) else [type(node).__name__, repr(node)]


def _is_text(node: Any) -> bool:
    """Return whether a statement is only a string: a docstring, or the description of an option."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
