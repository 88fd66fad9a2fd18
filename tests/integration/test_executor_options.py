"""The options of executors, and the libraries that they need."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers.commands import call
from helpers.running import TINY_PLUGIN
from helpers.small_grid import write_grid
from helpers.training import train

from decoderbench import ConfigError
from decoderbench.execution.executors import choose_executor
from decoderbench.registry.registry import Registry


@pytest.mark.parametrize(("name", "library"), [("ray", "ray"), ("slurm", "submitit")])
def test_executor_without_its_library_says_what_to_install(
    name: str, library: str, tiny_registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = choose_executor(tiny_registry, name)
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ConfigError, match=rf"--executor {name} needs a library: pip install 'decoderbench\[{name}\]'"):
        chosen.component.warm_up()


def test_libraries_of_executors_are_not_imported_before_they_are_needed() -> None:
    program = (
        "import sys; from decoderbench import Registry, build_plugin_manager; "
        "executors = Registry(build_plugin_manager())['executor']; assert {'ray', 'slurm'} <= set(executors); "
        "assert not {'ray', 'submitit'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("ray", {"gpus": 1}, r"--set executor\.gpus: executor 'ray': unknown key"),
        ("ray", {"retries": -1}, r"--set executor\.retries: executor 'ray':"),
        ("slurm", {"time": "soon"}, r"--set executor\.time: executor 'slurm': .*'soon' is no duration, as 90m or 24h"),
        ("local", {"time": "1h"}, r"--set executor\.time: executor 'local':"),
    ],
)
def test_options_of_an_executor_are_checked(
    name: str, options: dict[str, object], message: str, tiny_registry: Registry
) -> None:
    with pytest.raises(ConfigError, match=message):
        choose_executor(tiny_registry, name, options)


def test_options_are_given_by_set_and_change_no_cell(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_grid(tmp_path, seeds=1)
    monkeypatch.chdir(tmp_path)
    run = ("run", "grid.toml", "--device", "cpu", "-p", str(TINY_PLUGIN), "--executor", "inline")
    status, _, err = call(capfd, *run, "--set", "executor.color=red")
    assert (status, "--set executor.color: executor 'inline': unknown key" in err) == (2, True), err
    status, _, err = call(capfd, *run, "--set", "executor=ray")
    assert (status, "--set executor=ray: give --executor NAME" in err) == (2, True), err
    assert call(capfd, *run)[0] == 0
    status, _, err = call(capfd, "worker", "results/grid", "--set", "training.steps=1", *run[2:])
    assert (status, "--set training: the results folder states the experiment" in err) == (2, True), err


def test_jobs_of_slurm_need_locks(tiny: dict[str, Any], tiny_registry: Registry, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--no-locks: jobs of Slurm take cells that no other job holds; leave it out"):
        train(tiny, tiny_registry, tmp_path, executor="slurm", locking=False)
