"""Calls of hooks, plugin by plugin, so that a plugin that raises is reported and stops no other. No torch here."""

from __future__ import annotations

import copy
import inspect
import logging
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pluggy

from decoderbench.errors import PluginError, did_you_mean
from decoderbench.exception_text import describe_error, text_of
from decoderbench.records.schema import RunRecord
from decoderbench.registry import hookspecs
from decoderbench.registry.global_state import OBSERVERS_MAY_CHANGE, undoing_changes
from decoderbench.registry.plugin_loading import Origin
from decoderbench.registry.record_rules import accept_record
from decoderbench.sources import plugin_digest

if TYPE_CHECKING:
    from decoderbench.config.cell import Cell
    from decoderbench.registry.context import CellContext

logger = logging.getLogger("decoderbench")

TRAINER = "decoderbench trainer"  # with a space: no module can have this name
"""The name of the plugin that is the built-in trainer."""

FREQUENT = ("data_read", "images_decoded", "cell_progressed")
"""Hooks that are called many times, so that guarding each call would take long."""

SECONDS_TO_WAIT = 10.0
"""After this time, a plugin that has not returned is named."""

HOOKS = frozenset(hook for hook, spec in vars(hookspecs).items() if hasattr(spec, f"{hookspecs.PROJECT}_spec"))


class HookCaller(Protocol):
    """A hook, to be called with keyword arguments."""

    def __call__(self, **arguments: Any) -> Any: ...


@contextmanager
def report_exceptions(report: Callable[[BaseException], None]) -> Iterator[None]:
    """Report what a plugin raises in the block, also `sys.exit` and `pytest.skip`; only Ctrl-C passes through."""
    try:
        yield
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 - as the docstring says
        report(error)


@contextmanager
def _naming_who_hangs(doing: str, plugin: str) -> Iterator[None]:
    """Log which plugin is at work if the block takes long, and if Ctrl-C ends it."""
    move = f"Ctrl-C ends the command, -p no:{plugin} leaves the plugin out"
    timer = threading.Timer(
        SECONDS_TO_WAIT, logger.warning, ("%s has taken %g s so far; %s", doing, SECONDS_TO_WAIT, move)
    )
    timer.daemon = True
    timer.start()
    try:
        yield
    except KeyboardInterrupt:
        logger.warning("interrupted in: %s", doing)
        raise
    finally:
        timer.cancel()


@dataclass
class HookCalls:
    """A plugin manager, and the calls of its hooks.

    Attributes:
        manager: pluggy's plugin manager.
        origins: where each plugin came from.
        required: plugins that the user named; a mistake in one of them is an error.
        changes: by plugin, how its import and its hooks changed the global state of the process; it was restored.
    """

    manager: pluggy.PluginManager
    origins: dict[str, Origin] = field(default_factory=dict)
    required: set[str] = field(default_factory=set)
    changes: dict[str, list[str]] = field(default_factory=dict)

    def hooks(self, name: str) -> Iterator[tuple[str, HookCaller]]:
        """Yield each plugin that implements a hook, with a caller of its implementation alone.

        Built-in plugins come first and those that the user named last: if two claim one name, the later one is refused.
        """
        everyone = dict(self.manager.list_name_plugin())
        implementers = {impl.plugin_name for impl in getattr(self.manager.hook, name).get_hookimpls()}
        for plugin in sorted(implementers, key=lambda name: (name in self.required, not self.is_builtin(name), name)):
            others = [other for key, other in everyone.items() if key != plugin and other is not None]
            yield plugin, self.manager.subset_hook_caller(name, remove_plugins=others)

    def is_builtin(self, plugin: str) -> bool:
        """Return whether a plugin belongs to decoderbench itself."""
        return plugin in self.origins and self.origins[plugin].source.split()[0] == hookspecs.PROJECT

    @contextmanager
    def guarding(self, plugin: str, doing: str, *, keeping: Collection[str] = ()) -> Iterator[None]:
        """Restore the global state that a plugin changes in the block, except `keeping`, and name plugin and change.

        The built-in plugins need no guard, which costs milliseconds.
        """

        def report(change: str) -> None:
            logger.warning("%s %s", doing, change)
            self.changes.setdefault(plugin, []).append(f"{doing} {change}")

        if self.is_builtin(plugin) or plugin.startswith(f"{hookspecs.PROJECT} "):
            yield
            return
        with undoing_changes(report, keeping=keeping), _naming_who_hangs(doing, plugin):
            yield

    def notify(self, name: str, **arguments: Any) -> None:
        """Call an observer hook; an observer that raises is reported and affects no cell and no other observer.

        Each observer gets copies of the arguments, so that it can change nothing but its own.
        """
        for plugin, hook in self.hooks(name):
            with report_exceptions(partial(_warn, plugin, name)):
                doing = f"{name} of plugin {plugin}"
                guard = self.guarding(plugin, doing, keeping=OBSERVERS_MAY_CHANGE)
                with nullcontext() if name in FREQUENT else guard:
                    hook(**copy.deepcopy(arguments))

    def add(self, plugin: object, name: str) -> None:
        """Register an object of the program's own, such as the trainer or a progress bar; once is enough."""
        if not self.manager.has_plugin(name):
            self.manager.register(plugin, name)

    @contextmanager
    def observing(self) -> Iterator[None]:
        """Register the observers that plugins create for one run, during the block; end with `run_finished`."""
        observers: list[object] = []
        try:
            for plugin, hook in list(self.hooks("register_observers")):
                doing = f"register_observers of plugin {plugin}"
                with (
                    report_exceptions(partial(_warn, plugin, "register_observers")),
                    self.guarding(plugin, doing, keeping=OBSERVERS_MAY_CHANGE),
                ):
                    for created in hook():
                        for observer in created:
                            self._register_observer(f"observer {len(observers) + 1} of {plugin}", observer)
                            observers.append(observer)
            yield
        finally:
            self.notify("run_finished")
            for observer in observers:
                self.manager.unregister(observer)

    def trainers(self) -> dict[str, str]:
        """Return the plugins that may train cells instead of the built-in trainer, each with its source digest."""
        return self._implementers_of_run_cell(wrappers=False)

    def trainer_wrappers(self) -> dict[str, str]:
        """Return the plugins that wrap the training of cells, as profilers do, each with its source digest."""
        return self._implementers_of_run_cell(wrappers=True)

    def _implementers_of_run_cell(self, *, wrappers: bool) -> dict[str, str]:
        found = {}
        for impl in self.manager.hook.run_cell.get_hookimpls():
            if impl.plugin_name == TRAINER or (impl.wrapper or impl.hookwrapper) is not wrappers:
                continue
            try:
                found[impl.plugin_name] = _source_digest(impl.function)
            except (OSError, TypeError):
                if wrappers:
                    found[impl.plugin_name] = "without a source file"
                    continue
                raise PluginError(
                    f"plugin {impl.plugin_name}: its run_cell has no source file, so its results could not be told "
                    f"from those of other trainers; define it in a .py file"
                ) from None
        return found

    def run_cell(self, cell: Cell, context: CellContext) -> RunRecord:
        """Return a cell's record from the first trainer that makes one; raise `PluginError` if none does."""
        num_scored = len(context.dataset.rows(cell.scored_split))
        returned = self.manager.hook.run_cell(cell=copy.deepcopy(cell), context=context)
        try:
            return accept_record(returned, cell, num_scored)
        except ValueError as error:
            others = [impl.plugin_name for impl in self.manager.hook.run_cell.get_hookimpls()]
            names = ", ".join(name for name in others if name != TRAINER) or TRAINER
            raise PluginError(f"run_cell of plugin {names} returned {text_of(error)}") from error.__cause__

    def report_columns(self, record: RunRecord) -> dict[str, object]:
        """Return the columns that plugins add to a record's row; if two add the same column, the first one counts."""
        columns: dict[str, object] = {}
        for plugin, hook in self.hooks("report_columns"):
            with report_exceptions(partial(_warn, plugin, "report_columns")):
                for added in hook(record=copy.deepcopy(record)):
                    if twice := sorted(columns.keys() & added.keys()):
                        raise PluginError(f"another plugin adds the column {twice[0]!r} too; rename it")
                    columns |= dict(added)
        return columns

    def register(self, name: str, plugin: object) -> None:
        """Register a plugin; raise `PluginError`, with nothing registered, if it is no valid one."""
        try:
            hash(plugin)
        except TypeError:
            raise PluginError(f"{type(plugin).__name__} objects cannot be hashed; use a module") from None
        if self.manager.is_registered(plugin):
            other = str(self.manager.get_name(plugin))
            if self.origins[name].source not in (self.origins[other].source, self.origins[name].file):
                raise PluginError(f"its module is that of plugin {other} of {self.origins[other]}; rename one")
            return
        try:
            self.manager.register(plugin, name)
            self.manager.check_pending()
        except pluggy.PluginValidationError as error:
            if self.manager.is_registered(plugin):
                self.manager.unregister(plugin)
            message = str(error).replace("\n", " ")
            known = sorted(HOOKS)
            unknown = next((word for word in message.split("'")[1::2] if did_you_mean(word, known)), "")
            raise PluginError(message + did_you_mean(unknown, known) * (unknown not in known)) from None

    def _register_observer(self, name: str, observer: object) -> None:
        """Register an object that observes one run; raise `PluginError`, with nothing registered, if it cannot."""
        kind = type(observer).__name__
        if inspect.isclass(observer):
            raise PluginError(
                f"it returned the class {observer.__name__}; return objects, as in [{observer.__name__}()]"
            )
        if self.manager.is_registered(observer):
            raise PluginError(f"it returned a {kind} that is registered already; return new objects at each call")
        self.register(name, observer)
        hooks = {hook.name for hook in self.manager.get_hookcallers(observer) or ()}
        if "run_cell" in hooks:
            self.manager.unregister(observer)
            raise PluginError(
                f"it returned a {kind} that implements run_cell; implement it in the plugin itself, whose source is "
                f"part of the identity of the cells that it trains"
            )
        if not hooks:
            self.manager.unregister(observer)
            raise PluginError(
                f"it returned a {kind} that observes nothing; mark methods such as cell_started with @hookimpl"
            )


@cache  # of the files as they were imported: later edits do not change the loaded code
def _source_digest(function: Callable[..., object]) -> str:
    return plugin_digest(Path(inspect.getfile(inspect.unwrap(function))))


def _warn(plugin: str, hook: str, error: BaseException) -> None:
    text = text_of(error) if isinstance(error, PluginError) else describe_error(error)
    logger.warning("plugin %s raised in %s: %s", plugin, hook, text)
