"""Where plugins come from: entry points, `-p` modules and files, plugin folders. A function builds the manager.

A plugin that cannot be loaded disables itself with one line and its traceback is kept for
`decoderbench plugins --verbose`; one that the user names with `-p` stops the command instead.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import os
import sys
import traceback
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol

import pluggy

from decoderbench import hookspecs
from decoderbench.errors import PluginError, did_you_mean

if TYPE_CHECKING:
    from decoderbench.cell import Cell
    from decoderbench.records import RunRecord
    from decoderbench.training import CellContext

logger = logging.getLogger("decoderbench")


class HookCaller(Protocol):
    """A hook, to be called with keyword arguments."""

    def __call__(self, **arguments: Any) -> Any: ...


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
    origins: dict[str, str] = field(default_factory=dict)
    broken: list[BrokenPlugin] = field(default_factory=list)

    def hooks(self, name: str) -> Iterator[tuple[str, HookCaller]]:
        """Yield each plugin that implements a hook, sorted by name, with a caller of its implementation alone."""
        everyone = dict(self.manager.list_name_plugin())
        implementers = {impl.plugin_name for impl in getattr(self.manager.hook, name).get_hookimpls()}
        for plugin in sorted(implementers):
            others = [other for key, other in everyone.items() if key != plugin and other is not None]
            yield plugin, self.manager.subset_hook_caller(name, remove_plugins=others)

    def notify(self, name: str, **arguments: Any) -> None:
        """Call an observer hook; an observer that raises is reported and harms neither cell nor other observers."""
        for plugin, hook in self.hooks(name):
            try:
                hook(**arguments)
            except (Exception, SystemExit) as error:  # noqa: BLE001 - an observer must never harm a cell
                logger.warning("plugin %s raised in %s: %s", plugin, name, _one_line(error))

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
                logger.warning("plugin %s raised in report_columns: %s", plugin, _one_line(error))
                continue
            for added in offered:
                if twice := sorted(columns.keys() & added.keys()):
                    raise PluginError(f"plugin {plugin} adds the report column {twice[0]!r} a second time; rename it")
                columns |= added
        return columns

    def report_broken(self, name: str, error: BaseException, *, doing: str) -> None:
        """Leave a plugin out: say so in one line and keep the traceback."""
        reason = f"plugin {name} {doing}: {_one_line(error)}"
        details = "".join(traceback.format_exception(error))
        self.broken.append(BrokenPlugin(name, reason, details))
        logger.warning("%s; it is left out (decoderbench plugins --verbose shows more)", reason)


def build_plugin_manager(
    named: Sequence[str] = (), folders: Sequence[str | Path] = (), *, installed: bool = True
) -> Plugins:
    """Load plugins: installed entry points (group `decoderbench`), `.py` files of folders, then named ones.

    Args:
        named: importable modules, or paths of `.py` files.
        folders: every `.py` file in them is a plugin.
        installed: whether entry points are loaded.

    Raises:
        PluginError: if a named plugin or a folder cannot be loaded.
    """
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    if os.environ.get("DECODERBENCH_TRACE") == "1":
        _trace(manager)
    plugins = Plugins(manager)
    if installed:
        for point in sorted(entry_points(group=hookspecs.PROJECT), key=lambda point: (point.name, point.value)):
            with _left_out_if_broken(plugins, point.name):
                _add(plugins, point.name, point.load(), _origin(point))
    for folder in map(Path, folders):
        if not folder.is_dir():
            raise PluginError(f"plugin folder {folder}: no such folder; give a folder that holds .py files")
        for file in sorted(folder.glob("*.py")):
            with _left_out_if_broken(plugins, file.name):
                _add(plugins, file.name, _load_file(file), str(file))
    for name in named:
        _add_named(plugins, name)
    for plugin, hook in list(plugins.hooks("plugin_modules")):
        _add_modules(plugins, plugin, hook)
    return plugins


def _add_named(plugins: Plugins, name: str) -> None:
    try:
        if name.endswith(".py"):
            if not Path(name).is_file():
                raise PluginError(f"plugin file {name}: no such file")
            module, origin = _load_file(Path(name)), name
        else:
            module = importlib.import_module(name)
            origin = module.__file__ or name
        _add(plugins, name, module, origin)
    except PluginError:
        raise
    except (Exception, SystemExit) as error:
        hint = f"; for a file, give -p ./{name}.py" if Path(f"{name}.py").is_file() else ""
        raise PluginError(f"plugin {name} could not be loaded: {_one_line(error)}{hint}") from error
    if not any(hook for hook in plugins.manager.get_hookcallers(module) or ()):
        raise PluginError(f"plugin {name} registers nothing; mark a function such as register_decoders with @hookimpl")


def _add(plugins: Plugins, name: str, plugin: object, origin: str) -> None:
    """Register a plugin, or raise `PluginError`; it is not registered then."""
    if plugins.manager.has_plugin(name) or plugins.manager.is_registered(plugin):
        return
    try:
        plugins.manager.register(plugin, name)
        plugins.manager.check_pending()
    except pluggy.PluginValidationError as error:
        if plugins.manager.is_registered(plugin):
            plugins.manager.unregister(plugin)
        message = str(error).replace("\n", " ")
        known = [hook for hook in vars(hookspecs) if not hook.startswith("_")]
        unknown = next((word for word in message.split("'") if word.startswith(("register_", "cell_", "run_"))), "")
        raise PluginError(message + did_you_mean(unknown, known) if unknown else message) from None
    plugins.origins[name] = origin


def _add_modules(plugins: Plugins, plugin: str, hook: HookCaller) -> None:
    try:
        names: Iterable[str] = [name for names in hook() for name in names]
    except (Exception, SystemExit) as error:  # noqa: BLE001 - one plugin must not stop the others
        plugins.report_broken(plugin, error, doing="raised in plugin_modules")
        return
    for name in names:
        with _left_out_if_broken(plugins, name):
            _add(plugins, name, importlib.import_module(name), plugins.origins[plugin])


class _left_out_if_broken:  # noqa: N801 - reads as a statement
    """A block in which a plugin may fail without harm to the others."""

    def __init__(self, plugins: Plugins, name: str) -> None:
        self.plugins, self.name = plugins, name

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> bool:
        if isinstance(error, Exception | SystemExit):
            self.plugins.report_broken(self.name, error, doing="could not be loaded")
            return True
        return False


def _load_file(file: Path) -> ModuleType:
    """Import a file under a name of its own, so that `torch.py` in a plugin folder shadows nothing."""
    name = f"decoderbench_file_{file.stem}"
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _origin(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist else point.value


def _one_line(error: BaseException) -> str:
    """Return the error and the place that raised it, on one line."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    frames = traceback.extract_tb(error.__traceback__)
    return f"{text} ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else text


def _trace(manager: pluggy.PluginManager) -> None:
    """Print every hook call with its arguments, its implementations and its result."""

    def before(hook: str, implementations: Sequence[Any], arguments: Any) -> None:
        who = ", ".join(impl.plugin_name for impl in reversed(implementations)) or "nobody"
        print(f"hook {hook}({', '.join(arguments)}) -> {who}", file=sys.stderr)  # noqa: T201

    def after(outcome: Any, hook: str, implementations: Sequence[Any], arguments: Any) -> None:
        result = outcome.exception or outcome.get_result()
        print(f"hook {hook} = {str(result)[:200]}", file=sys.stderr)  # noqa: T201

    manager.add_hookcall_monitoring(before, after)
