"""Array: the jobs of one submission, as the process of the run sees them."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any
from uuid import uuid4

from decoderbench import CellTask, CellWork, ConfigError, PendingCellsError, TravelingWork

from .deaths import Deaths
from .drain import Drain, Drained

logger = logging.getLogger("decoderbench")

SILENT_SECONDS = 600.0
"""After how long a job counts as ended of which Slurm says nothing, or that it has preempted and not queued again."""

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
        deaths: Deaths,
        is_first: bool,
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
            deaths: counts the jobs that have died with a cell.
            is_first: whether the run has submitted none before.

        Raises:
            ConfigError: Slurm refuses the jobs, or there is none here.
            PendingCellsError: a file cannot be written, or Slurm refuses jobs although it has taken others.
        """
        submitit = import_submitit()
        self.folder = work.results / "logs" / f"array-{uuid4().hex[:8]}"
        self.folder.mkdir(parents=True, exist_ok=True)
        self._payload, self._stop_file = self.folder / "work.pkl", self.folder / "stop"
        self._traveling = TravelingWork.of(work, mark=self._payload)
        self._debugging = ThreadPoolExecutor(1) if cluster == "debug" else None
        drain = Drain(self._payload, self._stop_file, cell_timeout, deaths)
        try:
            submitit.helpers.DelayedSubmission(Drain, self._traveling, tuple(tasks)).dump(self._payload)
            again = {"slurm_max_num_timeout": requeues} if cluster == "slurm" else {}
            executor = submitit.AutoExecutor(folder=self.folder, cluster=cluster, **again)
            executor.update_parameters(**parameters)
            with _ignoring_interrupts():
                self._jobs: list[Any] = executor.map_array(drain, range(count))
        except Exception as error:
            self._traveling.close()
            shutil.rmtree(self.folder, ignore_errors=True)
            reason = f"--executor slurm: {_first_line(error)}"
            if cluster == "slurm" and shutil.which("sbatch") is None:
                reason = (
                    "--executor slurm: there is no sbatch here; start the run on a machine that has it, or try the "
                    "jobs on this one by --set executor.cluster=local"
                )
            if isinstance(error, OSError) or not is_first:
                raise PendingCellsError(reason) from error
            raise ConfigError([reason]) from error
        self._where = "Slurm" if cluster == "slurm" else f"the {cluster} cluster of submitit"
        self._is_local = cluster != "slurm"
        self._silent_since: dict[str, float] = {}
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
            self._ended = all(self._has_ended(job, at_once=at_once) for job in self._jobs)
        return self._ended

    def has_died(self, job_id: str) -> bool:
        """Return whether a job of this array has ended without a result; one of an earlier array has."""
        job = self._job(job_id)
        return job is None or (self._running is None and job.done() and not job.paths.result_pickle.exists())

    def describe(self, job_id: str) -> str:
        """Return a job and its state, as in "123_4 (OUT_OF_MEMORY)"; that of an earlier array alone."""
        job = self._job(job_id)
        return job_id if job is None else f"{job_id} ({job.state})"

    def _job(self, job_id: str) -> Any:
        return next((job for job in self._jobs if str(job.job_id) == job_id), None)

    def was_cancelled(self) -> bool:
        """Return whether somebody has cancelled all jobs."""
        return all(str(job.state).startswith("CANCELLED") for job in self._jobs)

    def _has_ended(self, job: Any, *, at_once: bool) -> bool:
        """Return whether a job has ended; one of which Slurm says nothing for minutes, or that it has preempted."""
        if job.done(force_check=at_once):
            return True
        if self._is_local or str(job.state) not in ("UNKNOWN", "PREEMPTED"):
            self._silent_since.pop(job.job_id, None)
            return False
        since = self._silent_since.setdefault(job.job_id, time.monotonic())
        return time.monotonic() - since > SILENT_SECONDS

    def stop(self) -> None:
        """Let the jobs save their cells and end; those that have not begun are cancelled."""
        with suppress(OSError):  # a full disk; they are cancelled after a while
            self._stop_file.touch()
        for job in self._jobs:
            if job.state in ("PENDING", "QUEUED"):
                with suppress(Exception):
                    job.cancel(check=False)

    def cancel(self) -> None:
        """End what has not ended."""
        if self._running is not None:
            with suppress(OSError):
                self._stop_file.touch()
            self._running.exception()
        for job in self._jobs if self._running is None else ():
            with suppress(Exception):  # it has ended
                if not self._is_local:
                    job.cancel(check=False)
                elif not job.done():
                    os.kill(int(job.job_id), signal.SIGTERM)  # it ignores SIGINT, which submitit would send

    def why_broken(self) -> PendingCellsError | None:
        """Return the error of a job in which no cell can be run; None if there is none."""
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
        for file in self.folder.iterdir():
            if file.suffix not in (".out", ".err"):
                file.unlink(missing_ok=True)
        if self._debugging is not None:
            self._debugging.shutdown()

    def _results(self) -> list[Any]:
        """Return what the jobs that have ended have returned, or the exceptions that ended them."""
        found: list[Any] = []
        for job in self._jobs:
            try:
                if self._running is not None or job.paths.result_pickle.exists():  # else submitit waits for it
                    found.append(job.result())
                else:
                    found.append(RuntimeError(f"job {job.job_id} is {job.state}"))
            except Exception as error:  # noqa: BLE001 - submitit raises what the job raised
                found.append(error)
        return found


@contextmanager
def _ignoring_interrupts() -> Iterator[None]:
    """Let what the block starts ignore Ctrl-C, which reaches all processes of a terminal: the run stops its jobs."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else ''}"
