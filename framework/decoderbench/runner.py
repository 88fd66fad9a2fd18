"""plan -> cells -> records -> report: what `decoderbench run` does, and `run` of the Python API."""

from __future__ import annotations

import logging
import platform
import re
import subprocess
import traceback
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from decoderbench.config.cell import Cell
from decoderbench.config.experiment import Experiment, load_experiment
from decoderbench.data.resident_dataset import Batches
from decoderbench.errors import ConfigError, DivergedError
from decoderbench.planning.grid import open_images, plan_cells, read_buckets, read_data, refuse_if_all_infeasible
from decoderbench.records import Plan, ResultsDirectory, RunRecord, Status, write_atomically
from decoderbench.registry.global_state import process_state_kept
from decoderbench.registry.plugin_manager import build_plugin_manager
from decoderbench.registry.registry import Registry
from decoderbench.report import load_results, write_files
from decoderbench.training import trainer
from decoderbench.training.devices import choose_device, device_name
from decoderbench.training.trainer import CellContext

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger("decoderbench")


def run(
    experiment: Experiment | str | Path,
    *,
    results: str | Path | None = None,
    device: str | None = None,
    select: str = "",
    retry_failed: bool = False,
    registry: Registry | None = None,
    base_dir: str | Path | None = None,
    cache_dir: Path | None = None,
    command: str = "decoderbench.run(...)",
    echo: Callable[[str], None] = logger.info,
    images_done: Callable[[int, int], None] | None = None,
) -> pd.DataFrame:
    """Train what has no result yet, write the report, and return the tidy frame, one row a cell.

    Args:
        experiment: an experiment, or the path of its TOML file.
        results: where records and report go; default `results/<name>`.
        device: `cpu`, `cuda`, `cuda:1`; default: the accelerator if there is one.
        select: which cells to run, by words of their names joined by `and`, `or`, `not`; default: all.
        retry_failed: run cells again that failed before.
        registry: the components to choose from; default: all installed ones.
        base_dir: where relative paths of the experiment start; default: the file's folder, or the working directory.
        cache_dir: where decoded images are kept; default as `images.default_cache_dir` says.
        command: what the report names as its origin.
        echo: called with each line of the data audit, before training.
        images_done: called with images done and in all while they are decoded.

    Raises:
        ConfigError, InfeasibleError, PluginError: before anything is trained or written.
        DataError: before anything is trained.
    """
    if not isinstance(experiment, Experiment):
        base_dir = base_dir if base_dir is not None else Path(experiment).parent
        experiment = load_experiment(experiment)
    registry = registry or Registry(build_plugin_manager())
    if problems := registry.problems(experiment.as_given()):
        raise ConfigError([f"{'.'.join(map(str, place))}: {text}" for place, text in problems])
    chosen_device = choose_device(device)
    directory = ResultsDirectory(results or Path("results") / experiment.name)
    directory.refuse_other_experiment(experiment.name)
    data = read_data(experiment, registry, base_dir=Path(base_dir or "."), cache_dir=cache_dir)
    buckets = read_buckets(experiment, data, cache_dir=cache_dir, progress=images_done)
    cells = plan_cells(experiment, registry, data, buckets)
    refuse_if_all_infeasible(cells)
    wanted = select_cells(cells, select)
    store = open_images(experiment, data, cache_dir=cache_dir, progress=images_done)
    found = data.audit.with_images(store)
    for line in found.lines():
        echo(line)

    directory.write_plan(
        Plan(
            experiment=experiment.name,
            command=command,
            cells=cells,
            data_summary=(*found.summary(), *(f"note     {note}" for note in found.notes)),
            data_notes=tuple(found.footnotes()),
        )
    )
    if others := directory.count_others(cells):
        logger.info("%d results of earlier settings are kept in %s, they are not in this table", others, directory.path)
    registry.plugins.add(trainer, "trainer")
    batches = Batches(store, found, chosen_device)
    Runner(registry, directory, batches).run(wanted, retry_failed=retry_failed)
    results_of_all = load_results(directory.path, extra_columns=registry.plugins.report_columns)
    write_files(results_of_all, command=f"decoderbench report {directory.path}")
    return results_of_all.recorded


class Runner:
    """Runs cells one after the other in this process; whatever happens in one costs only that one."""

    def __init__(
        self,
        registry: Registry,
        directory: ResultsDirectory,
        batches: Batches,
    ) -> None:
        self.registry, self.directory, self.batches = registry, directory, batches
        self.environment = describe_environment(batches.device)

    def run(self, cells: Sequence[Cell], *, retry_failed: bool = False) -> None:
        """Give every cell a record. Cells that another process holds are left for last, and then waited for."""
        if retry_failed:
            self._forget_failed(cells)
        pending = [cell for cell in cells if self.directory.read(cell) is None]
        if finished := len(cells) - len(pending):
            logger.info("%d of %d cells have results already", finished, len(cells))
        self.registry.plugins.notify("run_started", cells=tuple(pending), directory=self.directory.path)
        held = [cell for cell in pending if not self._settle(cell, wait=False)]
        for cell in held:
            logger.info("waiting for %s, which another process trains", cell.title)
            self._settle(cell, wait=True)

    def _forget_failed(self, cells: Sequence[Cell]) -> None:
        for cell in cells:
            record = self.directory.read(cell)
            if record is not None and record.status not in ("done", "infeasible"):
                self.directory.forget(cell)

    def _settle(self, cell: Cell, *, wait: bool) -> bool:
        """Run a cell if it has no record; return False if another process holds it."""
        with self.directory.lease(cell, wait=wait) as ours:
            if ours and self.directory.read(cell) is None:
                record = self._run(cell)
                self.directory.publish(record)
                self.registry.plugins.notify("cell_finished", cell=cell, record=record)
        return ours

    def _run(self, cell: Cell) -> RunRecord:
        if cell.infeasible:
            return RunRecord(cell=cell, status="infeasible", reason=cell.infeasible)
        self.registry.plugins.notify("cell_started", cell=cell)
        context = CellContext(
            registry=self.registry,
            batches=self.batches,
            device=self.batches.device,
            directory=self.directory.cell_directory(cell),
            environment=self.environment | {"date": datetime.now(UTC).isoformat(timespec="seconds")},
        )
        try:
            with process_state_kept():
                return self.registry.plugins.run_cell(cell, context)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a plugin may raise anything
            story = "".join(traceback.format_exception(error))
            status, reason = classify(error)
        # Outside of the except block, so that the traceback no longer keeps a failed cell's tensors alive.
        if self.batches.device.type == "cuda":
            torch.cuda.empty_cache()
        write_atomically(context.directory / "traceback.txt", story.encode())
        return RunRecord(
            cell=cell,
            status=status,
            reason=reason,
            device=device_name(self.batches.device),
            environment=context.environment,
        )


def classify(error: BaseException) -> tuple[Status, str]:
    """Return the status that an exception earns a cell, and the reason in a sentence."""
    text = " ".join(str(error).split())
    if isinstance(error, DivergedError):
        return "diverged", text
    if isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in text:
        return "oom", f"out of memory: {text}; make training.batch_size or the image smaller"
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    return "failed", f"{type(error).__name__}: {text}{where}"


def select_cells(cells: Sequence[Cell], expression: str) -> list[Cell]:
    """Return the cells whose name fits an expression such as `ctc and not seed 1`.

    Words are looked for in the cell's name, labels and seed, whatever their case, and an id as a whole; `and` binds
    tighter than `or`, and there are no parentheses. A number fits whole numbers only: `seed 1` is not `seed 10`.

    Raises:
        ConfigError: if no cell fits, or none a word, which is then misspelled.
    """
    if not expression.strip():
        return list(cells)
    terms = [re.split(r"\s+and\s+", part.strip()) for part in re.split(r"\s+or\s+", expression.lower().strip())]
    words = [term.removeprefix("not ").strip() for alternative in terms for term in alternative]
    fitting = {word: {cell.cell_id for cell in cells if _holds(cell, word)} for word in words}
    for word, ids in fitting.items():
        if not ids:
            raise ConfigError([_selects_none(cells, expression, f"{word!r} fits")])

    def fits(cell: Cell, term: str) -> bool:
        return (cell.cell_id in fitting[term.removeprefix("not ").strip()]) != term.startswith("not ")

    chosen = [cell for cell in cells if any(all(fits(cell, term) for term in alternative) for alternative in terms)]
    if not chosen:
        raise ConfigError([_selects_none(cells, expression, "it selects")])
    return chosen


def _selects_none(cells: Sequence[Cell], expression: str, what: str) -> str:
    names = "".join(f"\n  {cell.title}" for cell in cells)
    return (
        f"-k {expression!r}: {what} none of {len(cells)} cells; join words of these lines with and, or, not, without "
        f"parentheses:{names}"
    )


def _holds(cell: Cell, word: str) -> bool:
    if word == cell.cell_id:
        return True
    name = f"{cell.name} {' / '.join(cell.variant)} / seed {cell.seed}".lower()
    before, after = r"(?<!\d)" * word[:1].isdigit(), r"(?!\d)" * word[-1:].isdigit()
    return bool(word) and re.search(before + re.escape(word) + after, name) is not None


def describe_environment(device: torch.device) -> dict[str, str]:
    """Return what a reader of a result needs to know about where it came from."""
    return {
        "machine": device_name(device),
        "system": f"{platform.system()} {platform.machine()}",
        "threads": str(torch.get_num_threads()),
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "timm", "decoderbench")},
        "commit": _commit(),
    }


def _commit() -> str:
    """Return the commit of the source tree that this package lies in, or an empty string if it lies in none."""
    here = Path(__file__).parent

    def git(*arguments: str) -> str:
        finished = subprocess.run(["git", *arguments], cwd=here, capture_output=True, text=True, check=True, timeout=10)
        return finished.stdout.strip()

    try:
        git("ls-files", "--error-unmatch", __file__)  # a virtual environment may lie in somebody else's tree
        changed = git("status", "--porcelain", "--", "..", "../../plugins")
        return git("rev-parse", "--short", "HEAD") + ("-dirty" if changed else "")
    except (OSError, subprocess.SubprocessError):
        return ""
