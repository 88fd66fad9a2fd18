"""The documentation is executed: the tutorial's code, the hooks' list, the tree, the experiments."""

import inspect
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from running import TINY_PLUGIN

from decoderbench import Experiment, run
from decoderbench.experiment import load_experiment
from decoderbench.plan import plan_cells, read_buckets, read_data
from decoderbench.plugin_manager import build_plugin_manager
from decoderbench.registry import Registry

ROOT = Path(__file__).parents[2]
EXPERIMENTS = sorted((ROOT / "experiments").glob("*.toml"))


def code_blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL)


def test_the_tutorial_decoder_passes_its_check_and_gets_its_row(tiny: dict[str, Any], tmp_path: Path) -> None:
    decoder, check = code_blocks(ROOT / "plugins" / "README.md", "python")
    (tmp_path / "mean_gru.py").write_text(decoder)
    assert len(decoder.splitlines()) <= 50
    subprocess.run([sys.executable, "-c", check], cwd=tmp_path, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    registry = Registry(build_plugin_manager([str(TINY_PLUGIN), str(tmp_path / "mean_gru.py")]))
    tiny["grid"]["decoder"]["mean GRU"] = {"use": "mean_gru"}
    frame = run(Experiment(**tiny), registry=registry, results=tmp_path / "results", device="cpu")
    assert frame.set_index("decoder").loc["mean GRU", "status"] == "done"


def test_every_hook_is_documented_with_its_arguments() -> None:
    page = (ROOT / "plugins" / "README.md").read_text()
    hook = build_plugin_manager(installed=False).manager.hook
    names = [name for name in vars(hook) if not name.startswith("_")]
    assert len(names) == 14
    for name in names:
        spec = getattr(hook, name).spec
        heading = f"### `{name}({', '.join(spec.argnames)})`"
        assert heading in page, f"plugins/README.md lacks the heading {heading}"
        assert len((inspect.getdoc(spec.function) or "").splitlines()) > 2, f"the docstring of {name} says too little"


def test_the_tree_of_the_readme_is_the_tree() -> None:
    (tree,) = code_blocks(ROOT / "README.md", "text")
    names = re.findall(r"^\s*(\S+)", tree, re.MULTILINE)
    if not (ROOT / ".git").exists():
        pytest.skip("not a checkout, so there is no list of files to compare with")
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    top = {path.split("/")[0] for path in listed}
    assert {name.rstrip("/") for name in names} >= {name for name in top if not name.startswith(".")}
    stack: list[tuple[int, str]] = []
    for line in tree.splitlines():
        name = line.split()[0]
        depth = len(line) - len(line.lstrip())
        stack = [entry for entry in stack if entry[0] < depth] + [(depth, name)]
        path = "".join(part for _, part in stack)
        assert any(file == path or file.startswith(path.rstrip("/") + "/") for file in listed), f"{path} is not there"


def test_commands_of_the_readme_exist() -> None:
    page = (ROOT / "README.md").read_text()
    for command in set(re.findall(r"decoderbench (run|compare|plan|report|plugins)\b", page)):
        finished = subprocess.run(
            [sys.executable, "-c", "from decoderbench.cli import main; main()", command, "--help"],
            capture_output=True,
            check=False,
        )
        assert finished.returncode == 0
    assert 'pip install -e ".[dev]" && pytest' in page
    assert "pip install -e . && decoderbench run experiments/quickstart.toml" in page


@pytest.mark.parametrize("file", EXPERIMENTS, ids=lambda file: file.stem)
def test_every_experiment_plans(file: Path, registry: Registry) -> None:
    head = file.read_text().split("\nname")[0]
    for word in ("# Question:", "# Command:  decoderbench run experiments/" + file.name, "# Time:", "# Expect:"):
        assert word in head
    experiment = load_experiment(file)
    assert experiment.name == file.stem
    folder = experiment.dataset.options.get("path")
    if folder is not None and not (file.parent / folder).is_dir():
        pytest.skip(f"its images are not at {folder}")
    data = read_data(experiment, registry, base_dir=file.parent, cache_dir=None)
    cells = plan_cells(experiment, registry, data, read_buckets(experiment, data, cache_dir=None))
    feasible = [cell for cell in cells if cell.infeasible is None]
    assert feasible
    assert all(cell.frames and cell.param_count and cell.gmacs for cell in feasible)


def test_the_quickstart_always_has_an_infeasible_cell(registry: Registry) -> None:
    experiment = load_experiment(ROOT / "experiments" / "quickstart.toml")
    data = read_data(experiment, registry, base_dir=ROOT, cache_dir=None)
    reasons = [cell.infeasible for cell in plan_cells(experiment, registry, data) if cell.infeasible]
    assert len(reasons) == len(experiment.grid.seeds)
    assert "this memory has T = 3" in reasons[0]
