"""What becomes of a run when the device runs out of memory in one of its cells, or an assert fails on it.

    python benchmarks/gpu_failures.py [--device cuda] [--out FILE.jsonl] [--small]

A cell that ran out of memory must be gone before the next one is built, which must train as if nothing had happened. A
failed assert leaves CUDA unusable for the process: the cell's row is `failed`, and the command ends with exit status 1.
Where cells run in worker processes (`--executor local`), the other cells are trained. With `--executor inline` the
command ends with one line that says so, and given again it trains the other cells; none is trained twice. On a CPU the
assert is an ordinary exception, and the grid goes on; with --small it does so without a command.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from figures import Figures, parser, start

from decoderbench import Experiment, hookimpl, run
from decoderbench.registry.plugin_manager import build_plugin_manager
from decoderbench.registry.registry import Registry
from decoderbench.training.devices import synchronize

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from helpers.running import to_toml

PLUGIN = Path(__file__).with_name("planted_failures.py")
COMMAND_SECONDS = {"cpu": 600, "cuda": 60}  # a CPU may be busy; on CUDA the part has a limit


def experiment_of(decoders: dict[str, str]) -> dict[str, Any]:
    """Return an experiment that trains in a second per cell, as plain data."""
    return {
        "name": "failures",
        "dataset": {
            "use": "synthetic_captcha", "charset": "01", "min_length": 1, "max_length": 2,
            "train": 64, "val": 16, "test": 20, "width": 80, "height": 40,
        },
        "image": {"height": 32, "width": 64},
        "training": {"steps": 6, "batch_size": 8, "validate_every": 3},
        "grid": {
            "seeds": [0],
            "encoder": {"small": {"use": "timm_cnn", "model": "test_resnet", "stage": 1}},
            "bridge": {"columns": {"use": "mean_height"}},
            "decoder": {label: {"use": name} for label, name in decoders.items()},
        },
    }  # fmt: skip


class Leftovers:
    """An observer of what is left of the cells before when a cell is started.

    Attributes:
        decoders: how many decoders that ran out of memory still exist, at the start of each cell.
        allocated: bytes of the device that tensors fill, at the start of each cell.
    """

    def __init__(self, device: torch.device, registry: Registry) -> None:
        self.device, self._exhausting = device, registry["decoder"]["exhausting"].component
        self.decoders: list[int] = []
        self.allocated: list[int] = []

    @hookimpl
    def cell_started(self, cell: Any) -> None:
        synchronize(self.device)
        self.decoders.append(len(self._exhausting.alive))
        self.allocated.append(torch.cuda.memory_allocated(self.device) if self.device.type == "cuda" else 0)


def check_out_of_memory(figures: Figures, results: Path) -> None:
    """Run a cell that fills the device, then one that must find it as empty as it was."""
    registry = planted_registry()
    leftovers = Leftovers(figures.device, registry)
    registry.plugins.add(leftovers, "leftovers")
    # The first cell makes cuBLAS allocate its workspaces, which stay.
    data = experiment_of({"before": "ctc", "exhausting": "exhausting", "after it": "planted_ctc"})
    run(Experiment(**data), registry=registry, results=results, device=str(figures.device))
    statuses = read_statuses(results)
    expected = {"before": "done", "exhausting": "oom", "after it": "done"}
    figures.add("memory: statuses", show(statuses), ok=statuses == expected)
    figures.add("memory: failed decoders at the next cell", leftovers.decoders[2], ok=leftovers.decoders[2] == 0)
    if figures.device.type == "cuda":
        _, before, after = leftovers.allocated
        figures.add("memory: allocated before the failed cell", before / 1e6, "MB")
        figures.add("memory: allocated before the next cell", after / 1e6, "MB", ok=after <= before)


def check_records(figures: Figures, results: Path, executor: str = "local") -> None:
    """Check the records of three cells, of which the second failed and, inline on CUDA, ended the run."""
    expected = {"before": "done", "out of range": "failed"}
    if not ends_the_run(figures.device, executor):
        expected["after it"] = "done"
    statuses = read_statuses(results)
    figures.add(f"assert, {executor}: statuses", show(statuses), ok=statuses == expected)
    written = (results / "report.md").exists()
    figures.add(f"assert, {executor}: the report is written", written, ok=written)


def ends_the_run(device: torch.device, executor: str) -> bool:
    """Whether the failed assert leaves nothing to train the other cells with."""
    return device.type == "cuda" and executor == "inline"


def check_same_command(figures: Figures, data: dict[str, Any], results: Path) -> None:
    """Give the command again, in this process."""
    times = {path: path.stat().st_mtime_ns for path in results.glob("cells/*/result.json")}
    run_here(data, results, figures.device)
    statuses = read_statuses(results)
    expected = {"before": "done", "out of range": "failed", "after it": "done"}
    figures.add("assert: statuses after the same command", show(statuses), ok=statuses == expected)
    kept = all(path.stat().st_mtime_ns == time for path, time in times.items())
    figures.add("assert: no cell is trained twice", kept, ok=kept)


def run_here(data: dict[str, Any], results: Path, device: torch.device) -> None:
    run(Experiment(**data), registry=planted_registry(), results=results, device=str(device))


def check_command(figures: Figures, data: dict[str, Any], results: Path, executor: str) -> None:
    """Run an experiment by the command, in a process that may lose its CUDA context."""
    file = results.with_suffix(".toml")
    file.write_text(to_toml(data), encoding="utf-8")
    arguments = ["run", str(file), "-p", str(PLUGIN), "--results", str(results), "--executor", executor]
    command = [
        sys.executable,
        "-c",
        "from decoderbench.cli import main; main()",
        *arguments,
        "--device",
        str(figures.device),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            printed, _ = process.communicate(timeout=COMMAND_SECONDS[figures.device.type])
        except subprocess.TimeoutExpired:
            process.terminate()
            printed, _ = process.communicate()
    print(printed, end="")
    figures.add(f"assert, {executor}: exit status", process.returncode, ok=process.returncode == 1)
    traceback = "Traceback" in printed
    figures.add(f"assert, {executor}: prints a traceback", traceback, ok=not traceback)
    said = [line for line in printed.splitlines() if "unusable" in line]
    told = len(said) == ends_the_run(figures.device, executor)
    figures.add(f"assert, {executor}: what it says of the device", " | ".join(said) or "nothing", ok=told)


def planted_registry() -> Registry:
    return Registry(build_plugin_manager([str(PLUGIN)]))


def read_statuses(results: Path) -> dict[str, str]:
    """Return the status of each cell that has a record, by the label of its decoder."""
    records = [json.loads(path.read_text(encoding="utf-8")) for path in results.glob("cells/*/result.json")]
    return {record["cell"]["decoder"]["label"]: record["status"] for record in records}


def show(statuses: dict[str, str]) -> str:
    return ", ".join(f"{label}: {status}" for label, status in sorted(statuses.items()))


def main() -> None:
    given = parser(__doc__).parse_args()
    figures = start("failures", given)
    with tempfile.TemporaryDirectory() as folder:
        check_out_of_memory(figures, Path(folder) / "memory")
        data = experiment_of({"before": "planted_ctc", "out of range": "out_of_range", "after it": "lstm_ctc"})
        if given.small and figures.device.type == "cpu":
            results = Path(folder) / "assert"
            run_here(data, results, figures.device)
            check_records(figures, results)
        else:
            for executor in ("local", "inline"):
                results = Path(folder) / executor
                check_command(figures, data, results, executor)
                check_records(figures, results, executor)
            check_same_command(figures, data, results)
    raise SystemExit(bool(figures.failed))


if __name__ == "__main__":
    main()
