"""Array: the jobs of one submission, as the process of the run sees them."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

from decoderbench import CellTask, CellWork, ConfigError, PendingCellsError, TravelingWork

from .drain import Drain, Drained

logger = logging.getLogger("decoderbench")

STATE_SECONDS = 10.0
"""Seconds between two questions to Slurm."""


def import_submitit() -> Any:
    """Return the library; raise `ConfigError` if it is not installed."""
    try:
        import submitit
    except ImportError as error:
        raise ConfigError([f"--executor slurm needs a library: pip install 'decoderbench[slurm]' ({error})"]) from None
    return submitit


class Array:
    """Jobs that run the same tasks together.

    Attributes:
        folder: where their output is, in the results folder.
    """

    def __init__(
        self,
        work: CellWork,
        tasks: Sequence[CellTask],
        count: int,
        cell_timeout: float | None,
        parameters: dict[str, Any],
        *,
        cluster: str,
        requeues: int,
    ) -> None:
        """Submit the jobs.

        Args:
            work: what cells need.
            tasks: what to run.
            count: the number of jobs.
            cell_timeout: seconds after which a cell is ended.
            parameters: those of submitit.
            cluster: where jobs run: `slurm`, `local` or `debug`.
            requeues: how often a job may be queued again after its time was up.

        Raises:
            ConfigError: Slurm refuses the jobs, or there is none here.
        """
        submitit = import_submitit()
        self.folder = work.results / "logs"
        self.folder.mkdir(parents=True, exist_ok=True)
        name = uuid4().hex[:8]
        self._payload, self._stop_file = self.folder / f"{name}.pkl", self.folder / f"{name}.stop"
        self._traveling = TravelingWork.of(work, mark=self._payload)
        self._debugging = ThreadPoolExecutor(1) if cluster == "debug" else None
        drain = Drain(self._payload, self._stop_file, cell_timeout)
        try:
            submitit.helpers.DelayedSubmission(Drain, self._traveling, tuple(tasks)).dump(self._payload)
            again = {"slurm_max_num_timeout": requeues} if cluster == "slurm" else {}
            executor = submitit.AutoExecutor(folder=self.folder, cluster=cluster, **again)
            executor.update_parameters(**parameters)
            self._jobs: list[Any] = executor.map_array(drain, range(count))
        except Exception as error:
            self._traveling.close()
            raise ConfigError([f"--executor slurm: {_first_line(error)}"]) from error
        self._where = "Slurm" if cluster == "slurm" else f"the {cluster} cluster of submitit"
        self._asked = 0.0
        self._ended = False
        self._running: Future[Any] | None = None
        if self._debugging is not None:
            self._running = self._debugging.submit(lambda: [job.results() for job in self._jobs])

    def __str__(self) -> str:
        ids = dict.fromkeys(str(job.job_id).partition("_")[0] for job in self._jobs)
        return f"{len(self._jobs)} jobs of {self._where}: {', '.join(ids)}"

    def has_ended(self, *, at_once: bool = False) -> bool:
        """Return whether all jobs have ended, as known within the last seconds, or now."""
        if self._running is not None:
            return self._running.done()
        now = time.monotonic()
        if not self._ended and (at_once or now - self._asked > STATE_SECONDS):
            self._asked = now
            self._ended = all(job.done(force_check=at_once) for job in self._jobs)
        return self._ended

    def stop(self) -> None:
        """Let the jobs save their cells and end; those that have not begun are cancelled."""
        self._stop_file.touch()
        for job in self._jobs:
            if job.state in ("PENDING", "QUEUED"):
                with suppress(Exception):
                    job.cancel(check=False)

    def cancel(self) -> None:
        """End what has not ended."""
        if self._running is not None:
            self._stop_file.touch()
            self._running.exception()
        elif not self.has_ended(at_once=True):
            for job in self._jobs:
                with suppress(Exception):
                    job.cancel(check=False)

    def why_broken(self) -> PendingCellsError | None:
        """Return why no cell can be run in the jobs, if one has said so."""
        for drained in self._results():
            if isinstance(drained, Drained) and drained.exit_code:
                error = PendingCellsError(drained.reason)
                error.exit_code = drained.exit_code
                return error
        return None

    def why_ended(self) -> str:
        """Return why jobs have ended although cells are left."""
        reasons = [one.reason if isinstance(one, Drained) else _first_line(one) for one in self._results()]
        told = "; ".join(dict.fromkeys(reason for reason in reasons if reason)) or "no job says why"
        return f"{self} have ended and cells are left: {told}; their output is in {self.folder}"

    def close(self) -> None:
        """Delete what was only for the jobs; their output stays."""
        self._traveling.close()
        self._stop_file.unlink(missing_ok=True)
        for job in self._jobs:
            for file in (job.paths.submitted_pickle, job.paths.result_pickle):
                Path(file).unlink(missing_ok=True)
        for file in self.folder.glob("submission_file_*.sh"):
            file.unlink(missing_ok=True)
        if self._debugging is not None:
            self._debugging.shutdown()

    def _results(self) -> list[Any]:
        """Return what the jobs that have ended have returned, or the exceptions that ended them."""
        found = []
        for job in self._jobs:
            try:
                found.append(job.result())
            except Exception as error:  # noqa: BLE001 - submitit raises what the job raised
                found.append(error)
        return found


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else ''}"
