"""The tree: what may import torch, how long files are, and the public names. import-linter checks the direction."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import decoderbench

FRAMEWORK = Path(decoderbench.__file__).parent
ROOT = FRAMEWORK.parents[1]
PLUGINS = ROOT / "plugins" / "decoderbench_plugins"

# Everything else answers before torch is imported: `--help`, `report`, and mistakes in an experiment file.
IMPORTS_TORCH = {
    "data/augmentation",
    "data/resident_dataset",
    "model",
    "planning/grid",
    "planning/meta_probe",
    "registry/core_components",
    "registry/global_state",
    "registry/listing",
    "registry/registry",
    "runner",
    "scaffold/templates",
    "testing",
    "training",
}


def modules() -> list[str]:
    return sorted(file.relative_to(FRAMEWORK).with_suffix("").as_posix() for file in FRAMEWORK.rglob("*.py"))


def is_torch_free(module: str) -> bool:
    return not any(module == known or module.startswith(f"{known}/") for known in IMPORTS_TORCH)


def test_modules_that_must_start_fast_do_not_import_torch() -> None:
    names = [f"decoderbench.{module.replace('/', '.')}" for module in modules() if is_torch_free(module)]
    assert len(names) > 40
    program = (
        "import importlib, sys\n"
        f"for name in {names}:\n"
        "    importlib.import_module(name)\n"
        "    assert 'torch' not in sys.modules, name"
    )
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr


def test_no_module_is_long() -> None:
    files = [*FRAMEWORK.rglob("*.py"), *PLUGINS.rglob("*.py")]
    long = {file.name: count for file in files if (count := len(file.read_text().splitlines())) > 350}
    assert not long


def test_import_linter_knows_every_folder() -> None:
    layers = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"][0]["layers"]
    named = {name for layer in layers for name in re.split(r"[ |:]+", layer)}
    assert named == {module.split("/")[0] for module in modules()} - {"__init__"}


def test_public_names_are_those_of_the_stub() -> None:
    stub = ast.parse((FRAMEWORK / "__init__.pyi").read_text())
    listed = {alias.name for node in stub.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert {"Encoder", "Decoder", "hookimpl", "run"} <= listed == set(decoderbench.__all__)
    for name in listed:
        assert getattr(decoderbench, name) is not None
    with pytest.raises(AttributeError, match="nothing"):
        decoderbench.nothing  # noqa: B018
