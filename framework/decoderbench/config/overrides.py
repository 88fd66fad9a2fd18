"""Overrides of an experiment from the command line: `--set key=value`, `--add axis.label=component`. No torch here."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from typing import Any

from decoderbench.config.experiment import Grid
from decoderbench.errors import ConfigError, did_you_mean
from decoderbench.kinds import AXES


def parse_overrides(overrides: Sequence[str]) -> dict[str, Any]:
    """Return overrides such as `training.steps=500` as nested data; a value that is not TOML is taken as a string.

    Raises:
        ConfigError: listing every override that is not of the form key=value.
    """
    data: dict[str, Any] = {}
    mistakes = []
    for override in overrides:
        key, equals, value = override.partition("=")
        for line in (f"{key} = {value}", f'{key} = "{value}"'):
            try:
                data = merge(data, tomllib.loads(line))
                break
            except tomllib.TOMLDecodeError:
                continue
        else:
            equals = ""
        if not equals:
            mistakes.append(f"--set {override}: must be key=value, as in training.steps=500")
    if mistakes:
        raise ConfigError(mistakes)
    return data


def add_variants(data: Mapping[str, Any], additions: Sequence[str]) -> dict[str, Any]:
    """Return an experiment with additional variants, given as `decoder.mine=my_decoder`.

    The value is the name of a component, or a TOML table with options, as in
    `decoder.wide={use="my_decoder", hidden_dim=512}`. A label may contain spaces.

    Raises:
        ConfigError: listing every addition that has another form, an unknown axis, or a label that already exists.
    """
    mistakes = []
    for addition in additions:
        key, equals, value = addition.partition("=")
        axis, dot, label = key.strip().partition(".")
        label = label.strip().strip("\"'")
        if not (equals and dot and label and value.strip()):
            mistakes.append(f"--add {addition}: must be axis.label=component, as in decoder.mine=my_decoder")
        elif axis not in AXES:
            mistakes.append(
                f"--add {addition}: unknown axis {axis!r}{did_you_mean(axis, AXES)}; known: {', '.join(AXES)}"
            )
        elif label in _variants_of(data, axis):
            mistakes.append(f"--add {addition}: {axis} {label!r} already exists; choose another label, or use --set")
        else:
            variants = {**_variants_of(data, axis), label: _parse_value(value.strip())}
            data = merge(data, {"grid": {axis: variants}})
    if mistakes:
        raise ConfigError(mistakes)
    return dict(data)


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return `base` with `changes` applied, table by table; a replaced component loses the options of the old one."""
    merged = dict(base)
    for key, value in changes.items():
        inner = merged.get(key)
        if isinstance(inner, str) and isinstance(value, Mapping):
            inner = {"use": inner}  # a component may be given by its name alone
        if isinstance(value, Mapping) and isinstance(inner, Mapping):
            same_component = value.get("use", inner.get("use")) == inner.get("use")
            merged[key] = merge(inner, value) if same_component else value
        else:
            merged[key] = value
    return merged


def _variants_of(data: Mapping[str, Any], axis: str) -> Mapping[str, Any]:
    """Return the variants of an axis in `data`, or the default ones, which an addition keeps."""
    grid = data.get("grid")
    variants = grid.get(axis) if isinstance(grid, Mapping) else None
    if variants is None and not Grid.model_fields[axis].is_required():
        return {label: {"use": choice.use} for label, choice in Grid.model_fields[axis].get_default().items()}
    return variants if isinstance(variants, Mapping) else {}


def _parse_value(text: str) -> Any:
    """Return a TOML value, or `text` itself if it is not TOML."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
