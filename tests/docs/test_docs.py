"""The documentation is correct: the code of the tutorial, the list of hooks, the tree, the experiments."""

import inspect
import re
import subprocess
import tomllib
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

import pandas as pd
import pytest
import torch
from helpers.commands import call, run_pytest
from helpers.cut_off import StopAt
from helpers.experiments import PlanCells
from helpers.running import TINY_PLUGIN, to_toml
from helpers.training import train
from PIL import Image

from decoderbench import Deadline, Experiment, PendingCellsError
from decoderbench.config.experiment import load_experiment
from decoderbench.data.resident_dataset import ResidentDataset
from decoderbench.planning.prepare import prepare
from decoderbench.records.schema import read_lines
from decoderbench.registry.plugin_manager import build_plugin_manager
from decoderbench.registry.registry import Registry
from decoderbench.scaffold import KINDS
from decoderbench.testing import rules
from decoderbench.training.local_context import LocalContext

ROOT = Path(__file__).parents[2]
TUTORIAL = ROOT / "plugins" / "README.md"
EXPERIMENTS = sorted((ROOT / "experiments").glob("*.toml"))


def code_blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL)


def saved_blocks(page: Path, folder: Path) -> dict[str, str]:
    """Write each Python block that follows "Save it as `name.py`:" to the folder, and return the blocks by name."""
    text = page.read_text()
    blocks = dict(re.findall(r"Save it as `(\w+\.py)`:\n\n```python\n(.*?)```", text, re.DOTALL))
    for name, block in blocks.items():
        (folder / name).write_text(block)
    return blocks


def test_tutorial_component_passes_its_checks_and_tests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = saved_blocks(TUTORIAL, tmp_path)
    assert set(blocks) == {
        "mean_gru.py", "torchvision_resnet.py", "my_recognizer.py", "test_conformance.py", "caseless.py", "profiled.py",
        "curves.py", "seconds.py", "sgd_one_cycle.py", "one_by_one.py",
    }  # fmt: skip
    (check,) = set(code_blocks(TUTORIAL, "python")) - set(blocks.values())
    assert len(blocks["mean_gru.py"].splitlines()) <= 50
    assert len(blocks["my_recognizer.py"].splitlines()) < 60
    monkeypatch.syspath_prepend(tmp_path)
    exec(check, {})
    outcomes = run_pytest(tmp_path, "test_conformance.py")
    assert outcomes.keys() == {"passed"}
    assert outcomes["passed"] > 40


@pytest.mark.slow
def test_each_file_of_the_page_for_assistants_passes_its_check(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    blocks = saved_blocks(ROOT / "plugins" / "ASSISTANTS.md", tmp_path)
    assert len(blocks) == 8
    for split, count in (("train", 30), ("test", 8)):
        (tmp_path / "images" / split).mkdir(parents=True)
        for number in range(count):
            image = Image.linear_gradient("L").rotate(7 * number).resize((40, 16))
            image.save(tmp_path / "images" / split / f"{'ab'[number % 2]}{'xyz'[number % 3]}_{number}.png")
    for name in blocks:
        more = ("--set", f"path={tmp_path / 'images'}") if name == "two_folders.py" else ()
        status, out, err = call(capfd, "check", str(tmp_path / name), *more)
        assert status == 0, f"{name}: {out}{err}"


def test_page_for_assistants_has_a_file_of_every_kind_that_new_writes() -> None:
    page = (ROOT / "plugins" / "ASSISTANTS.md").read_text()
    kinds = set(re.findall(r"^def register_(\w+)s\(", page, re.MULTILINE))
    assert kinds == set(KINDS) - {"tracker"}
    for word in ("CTCDecoder", "AutoregressiveDecoder", "PerCharacterDecoder"):
        assert f"({word}):" in page
    saved = re.findall(r"Save it as `\w+\.py`:\n\n```python\n", page)
    assert page.count("```python\n") == len(saved)  # the test above executes all of these


def test_page_for_assistants_names_rules_that_exist() -> None:
    page = (ROOT / "plugins" / "ASSISTANTS.md").read_text()
    firsts = re.findall(r"^\| (`.*?) \|", page[page.index("## When a rule fails") :], re.MULTILINE)
    named = {name for first in firsts for name in re.findall(r"`([a-z]+(?:_[a-z]+)+)`", first)}
    assert len(named) > 20
    modules = [import_module(f"{rules.__name__}.{one.name}") for one in iter_modules(rules.__path__)]
    assert named <= {name for module in modules for name, value in vars(module).items() if inspect.isfunction(value)}


def test_all_plugins_of_the_tutorial_work_in_one_run(
    tiny: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = saved_blocks(TUTORIAL, tmp_path)
    others = set(blocks) - {"test_conformance.py", "sgd_one_cycle.py"}
    named = [argument for name in blocks if name in others for argument in ("-p", name)]
    (foreign,) = code_blocks(TUTORIAL, "toml")
    tiny["image"] = {"height": 32, "width": 64}
    tiny["grid"]["decoder"] = {"ctc": tiny["grid"]["decoder"]["ctc"]}
    (tmp_path / "tiny.toml").write_text(to_toml(tiny))
    tiny["name"], tiny["grid"] = "foreign", {"seeds": [0], **tomllib.loads(foreign)["grid"]}
    (tmp_path / "foreign.toml").write_text(to_toml(tiny))
    printed = ""
    for command in (
        ["run", "tiny.toml", "--add", "decoder.mean GRU=mean_gru", "--add", "encoder.torchvision=torchvision_resnet"],
        ["run", "foreign.toml", "--executor", "one_by_one"],
    ):
        status, out, err = call(capfd, *command, "-p", str(TINY_PLUGIN), *named, "--device", "cpu")
        assert status == 0, out + err
        printed += out + err
    cells = pd.read_csv(tmp_path / "results" / "tiny" / "tables/cells.csv")
    assert set(cells["status"]) == {"done"}
    assert {"mean GRU", "torchvision"} <= set(cells["decoder"]) | set(cells["encoder"])
    assert cells["caseless_match"].equals(cells["exact_match"])  # digits have no case
    assert (cells["train_seconds_per_mparam"] > 0).all()
    assert len(list((tmp_path / "results" / "tiny" / "cells").glob("*/profile.pstats"))) == len(cells) == 4
    assert re.search(r"torchvision / columns / mean GRU / seed 0, done: \d+%", printed)
    foreign_cells = pd.read_csv(tmp_path / "results" / "foreign" / "tables/cells.csv")
    assert foreign_cells["status"].tolist() == ["done"]
    assert foreign_cells["frames"].tolist() == [6]


def test_trainer_of_the_tutorial_trains_cells_of_its_own(
    tiny: dict[str, Any], tiny_registry: Registry, tmp_path: Path
) -> None:
    block = saved_blocks(TUTORIAL, tmp_path)["sgd_one_cycle.py"]
    assert len(block.splitlines()) <= 65
    tiny["grid"]["decoder"] = {"ctc": tiny["grid"]["decoder"]["ctc"]}
    results = tmp_path / "results"
    builtin = train(tiny, tiny_registry, results)
    plugins = build_plugin_manager([str(TINY_PLUGIN), str(tmp_path / "sgd_one_cycle.py")])
    frame = train(tiny, Registry(plugins), results, report=True)
    assert list(frame["status"]) == ["done"]
    assert set(frame["cell_id"]).isdisjoint(builtin["cell_id"])  # records of two trainers never mix
    assert not frame["nats_per_char"].equals(builtin["nats_per_char"])
    for cell_id in frame["cell_id"]:
        folder = results / "cells" / cell_id
        assert (folder / "predictions.parquet").exists()
        assert (folder / "weights.safetensors").exists()
        history = read_lines(folder / "history.jsonl")
        assert [(line["step"], "val_correct" in line) for line in history] == [(5, True), (6, True)]
    assert "Plugins that train cells in place of the built-in trainer: " in (results / "report.md").read_text()
    assert train(tiny, tiny_registry, results).equals(builtin)


def test_interrupted_cell_of_the_tutorials_trainer_equals_an_uninterrupted_one(
    tiny: dict[str, Any], tmp_path: Path
) -> None:
    saved_blocks(TUTORIAL, tmp_path)
    registry = Registry(build_plugin_manager([str(TINY_PLUGIN), str(tmp_path / "sgd_one_cycle.py")]))
    tiny["grid"]["decoder"] = {"ctc": tiny["grid"]["decoder"]["ctc"]}
    prepared = prepare(Experiment(**tiny), registry=registry)
    dataset = ResidentDataset(prepared.inputs.images, prepared.inputs.audit, torch.device("cpu"))
    (cell,) = prepared.cells

    def run_in(name: str, deadline: Deadline) -> bytes:
        context = LocalContext(cell, registry, dataset, tmp_path / name, {}, deadline)
        registry.plugins.run_cell(cell, context)
        return (tmp_path / name / "weights.safetensors").read_bytes()

    uninterrupted = run_in("uninterrupted", StopAt())
    for check in (3, 3, 1):  # before step 4, within the validation of step 6, within the test
        with pytest.raises(PendingCellsError):
            run_in("interrupted", StopAt(check))
    assert run_in("interrupted", StopAt()) == uninterrupted


def test_plugins_readme_lists_components_kinds_and_variables(registry: Registry) -> None:
    page = (ROOT / "plugins" / "README.md").read_text()
    built_in = page[page.index("## Built-in components") : page.index("## How plugins are found")]
    for components in registry.values():
        for name in components:
            assert f"`{name}`" in built_in, f"plugins/README.md does not list the {components.kind} {name} as built-in"
    for kind in KINDS:
        assert f"`{kind}`" in page or f"decoderbench new {kind} " in page
    for name in ("PLUGINS", "TRACE", "API"):
        assert f"DECODERBENCH_{name}" in page


def test_plugins_readme_has_heading_with_arguments_for_each_hook() -> None:
    page = (ROOT / "plugins" / "README.md").read_text()
    hook = build_plugin_manager(installed=False).manager.hook
    names = [name for name in vars(hook) if not name.startswith("_")]
    assert len(names) == 20
    for name in names:
        spec = getattr(hook, name).spec
        heading = f"### `{name}({', '.join(spec.argnames)})`"
        assert heading in page, f"plugins/README.md lacks the heading {heading}"
        assert len((inspect.getdoc(spec.function) or "").splitlines()) > 2, f"the docstring of {name} says too little"


def test_readme_tree_matches_the_repository() -> None:
    (tree,) = code_blocks(ROOT / "README.md", "text")
    names = re.findall(r"^\s*(\S+)", tree, re.MULTILINE)
    if not (ROOT / ".git").exists():
        pytest.skip("not a checkout, so there is no list of files")
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


def test_architecture_page_lists_every_folder_in_the_order_of_imports() -> None:
    text = (ROOT / "framework" / "README.md").read_text()
    tree = text[text.index("```text\ndecoderbench/") :].split("```")[1]
    words, *lines = tree.splitlines()[2:]
    package = ROOT / "framework" / "decoderbench"
    present = {path.name for path in package.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    listed_words = {f"{name}.py" for name in re.match(r"\s*((?:\w+ )+)", words)[1].split()}  # type: ignore[index]
    listed = [line.split()[0].rstrip("/") for line in lines]
    assert listed_words | set(listed) == present - {"__init__.py"}
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = [re.split(r"[ |:]+", layer) for layer in reversed(contracts[0]["layers"])]
    level = {name: number for number, layer in enumerate(layers) for name in layer}
    assert {name.removesuffix(".py") for name in listed_words} == set(layers[0])
    assert [level[name.removesuffix(".py")] for name in listed] == sorted(
        level[name.removesuffix(".py")] for name in listed
    )


def test_architecture_page_names_files_that_exist() -> None:
    text = (ROOT / "framework" / "README.md").read_text()
    package = ROOT / "framework" / "decoderbench"
    named = set(re.findall(r"`([\w/]+(?:\.py|\.md|/))`", text))
    assert len(named) > 20
    missing = [name for name in named if not any((base / name).exists() for base in (package, ROOT))]
    assert missing == []


def test_readme_commands_exist(capfd: pytest.CaptureFixture[str]) -> None:
    page = (ROOT / "README.md").read_text()
    blocks = re.findall(r"```console\n(.*?)```", page, re.DOTALL)
    commands = set(re.findall(r"^decoderbench (\w+)", "\n".join(blocks), re.MULTILINE))
    assert {"run", "compare", "predict", "pack"} <= commands
    for command in commands:
        status, out, _ = call(capfd, command, "--help")
        assert (status, f"decoderbench {command} [OPTIONS]" in out) == (0, True)
    assert 'pip install -e ".[dev]" && pytest' in page
    assert "pip install -e . && decoderbench run experiments/quickstart.toml" in page


def test_readme_promises_name_tests_that_exist() -> None:
    page = (ROOT / "README.md").read_text()
    section = page[page.index("## What survives what") :].split("\n## ")[0].split("\nNot promised")[0]
    promises = section.split("\n- ")[1:]
    assert len(promises) > 8
    for promise in promises:
        tests = re.findall(r"`(tests/\w+/test_\w+\.py)`", promise)
        assert tests, f"no test is named for the promise: {promise}"
        for test in tests:
            assert re.search(r"^def test_", (ROOT / test).read_text(), re.MULTILINE), test


LONG_TO_PLAN = ("colored_captchas", "decoders", "length", "lines", "lines_ladder")
"""Experiments with many decoders of long texts, each of which writes a line of empty values, or of several images."""


def is_long_to_plan(file: Path) -> bool:
    return file.stem in LONG_TO_PLAN or file.stem.endswith("_gpu")


@pytest.mark.parametrize(
    "file",
    [pytest.param(file, marks=[pytest.mark.slow] if is_long_to_plan(file) else []) for file in EXPERIMENTS],
    ids=lambda file: file.stem,
)
def test_experiment_files_have_heads_and_plan(file: Path, plan_cells: PlanCells) -> None:
    head = file.read_text().split("\nname")[0]
    for word in ("# Command:  decoderbench run experiments/" + file.name, "# Time:", "# Expect:"):
        assert word in head
    experiment = load_experiment(file)
    assert experiment.name == file.stem
    assert experiment.question
    folder = experiment.dataset.options.get("path")
    if folder is not None and not (file.parent / folder).is_dir():
        pytest.skip(f"its images are not at {folder}")
    if (packs := experiment.training.start_from) is not None and not (file.parent / packs).exists():
        pytest.skip(f"its packs are not at {packs}, where another experiment writes them")
    feasible = [cell for cell in plan_cells(file.stem) if cell.infeasible is None]
    assert feasible
    assert all(cell.frames and cell.num_parameters and cell.gmacs for cell in feasible)


@pytest.mark.parametrize(
    "file", [file for file in EXPERIMENTS if "start_from" in file.read_text()], ids=lambda file: file.stem
)
def test_rows_that_start_from_packs_are_those_that_the_other_experiment_trains(file: Path) -> None:
    """Their head names the other experiment; a row of other options would be infeasible, or start with fewer stages."""
    (other,) = set(re.findall(r"decoderbench pack results/(\w+) ", file.read_text()))
    ours, theirs = load_experiment(file), load_experiment(file.with_name(f"{other}.toml"))
    shared = ["encoder"]
    if ours.training.start_from == f"../results/{other}/packs":  # each row from its own
        shared += ["rectifier", "bridge", "decoder"]
    else:
        assert ours.training.start_from == f"../results/{other}/reader.zip"
    for axis in shared:
        assert getattr(ours.grid, axis) == getattr(theirs.grid, axis)
    size = {"height", "width"}  # convolutions take any, but stretched characters are others
    assert ours.image.width * theirs.image.height == theirs.image.width * ours.image.height
    assert ours.image.model_dump(exclude=size) == theirs.image.model_dump(exclude=size)


def test_quickstart_has_infeasible_cells(plan_cells: PlanCells) -> None:
    experiment = load_experiment(ROOT / "experiments" / "quickstart.toml")
    reasons = [cell.infeasible for cell in plan_cells("quickstart") if cell.infeasible]
    assert len(reasons) == len(experiment.grid.seeds)
    assert "this memory has T = 3" in reasons[0]


def test_citation_states_version_and_license_of_the_package() -> None:
    citation = dict(re.findall(r"^(\w[\w-]*): (.+)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = {"title": project["name"], "version": project["version"], "license": project["license"]}
    assert citation.items() >= named.items()
    assert citation["abstract"] == project["description"]
