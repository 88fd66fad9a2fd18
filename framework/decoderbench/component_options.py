"""Options whose value is a component itself: a decoder that has another decoder, for example. No torch here.

    guide: DecoderOption = Field(default={"use": "attention_lstm"})

An experiment gives such an option as it gives a component: by name, or as a table with `use` and the options. The
registry checks both, fills in the defaults, and makes all of it part of the cell's identity.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from pydantic import BaseModel, GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from decoderbench.identity import identity_of

Resolve = Callable[[type["ComponentOption"], Mapping[str, Any]], "ComponentOption"]
"""Finds the component that a table names, and its options; raises `ValidationError` or `ValueError` for mistakes."""


_of_latest_registry: dict[str, Resolve] = {}


_around: ContextVar[tuple[tuple[str, Mapping[str, Any]], ...]] = ContextVar("around", default=())
"""The kinds and tables of the options that are being resolved, outermost first."""


def resolve_by_default(resolve: Resolve, *, replace: bool = True) -> None:
    """Resolve options that are checked without a registry, as in `Config(...)`; `replace` an earlier way to do so."""
    if replace or not _of_latest_registry:
        _of_latest_registry["resolve"] = resolve


@dataclass(frozen=True)
class FirstWeights:
    """Marks an option that decides nothing but the weights that a component starts from, and the value for none.

    Where trained weights are loaded into a component, it is built with that value, so that nothing is downloaded.

    Example: `pretrained: Annotated[bool, FirstWeights(none=False)] = False`
    """

    none: Any


@dataclass(frozen=True)
class ComponentOption:
    """A component with its options, not built yet.

    Attributes:
        use: the name of the component.
        config: its options with all defaults.
        component: its class.
        source: digest of the source file that defines it.
    """

    kind: ClassVar[str]

    use: str
    config: BaseModel
    component: Callable[..., Any] = field(repr=False, compare=False)
    source: str = field(repr=False)

    def build(self, *specs: Any) -> Any:
        """Build the component from the specs that its constructor takes beside the options."""
        return self.component(self.config, *specs)

    def as_data(self) -> dict[str, Any]:
        """Return the name and all options, as an experiment would give them."""
        return {"use": self.use, **self.config.model_dump(mode="json")}

    def identity(self) -> dict[str, Any]:
        """Return what determines a result: the component, its decisive options and its source."""
        return {"use": self.use, "options": identity_of(self.config), "source": self.source}

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.with_info_plain_validator_function(
            cls._validate,
            serialization=core_schema.plain_serializer_function_ser_schema(lambda option: option.as_data()),
        )

    @classmethod
    def _validate(cls, given: Any, info: core_schema.ValidationInfo) -> ComponentOption:
        if isinstance(given, cls):
            return given
        table = {"use": given} if isinstance(given, str) else given
        if not (isinstance(table, Mapping) and isinstance(table.get("use"), str)):
            raise ValueError(_explain_nameless(cls.kind, table))
        if not (resolve := info.context or _of_latest_registry.get("resolve")):
            raise ValueError(f"names a {cls.kind}, and no registry has been built that knows it; build one before")
        around = _around.get()
        if (cls.kind, table) in around:  # only defaults can repeat what is around them
            raise ValueError(
                f"its default is a {cls.kind} {table['use']!r} within itself, without end; change a default of the "
                f"plugin"
            )
        token = _around.set((*around, (cls.kind, table)))
        try:
            return resolve(cls, table)
        finally:
            _around.reset(token)


def without_first_weights(value: Any) -> Any:
    """Return options as they are for a component whose weights are loaded: see `FirstWeights`; also within others."""
    if isinstance(value, ComponentOption):
        return replace(value, config=without_first_weights(value.config))
    if isinstance(value, BaseModel):
        marks = {name: field.metadata for name, field in type(value).model_fields.items()}
        none = {name: mark.none for name, found in marks.items() for mark in found if isinstance(mark, FirstWeights)}
        others = {name: without_first_weights(getattr(value, name)) for name in marks if name not in none}
        return value.model_copy(update=none | others)
    if isinstance(value, Mapping):
        return {key: without_first_weights(item) for key, item in value.items()}
    return type(value)(map(without_first_weights, value)) if type(value) in (list, tuple) else value


def _explain_nameless(kind: str, given: Any) -> str:
    """Return what is wrong with what names no component. A value that is no table or list is added to it elsewhere."""
    must = f"must name a {kind}, as in {{ use = ... }} with its options"
    if isinstance(given, Mapping):
        keys = ", ".join(map(str, given)) or "none"
        what = "no use" if "use" not in given else f"use = {given['use']!r:.80}, which is no text"
        return f"{must}, given a table with {what}; its keys: {keys}"
    return f"{must}, given a list; use one name or one table" if isinstance(given, list | tuple) else must


class RectifierOption(ComponentOption):
    """An option that is a rectifier."""

    kind = "rectifier"


class EncoderOption(ComponentOption):
    """An option that is an encoder."""

    kind = "encoder"


class BridgeOption(ComponentOption):
    """An option that is a bridge."""

    kind = "bridge"


class DecoderOption(ComponentOption):
    """An option that is a decoder."""

    kind = "decoder"
