"""Which plugins take part, and how their hooks are called. No torch here, unless a plugin imports it.

A plugin that cannot be loaded is disabled with one line, and its traceback is kept for `decoderbench plugins
--verbose`. A plugin that the user names with `-p` stops the command instead.
"""

from __future__ import annotations

import inspect
import logging
import os
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import EntryPoint
from itertools import groupby
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol

import pluggy

from decoderbench.errors import PluginError, did_you_mean
from decoderbench.identity import source_digest
from decoderbench.registry import hookspecs
from decoderbench.registry.plugin_loading import (
    Origin,
    describe_error,
    load_entry_point,
    load_file,
    load_module,
    origin_of,
)
from decoderbench.registry.plugin_sources import BLOCK, PluginSources, is_file
from decoderbench.registry.tracing import trace_hooks

if TYPE_CHECKING:
    from decoderbench.config.cell import Cell
    from decoderbench.records import RunRecord
    from decoderbench.registry.context import CellContext

logger = logging.getLogger("decoderbench")
TRAINER = "trainer"
"""The name of the plugin that is the built-in trainer."""

HOOKS = frozenset(hook for hook, spec in vars(hookspecs).items() if hasattr(spec, f"{hookspecs.PROJECT}_spec"))


class HookCaller(Protocol):
    """A hook, to be called with keyword arguments."""

    def __call__(self, **arguments: Any) -> Any: ...


@contextmanager
def report_exceptions(report: Callable[[BaseException], None]) -> Iterator[None]:
    """Report what a plugin raises in the block, also `sys.exit` and `pytest.skip`; only Ctrl-C passes through."""
    try:
        yield
    except (KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:  # noqa: BLE001 - as the docstring says
        report(error)


@dataclass(frozen=True)
class BrokenPlugin:
    """A disabled plugin, the reason in one line, and its traceback."""

    name: str
    reason: str
    details: str


@dataclass
class Plugins:
    """The plugin manager, where each plugin came from, and the plugins that were disabled."""

    manager: pluggy.PluginManager
    sources: PluginSources = field(default_factory=PluginSources)
    origins: dict[str, Origin] = field(default_factory=dict)
    broken: list[BrokenPlugin] = field(default_factory=list)
    required: set[str] = field(default_factory=set)
    """Plugins that the user named; a mistake in one of them is an error."""

    seen: set[str] = field(default_factory=set)
    """The names of all plugins that were found, disabled ones included."""

    files: dict[Path, tuple[ModuleType, Origin]] = field(default_factory=dict)
    """The modules imported from files."""

    @classmethod
    def load(cls, sources: PluginSources) -> Plugins:
        """Load all plugins of the sources: entry points, then folders, then named ones."""
        plugins = cls(_new_manager(), sources)
        for name, points in groupby(sources.entry_points(), key=lambda point: point.name):
            same = list(points)
            plugins.origins[name] = Origin(" and ".join(dict.fromkeys(map(origin_of, same))), "")
            plugins.take(name, partial(_load_unique, same))
        for folder in map(Path, sources.folders):
            if not folder.is_dir():
                raise PluginError(f"plugin folder {folder}: no such folder; give a folder that holds .py files")
            for file in sorted(folder.glob("*.py")):
                plugins.take(str(file) if file.name in plugins.seen else file.name, partial(plugins.load_file, file))
        for name in sources.named:
            if not name.startswith(BLOCK):
                plugins.require(name)
        plugins.take_modules()
        if sources.builtin and (unknown := sorted(sources.blocked - plugins.seen)):
            raise PluginError(
                f"{BLOCK}{unknown[0]}: no plugin has that name{did_you_mean(unknown[0], sorted(plugins.seen))}; "
                f"decoderbench plugins --verbose lists them"
            )
        return plugins

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

    def notify(self, name: str, **arguments: Any) -> None:
        """Call an observer hook; an observer that raises is reported and affects no cell and no other observer."""
        for plugin, hook in self.hooks(name):
            with report_exceptions(partial(_warn, plugin, name)):
                hook(**arguments)

    def add(self, plugin: object, name: str) -> None:
        """Register an object of the program's own, such as the trainer or a progress bar; once is enough."""
        if not self.manager.has_plugin(name):
            self.manager.register(plugin, name)

    @contextmanager
    def observing(self) -> Iterator[None]:
        """Register the observers that plugins create for one run, for the length of the block."""
        observers: list[object] = []
        for plugin, hook in list(self.hooks("register_observers")):
            with report_exceptions(partial(_warn, plugin, "register_observers")):
                for created in hook():
                    for observer in created:
                        self._register(f"observer {len(observers) + 1} of {plugin}", observer)
                        observers.append(observer)
        try:
            yield
        finally:
            for observer in observers:
                self.manager.unregister(observer)

    def trainers(self) -> dict[str, str]:
        """Return the plugins that may train cells instead of the built-in trainer, each with its source digest."""
        found = {}
        for impl in self.manager.hook.run_cell.get_hookimpls():
            if impl.plugin_name != TRAINER and not (impl.wrapper or impl.hookwrapper):
                found[impl.plugin_name] = source_digest(Path(inspect.getfile(inspect.unwrap(impl.function))))
        return found

    def run_cell(self, cell: Cell, context: CellContext) -> RunRecord:
        """Return a cell's record from the first trainer that makes one; raise `PluginError` if none does."""
        record: RunRecord = self.manager.hook.run_cell(cell=cell, context=context)
        if getattr(record, "cell", None) != cell:
            raise PluginError(
                f"run_cell returned {record!r:.80} instead of this cell's record; return this cell's RunRecord, or "
                f"None to let another plugin run it; a wrapper returns the result of its `yield`"
            )
        return record

    def report_columns(self, record: RunRecord) -> dict[str, object]:
        """Return the columns that plugins add to a record's row; if two add the same column, the first one counts."""
        columns: dict[str, object] = {}
        for plugin, hook in self.hooks("report_columns"):
            with report_exceptions(partial(_warn, plugin, "report_columns")):
                for added in hook(record=record):
                    if twice := sorted(columns.keys() & added.keys()):
                        raise PluginError(f"another plugin adds the column {twice[0]!r} too; rename it")
                    columns |= dict(added)
        return columns

    def report_broken(self, name: str, error: BaseException, *, doing: str, loses: str = "it") -> None:
        """Log in one line what a plugin loses, and keep the traceback. If the user named the plugin, raise instead."""
        origin = self.origins.get(name)
        source = f" of {origin}" if origin is not None and origin.source != name else ""
        text = str(error) if isinstance(error, PluginError) else describe_error(error)
        reason = f"plugin {name}{source} {doing}: {text}"
        if name in self.required:
            raise PluginError(reason) from error
        if reason in (broken.reason for broken in self.broken):
            return  # a second registry of the same plugins
        self.broken.append(BrokenPlugin(name, reason, "".join(traceback.format_exception(error))))
        logger.warning("%s; %s is disabled (decoderbench plugins --verbose shows more)", reason, loses)

    def take(self, name: str, load: Callable[[], tuple[object, Origin]], *, needs_hooks: bool = True) -> None:
        """Load a plugin and register it. If that fails, or it has no hook, disable it with one line."""
        self.seen.add(name)
        if name in self.sources.blocked:
            return
        with report_exceptions(partial(self.report_broken, name, doing="could not be loaded")):
            plugin, self.origins[name] = load()
            _refuse_unmarked(plugin)
            self._register(name, plugin)
            if needs_hooks and not self.manager.get_hookcallers(plugin):
                raise PluginError("it registers nothing; mark a function such as register_decoders with @hookimpl")

    def require(self, name: str) -> None:
        """Load a plugin that the user named, unless its entry point was loaded; raise `PluginError` if that fails."""
        self.required.add(name)
        if name in self.seen:
            if broken := next((broken for broken in self.broken if broken.name == name), None):
                raise PluginError(broken.reason)
            return
        if is_file(name):
            if not Path(name).is_file():
                raise PluginError(f"plugin file {name}: no such file")
            self.take(name, partial(self.load_file, Path(name)))
            return
        local = Path(f"{name}.py").resolve()
        hint = f"; for the file, give -p ./{name}.py" if local.is_file() else ""
        try:
            self.take(name, partial(load_module, name))
        except PluginError as error:
            raise PluginError(f"{error}{hint}") from error
        if hint and name in self.origins and self.origins[name].file != str(local):
            logger.warning("plugin %s is the module %s%s", name, self.origins[name], hint)

    def take_modules(self) -> None:
        """Load the modules that packages name as plugins of their own, and the modules that these name."""
        asked: set[str] = set()
        while waiting := [(plugin, hook) for plugin, hook in self.hooks("plugin_modules") if plugin not in asked]:
            for plugin, hook in waiting:
                asked.add(plugin)
                names: list[str] = []
                with report_exceptions(partial(self.report_broken, plugin, doing="raised in plugin_modules")):
                    names = [name for named in hook() for name in named]
                if plugin in self.required:
                    self.required |= set(names)
                for name in names:
                    self.take(name, partial(self._load_module_of, plugin, name), needs_hooks=False)

    def load_file(self, path: Path) -> tuple[ModuleType, Origin]:
        """Load a file, once: a folder and a name may both lead to it."""
        file = path.resolve()
        if file not in self.files:
            self.files[file] = load_file(file)
        return self.files[file]

    def _load_module_of(self, plugin: str, module: str) -> tuple[ModuleType, Origin]:
        """Load a module of a package; its source is that of the package."""
        loaded, origin = load_module(module)
        return loaded, Origin(self.origins[plugin].source, origin.file)

    def _register(self, name: str, plugin: object) -> None:
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


def build_plugin_manager(
    named: Sequence[str] = (), folders: Sequence[str | Path] = (), *, installed: bool = True, builtin: bool = True
) -> Plugins:
    """Load plugins: installed entry points (group `decoderbench`), `.py` files of folders, then named ones.

    Args:
        named: importable modules, paths of `.py` files, and `no:NAME` to disable a plugin. The plugins of
            `DECODERBENCH_PLUGINS` come before them.
        folders: every `.py` file in them is a plugin.
        installed: whether entry points are loaded.
        builtin: whether the built-in components are among them; without them, torch may not be needed.

    Raises:
        PluginError: a named plugin or a folder cannot be loaded.
    """
    return Plugins.load(PluginSources.gather(named, folders, installed=installed, builtin=builtin))


def _warn(plugin: str, hook: str, error: BaseException) -> None:
    text = str(error) if isinstance(error, PluginError) else describe_error(error)
    logger.warning("plugin %s raised in %s: %s", plugin, hook, text)


def _refuse_unmarked(plugin: object) -> None:
    """Refuse a module with a function that has the name of a hook but no marker: it would be ignored in silence."""
    if not isinstance(plugin, ModuleType):
        return
    for name in HOOKS & vars(plugin).keys():
        function = getattr(plugin, name)
        own = getattr(function, "__module__", None) == plugin.__name__
        if own and callable(function) and not hasattr(function, f"{hookspecs.PROJECT}_impl"):
            raise PluginError(f"its function {name} is not marked; put @hookimpl above it, or rename it")


def _load_unique(points: Sequence[EntryPoint]) -> tuple[Any, Origin]:
    """Load an entry point; refuse two of the same name, so that the order of the search path decides nothing."""
    if len(points) > 1:
        modules = " and ".join(point.module for point in points)
        raise PluginError(
            f"two distributions have an entry point of that name, for the modules {modules}; uninstall one, or load "
            f"one by its module, as in -p {points[0].module}"
        )
    return load_entry_point(points[0])


def _new_manager() -> pluggy.PluginManager:
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    if os.environ.get("DECODERBENCH_TRACE") == "1":
        trace_hooks(manager)
    return manager
