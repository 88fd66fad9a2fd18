"""Import of one plugin, from an entry point, a module or a file. No torch here, unless the plugin imports it."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import sys
from dataclasses import dataclass
from importlib.machinery import SourceFileLoader
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType
from typing import Any, Never

from decoderbench.errors import PluginError
from decoderbench.registry import hookspecs


@dataclass(frozen=True)
class Origin:
    """Where a plugin came from."""

    source: str
    """Distribution and version, as in "decoderbench 0.1.0", or the path of a file, or a module."""

    file: str
    """The file that was imported; empty if there is none."""

    def __str__(self) -> str:
        return self.source


def load_entry_point(point: EntryPoint) -> tuple[Any, Origin]:
    """Import the object of an entry point; raise `PluginError` if it needs another version of the plugin API."""
    loaded = point.load()
    _refuse_other_api(loaded)
    module = sys.modules.get(point.module)
    _refuse_other_api(module)
    return loaded, Origin(origin_of(point), getattr(module, "__file__", None) or "")


def load_module(name: str) -> tuple[ModuleType, Origin]:
    """Import a module by its dotted name; its origin is its file."""
    module = importlib.import_module(name)
    _refuse_other_api(module)
    file = getattr(module, "__file__", None) or ""
    return module, Origin(file or name, file)


def load_file(path: Path) -> tuple[ModuleType, Origin]:
    """Import a file under a unique module name, so `torch.py` in a plugin folder shadows nothing.

    The name contains a digest of the path: two files with the same name are two modules.
    """
    file = path.resolve()
    name = f"decoderbench_file_{file.stem}_{hashlib.sha256(os.fsencode(file)).hexdigest()[:8]}"
    module = import_file(name, file)
    _refuse_other_api(module)
    return module, Origin(str(path), str(file))


def import_file(name: str, file: Path) -> ModuleType:
    """Import a file as a module of the given name; if it raises, the module is removed again.

    The source is compiled anew: Python's cache would take a file for unchanged that was edited within a second and kept
    its size, and its digest would not be that of the code that runs.
    """
    loader = _UncachedLoader(name, str(file)) if file.suffix == ".py" else None
    spec = importlib.util.spec_from_file_location(name, file, loader=loader)
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


class _UncachedLoader(SourceFileLoader):
    def path_stats(self, path: str) -> Never:
        raise OSError(f"{path}: no bytecode is cached")  # the import system then compiles the source


def origin_of(point: EntryPoint) -> str:
    """Return the distribution of an entry point and its version."""
    return f"{point.dist.name} {point.dist.version}" if point.dist else point.value


def _refuse_other_api(plugin: object) -> None:
    wanted = getattr(plugin, "DECODERBENCH_API", hookspecs.API_VERSION)
    if wanted != hookspecs.API_VERSION:
        raise PluginError(
            f"it needs version {wanted!r} of the plugin API (DECODERBENCH_API), this decoderbench has version "
            f"{hookspecs.API_VERSION}; install matching versions of the plugin and decoderbench"
        )
