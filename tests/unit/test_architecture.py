"""The import rule: layers import downwards only, and plugins see the public API alone."""

import ast
import re
import sys
from pathlib import Path

import pytest

import decoderbench

FRAMEWORK = Path(decoderbench.__file__).parent
PLUGINS = FRAMEWORK.parents[1] / "plugins" / "decoderbench_plugins"

# Each module may import those of earlier lines and of its own; framework/README.md prints the same order.
LAYERS = [
    {"errors", "options", "toml_lines"},
    {"labels"},
    {"normaliser", "specs"},
    {"datasets", "experiment", "assignments", "metrics"},
    {"contracts", "cell", "buckets"},
    {"decoding", "problems", "audit", "typefaces"},
    {"rendering", "contact_sheet"},
    {"ctc", "autoregressive", "sequence", "functional_pools", "keep_width", "recognizer", "records", "images"},
    {"devices", "batches", "cost", "process_state"},
    {"augmentation", "evaluation", "hookspecs"},
    {"plugin_sources", "plugin_loading", "hook_tracing", "plugin_manager", "report"},
    {"registry", "catalogue", "testing"},
    {"sizing"},
    {"plan", "training", "comparison", "progress"},
    {"runner"},
    {"scaffold", "cli", "pytest_plugin"},
]
LEVEL = {module: level for level, modules in enumerate(LAYERS) for module in modules}
TORCH_FREE = {
    "errors", "options", "toml_lines", "labels", "normaliser", "specs", "datasets", "experiment", "assignments",
    "metrics", "cell", "decoding", "problems", "audit", "buckets", "records", "images", "hookspecs", "plugin_loading",
    "plugin_sources", "hook_tracing", "plugin_manager", "report", "comparison", "progress", "cli", "pytest_plugin",
    "typefaces", "rendering", "contact_sheet",
}  # fmt: skip


def imports_when_run(file: Path) -> set[str]:
    """Return the dotted names that a file imports at run time: not those under `if TYPE_CHECKING`."""
    tree = ast.parse(file.read_text())
    skipped = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for statement in node.body
        for inner in ast.walk(statement)
    }
    found = set()
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def modules_of_framework() -> dict[str, list[Path]]:
    files: dict[str, list[Path]] = {}
    for file in FRAMEWORK.rglob("*.py"):
        files.setdefault(file.relative_to(FRAMEWORK).parts[0].removesuffix(".py"), []).append(file)
    del files["__init__"]
    return files


def test_every_module_has_its_layer() -> None:
    assert set(modules_of_framework()) == set(LEVEL)


@pytest.mark.parametrize("module", sorted(LEVEL))
def test_layers_import_downwards_only(module: str) -> None:
    for file in modules_of_framework()[module]:
        for name in imports_when_run(file):
            package, _, rest = name.partition(".")
            imported = rest.split(".")[0]
            assert package != "decoderbench_plugins", f"{file} imports a plugin; go through the registry"
            if package == "decoderbench" and imported in LEVEL and imported != module:
                assert LEVEL[imported] <= LEVEL[module], f"{module} imports {imported}, which lies above it"


@pytest.mark.parametrize("module", sorted(TORCH_FREE))
def test_modules_that_must_start_fast_do_not_name_torch_at_the_top(module: str) -> None:
    for file in modules_of_framework()[module]:
        top = {
            alias.name if isinstance(node, ast.Import) else node.module
            for node in ast.parse(file.read_text()).body
            if isinstance(node, ast.Import | ast.ImportFrom)
            for alias in node.names
        }
        assert not {name for name in top if name and name.split(".")[0] in ("torch", "timm", "torchvision")}


@pytest.mark.parametrize("file", sorted(PLUGINS.rglob("*.py")), ids=lambda file: file.stem)
def test_plugins_import_the_public_api_only(file: Path) -> None:
    for name in imports_when_run(file):
        assert not name.startswith("decoderbench_plugins"), f"{file} imports another plugin module"
        if name.startswith("decoderbench."):
            assert name.removeprefix("decoderbench.") in dir(decoderbench), f"{name} is not public"


def test_the_readme_prints_the_layers_in_this_order() -> None:
    page = (FRAMEWORK.parent / "README.md").read_text()
    table = page[page.index("| layer | modules |") : page.index("`decoderbench_plugins` imports the public names")]
    printed = re.findall(r"`(\w+)`(\\\*)?", table)
    assert {module for module, _ in printed} == set(LEVEL)
    assert [LEVEL[module] for module, _ in printed] == sorted(LEVEL[module] for module, _ in printed)
    assert {module for module, star in printed if star} == TORCH_FREE


def test_no_module_is_long() -> None:
    files = [*FRAMEWORK.rglob("*.py"), *PLUGINS.rglob("*.py")]
    long = {str(file.name): count for file in files if (count := len(file.read_text().splitlines())) > 350}
    assert not long


def test_the_public_api_is_what_it_says() -> None:
    assert {"Encoder", "Decoder", "hookimpl", "run"} <= set(dir(decoderbench)) == set(decoderbench.__all__)
    for name in set(dir(decoderbench)) - {"hookimpl"}:  # a marker, which has no name of its own
        assert getattr(decoderbench, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        decoderbench.nothing  # noqa: B018
    assert "torch" in sys.modules
