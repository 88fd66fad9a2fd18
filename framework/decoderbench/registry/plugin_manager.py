"""Which plugins take part, and how their hooks are called. No torch here, unless a plugin brings it.

A plugin that cannot be loaded disables itself with one line, and its traceback is kept for
`decoderbench plugins --verbose`; one that the user names with `-p` stops the command instead.
"""

from __future__ import annotations

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
from decoderbench.registry import hookspecs
from decoderbench.registry.plugin_loading import Origin, load_entry_point, load_file, load_module, one_line, origin_of
from decoderbench.registry.plugin_sources import BLOCK, PluginSources, is_file
from decoderbench.registry.tracing import trace_hooks

if TYPE_CHECKING:
    from decoderbench.config.cell import Cell
    from decoderbench.records import RunRecord
    from decoderbench.training.trainer import CellContext

logger = logging.getLogger("decoderbench")
HOOKS = frozenset(hook for hook, spec in vars(hookspecs).items() if hasattr(spec, f"{hookspecs.PROJECT}_spec"))


class HookCaller(Protocol):
    """A hook, to be called with keyword arguments."""

    def __call__(self, **arguments: Any) -> Any: ...


@contextmanager
def whatever_it_raises(report: Callable[[BaseException], None]) -> Iterator[None]:
    """Report what a plugin raises in the block, `sys.exit` and `pytest.skip` too; only the user interrupts."""
    try:
        yield
    except (KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:  # noqa: BLE001 - as the docstring says
        report(error)


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
    sources: PluginSources = field(default_factory=PluginSources)
    origins: dict[str, Origin] = field(default_factory=dict)
    broken: list[BrokenPlugin] = field(default_factory=list)
    required: set[str] = field(default_factory=set)
    """Those that the user named; what is wrong with one of them is an error."""

    seen: set[str] = field(default_factory=set)
    """The names of all that were found, those that are left out among them."""

    files: dict[Path, tuple[ModuleType, Origin]] = field(default_factory=dict)
    """What was imported from files."""

    @classmethod
    def load(cls, sources: PluginSources) -> Plugins:
        """Load installed entry points, then files of folders, then named ones, then the modules that they name.

        Raises:
            PluginError: a named plugin or a folder cannot be loaded, or `no:NAME` names none.
        """
        plugins = cls(_new_manager(), sources)
        for name, namesakes in groupby(sources.entry_points(), key=lambda point: point.name):
            same = list(namesakes)
            plugins.origins[name] = Origin(" and ".join(dict.fromkeys(map(origin_of, same))), "")
            plugins.take(name, partial(_load_only_one, same))
        for folder in map(Path, sources.folders):
            if not folder.is_dir():
                raise PluginError(f"plugin folder {folder}: no such folder; give a folder that holds .py files")
            for file in sorted(folder.glob("*.py")):
                plugins.take(str(file) if file.name in plugins.seen else file.name, partial(plugins.load_file, file))
        for name in sources.named:
            if not name.startswith(BLOCK):
                plugins.require(name)
        plugins.take_modules()
        if sources.shipped and (unknown := sorted(sources.blocked - plugins.seen)):
            raise PluginError(
                f"{BLOCK}{unknown[0]}: no plugin has that name{did_you_mean(unknown[0], sorted(plugins.seen))}; "
                f"decoderbench plugins --verbose lists them"
            )
        return plugins

    def hooks(self, name: str) -> Iterator[tuple[str, HookCaller]]:
        """Yield each plugin that implements a hook, with a caller of its implementation alone.

        They are sorted: what ships first, and those that the user named last. Of two that claim one thing, the later
        is to blame.
        """
        everyone = dict(self.manager.list_name_plugin())
        implementers = {impl.plugin_name for impl in getattr(self.manager.hook, name).get_hookimpls()}
        for plugin in sorted(implementers, key=lambda name: (name in self.required, not self.is_shipped(name), name)):
            others = [other for key, other in everyone.items() if key != plugin and other is not None]
            yield plugin, self.manager.subset_hook_caller(name, remove_plugins=others)

    def is_shipped(self, plugin: str) -> bool:
        """Whether a plugin belongs to decoderbench itself."""
        return plugin in self.origins and self.origins[plugin].source.split()[0] == hookspecs.PROJECT

    def notify(self, name: str, **arguments: Any) -> None:
        """Call an observer hook; an observer that raises is reported and harms neither cell nor other observers."""
        for plugin, hook in self.hooks(name):
            with whatever_it_raises(partial(_warn, plugin, name)):
                hook(**arguments)

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
        """Return the columns that plugins add to a record's row; of two that add the same one, the first counts."""
        columns: dict[str, object] = {}
        for plugin, hook in self.hooks("report_columns"):
            with whatever_it_raises(partial(_warn, plugin, "report_columns")):
                for added in hook(record=record):
                    if twice := sorted(columns.keys() & added.keys()):
                        raise PluginError(f"another plugin adds the column {twice[0]!r} too; rename it")
                    columns |= dict(added)
        return columns

    def report_broken(self, name: str, error: BaseException, *, doing: str, loses: str = "it") -> None:
        """Say in one line what a plugin loses, and keep the traceback. Raise instead if the user named it."""
        origin = self.origins.get(name)
        whose = f" of {origin}" if origin is not None and origin.source != name else ""
        text = str(error) if isinstance(error, PluginError) else one_line(error)
        reason = f"plugin {name}{whose} {doing}: {text}"
        if name in self.required:
            raise PluginError(reason) from error
        if reason in (broken.reason for broken in self.broken):
            return  # a second registry of the same plugins
        self.broken.append(BrokenPlugin(name, reason, "".join(traceback.format_exception(error))))
        logger.warning("%s; %s is left out (decoderbench plugins --verbose shows more)", reason, loses)

    def take(self, name: str, load: Callable[[], tuple[object, Origin]], *, may_be_idle: bool = False) -> None:
        """Load a plugin and register it; leave it out with one line if that cannot be done or it has no hook."""
        self.seen.add(name)
        if name in self.sources.blocked:
            return
        with whatever_it_raises(partial(self.report_broken, name, doing="could not be loaded")):
            plugin, self.origins[name] = load()
            _refuse_unmarked(plugin)
            self._register(name, plugin)
            if not may_be_idle and not self.manager.get_hookcallers(plugin):
                raise PluginError("it registers nothing; mark a function such as register_decoders with @hookimpl")

    def require(self, name: str) -> None:
        """Load a plugin that the user named, unless its entry point was; raise `PluginError` if that cannot be done."""
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
        """Load the modules that packages name as plugins of their own, and those that these name."""
        asked: set[str] = set()
        while waiting := [(plugin, hook) for plugin, hook in self.hooks("plugin_modules") if plugin not in asked]:
            for plugin, hook in waiting:
                asked.add(plugin)
                names: list[str] = []
                with whatever_it_raises(partial(self.report_broken, plugin, doing="raised in plugin_modules")):
                    names = [name for named in hook() for name in named]
                if plugin in self.required:
                    self.required |= set(names)
                for name in names:
                    self.take(name, partial(self._load_as_of, plugin, name), may_be_idle=True)

    def load_file(self, path: Path) -> tuple[ModuleType, Origin]:
        """Load a file, once: a folder and a name may both lead to it."""
        file = path.resolve()
        if file not in self.files:
            self.files[file] = load_file(file)
        return self.files[file]

    def _load_as_of(self, plugin: str, module: str) -> tuple[ModuleType, Origin]:
        """Load a module of a package, which comes from where the package does."""
        loaded, origin = load_module(module)
        return loaded, Origin(self.origins[plugin].source, origin.file)

    def _register(self, name: str, plugin: object) -> None:
        """Register a plugin, or raise `PluginError`; it is not registered then."""
        try:
            hash(plugin)
        except TypeError:
            raise PluginError(f"{type(plugin).__name__} objects cannot be hashed; offer a module") from None
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
            known = sorted(HOOKS)
            unknown = next((word for word in message.split("'")[1::2] if did_you_mean(word, known)), "")
            raise PluginError(message + did_you_mean(unknown, known) * (unknown not in known)) from None


def build_plugin_manager(
    named: Sequence[str] = (), folders: Sequence[str | Path] = (), *, installed: bool = True, shipped: bool = True
) -> Plugins:
    """Load plugins: installed entry points (group `decoderbench`), `.py` files of folders, then named ones.

    Args:
        named: importable modules, paths of `.py` files, and `no:NAME` for a plugin to leave out; those of
            `DECODERBENCH_PLUGINS` come before them.
        folders: every `.py` file in them is a plugin.
        installed: whether entry points are loaded.
        shipped: whether that of decoderbench itself is among them; without it torch may not be needed.

    Raises:
        PluginError: if a named plugin or a folder cannot be loaded.
    """
    return Plugins.load(PluginSources.gather(named, folders, installed=installed, shipped=shipped))


def _warn(plugin: str, hook: str, error: BaseException) -> None:
    text = str(error) if isinstance(error, PluginError) else one_line(error)
    logger.warning("plugin %s raised in %s: %s", plugin, hook, text)


def _refuse_unmarked(plugin: object) -> None:
    """Refuse a module with a function that has a hook's name and no marker: it would be passed over in silence."""
    if not isinstance(plugin, ModuleType):
        return
    for name in HOOKS & vars(plugin).keys():
        function = getattr(plugin, name)
        ours = getattr(function, "__module__", None) == plugin.__name__
        if ours and callable(function) and not hasattr(function, f"{hookspecs.PROJECT}_impl"):
            raise PluginError(f"its function {name} is not marked; put @hookimpl above it, or give it another name")


def _load_only_one(namesakes: Sequence[EntryPoint]) -> tuple[Any, Origin]:
    """Load an entry point that has its name alone: of two, the order of a path must not decide."""
    if len(namesakes) > 1:
        modules = " and ".join(point.module for point in namesakes)
        raise PluginError(
            f"it is there twice, as the modules {modules}; uninstall one, or load one by its module, as in "
            f"-p {namesakes[0].module}"
        )
    return load_entry_point(namesakes[0])


def _new_manager() -> pluggy.PluginManager:
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    if os.environ.get("DECODERBENCH_TRACE") == "1":
        trace_hooks(manager)
    return manager
