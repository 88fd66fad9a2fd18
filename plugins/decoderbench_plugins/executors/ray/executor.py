"""Ray: hands cells to the machines of a Ray cluster, and survives the loss of any of them."""

from __future__ import annotations

import logging
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Literal

from pydantic import Field, field_validator

from decoderbench import (
    CellEvent,
    CellOutcome,
    CellTask,
    ComponentConfig,
    ConfigError,
    Executor,
    PendingCellsError,
    Reserved,
    TravelingWork,
)

from .agent import Agent, Broken, Ended
from .cluster import Cluster, Need, import_ray
from .slot import Slot

logger = logging.getLogger("decoderbench")

POLL_SECONDS = 0.1
"""Seconds between two looks at what Ray does not tell: signals."""

STOP_SECONDS = 20.0
"""Seconds that a cell has to save its state and end before its agent is killed."""

PATIENCE_SECONDS = 15.0
"""Seconds after which a message says that Ray has no room for a slot."""

START_FAILURES = 3
"""Agents in a row that may die before they are ready; then the run ends."""

NO_MACHINE_SECONDS = 30.0
"""Seconds that a slot waits before the run looks whether any machine is left that has room for it."""

CLOSE_SECONDS = 5.0
"""How long agents have, all together, to delete what was only for the run."""


class Ray(Executor):
    """Runs cells on the machines of the Ray cluster at `$RAY_ADDRESS`, else in one that it starts on this machine.

    Each slot is an actor, which runs one cell after the other in processes of their own, as `local` does. Machines need
    decoderbench and the installed plugins in the versions of the run. Plugins that are files, decoded images and packs
    are sent where they are missing, and results come back where the results folder is not seen. If an actor or its
    machine is lost, its cell is started again elsewhere, and goes on from its last checkpoint if the folder is shared.

    Source: Ray, https://docs.ray.io/en/latest/ray-core/actors.html
    """

    name = "ray"
    elsewhere = True

    class Config(ComponentConfig):
        """What a slot asks Ray for, and what happens when it is lost."""

        cpus_per_cell: float | None = Field(default=None, gt=0)
        """Logical CPUs; by default the threads of a cell."""

        gpus_per_cell: float | None = Field(default=None, ge=0)
        """GPUs, a fraction to share one; by default 1 if the run's device is CUDA, else 0. Cells are trained on CUDA if
        it is above 0."""

        memory_per_cell: float | None = Field(default=None, ge=0)
        """Memory in GB; by default what the largest cell is estimated to need."""

        @field_validator("gpus_per_cell")
        @classmethod
        def _refuse_part_of_several(cls, gpus: float | None) -> float | None:
            if gpus is not None and gpus > 1 and gpus != int(gpus):
                raise ValueError("must be a whole number if it is above 1")
            return gpus

        retries: int = Field(default=3, ge=0)
        """How often a cell is started again whose actor or machine was lost; then it counts as crashed."""

        wait_for_room: bool = False
        """Wait for machines that have room for a cell, as an autoscaler starts them, instead of ending at once."""

    config: Config

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        config, work = self.config, self.work
        gpus = config.gpus_per_cell
        gpus = float(work.device.startswith("cuda")) if gpus is None else gpus
        memory = work.memory if config.memory_per_cell is None else int(config.memory_per_cell * 1e9)
        self._need = Need(config.cpus_per_cell or float(work.threads or 1), gpus, memory)
        self.work = work.on("cuda:0" if gpus > 0 else "cpu")
        self._cluster: Cluster | None = None
        self._traveling: TravelingWork | None = None
        self._sent: Any = None  # the traveling work in Ray's store
        self._slots: list[Slot] = []
        self._waiting: deque[CellTask] = deque()
        self._lost: Counter[str] = Counter()  # by cell, how often its agent was lost
        self._start_failures = 0
        self._broken: PendingCellsError | None = None  # why no cell can be run
        self._stopped_at: float | None = None
        self._told_of_no_room = False

    @classmethod
    def warm_up(cls) -> None:
        """Refuse to begin without the library."""
        import_ray()

    def describe(self) -> dict[str, str]:
        """Return the conditions that cells run under on the first machine; each record states those of its own."""
        self._connect()
        while not (known := [slot.environment for slot in self._slots if slot.environment is not None]):
            if self._broken is not None:
                raise self._broken
            if reason := self.stopping():
                raise PendingCellsError(reason)
            if not self._slots:
                self._start_slot()
            list(self._receive())
        return known[0]

    def submit(self, tasks: Sequence[CellTask]) -> Iterator[CellOutcome]:
        self._connect()
        self._waiting.extend(tasks)
        while self._waiting or self._busy():
            if self._broken is not None or self.stopping():
                self._waiting.clear()
                yield from self._stop()
            else:
                while len(self._slots) < min(self.jobs, len(self._waiting) + self._busy()):
                    self._start_slot()
                yield from self._hand_out()
            yield from self._receive()
        if self._broken is not None:
            raise self._broken

    def close(self) -> None:
        """End the agents, and the cluster if it was started here."""
        if self._cluster is None:
            return
        closing = [slot.agent.close.remote() for slot in self._slots if slot.host]
        with suppress(Exception):
            self._cluster.ray.wait(closing, num_returns=len(closing), timeout=CLOSE_SECONDS) if closing else None
        for slot in self._slots:
            self._kill(slot)
            slot.finish()
        self._slots.clear()
        if self._traveling is not None:
            self._traveling.close()
        self._cluster.close()
        self._cluster = None

    def _connect(self) -> None:
        """Connect to the cluster, and find out how many cells may run at a time."""
        if self._cluster is not None:
            return
        self._cluster = Cluster()
        room = self._cluster.count_slots(self._need)
        if room == 0 and not self.config.wait_for_room:
            largest = self._cluster.describe_largest()
            raise ConfigError(
                [
                    f"--executor ray: a cell needs {self._need}; the largest machine of the cluster has {largest}; set "
                    f"executor.cpus_per_cell, gpus_per_cell or memory_per_cell (GB), or executor.wait_for_room=true"
                ]
            )
        if not self.config.wait_for_room:
            self.jobs = min(self.jobs, room)
        self._traveling = TravelingWork.of(self.work)
        self._sent = self._cluster.ray.put(self._traveling)

    def _start_slot(self) -> None:
        assert self._cluster is not None
        assert self._traveling is not None
        need = {"num_cpus": self._need.cpus, "num_gpus": self._need.gpus, "memory": self._need.memory}
        agent = self._cluster.ray.remote(Agent).options(max_concurrency=2, max_restarts=0, **need).remote(self._sent)
        self._slots.append(Slot(agent, self._traveling, self.cell_timeout))

    def _busy(self) -> int:
        return sum(slot.task is not None for slot in self._slots)

    def _hand_out(self) -> Iterator[CellOutcome]:
        """Give tasks to slots that wait for one; yield the outcome of those that are not to be run."""
        for slot in self._slots:
            while slot.environment is not None and slot.task is None and self._waiting:
                task = self._waiting.popleft()
                if not slot.sees_results:
                    reserved = Reserved.take(self.work, task)
                    if isinstance(reserved, CellOutcome):
                        yield reserved
                        continue
                    slot.reserved = reserved
                slot.run(task, self.report)

    def _receive(self) -> Iterator[CellOutcome]:
        """Wait for what slots send, and yield the outcomes among it."""
        assert self._cluster is not None
        ray = self._cluster.ray
        slots = [slot for slot in self._slots if slot.pending is not None]
        if not slots:
            time.sleep(POLL_SECONDS)
            return
        pending = [slot.pending for slot in slots]
        ready, rest = ray.wait(pending, num_returns=1, timeout=POLL_SECONDS, fetch_local=False)
        if rest:
            ready += ray.wait(rest, num_returns=len(rest), timeout=0, fetch_local=False)[0]
        for slot in [slot for slot in slots if any(slot.pending is one for one in ready)]:
            if slot not in self._slots:
                continue  # lost together with another one of its machine
            try:
                message = ray.get(slot.pending if slot.task is None else next(slot.pending))
            except (ray.exceptions.RayError, StopIteration) as error:
                yield from self._lose(slot, error)
                continue
            if slot.task is None:
                self._begin(slot, message)
            else:
                yield from self._take(slot, message)
        self._tell_of_no_room()

    def _begin(self, slot: Slot, result: object) -> None:
        try:
            slot.go_on(result)
        except PendingCellsError as error:
            self._broken = self._broken or error  # cells under way are saved first
            self._remove(slot)
        if slot.environment is not None:
            self._start_failures = 0

    def _take(self, slot: Slot, message: object) -> Iterator[CellOutcome]:
        """Act on a message of a task; yield the outcome if it is one."""
        slot.began, self._start_failures = True, 0
        if isinstance(message, CellEvent):
            slot.report(message)
        elif isinstance(message, logging.LogRecord):
            logging.getLogger(message.name).handle(message)
        elif isinstance(message, Broken):
            self._broken = self._broken or PendingCellsError(f"machine {slot.host}: {message.reason}")
            self._broken.exit_code = message.exit_code
            slot.finish()
        elif isinstance(message, Ended):
            outcome = message.outcome
            if slot.reserved is not None and message.files is not None:
                outcome = _take_in(slot.reserved, outcome, message.files)
            slot.finish()
            yield outcome

    def _lose(self, slot: Slot, error: BaseException) -> Iterator[CellOutcome]:
        """Remove a slot whose agent or machine is gone, and start its cell again, unless that has happened often."""
        assert self._cluster is not None
        task = slot.task
        reason = _describe_loss(error)
        began, stopping = slot.began, slot.asked_to_stop
        self._remove(slot)
        for other in [one for one in self._slots if one.pending is None and one.host == slot.host]:
            self._remove(other)  # nobody would notice that it is gone too
        if slot.environment is None or (task is not None and not began):  # no cell is the cause
            self._start_failures += 1
            if self._start_failures == START_FAILURES:
                self._broken = PendingCellsError(f"no actor of Ray can start: {reason}")
        if task is None:
            return
        if not began and not stopping:
            self._waiting.appendleft(task)
            return
        if stopping:
            yield CellOutcome(task.cell, ended=PendingCellsError(f"{task.cell.title} was lost, unsaved: {reason}"))
            return
        self._lost[task.cell.cell_id] += 1
        times = self._lost[task.cell.cell_id]
        if times > self.config.retries:
            status: Literal["oom", "crashed"] = (
                "oom" if isinstance(error, self._cluster.ray.exceptions.OutOfMemoryError) else "crashed"
            )
            lost = f"its actor on {slot.host} was lost, for the {times}. time; {reason}"
            there = {name: value for name, value in (slot.environment or {}).items() if name in task.environment}
            task = replace(task, environment={**task.environment, **there})
            yield self.work.publish_failure(task, status, lost)
            return
        logger.warning("%s: its actor on %s was lost, it starts again: %s", task.cell.title, slot.host, reason)
        self._waiting.appendleft(task)

    def _remove(self, slot: Slot) -> None:
        self._slots.remove(slot)
        self._kill(slot)
        slot.finish()

    def _kill(self, slot: Slot) -> None:
        assert self._cluster is not None
        with suppress(Exception):  # it is gone already
            self._cluster.ray.kill(slot.agent)

    def _stop(self) -> Iterator[CellOutcome]:
        """Ask the cells under way to save and end; end those that do not."""
        self._stopped_at = self._stopped_at or time.monotonic()
        overdue = time.monotonic() - self._stopped_at > STOP_SECONDS
        for slot in list(self._slots):
            if slot.task is None:
                continue  # `close` ends it
            if overdue:
                reason = f"{slot.task.cell.title} did not stop within {STOP_SECONDS:g} s and was ended"
                cell = slot.task.cell
                self._remove(slot)
                yield CellOutcome(cell, ended=PendingCellsError(reason))
            else:
                slot.ask_to_stop()

    def _tell_of_no_room(self) -> None:
        """Say that slots wait; end the run if no machine is left that could ever have room for one."""
        assert self._cluster is not None
        waited = [time.monotonic() - slot.started for slot in self._slots if not slot.host]
        may_wait = self.config.wait_for_room or self._broken is not None or max(waited, default=0) < NO_MACHINE_SECONDS
        if not may_wait and self._cluster.count_slots(self._need) == 0:
            self._broken = PendingCellsError(f"no machine of the cluster is left that has room for {self._need}")
        if not self._told_of_no_room and waited and max(waited) > PATIENCE_SECONDS:
            self._told_of_no_room = True
            text = "%d of %d slots have not begun after %.0f s: Ray starts them slowly, or has no room for %s"
            logger.info(text, len(waited), len(self._slots), PATIENCE_SECONDS, self._need)


def _take_in(reserved: Reserved, outcome: CellOutcome, files: dict[str, bytes]) -> CellOutcome:
    """Write the files that a machine has sent, and return the outcome of the cell here."""
    try:
        if outcome.ended is None:
            return reserved.publish(files)
        reserved.keep(files)
    except PendingCellsError as error:  # a full disk
        return CellOutcome(outcome.cell, ended=error)
    return outcome


def _describe_loss(error: BaseException) -> str:
    """Return why Ray has lost an actor, in one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = next((line for line in reversed(lines) if line.startswith("The actor")), lines[0] if lines else "")
    return f"{type(error).__name__}: {told.partition('Some common causes')[0].strip()}"
