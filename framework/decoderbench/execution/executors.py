"""Which executor runs the cells of a run, and its options."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from decoderbench.config.grid import ComponentChoice
from decoderbench.errors import ConfigError
from decoderbench.execution.work import objects_of
from decoderbench.options import ComponentConfig
from decoderbench.registry.executor import Executor
from decoderbench.registry.registry import Registered, Registry


@dataclass(frozen=True)
class ChosenExecutor:
    """The executor of a run.

    Attributes:
        registered: the executor as it is registered.
        config: its options.
        by_name: whether the user chose it, not the default.
    """

    registered: Registered[Executor]
    config: ComponentConfig
    by_name: bool

    @property
    def component(self) -> type[Executor]:
        """The class of the executor."""
        return self.registered.component


def choose_executor(
    registry: Registry,
    name: str | None,
    options: Mapping[str, Any] | None = None,
    *,
    jobs: int | None = None,
    cell_timeout: float | None = None,
) -> ChosenExecutor:
    """Return the executor of a run: the named one, else that of `$DECODERBENCH_EXECUTOR`, else `local`.

    Where plugins are objects that no other process can load, the default is `inline`.

    Args:
        registry: the executors to choose from.
        name: of an executor; None for the default.
        options: of the executor; values may be typed ones of a command line.
        jobs: how many cells are to run at a time, if given.
        cell_timeout: seconds after which a cell is to be ended, if given.

    Raises:
        UnknownNameError: no such executor is registered.
        ConfigError: it cannot run these plugins, several cells at a time, or end a cell, or an option is wrong.
    """
    given = name or os.environ.get("DECODERBENCH_EXECUTOR")
    executors = registry["executor"]
    chosen: Registered[Executor] = executors[given or ("local" if os.name == "posix" else "inline")]
    if not chosen.component.in_process and (by_hand := objects_of(registry.plugins)):
        which = f"plugin {by_hand[0]} is an object of this process, which no other process can load"
        if given:
            raise ConfigError([f"--executor {given}: {which}; use inline, or load it from a module or a file"])
        chosen = executors["inline"]
    if chosen.component.in_process:
        cells = f"executor {chosen.name!r} runs cells in this process"
        if cell_timeout is not None:
            raise ConfigError([f"--cell-timeout {cell_timeout:g}s: {cells} and cannot end one; use local"])
        if jobs not in (None, 1):
            raise ConfigError([f"--jobs {jobs}: {cells}, one at a time; use local"])
    choice = ComponentChoice(use=chosen.name, **executors.decide_options(chosen.name, options or {}))
    config, mistakes = executors.try_to_configure(choice)
    if config is None:
        raise ConfigError([f"--set {'.'.join(['executor', *map(str, place)])}: {text}" for place, text in mistakes])
    return ChosenExecutor(chosen, config, by_name=bool(given))
