"""Source tree: modules without torch, length of files, public names. import-linter checks the direction of imports."""

import ast
import importlib
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

# All other modules must work without torch, so that `--help`, `report` and mistakes in a file take no seconds.
IMPORTS_TORCH = {
    "execution/cell_runner",
    "execution/jobs",
    "execution/preload",
    "execution/run",
    "execution/work",
    "data/augmentation",
    "data/resident_dataset",
    "execution",
    "inference/demo",
    "inference/evaluation",
    "inference/export",
    "inference/loading",
    "inference/trained",
    "model",
    "planning/data_report",
    "planning/grid",
    "planning/inputs",
    "planning/meta_probe",
    "planning/plan_record",
    "planning/prepare",
    "registry/core_components",
    "registry/listing",
    "registry/registry",
    "registry/torch_settings",
    "runs/refit",
    "runs/reproduction",
    "runs/runner",
    "runs/worker",
    "scaffold/templates",
    "testing",
    "training",
}


def modules() -> list[str]:
    return sorted(file.relative_to(FRAMEWORK).with_suffix("").as_posix() for file in FRAMEWORK.rglob("*.py"))


def is_torch_free(module: str) -> bool:
    return not any(module == known or module.startswith(f"{known}/") for known in IMPORTS_TORCH)


def test_only_listed_modules_import_torch() -> None:
    assert all((FRAMEWORK / known).is_dir() or (FRAMEWORK / f"{known}.py").exists() for known in IMPORTS_TORCH)
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


def test_modules_have_at_most_350_lines() -> None:
    files = [*FRAMEWORK.rglob("*.py"), *PLUGINS.rglob("*.py")]
    assert {FRAMEWORK / "runs" / "runner.py", PLUGINS / "decoders" / "ctc.py"} <= set(files)
    long = {file.name: count for file in files if (count := len(file.read_text().splitlines())) > 350}
    assert not long


def test_import_linter_contract_lists_every_module() -> None:
    layers = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"][0]["layers"]
    named = {name for layer in layers for name in re.split(r"[ |:]+", layer)}
    assert named == {module.split("/")[0] for module in modules()} - {"__init__"}


def test_public_names_of_the_stub_can_be_imported() -> None:
    stub = ast.parse((FRAMEWORK / "__init__.pyi").read_text())
    imports = [node for node in stub.body if isinstance(node, ast.ImportFrom)]
    modules_by_name = {alias.name: node.module for node in imports for alias in node.names}
    assert {"Encoder", "Decoder", "hookimpl", "run"} <= modules_by_name.keys() == set(decoderbench.__all__)
    for name, module in modules_by_name.items():
        assert getattr(decoderbench, name) is getattr(importlib.import_module(f"decoderbench.{module}"), name)
    with pytest.raises(AttributeError, match="nothing"):
        decoderbench.nothing  # noqa: B018
