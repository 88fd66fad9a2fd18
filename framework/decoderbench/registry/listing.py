"""Text of the `plugins` command: registered components, their options, and the plugins that registered them."""

from __future__ import annotations

import inspect
import json
import sys
import textwrap
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from decoderbench.component_options import ComponentOption
from decoderbench.config.grid import ComponentChoice
from decoderbench.errors import UnknownNameError, did_you_mean
from decoderbench.kinds import REGISTERED
from decoderbench.registry.plugin_manager import Plugins
from decoderbench.registry.registry import Registered, Registry

WIDTH = 116


def list_components(registry: Registry) -> Iterator[str]:
    """Yield one line per component and one per option."""
    for components in registry.values():
        for registered in components.values():
            yield f"{registered.kind} {registered.name}  ({registered.origin})"
            for name, option in registered.options.items():
                yield f"    {name} {default_of(option)}  {meaning_of(option)}"


def describe_components(registry: Registry, what: str) -> Iterator[str]:
    """Yield the full description of `decoder/attention_lstm`, of `attention_lstm`, or of every `decoder`.

    Raises:
        UnknownNameError: no such component is registered.
    """
    for registered in find_components(registry, what):
        yield from _describe(registered)


def find_components(registry: Registry, what: str) -> list[Registered[Any]]:
    """Return the components that `kind/name`, `name` or `kind` names; raise `UnknownNameError` if it names none."""
    kind, slash, name = what.partition("/")
    if slash:
        if kind not in registry:
            kinds = ", ".join(REGISTERED)
            raise UnknownNameError(f"unknown kind {kind!r}{did_you_mean(kind, REGISTERED)}; one of {kinds}")
        return [registry[kind][name]]
    if what in registry:
        if not registry[what]:
            raise UnknownNameError(f"no {what} is registered; there is no built-in one")
        return list(registry[what].values())
    if found := [components[what] for components in registry.values() if what in components]:
        return found
    known = sorted({*REGISTERED, *(name for components in registry.values() for name in components)})
    raise UnknownNameError(
        f"no component has the name {what!r}{did_you_mean(what, known)}; decoderbench plugins lists all"
    )


def components_of(registry: Registry, name: str) -> list[Registered[Any]]:
    """Return the components of a plugin, given by its file, its module or package, or the name of its entry point."""
    file = Path(name).resolve() if name.endswith(".py") else None
    origins = registry.plugins.origins
    source = origins[name].source if name in origins else None
    found = []
    for components in registry.values():
        for one in components.values():
            module = one.component.__module__
            if file is not None:
                if Path(inspect.getfile(one.component)).resolve() == file:
                    found.append(one)
            elif one.plugin == name or module == name or module.startswith(f"{name}.") or one.origin == source:
                found.append(one)
    return found


def list_plugins(plugins: Plugins) -> Iterator[str]:
    """Yield two lines per loaded plugin: its name and origin, its file and the hooks it implements."""
    for name, plugin in sorted(plugins.manager.list_name_plugin()):
        if plugin is None or name not in plugins.origins:
            continue
        origin = plugins.origins[name]
        hooks = sorted(hook.name for hook in plugins.manager.get_hookcallers(plugin) or ())
        yield f"plugin {name}  ({origin})"
        yield f"    {origin.file or 'no file'}: {', '.join(hooks) or 'no hooks'}"
    for name in sorted(plugins.sources.blocked):
        yield f"plugin {name}  (disabled by -p no:{name})"


def _describe(registered: Registered[Any]) -> Iterator[str]:
    cls = registered.component
    yield f"{registered.kind} {registered.name}  ({registered.origin}, {inspect.getfile(cls)})"
    module = sys.modules.get(cls.__module__)
    for text in (inspect.getdoc(module) if module else None, cls.__doc__):
        if text:
            yield ""
            yield textwrap.indent(inspect.cleandoc(text), "    ")
    for name, option in registered.options.items():
        yield ""
        yield f"    {name}: {type_of(option)} {default_of(option)}"
        yield textwrap.fill(meaning_of(option), WIDTH, initial_indent=" " * 8, subsequent_indent=" " * 8)
    yield ""


def meaning_of(option: FieldInfo) -> str:
    """Return the description of an option on one line."""
    return " ".join((option.description or "").split())


def default_of(option: FieldInfo) -> str:
    """Return the default of an option as "= 64", or in brackets why there is none."""
    if option.is_required():
        return "(required)"
    if option.default_factory is not None and option.default_factory_takes_validated_data:
        return "(default depends on other options)"
    default = option.get_default(call_default_factory=True)
    return "(optional)" if default is None else f"= {json.dumps(default, default=_plain, ensure_ascii=False)}"


def _plain(default: object) -> object:
    return default.model_dump(mode="json") if isinstance(default, BaseModel) else str(default)


def type_of(option: FieldInfo) -> str:
    """Return the type and the limits of an option, as in "int, >= 1"."""
    limits = [limit for constraint in option.metadata if (limit := _limit(constraint))]
    return ", ".join([_annotation(option.annotation), *limits])


def _annotation(annotation: Any) -> str:
    """Return a type in the words of TOML."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return " | ".join(json.dumps(value) for value in inner)
    if origin in (Union, types.UnionType):
        return " | ".join(_annotation(one) for one in inner if one is not type(None))
    if origin in (tuple, list):
        many = origin is list or inner[-1] is Ellipsis
        return f"list of {_annotation(inner[0])}" if many else f"list of {len(inner)} {_annotation(inner[0])}"
    if origin is dict:
        return f"table by label, each {_annotation(inner[1])}"
    if origin is not None and hasattr(annotation, "__metadata__"):  # Annotated
        limits = [limit for constraint in annotation.__metadata__ if (limit := _limit(constraint))]
        return ", ".join([_annotation(inner[0]), *limits])
    if isinstance(annotation, type) and issubclass(annotation, ComponentOption):
        return f"{annotation.kind}: its name, or a table with use and its options"
    if isinstance(annotation, type) and issubclass(annotation, ComponentChoice):
        return "component: its name, or a table with use and its options"
    return getattr(annotation, "__name__", str(annotation))


def _limit(constraint: Any) -> str:
    signs = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<", "min_length": "at least", "max_length": "at most"}
    found = [
        f"{sign} {value}" + " long" * (name in ("min_length", "max_length"))
        for name, sign in signs.items()
        if (value := getattr(constraint, name, None)) is not None
    ]
    return ", ".join(found)
