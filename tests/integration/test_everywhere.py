"""Wherever cells run, a grid has the same table and the same weights to the last bit, on one kind of CPU."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pandas as pd
import pytest
from helpers.running import TINY_PLUGIN, start_command
from helpers.small_grid import write_grid

from decoderbench.conditions import CONDITIONS, COSTLY

OPTIONS = {
    "inline": ["--executor", "inline"],
    "local": ["--executor", "local", "--jobs", "2"],
    "ray": ["--executor", "ray", "--jobs", "2"],
    "slurm": ["--executor", "slurm", "--set", "executor.cluster=debug", "--jobs", "2"],
}
RUN = ["--device", "cpu", "-p", str(TINY_PLUGIN)]
OF_THE_RUN = {*COSTLY, *CONDITIONS, "tuning_seconds"}
"""Columns of `cells.csv` that state costs and conditions, such as how many cells were trained side by side."""


def finish(arguments: list[str], folder: Path) -> str:
    process = start_command(arguments, cwd=folder)
    printed = process.communicate(timeout=300)[0]
    assert process.returncode == 0, printed
    return printed


def table_of(results: Path) -> pd.DataFrame:
    frame = pd.read_csv(results / "tables" / "cells.csv")
    return frame[[name for name in frame.columns if name not in OF_THE_RUN]]


def weights_of(results: Path) -> dict[str, str]:
    files = results.glob("cells/*/weights.safetensors")
    return {file.parent.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


@pytest.mark.slow
def test_twelve_cells_are_the_same_by_all_executors_and_by_four_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    write_grid(tmp_path, seeds=6)
    for name, options in OPTIONS.items():
        finish(["run", "grid.toml", "--results", name, *RUN, *options], tmp_path)
    first = ["run", "grid.toml", "--results", "workers", *RUN, "--executor", "inline", "-k", "'seed 0' and ctc"]
    finish(first, tmp_path)
    workers = [start_command(["worker", "workers", *RUN, "--executor", "inline"], cwd=tmp_path) for _ in range(4)]
    printed = [worker.communicate(timeout=300)[0] for worker in workers]
    assert [worker.returncode for worker in workers] == 4 * [0], printed
    expected, weights = table_of(tmp_path / "inline"), weights_of(tmp_path / "inline")
    assert len(expected) == len(weights) == 12
    assert {"exact_match", "cer", "nats_per_char", "status", "cell_id"} <= set(expected.columns)
    for name in (*OPTIONS, "workers"):
        pd.testing.assert_frame_equal(table_of(tmp_path / name), expected)
        assert weights_of(tmp_path / name) == weights, name
