"""Overrides of an experiment from the command line: `--set key=value`, `--add axis.label=component`. No torch here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from decoderbench.config.grid import Grid
from decoderbench.config.merging import merge
from decoderbench.config.toml_lines import split_assignment
from decoderbench.config.typed_values import read_typed, value_of
from decoderbench.errors import ConfigError, did_you_mean
from decoderbench.kinds import AXES

EXTENDABLE = (*AXES, "settings")
"""The tables of [grid] that `--add` extends."""


def parse_overrides(overrides: Sequence[str]) -> dict[str, Any]:
    """Return overrides such as `training.steps=500` as nested data, whose values are text or `Typed`.

    Raises:
        ConfigError: listing every override that is not of the form key=value.
    """
    data: dict[str, Any] = {}
    mistakes = []
    for override in overrides:
        assignment = split_assignment(override)
        if assignment is None:
            mistakes.append(
                f"--set {override}: must be key=value, as in training.steps=500; quote labels that hold other "
                f'characters than letters, digits, _ and -, as in grid.decoder."my own".hidden_dim=500'
            )
            continue
        keys, text = assignment
        if keys[0] != "dataset" and not _is_utf8(override):
            mistakes.append(f"--set {override}: is not valid UTF-8, which only paths of a dataset may be; correct it")
            continue
        change: Any = read_typed(text)
        for key in reversed(keys):
            change = {key: change}
        data = merge(data, change)
    if mistakes:
        raise ConfigError(mistakes)
    return data


def add_variants(data: Mapping[str, Any], additions: Sequence[str]) -> dict[str, Any]:
    """Return an experiment with additional variants, given as `decoder.mine=my_decoder`.

    The value is the name of a component, or a TOML table with options, as in
    `decoder.wide={use="my_decoder", hidden_dim=512}`; for a setting, the table of its changes, as in
    `settings.few={dataset={train_limit=100}}`. A label may contain spaces.

    Raises:
        ConfigError: listing every addition that has another form, an unknown axis, or a label that already exists.
    """
    mistakes = []
    for addition in additions:
        key, equals, text = addition.partition("=")
        axis, dot, label = key.strip().partition(".")
        label, text = label.strip().strip("\"'"), text.strip()
        choice = read_typed(text)
        if not (equals and dot and label and text):
            mistakes.append(f"--add {addition}: must be axis.label=component, as in decoder.mine=my_decoder")
        elif not _is_utf8(addition):
            mistakes.append(f"--add {addition}: is not valid UTF-8; correct it")
        elif axis not in EXTENDABLE:
            known = ", ".join(EXTENDABLE)
            mistakes.append(f"--add {addition}: unknown axis {axis!r}{did_you_mean(axis, EXTENDABLE)}; known: {known}")
        elif label in _variants_of(data, axis):
            mistakes.append(f"--add {addition}: {axis} {label!r} already exists; choose another label, or use --set")
        elif text.startswith("{") and isinstance(choice, str):
            mistakes.append(
                f'--add {addition}: is not a TOML table; put texts in quotes, as in {{use="my_decoder", letters="012"}}'
            )
        else:
            data = merge(data, {"grid": {axis: {**_variants_of(data, axis), label: choice}}})
    if mistakes:
        raise ConfigError(mistakes)
    return dict(data)


def _is_utf8(text: str) -> bool:
    """Return whether a text can be written to a file; Python reads other bytes of a command line as surrogates."""
    return text == text.encode(errors="ignore").decode()


def _variants_of(data: Mapping[str, Any], axis: str) -> Mapping[str, Any]:
    """Return the variants of an axis in `data`, or the default ones, which an addition keeps."""
    grid = value_of(data.get("grid"))
    variants = value_of(grid.get(axis)) if isinstance(grid, Mapping) else None
    if axis == "settings" and not variants:
        return {"as is": {}}
    if variants is None and not Grid.model_fields[axis].is_required():
        return {label: {"use": choice.use} for label, choice in Grid.model_fields[axis].get_default().items()}
    return variants if isinstance(variants, Mapping) else {}
