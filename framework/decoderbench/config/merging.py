"""Changes of an experiment, merged into it table by table. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from decoderbench.config.typed_values import Typed, text_of, value_of


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return `base` with `changes` applied, table by table; a replaced component loses the options of the old one."""
    merged = dict(base)
    for key, value in changes.items():
        inner, table = value_of(merged.get(key)), value_of(value)
        if isinstance(inner, str) and isinstance(table, Mapping):
            inner = {"use": inner}  # a component may be given by its name alone
        if isinstance(table, Mapping) and isinstance(inner, Mapping):
            same_component = text_of(table.get("use", inner.get("use"))) == text_of(inner.get("use"))
            table = merge(inner, table) if same_component else table
            value = replace(value, value=table) if isinstance(value, Typed) else table
        merged[key] = value
    return merged
