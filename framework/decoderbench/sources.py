"""Digests of source code: of one file, of a plugin with what it imports from its own folder, and of this package.

Code counts by its syntax tree, so editing a comment or a docstring changes no digest. No torch here.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import json
import site
import sys
import sysconfig
import textwrap
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.machinery import all_suffixes
from importlib.metadata import packages_distributions
from pathlib import Path
from types import FunctionType
from typing import Any

from decoderbench.errors import PluginError

PACKAGE = Path(__file__).parent

DECISIVE = ("data", "model", "training", "labels.py", "metrics.py", "options.py", "seeds.py", "specs.py")
"""The folders and modules of this package that decide the numbers of a cell."""


def source_digest(file: Path) -> str:
    """Return a digest of the syntax tree of a Python source file, without docstrings and comments.

    The digest is the same in every version of Python that can parse the file. For any other file, such as a compiled
    extension, return a digest of its bytes.
    """
    content = file.read_bytes()
    return content_digest(_tree(content) if file.suffix == ".py" else content)


def content_digest(content: bytes) -> str:
    """Return a digest of bytes, as 16 hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()[:16]


def plugin_digest(file: Path, *bases: Path) -> str:
    """Return a digest of a plugin's file and of everything that it imports from its own folder, directly or not.

    The own folder is that of the file, or of the outermost package that contains it. Below it lie helper modules and
    packages beside a single file, and all modules of the plugin's package. In `site-packages`, where everybody's
    packages lie side by side, only those of the same distribution count. Other libraries never do, nor do data files
    and modules whose names are computed while the program runs, nor those in further folders that it adds to the search
    path, unless they are below its own and loaded. A file that imports nothing of its own has the digest
    that `source_digest` returns.

    Args:
        file: the plugin's file.
        bases: files of other plugins that it builds on, which count in the same way.

    Raises:
        PluginError: a module that it imports is another one in this process than the one in its folder.
    """
    file = file.resolve()
    base = _own_folder(file)
    files = _closure(file, base)
    digest = source_digest(file)
    if files != {file}:
        digest = content_digest(f"{digest} {_digest_of_files(files, base)}".encode())
    elsewhere = sorted({plugin_digest(other) for other in bases if other.resolve() not in files})
    return content_digest(" ".join([digest, *elsewhere]).encode()) if elsewhere else digest


def plugin_files(file: Path) -> tuple[Path, set[Path]] | None:
    """Return the own folder of a plugin's file, and the files that its digest is of; None if it is installed."""
    file = file.resolve()
    base = _own_folder(file)
    return None if base in _site_packages() else (base, _closure(file, base))


def function_digest(function: FunctionType) -> str:
    """Return a digest of the syntax tree of a function, and of the functions of its module that it names."""
    trees: dict[str, Any] = {}
    waiting = [function]
    while waiting:
        current = waiting.pop()
        tree = ast.parse(textwrap.dedent(inspect.getsource(current)))
        trees[current.__name__] = _canonical(tree)
        names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)} - trees.keys()
        helpers = [current.__globals__.get(name) for name in names]
        waiting += [one for one in helpers if isinstance(one, FunctionType) and one.__module__ == function.__module__]
    return content_digest(json.dumps(sorted(trees.items())).encode())


@cache
def package_digest() -> str:
    """Return a digest of the sources of this package that decide a number: data, model, training and their words."""
    roots = [PACKAGE / name for name in DECISIVE]
    files = (file for root in roots for file in (root.rglob("*.py") if root.is_dir() else [root]))
    return _digest_of_files(files, PACKAGE)


def _digest_of_files(files: Iterable[Path], base: Path) -> str:
    parts = sorted((file.relative_to(base).as_posix(), source_digest(file)) for file in files)
    return content_digest(json.dumps(parts).encode())


def _tree(content: bytes) -> bytes:
    """Return the syntax tree of Python source as bytes; the source itself if Python cannot parse or walk it."""
    tree = _parse(content)
    try:
        return json.dumps(_canonical(tree)).encode() if tree else content
    except RecursionError:  # an expression with hundreds of terms
        return content


def _parse(content: bytes) -> ast.Module | None:
    """Return the syntax tree of Python source; None if Python cannot parse it."""
    try:
        return ast.parse(content)
    except (MemoryError, RecursionError, SyntaxError, ValueError):  # the first two of deeply nested expressions
        return None


def _own_folder(file: Path) -> Path:
    """Return the folder in which the names of a plugin's own modules begin."""
    folder = file.parent
    while (folder / "__init__.py").exists():
        folder = folder.parent
    return folder


def _closure(file: Path, base: Path) -> set[Path]:
    """Return a file and the files below `base` that it imports, directly or not."""
    found, waiting, own = {file}, [file], _own_names(file, base)
    while waiting:
        importer = waiting.pop()
        for imported in _imported_files(importer, base, own):
            if imported not in found:
                found.add(imported)
                waiting.append(imported)
    return found


def _own_names(file: Path, base: Path) -> frozenset[str] | None:
    """Return the top-level names that belong to a plugin in `site-packages`; None elsewhere: all in its folder do."""
    if base not in _site_packages():
        return None
    name = file.relative_to(base).parts[0].partition(".")[0]
    if name == f"{PACKAGE.name}_plugins":
        return frozenset({name})  # reading the names of all distributions takes a third of a second
    owners = _distributions()
    mine = set(owners.get(name, ()))
    return frozenset({name, *(other for other, theirs in owners.items() if mine.intersection(theirs))})


@cache
def _site_packages() -> frozenset[Path]:
    places = [*site.getsitepackages(), site.getusersitepackages(), *map(sysconfig.get_path, ("purelib", "platlib"))]
    return frozenset(Path(place).resolve() for place in places)


@cache
def _distributions() -> dict[str, list[str]]:
    return dict(packages_distributions())


def _imported_files(file: Path, base: Path, own: frozenset[str] | None) -> Iterator[Path]:
    """Yield the files below `base` that the import statements of a file load, wherever in the file they are."""
    if file.suffix != ".py" or (tree := _parse(file.read_bytes())) is None:
        return
    package = file.relative_to(base).parent.parts
    for name, members in _imports(tree, package):
        if name.partition(".")[0] == PACKAGE.name or (own is not None and name.partition(".")[0] not in own):
            continue
        yield from _files_of(name.split("."), members, base, package)


def _imports(tree: ast.AST, package: tuple[str, ...]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield the absolute name of each imported module, and the names that are taken from it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, ()) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package[: len(package) - node.level + 1] if node.level else ()
            if name := ".".join([*parents, *([node.module] if node.module else [])]):
                yield name, tuple(alias.name for alias in node.names)
        elif isinstance(node, ast.Call) and (text := _imported_by_call(node)):
            levels = len(text) - len(text.lstrip("."))
            parents = package[: len(package) - levels + 1] if levels else ()
            yield ".".join([*parents, text.lstrip(".")]), ()


def _imported_by_call(call: ast.Call) -> str:
    """Return the name in `import_module("name")` or `__import__("name")`; empty if it is anything else."""
    function = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    if function not in ("import_module", "__import__"):
        return ""
    given = [*call.args, *(keyword.value for keyword in call.keywords if keyword.arg == "name")]
    return str(given[0].value) if given and isinstance(given[0], ast.Constant) else ""


def _files_of(parts: list[str], members: Iterable[str], base: Path, package: tuple[str, ...]) -> Iterator[Path]:
    """Yield the files that `import a.b` loads below `base`, and for `from a.b import c` that of `a.b.c`.

    A package that contains the importing file is loaded before it in any case, often to register every plugin of it,
    so its `__init__.py` counts only if something is taken from there. With `import *`, the modules count that a
    package lists in `__all__`.
    """
    if _is_of_a_library(parts[0], base):
        return
    walked = list(_walk(parts, base))
    if not walked:
        yield from _loaded_below(base, parts)
        return
    for depth, file in walked:
        _refuse_other_module(".".join(parts[:depth]), file)
    for depth, file in walked[:-1]:
        if tuple(parts[:depth]) != package[:depth] and file is not None:
            yield file
    depth, last = walked[-1]
    if "*" in members and last is not None:
        yield last
        members = _listed_in_all(last)
    submodules = [list(_walk([*parts, member], base))[len(parts) :] for member in members]
    if last is not None and (not submodules or not all(submodules) or tuple(parts[:depth]) != package[:depth]):
        yield last
    yield from (file for found in submodules for _, file in found if file is not None)


def _walk(parts: list[str], place: Path) -> Iterator[tuple[int, Path | None]]:
    """Yield the file of each package and module on the way of a dotted name, as far as there are any.

    Each comes with the number of parts of its name; the file of a folder without `__init__.py` is None.
    """
    for depth, part in enumerate(parts, start=1):
        folder = place / part
        candidates = [folder / "__init__.py", *(place / f"{part}{suffix}" for suffix in all_suffixes())]
        file = next((candidate for candidate in candidates if candidate.is_file()), None)
        if file is None and not folder.is_dir():
            return
        yield depth, file
        place = folder


def _loaded_below(base: Path, parts: list[str]) -> Iterator[Path]:
    """Yield the files of a loaded module and its packages that lie in another folder below `base`, such as `lib`."""
    for depth in range(1, len(parts) + 1):
        file = getattr(sys.modules.get(".".join(parts[:depth])), "__file__", None)
        if file is not None and base in Path(file).resolve().parents and not _is_installed(Path(file), base):
            yield Path(file).resolve()


def _listed_in_all(file: Path) -> list[str]:
    """Return the names in the `__all__` of a file, as far as they are written out."""
    if file.suffix != ".py" or not (tree := _parse(file.read_bytes())):
        return []
    assigned = (node.value for node in tree.body if isinstance(node, ast.Assign | ast.AugAssign | ast.AnnAssign))
    lists = (value for value in assigned if isinstance(value, ast.List | ast.Tuple))
    texts = (item.value for value in lists for item in value.elts if isinstance(item, ast.Constant))
    return [text for text in texts if isinstance(text, str)]


def _is_of_a_library(name: str, base: Path) -> bool:
    """Return whether a loaded top-level module is one of Python or of an installed library, not one of the plugin."""
    if name in sys.builtin_module_names:
        return True
    file = getattr(sys.modules.get(name), "__file__", None)
    if file is None:
        return False
    return _is_installed(Path(file), base) or (
        name in sys.stdlib_module_names and base not in Path(file).resolve().parents
    )


def _is_installed(file: Path, base: Path) -> bool:
    """Return whether a module outside of a plugin's distribution is installed, maybe below the plugin's folder.

    The virtual environment of a project lies in its folder.
    """
    places = {*file.parents, *file.resolve().parents}
    return base not in _site_packages() and not _site_packages().isdisjoint(places)


def _refuse_other_module(name: str, file: Path | None) -> None:
    """Raise if the loaded module of a name is another one than that of the plugin's folder."""
    loaded = getattr(sys.modules.get(name), "__file__", None)
    if file is not None and loaded is not None and Path(loaded).resolve() != file.resolve():
        raise PluginError(
            f"a plugin beside {file} imports {name}, which in this process is {loaded}, since a process has one module "
            f"of each name; rename one of the two"
        )


def _canonical(node: Any) -> Any:
    """Return a syntax tree as nested lists; the output of `ast.dump` differs between versions of Python."""
    if isinstance(node, ast.AST):
        fields = ((name, value) for name, value in ast.iter_fields(node) if value is not None and value != [])
        return [type(node).__name__, *([name, _canonical(value)] for name, value in fields)]
    if isinstance(node, list):
        return [_canonical(item) for item in node if not _is_text(item)]
    return node if isinstance(node, str) else [type(node).__name__, repr(node)]


def _is_text(node: Any) -> bool:
    """Return whether a statement is only a string: a docstring, or the description of an option."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
