"""Slurm: hands cells to the jobs of an array, and waits for their results."""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Iterator, Sequence
from typing import Any, Literal
from uuid import uuid4

from pydantic import Field, field_validator

from decoderbench import (
    CellEvent,
    CellOutcome,
    CellTask,
    ComponentConfig,
    ConfigError,
    Executor,
    PendingCellsError,
    Watch,
    parse_duration,
)

from .array import Array, import_submitit
from .deaths import Deaths

logger = logging.getLogger("decoderbench")

POLL_SECONDS = 1.0
"""Seconds between two looks at the results folder."""

STOP_SECONDS = 60.0
"""How long jobs may take to save their cells before they are cancelled."""

END_SECONDS = 10.0
"""How long jobs may take to end when no cell is left."""

MAX_JOBS = 1000
"""The most jobs of an array; Slurm allows 1,001 by default."""

OF_THE_MACHINE = (
    "machine",
    "system",
    "cpu_capability",
    "auto_precision",
    "compute_capability",
    "cuda",
    "cudnn",
    "driver",
)
"""Conditions that only the machine of a job knows."""


class Slurm(Executor):
    """Runs cells in the jobs of an array of Slurm, each of which takes one cell after the other that no other has.

    In a job, a cell runs in a process of its own, as with `local`. The results folder, the image cache and plugin files
    have to be on a filesystem that all machines see. Before the time of a job is up it saves its cell, and Slurm queues
    it again. Jobs do not need the run: if that is killed, they go on, and the same command waits for them.

    Source: submitit, https://github.com/facebookincubator/submitit; sbatch, https://slurm.schedmd.com/sbatch.html
    """

    name = "slurm"
    elsewhere = True

    class Config(ComponentConfig):
        """What a job asks Slurm for."""

        cluster: Literal["slurm", "local", "debug"] = "slurm"
        """Where jobs run: in Slurm; as processes of this machine, which tests a setup; or in the process of the run."""

        time: str = "1h"
        """The time limit of a job, as 90m or 24h; cells are saved before, and the job is queued again."""

        partition: str | None = None
        """The partition."""

        account: str | None = None
        """The account that is charged."""

        qos: str | None = None
        """The quality of service."""

        constraint: str | None = None
        """The features of a machine."""

        cpus_per_cell: int | None = Field(default=None, ge=1)
        """CPUs; by default the threads of a cell."""

        gpus_per_cell: int | None = Field(default=None, ge=0)
        """GPUs; by default 1 if the run's device is CUDA, else 0. Cells are trained on CUDA if it is above 0."""

        memory_per_cell: float | None = Field(default=None, gt=0)
        """Memory in GB; by default what the largest cell is estimated to need."""

        setup: tuple[str, ...] = ()
        """Lines of shell that a job executes first, such as `module load cuda`."""

        parameters: dict[str, str] = Field(default_factory=dict)
        """Further options of sbatch, by name, such as nice = "100"."""

        requeues: int = Field(default=20, ge=0)
        """How often a job may be queued again after its time was up."""

        retries: int = Field(default=2, ge=0)
        """How often a cell is started again whose job has died with it; then it counts as crashed."""

        @field_validator("time")
        @classmethod
        def _refuse_no_duration(cls, time: str) -> str:
            try:
                parse_duration(time)
            except ConfigError:
                raise ValueError(f"{time!r} is no duration, as 90m or 24h") from None
            return time

    config: Config

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        if not self.work.locking:
            raise ConfigError(["--no-locks: jobs of Slurm take cells that no other job holds; leave it out"])
        gpus = self.config.gpus_per_cell
        self._gpus = int(self.work.device.startswith("cuda")) if gpus is None else gpus
        self._here = self.work
        self.work = self.work.on("cuda:0" if self._gpus > 0 else "cpu")
        if self.config.cluster == "slurm":
            self.jobs = min(self.jobs, MAX_JOBS)
        elif self.jobs >= MAX_JOBS:  # the user has given no number
            self.jobs = os.cpu_count() or 1
        self._array: Array | None = None
        self._deaths = Deaths(self.work.results / "logs" / f"begun-{uuid4().hex[:8]}", self.config.retries)
        self._is_first = True

    @classmethod
    def warm_up(cls) -> None:
        """Refuse to begin without the library."""
        import_submitit()

    def describe(self) -> dict[str, str]:
        """Return the conditions that are known before a job has begun; each record states those of its machine."""
        known = self._here.describe()
        if self.config.cluster != "slurm" and self._here.device == self.work.device:
            return known
        unknown = (*OF_THE_MACHINE, *(["threads"] if self.work.threads is None else []))
        return known | {name: "" for name in unknown if name in known}

    def submit(self, tasks: Sequence[CellTask]) -> Iterator[CellOutcome]:
        left = {task.cell.cell_id: task for task in tasks}
        watch = Watch(self.work)
        self._deaths.open()
        while left and not self.stopping():
            before = len(left), self._deaths.count()
            self._array = self._start(list(left.values()))
            for outcome in self._follow(self._array, left, watch):
                yield outcome
                if outcome.ended is not None:
                    return
            if left and (broken := self._array.why_broken()) is not None:
                raise broken
            if before == (len(left), self._deaths.count()) or (left and self._array.was_cancelled()):
                reason = self._array.why_ended()
                yield CellOutcome(next(iter(left.values())).cell, ended=PendingCellsError(reason))
                return
            self._end_array()

    def close(self) -> None:
        """End the jobs, and delete what was only for them."""
        self._end_array()
        self._deaths.close()

    def _end_array(self) -> None:
        if self._array is not None:
            self._array.stop()
            self._wait_for_end(self._array, END_SECONDS)
            self._array.cancel()
            self._array.close()
            self._array = None

    def _start(self, tasks: Sequence[CellTask]) -> Array:
        """Submit an array that runs the tasks."""
        count = min(self.jobs, len(tasks))
        config = self.config
        array = Array(
            self.work,
            tasks,
            count,
            self.cell_timeout,
            self._parameters(),
            cluster=config.cluster,
            requeues=config.requeues,
            deaths=self._deaths,
            is_first=self._is_first,
        )
        self._is_first = False
        logger.info("%s; their output is in %s", array, array.folder)
        return array

    def _parameters(self) -> dict[str, Any]:
        """Return what submitit asks Slurm for."""
        config = self.config
        memory = self.work.memory / 1e9 if config.memory_per_cell is None else config.memory_per_cell
        named = {name: getattr(config, name) for name in ("partition", "account", "qos", "constraint")}
        of_slurm = {name: value for name, value in named.items() if value is not None}
        of_slurm |= {"setup": list(config.setup)} if config.setup else {}
        of_slurm |= {"additional_parameters": dict(config.parameters)} if config.parameters else {}
        return {
            "name": "decoderbench",
            "timeout_min": math.ceil(parse_duration(config.time) / 60),
            "cpus_per_task": config.cpus_per_cell or self.work.threads or 1,
            "gpus_per_node": self._gpus,
            "mem_gb": math.ceil(memory),
            "stderr_to_stdout": True,
            "slurm_array_parallelism": MAX_JOBS,
            **{f"slurm_{name}": value for name, value in of_slurm.items()},
        }

    def _follow(self, array: Array, left: dict[str, CellTask], watch: Watch) -> Iterator[CellOutcome]:
        """Yield the outcome of tasks as their results appear, until all jobs have ended or the run is to stop."""
        has_ended = False
        while left and not has_ended:
            has_ended = array.has_ended()  # before the results are looked at: none appears behind that
            for cell_id, task in list(left.items()):
                for seen in watch.look(task, thoroughly=has_ended):
                    if isinstance(seen, CellEvent):
                        self.report(seen)
                    else:
                        del left[cell_id]
                        yield seen
            yield from self._give_up(array, left, all_have_ended=has_ended)
            if left and (reason := self.stopping()):
                yield from self._stop(array, left, watch, reason)
                return
            if left and not has_ended:
                time.sleep(POLL_SECONDS)

    def _give_up(self, array: Array, left: dict[str, CellTask], *, all_have_ended: bool) -> Iterator[CellOutcome]:
        """Publish and yield the failure of tasks whose jobs have died too often."""
        if all_have_ended:
            self._deaths.refresh()
        for cell_id, jobs in self._deaths.too_many().items():
            if cell_id in left and (all_have_ended or all(array.has_died(job) for job in jobs)):
                states = ", ".join(array.describe(job) for job in jobs)
                reason = (
                    f"{len(jobs)} jobs have died while they ran it: {states}; their output is in logs. If they ran "
                    "out of memory, give more by --set executor.memory_per_cell=GB"
                )
                outcome = self.work.publish_failure(left[cell_id], "crashed", reason)
                if all_have_ended or not outcome.held:
                    del left[cell_id]
                    yield outcome

    def _stop(self, array: Array, left: dict[str, CellTask], watch: Watch, reason: str) -> Iterator[CellOutcome]:
        """Let jobs save their cells and end; yield the outcome of tasks that have ended meanwhile, then the end."""
        array.stop()
        self._wait_for_end(array, STOP_SECONDS)
        for task in list(left.values()):
            for seen in watch.look(task, thoroughly=True):
                if isinstance(seen, CellOutcome):
                    del left[task.cell.cell_id]
                    yield seen
        for task in left.values():
            yield CellOutcome(task.cell, ended=PendingCellsError(reason))
            return

    def _wait_for_end(self, array: Array, seconds: float) -> None:
        end = time.monotonic() + seconds
        while not array.has_ended(at_once=True) and time.monotonic() < end:
            time.sleep(POLL_SECONDS)
