"""What the command line lays over an experiment: `--set key=value` and `--add axis.label=component`. No torch here."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from typing import Any

from decoderbench.config.experiment import Grid
from decoderbench.errors import ConfigError, did_you_mean
from decoderbench.kinds import AXES


def parse_overrides(assignments: Sequence[str]) -> dict[str, Any]:
    """Turn `training.steps=500` and the like into nested data; a value that is not TOML is a string."""
    data: dict[str, Any] = {}
    problems = []
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        for line in (f"{key} = {value}", f'{key} = "{value}"'):
            try:
                data = merge(data, tomllib.loads(line))
                break
            except tomllib.TOMLDecodeError:
                continue
        else:
            equals = ""
        if not equals:
            problems.append(f"--set {assignment}: must be key=value, as in training.steps=500")
    if problems:
        raise ConfigError(problems)
    return data


def add_variants(data: Mapping[str, Any], additions: Sequence[str]) -> dict[str, Any]:
    """Return an experiment with further variants, given as `decoder.mine=my_decoder`.

    What stands behind the sign is the name of a component, or a TOML table with options, as in
    `decoder.wide={use="my_decoder", hidden_dim=512}`. A label may hold blanks.

    Raises:
        ConfigError: an addition has another form, an unknown axis, or a label that the axis has already.
    """
    problems = []
    for addition in additions:
        place, equals, value = addition.partition("=")
        axis, dot, label = place.strip().partition(".")
        label = label.strip().strip("\"'")
        if not (equals and dot and label and value.strip()):
            problems.append(f"--add {addition}: must be axis.label=component, as in decoder.mine=my_decoder")
        elif axis not in AXES:
            problems.append(
                f"--add {addition}: unknown axis {axis!r}{did_you_mean(axis, AXES)}; one of {', '.join(AXES)}"
            )
        elif label in _variants(data, axis):
            problems.append(f"--add {addition}: {axis} {label!r} is there already; choose another label, or use --set")
        else:
            variants = {**_variants(data, axis), label: _value(value.strip())}
            data = merge(data, {"grid": {axis: variants}})
    if problems:
        raise ConfigError(problems)
    return dict(data)


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return `base` with `changes` laid over it, table by table; another component takes no options of the last one."""
    merged = dict(base)
    for key, value in changes.items():
        inner = merged.get(key)
        if isinstance(inner, str) and isinstance(value, Mapping):
            inner = {"use": inner}  # a component may be given by its name alone
        both = isinstance(value, Mapping) and isinstance(inner, Mapping)
        if both and value.get("use", inner.get("use")) != inner.get("use"):  # type: ignore[union-attr]
            both = False
        merged[key] = merge(inner, value) if both else value  # type: ignore[arg-type]
    return merged


def _variants(data: Mapping[str, Any], axis: str) -> Mapping[str, Any]:
    """Return the variants of an axis: those of the data or, as an addition leaves them in place, the defaults."""
    grid = data.get("grid")
    variants = grid.get(axis) if isinstance(grid, Mapping) else None
    if variants is None and not Grid.model_fields[axis].is_required():
        return {label: {"use": choice.use} for label, choice in Grid.model_fields[axis].get_default().items()}
    return variants if isinstance(variants, Mapping) else {}


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
