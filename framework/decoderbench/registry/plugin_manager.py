"""Which plugins take part: all of them are loaded here, or disabled. No torch here, unless a plugin imports it.

A plugin that cannot be loaded is disabled with one line, and its traceback is kept for `decoderbench plugins
--verbose`. A plugin that the user names with `-p` stops the command instead.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import EntryPoint
from itertools import groupby
from pathlib import Path
from types import ModuleType
from typing import Any

import pluggy

from decoderbench.errors import PluginError, did_you_mean
from decoderbench.exception_text import describe_error, format_traceback, text_of
from decoderbench.registry import hookspecs
from decoderbench.registry.hook_calls import HOOKS, HookCalls, report_exceptions
from decoderbench.registry.plugin_loading import (
    Origin,
    load_entry_point,
    load_file,
    load_module,
    origin_of,
)
from decoderbench.registry.plugin_sources import BLOCK, PluginSources, is_file
from decoderbench.registry.tracing import trace_hooks

logger = logging.getLogger("decoderbench")


@dataclass(frozen=True)
class BrokenPlugin:
    """A disabled plugin, the reason in one line, and its traceback."""

    name: str
    reason: str
    details: str


@dataclass
class Plugins(HookCalls):
    """The loaded plugins, and those that were disabled."""

    sources: PluginSources = field(default_factory=PluginSources)
    broken: list[BrokenPlugin] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)
    """The names of all plugins that were found, disabled ones included."""

    files: dict[Path, tuple[ModuleType, Origin]] = field(default_factory=dict)
    """The modules imported from files."""

    @classmethod
    def load(cls, sources: PluginSources) -> Plugins:
        """Load all plugins of the sources: entry points, then folders, then named ones."""
        plugins = cls(_new_manager(), sources=sources)
        for name, points in groupby(sources.entry_points(), key=lambda point: point.name):
            same = list(points)
            plugins.origins[name] = Origin(" and ".join(dict.fromkeys(map(origin_of, same))), "")
            plugins.take(name, partial(_load_unique, same))
        for file in sources.files():
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

    def report_broken(self, name: str, error: BaseException, *, doing: str, loses: str = "it") -> None:
        """Log in one line what a plugin loses, and keep the traceback. If the user named the plugin, raise instead."""
        origin = self.origins.get(name)
        source = f" of {origin}" if origin is not None and origin.source != name else ""
        text = text_of(error) if isinstance(error, PluginError) else describe_error(error)
        reason = f"plugin {name}{source} {doing}: {text}"
        if name in self.required:
            raise PluginError(reason) from error
        if reason in (broken.reason for broken in self.broken):
            return  # a second registry of the same plugins
        self.broken.append(BrokenPlugin(name, reason, format_traceback(error)))
        logger.warning("%s; %s is disabled (decoderbench plugins --verbose shows more)", reason, loses)

    def take(self, name: str, load: Callable[[], tuple[object, Origin]], *, needs_hooks: bool = True) -> None:
        """Load a plugin and register it. If that fails, or it has no hook, disable it with one line."""
        self.seen.add(name)
        if name in self.sources.blocked:
            return
        report = partial(self.report_broken, name, doing="could not be loaded")
        with report_exceptions(report), self.guarding(name, f"importing plugin {name}"):
            plugin, self.origins[name] = load()
            _refuse_unmarked(plugin)
            self.register(name, plugin)
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
            if not os.path.isfile(name):  # noqa: PTH113 - Path.is_file raises for a name that is too long
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
                report = partial(self.report_broken, plugin, doing="raised in plugin_modules")
                with report_exceptions(report), self.guarding(plugin, f"plugin_modules of plugin {plugin}"):
                    names = [name for named in hook() for name in _module_names(named)]
                if plugin in self.required:
                    self.required |= set(names)
                for name in names:
                    self.origins.setdefault(name, Origin(self.origins[plugin].source, ""))
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


def _refuse_unmarked(plugin: object) -> None:
    """Refuse a module with a function that has the name of a hook but no marker: it would be ignored in silence."""
    if not isinstance(plugin, ModuleType):
        return
    for name in HOOKS & vars(plugin).keys():
        function = getattr(plugin, name)
        own = getattr(function, "__module__", None) == plugin.__name__
        if own and callable(function) and not hasattr(function, f"{hookspecs.PROJECT}_impl"):
            raise PluginError(f"its function {name} is not marked; put @hookimpl above it, or rename it")


def _module_names(named: object) -> list[str]:
    """Return what `plugin_modules` returned; raise `PluginError` if that is no list of names."""
    if isinstance(named, str) or not isinstance(named, Iterable):
        raise PluginError(f"it returned {named!r:.80}; return a list of names of modules, as in ['my_package.ctc']")
    names = list(named)
    if others := [name for name in names if not isinstance(name, str)]:
        raise PluginError(f"it returned a list with {others[0]!r:.80}; name modules by text, as in 'my_package.ctc'")
    return names


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
