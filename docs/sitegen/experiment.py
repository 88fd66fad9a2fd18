"""The page of the experiment file: its tables and their options."""

import inspect
from collections.abc import Iterator
from typing import Any, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from decoderbench.config.experiment import Experiment
from decoderbench.config.grid import ComponentChoice
from decoderbench.config.settings import Setting
from sitegen.options import option_lines


def experiment_page() -> str:
    """Return the page."""
    return "\n".join(["# Experiment file", *_table_lines(Experiment, "")])


def tables_in(model: type[BaseModel]) -> dict[str, tuple[FieldInfo, type[BaseModel]]]:
    """Return the fields that are tables, tables by label or lists of tables, with the model of the table.

    A setting has none: its tables are those of the experiment.
    """
    if model is Setting:
        return {}
    found = {name: (option, _model_in(option.annotation)) for name, option in model.model_fields.items()}
    # The options of a component choice are those of the component.
    return {name: (option, inner) for name, (option, inner) in found.items() if inner not in (None, ComponentChoice)}


def _table_lines(model: type[BaseModel], path: str) -> Iterator[str]:
    yield f"\n{inspect.getdoc(model)}\n"
    tables = tables_in(model)
    for name, option in model.model_fields.items():
        if name not in tables:
            yield from option_lines(f"{path}{name}", option)
    for name, (option, inner) in tables.items():
        many = get_origin(option.annotation)
        place = f"{path}{name}" + ".LABEL" * (many is dict)
        yield f"\n## {f'[[{place}]]' if many is tuple else f'[{place}]'}\n\n{option.description or ''}\n"
        yield from _table_lines(inner, f"{place}.")


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_model_in, get_args(annotation))), None)
