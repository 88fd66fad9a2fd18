"""A grid whose cells take some seconds each, to be interrupted, and what its results have to be in the end."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from decoderbench import load_frame
from helpers.commands import call
from helpers.running import TINY_PLUGIN, start_command, to_toml
from helpers.small_grid import EXPERIMENT, write_images

RUN = ["--device", "cpu", "-p", str(TINY_PLUGIN), "--checkpoint-every", "1s"]


def write_long_grid(folder: Path, *, seeds: int, steps: int) -> None:
    """Write the experiment `grid.toml`, a cell per seed, and its images."""
    write_images(folder)
    training = EXPERIMENT["training"] | {"steps": steps, "validate_every": steps // 2}
    decoder = {"ctc": EXPERIMENT["grid"]["decoder"]["ctc"]}
    axes = EXPERIMENT["grid"] | {"seeds": list(range(seeds)), "decoder": decoder}
    (folder / "grid.toml").write_text(to_toml(EXPERIMENT | {"training": training, "grid": axes}))


def wait_for_checkpoint(folder: Path, seconds: float = 120) -> None:
    """Wait until a cell has saved its state."""
    end = time.monotonic() + seconds
    while not list(folder.glob("results/grid/cells/*/checkpoint/*")):
        assert time.monotonic() < end
        time.sleep(0.05)


def check_same_as_local(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Check that all results are intact, and those of a run on this machine alone."""
    assert call(capfd, "verify", str(folder / "results" / "grid"))[0] == 0
    expected = start_command(["run", "grid.toml", *RUN, "--executor", "local", "--results", "expected"], cwd=folder)
    assert "report" in expected.communicate(timeout=200)[0]
    names = ["cell_id", "status", "exact_match", "cer", "nats_per_char"]
    found, wanted = (load_frame(folder / name)[names] for name in ("results/grid", "expected"))
    assert found.to_dict() == wanted.to_dict()
    for cell in wanted["cell_id"]:
        weights = [folder / place / "cells" / cell / "weights.safetensors" for place in ("results/grid", "expected")]
        assert weights[0].read_bytes() == weights[1].read_bytes()
