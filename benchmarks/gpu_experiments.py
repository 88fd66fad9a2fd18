"""The experiments of the GPU check, each by the command line in a process of its own. No torch here.

    python benchmarks/gpu_experiments.py draw [--seconds 60] [--out FILE.jsonl] [--small]
    python benchmarks/gpu_experiments.py quickstart [--seconds 60] [--tar FILE.tar] [--out FILE.jsonl] [--device cpu]
    python benchmarks/gpu_experiments.py four_stage [...]

`draw` makes the images of both. The others train the cells that have no record in the tar file yet, and rewrite it
after each cell. `four_stage` trains seed 0, first the combinations that have a name. Exit status: 0 done, 1 a cell
failed or missed its accuracy, 4 the time was up.
"""

from __future__ import annotations

import argparse
import io
import re
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from figure_file import FigureWriter, installed_versions, parser, with_threads

from decoderbench.errors import DataError, PendingCellsError
from decoderbench.files.storage import write_atomically
from decoderbench.records.results_directory import ResultsDirectory
from decoderbench.records.schema import RunRecord

ROOT = Path(__file__).parents[1]
COMMAND = [sys.executable, "-c", "from decoderbench.cli import main; main()"]
MARGIN = 10.0  # seconds from the end of the training to that of the process: a step, the report, the tar file
LEAST_SECONDS = 15.0  # a command that has fewer is not started
UNITS = {"per_sec": "images/s", "ms": "ms", "mb": "MB", "seconds": "s"}
UNFINISHED = PendingCellsError.exit_code
SECONDS_TO_END = 3.0  # after an interruption, before the processes are killed


@dataclass(frozen=True)
class Job:
    """An experiment of the check.

    Attributes:
        bands: the least exact match of decoders, by label, from the head of the experiment.
        small: values by key that make it small: two cells of a few steps.
    """

    bands: Mapping[str, float]
    small: Mapping[str, str]

    def arguments(self, small: bool) -> list[str]:
        """Return options of the command line."""
        changes = {**SMALL, **self.small} if small else {}
        return ["--seeds", "0", *(argument for key in changes for argument in ("--set", f"{key}={changes[key]}"))]


SMALL = {"dataset.train": "192", "dataset.val": "16", "dataset.test": "16", "training.batch_size": "8"}
CRNN = '{name = "CRNN", rectifier = "None", encoder = "VGG", bridge = "BiLSTM", decoder = "CTC"}'
JOBS = {
    "quickstart": Job(
        {"LSTM + CTC": 0.9, "attention LSTM": 0.95},
        {
            "training.steps": "4",
            "grid.exclude": '[{encoder = "the same, stride 32"}, {decoder = "LSTMCell loop"}]',
        },
    ),
    "four_stage": Job(
        {},
        {
            "training.steps": "2",
            "training.validate_every": "2",
            "training.warmup_steps": "1",
            "grid.exclude": '[{rectifier = "TPS"}, {encoder = "RCNN"}, {encoder = "ResNet"}, {decoder = "Attn"}]',
            "grid.names": f"[{CRNN}]",
        },
    ),
}


def experiment_of(name: str) -> Path:
    """Return the file of an experiment."""
    return ROOT / "experiments" / f"{name}.toml"


def selections(name: str) -> list[str]:
    """Return what to run one after another: the combinations that have a name, if there are any, then all cells."""
    grid = tomllib.loads(experiment_of(name).read_text(encoding="utf-8"))["grid"]
    names = [combination["name"] for combination in grid.get("names", ())]
    return [*([" or ".join(names)] if names else []), ""]


def draw(given: argparse.Namespace, figures: FigureWriter) -> int:
    """Make the images of all experiments that are not in the cache yet."""
    unfinished = False
    for name, job in JOBS.items():
        left = given.seconds - figures.elapsed
        if left < LEAST_SECONDS:
            return UNFINISHED
        command = [*COMMAND, "prepare", str(experiment_of(name)), "--stop-after", f"{left - MARGIN:.0f}s"]
        command += job.arguments(given.small)
        began = time.monotonic()
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        printed = process.communicate()[0]
        took = time.monotonic() - began
        print(printed, end="", flush=True)
        code, made = process.returncode, re.search(r"decoded ([\d,]+) images", printed)
        unfinished |= code == UNFINISHED
        figures.add(f"{name}: decoderbench prepare", f"exit status {code}", ok=code in (0, UNFINISHED))
        if code == 0 and made:
            number = int(made[1].replace(",", ""))
            figures.add(f"{name}: images made, start of the process included", number / took, "images/s", n=number)
    return 1 if figures.failed else UNFINISHED if unfinished else 0


def train(name: str, given: argparse.Namespace, figures: FigureWriter, results: Path) -> int:
    """Train the cells without a record, as far as time allows, and report; return the exit status."""
    job, code, began = JOBS[name], 0, time.time()
    unpack(given.tar, results)
    for selection in [""] if given.small else selections(name):
        left = given.seconds - figures.elapsed
        if left < LEAST_SECONDS:
            code = UNFINISHED
            break
        process = subprocess.Popen([
            *COMMAND, "run", str(experiment_of(name)), "--results", str(results), "-k", selection,
            "--stop-after", f"{left - MARGIN:.0f}s", *(["--device", given.device] if given.device else []),
            *job.arguments(given.small),
        ])  # fmt: skip
        code = follow(process, results, given.tar)
        run = f"decoderbench run -k '{selection}'" if selection else "decoderbench run"
        figures.add(run, f"exit status {code}", ok=code in (0, UNFINISHED))
        if code == UNFINISHED:
            break
    report_cells(results, {} if given.small else job.bands, figures)
    if given.small and job.bands:
        figures.add("least exact match", "not applied to a small run")
    ends = sorted(file.stat().st_mtime for file in results.glob("cells/*/result.json"))
    between = [after - before for before, after in pairwise(end for end in ends if end > began)]
    if between:
        figures.add("from cell to cell", statistics.median(between), "s", n=len(between))
    figures.add("from start to report", figures.elapsed, "s")
    return 1 if figures.failed else code


def report_cells(results: Path, bands: Mapping[str, float], figures: FigureWriter) -> None:
    """Record the figures of all cells that have a record; `bands` holds the least exact match by decoder."""
    directory = ResultsDirectory(results)
    try:
        records = [directory.read(cell) for cell in directory.read_plan().cells]
    except DataError as error:
        figures.add("cells", str(error), ok=False)
        return
    counts = Counter(record.status if record else "pending" for record in records)
    figures.add("cells", ", ".join(f"{number} {status}" for status, number in counts.items()), ok=True)
    for record in records:
        if record is not None and record.status != "infeasible":
            report_cell(record, bands.get(record.cell.decoder.label), figures)


def report_cell(record: RunRecord, band: float | None, figures: FigureWriter) -> None:
    """Record accuracy and costs of a cell, measured where and with what its record says."""
    title = record.cell.name or record.cell.variant_title
    known = {name: record.environment.get(name, "") for name in ("python", "torch", "timm", "cuda", "commit")}
    kind = "cpu" if "cpu_capability" in record.environment else "cuda"
    figures.measured_on = with_threads(record.device, record.environment.get("threads"), kind)
    figures.versions = ", ".join(f"{name} {value}" for name, value in known.items() if value)
    done = record.status == "done"
    figures.add(f"{title}: status", record.status if done else f"{record.status}: {record.reason}", ok=done)
    matched = record.metrics.get("exact_match")
    if matched is not None:
        ok = None if band is None else matched >= band
        rule = "" if band is None else f", at least {100 * band:.0f}"
        figures.add(f"{title}: exact match{rule}", 100 * matched, "%", n=record.num_test or 0, ok=ok)
    for name, value in record.cost.model_dump(exclude={"latency_ms_by_length"}).items():
        if value is not None:
            figures.add(f"{title}: {name}", value, next((UNITS[end] for end in UNITS if name.endswith(end)), ""))


def follow(process: subprocess.Popen[bytes], results: Path, tar: Path | None) -> int:
    """Wait for a run and return its exit status; pack its records whenever another cell has finished."""
    packed: set[Path] = set()
    try:
        while process.poll() is None:
            finished = set(results.glob("cells/*/result.json"))
            if finished != packed:
                pack(results, tar)
                packed = finished
            time.sleep(0.2)
    except KeyboardInterrupt:
        with suppress(subprocess.TimeoutExpired):
            process.wait(SECONDS_TO_END)
        raise
    finally:
        pack(results, tar)
    return process.returncode


def pack(results: Path, tar: Path | None) -> None:
    """Write the reports and the records of finished cells to a tar file, atomically; leave out the weights."""
    if tar is None:
        return
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        for folder in (results, *(file.parent for file in results.glob("cells/*/result.json"))):
            for file in sorted(folder.glob("*")):
                if file.is_file() and file.suffix not in (".safetensors", ".tmp") and file.name != "lock":
                    entry = tarfile.TarInfo(file.relative_to(results).as_posix())
                    data = file.read_bytes()  # at once, since the run may replace the file meanwhile
                    entry.size, entry.mtime = len(data), int(file.stat().st_mtime)
                    archive.addfile(entry, io.BytesIO(data))
    write_atomically(tar, content.getvalue())


def unpack(tar: Path | None, results: Path) -> None:
    """Restore the records of an earlier call, if there is one, without those of cells that failed."""
    if tar is None or not tar.exists():
        return
    with tarfile.open(tar) as archive:
        archive.extractall(results, filter="data")
    directory = ResultsDirectory(results)
    with suppress(DataError):  # no plan: nothing has run
        for cell in directory.read_plan().cells:
            record = directory.read(cell)
            if record is not None and record.status not in ("done", "infeasible"):
                directory.delete_result(cell)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one of the experiments and return the exit status."""
    options = parser(__doc__)
    options.add_argument("what", choices=["draw", *JOBS])
    options.add_argument("--seconds", type=float, default=3600, help="end within this time (default: an hour)")
    options.add_argument("--tar", type=Path, help="records of finished cells, to go on with and to write")
    given = options.parse_args(arguments)
    figures = FigureWriter(given.what, given.out, "", installed_versions())
    if given.what == "draw":
        return draw(given, figures)
    with tempfile.TemporaryDirectory() as temporary:
        return train(given.what, given, figures, Path(temporary) / given.what)


if __name__ == "__main__":
    sys.exit(main())
