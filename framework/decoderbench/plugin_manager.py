"""Which plugins take part, and how their hooks are called. No torch here, unless a plugin brings it.

A plugin that cannot be loaded disables itself with one line, and its traceback is kept for
`decoderbench plugins --verbose`; one that the user names with `-p` stops the command instead.
"""

from __future__ import annotations

import logging
import os
import reprlib
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import EntryPoint, entry_points
from itertools import groupby
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol

import pluggy

from decoderbench import hookspecs
from decoderbench.errors import PluginError, did_you_mean
from decoderbench.plugin_loading import Origin, load_entry_point, load_file, load_module, one_line, origin_of

if TYPE_CHECKING:
    from decoderbench.cell import Cell
    from decoderbench.records import RunRecord
    from decoderbench.training import CellContext

logger = logging.getLogger("decoderbench")
BLOCK = "no:"


class HookCaller(Protocol):
    """A hook, to be called with keyword arguments."""

    def __call__(self, **arguments: Any) -> Any: ...


@dataclass(frozen=True)
class PluginSources:
    """Where plugins come from, in full: another process that loads them has the same set.

    Attributes:
        named: importable modules, paths of `.py` files, and `no:NAME` for a plugin to leave out.
        folders: every `.py` file in them is a plugin.
        installed: whether entry points are loaded.
    """

    named: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()
    installed: bool = True

    @classmethod
    def gather(cls, named: Sequence[str], folders: Sequence[str | Path], *, installed: bool) -> PluginSources:
        """Add those of `DECODERBENCH_PLUGINS`, parted by commas, and make paths hold in any working directory."""
        also = [name.strip() for name in os.environ.get("DECODERBENCH_PLUGINS", "").split(",") if name.strip()]
        absolute = [str(Path(name).absolute()) if name.endswith(".py") else name for name in (*also, *named)]
        return cls(tuple(dict.fromkeys(absolute)), tuple(str(Path(folder).absolute()) for folder in folders), installed)

    @property
    def blocked(self) -> set[str]:
        """The names of plugins to leave out."""
        return {name.removeprefix(BLOCK) for name in self.named if name.startswith(BLOCK)}

    def load(self) -> Plugins:
        """Load installed entry points, then files of folders, then named ones, then the modules that they name.

        Raises:
            PluginError: a named plugin or a folder cannot be loaded, or `no:NAME` names none.
        """
        plugins = Plugins(_new_manager(), self)
        if self.installed:
            points = sorted(entry_points(group=hookspecs.PROJECT), key=lambda point: (point.name, point.value))
            for name, namesakes in groupby(points, key=lambda point: point.name):
                same = list(namesakes)
                plugins.origins[name] = Origin(" and ".join(map(origin_of, same)), "")
                plugins.take(name, partial(_load_only_one, same))
        for folder in map(Path, self.folders):
            if not folder.is_dir():
                raise PluginError(f"plugin folder {folder}: no such folder; give a folder that holds .py files")
            for file in sorted(folder.glob("*.py")):
                plugins.take(file.name, partial(load_file, file))
        for name in self.named:
            if not name.startswith(BLOCK):
                plugins.require(name)
        for plugin, hook in list(plugins.hooks("plugin_modules")):
            plugins.take_modules(plugin, hook)
        if unknown := sorted(self.blocked - plugins.seen):
            raise PluginError(
                f"-p {BLOCK}{unknown[0]}: no plugin has that name{did_you_mean(unknown[0], sorted(plugins.seen))}; "
                f"decoderbench plugins --verbose lists them"
            )
        return plugins


@dataclass(frozen=True)
class BrokenPlugin:
    """A plugin that was left out, why in one line, and the whole story."""

    name: str
    reason: str
    details: str


@dataclass
class Plugins:
    """The plugin manager, where each plugin came from, and those that were left out."""

    manager: pluggy.PluginManager
    sources: PluginSources = PluginSources()
    origins: dict[str, Origin] = field(default_factory=dict)
    broken: list[BrokenPlugin] = field(default_factory=list)
    required: set[str] = field(default_factory=set)
    """Those that the user named; what is wrong with one of them is an error."""

    seen: set[str] = field(default_factory=set)
    """The names of all that were found, those that are left out among them."""

    def hooks(self, name: str) -> Iterator[tuple[str, HookCaller]]:
        """Yield each plugin that implements a hook, with a caller of its implementation alone.

        They are sorted by name, those that the user named last: of two that claim one thing, that is the one to blame.
        """
        everyone = dict(self.manager.list_name_plugin())
        implementers = {impl.plugin_name for impl in getattr(self.manager.hook, name).get_hookimpls()}
        for plugin in sorted(implementers, key=lambda plugin: (plugin in self.required, plugin)):
            others = [other for key, other in everyone.items() if key != plugin and other is not None]
            yield plugin, self.manager.subset_hook_caller(name, remove_plugins=others)

    def notify(self, name: str, **arguments: Any) -> None:
        """Call an observer hook; an observer that raises is reported and harms neither cell nor other observers."""
        for plugin, hook in self.hooks(name):
            try:
                hook(**arguments)
            except (Exception, SystemExit) as error:  # noqa: BLE001 - an observer must never harm a cell
                logger.warning("plugin %s raised in %s: %s", plugin, name, one_line(error))

    def add(self, plugin: object, name: str) -> None:
        """Register a plugin of the program's own, such as the trainer or a progress bar; once is enough."""
        if not self.manager.has_plugin(name):
            self.manager.register(plugin, name)

    def run_cell(self, cell: Cell, context: CellContext) -> RunRecord:
        """Ask for a cell's record; raise `PluginError` if nobody gives one."""
        record: RunRecord = self.manager.hook.run_cell(cell=cell, context=context)
        if getattr(record, "cell", None) != cell:
            raise PluginError(
                f"run_cell was answered with {record!r:.80}, not with the cell's record; return a RunRecord of the "
                f"cell, None to leave the cell to others, or from a wrapper what it was given"
            )
        return record

    def report_columns(self, record: RunRecord) -> dict[str, object]:
        """Return the columns that plugins add to a record's row; raise `PluginError` if two add the same one."""
        columns: dict[str, object] = {}
        for plugin, hook in self.hooks("report_columns"):
            try:
                offered = [dict(columns_of_one) for columns_of_one in hook(record=record)]
            except (Exception, SystemExit) as error:  # noqa: BLE001 - a table must not be lost to a column
                logger.warning("plugin %s raised in report_columns: %s", plugin, one_line(error))
                continue
            for added in offered:
                if twice := sorted(columns.keys() & added.keys()):
                    raise PluginError(f"plugin {plugin} adds the report column {twice[0]!r} a second time; rename it")
                columns |= added
        return columns

    def report_broken(self, name: str, error: BaseException, *, doing: str) -> None:
        """Leave a plugin out: say so in one line and keep the traceback. Raise instead if the user named it."""
        origin = self.origins.get(name)
        whose = f" of {origin}" if origin is not None and origin.source != name else ""
        text = str(error) if isinstance(error, PluginError) else one_line(error)
        reason = f"plugin {name}{whose} {doing}: {text}"
        if name in self.required:
            raise PluginError(reason) from error
        self.broken.append(BrokenPlugin(name, reason, "".join(traceback.format_exception(error))))
        logger.warning("%s; it is left out (decoderbench plugins --verbose shows more)", reason)

    def take(self, name: str, load: Callable[[], tuple[object, Origin]], *, may_be_idle: bool = False) -> None:
        """Load a plugin and register it; leave it out with one line if that cannot be done or it has no hook."""
        self.seen.add(name)
        if name in self.sources.blocked:
            return
        try:
            plugin, origin = load()
            self.origins[name] = origin
            self._register(name, plugin)
            if not may_be_idle and not self.manager.get_hookcallers(plugin):
                raise PluginError("it registers nothing; mark a function such as register_decoders with @hookimpl")
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - sys.exit, and pytest.skip at the top of a file
            self.report_broken(name, error, doing="could not be loaded")

    def require(self, name: str) -> None:
        """Load a plugin that the user named; raise `PluginError` if that cannot be done."""
        self.required.add(name)
        if not name.endswith(".py"):
            self.take(name, partial(load_module, name))
            local = Path(f"{name}.py").absolute()
            if local.is_file() and self.origins[name].file != str(local):
                logger.warning(
                    "plugin %s is the module %s; for the file, give -p ./%s.py", name, self.origins[name], name
                )
            return
        if not Path(name).is_file():
            raise PluginError(f"plugin file {name}: no such file")
        self.take(name, partial(load_file, Path(name)))

    def take_modules(self, plugin: str, hook: HookCaller) -> None:
        """Load the modules that a package names as plugins of its own."""
        try:
            names: Iterable[str] = [name for names in hook() for name in names]
        except (Exception, SystemExit) as error:  # noqa: BLE001 - one plugin must not stop the others
            self.report_broken(plugin, error, doing="raised in plugin_modules")
            return
        for name in names:
            self.take(name, partial(self._load_as_of, plugin, name), may_be_idle=True)

    def _load_as_of(self, plugin: str, module: str) -> tuple[ModuleType, Origin]:
        """Load a module of a package, which comes from where the package does."""
        loaded, origin = load_module(module)
        return loaded, Origin(self.origins[plugin].source, origin.file)

    def _register(self, name: str, plugin: object) -> None:
        """Register a plugin, or raise `PluginError`; it is not registered then."""
        if self.manager.is_registered(plugin):
            other = self.manager.get_name(plugin)
            if self.origins[name].source not in (self.origins[str(other)].source, self.origins[name].file):
                raise PluginError(f"its module is that of plugin {other} of {self.origins[str(other)]}; rename one")
            return
        try:
            self.manager.register(plugin, name)
            self.manager.check_pending()
        except pluggy.PluginValidationError as error:
            if self.manager.is_registered(plugin):
                self.manager.unregister(plugin)
            message = str(error).replace("\n", " ")
            known = [hook for hook, spec in vars(hookspecs).items() if hasattr(spec, f"{hookspecs.PROJECT}_spec")]
            unknown = next((word for word in message.split("'")[1::2] if did_you_mean(word, known)), "")
            raise PluginError(message + did_you_mean(unknown, known) * (unknown not in known)) from None


def build_plugin_manager(
    named: Sequence[str] = (), folders: Sequence[str | Path] = (), *, installed: bool = True
) -> Plugins:
    """Load plugins: installed entry points (group `decoderbench`), `.py` files of folders, then named ones.

    Args:
        named: importable modules, paths of `.py` files, and `no:NAME` for a plugin to leave out; those of
            `DECODERBENCH_PLUGINS` come before them.
        folders: every `.py` file in them is a plugin.
        installed: whether entry points are loaded.

    Raises:
        PluginError: if a named plugin or a folder cannot be loaded.
    """
    return PluginSources.gather(named, folders, installed=installed).load()


def _load_only_one(namesakes: Sequence[EntryPoint]) -> tuple[Any, Origin]:
    """Load an entry point that has its name alone: of two, the order of a path must not decide."""
    if len(namesakes) > 1:
        modules = " and ".join(point.module for point in namesakes)
        raise PluginError(
            f"two distributions bring a plugin of this name, the modules {modules}; uninstall one, or load one by its "
            f"module, as in -p {namesakes[0].module}"
        )
    return load_entry_point(namesakes[0])


def _new_manager() -> pluggy.PluginManager:
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    if os.environ.get("DECODERBENCH_TRACE") == "1":
        _trace(manager)
    return manager


def _trace(manager: pluggy.PluginManager) -> None:
    """Print every hook call with its arguments, its implementations and its result."""
    shortening = reprlib.Repr()
    shortening.maxstring = shortening.maxother = 60
    shortening.maxdict, shortening.maxlist = 8, 40
    short = shortening.repr

    def before(hook: str, implementations: Sequence[Any], arguments: Any) -> None:
        who = ", ".join(impl.plugin_name for impl in reversed(implementations)) or "nobody"
        given = ", ".join(f"{name}={short(value)}" for name, value in arguments.items())
        print(f"hook {hook}({given}) -> {who}", file=sys.stderr)  # noqa: T201

    def after(outcome: Any, hook: str, implementations: Sequence[Any], arguments: Any) -> None:
        result = f" raised {one_line(outcome.exception)}" if outcome.exception else f" = {short(outcome.get_result())}"
        print(f"hook {hook}{result}", file=sys.stderr)  # noqa: T201

    manager.add_hookcall_monitoring(before, after)
