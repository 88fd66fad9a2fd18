"""Executor: where cells run, and how their records come back. The public surface of `register_executors`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from decoderbench.errors import PendingCellsError
from decoderbench.options import ComponentConfig

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Self

    from decoderbench.config.cell import Cell
    from decoderbench.records.schema import RunRecord, Status


@dataclass(frozen=True)
class CellTask:
    """A cell to run; can be pickled.

    Attributes:
        cell: what to run.
        environment: the conditions of the run, as `Executor.describe` returned them, for the record.
        superseded: a record of the cell that does not hold any more; None if there is none.
    """

    cell: Cell
    environment: Mapping[str, str]
    superseded: RunRecord | None = None


@dataclass(frozen=True)
class CellOutcome:
    """What became of a task; can be pickled.

    Attributes:
        cell: its cell.
        record: the published record; None if the cell has none.
        new: whether this run made the record, not another process meanwhile.
        held: whether another process is running the cell.
        ended: why the cell is left pending, if the run has to end: a signal, a full disk.
    """

    cell: Cell
    record: RunRecord | None = None
    new: bool = False
    held: bool = False
    ended: PendingCellsError | None = None


@dataclass(frozen=True)
class CellEvent:
    """A call of an observer hook, which the process of the run makes; can be pickled.

    Attributes:
        hook: `cell_started`, `cell_progressed` or `cell_validated`.
        arguments: the arguments of the hook.
    """

    hook: str
    arguments: dict[str, Any] = field(default_factory=dict)


Report = Callable[[CellEvent], None]
"""Called with each event of a cell while it runs."""


class CellRunner(Protocol):
    """Runs cells in the process that opened it, one at a time."""

    @property
    def device_lost(self) -> bool:
        """Whether a cell has left the device unusable for this process."""

    @property
    def state_changed(self) -> bool:
        """Whether a cell has changed global state of this process, which was restored as far as it can be."""

    def run(self, task: CellTask, report: Report) -> CellOutcome:
        """Hold a cell, run it and publish its record, unless it has one or another process holds it.

        Whatever the cell raises becomes its record. Events are reported while it runs.
        """


class CellOutput(Protocol):
    """What the process of a cell prints: kept in a file up to a limit."""

    def append(self, content: bytes) -> None:
        """Add what was printed; never raises."""

    def tail(self) -> str:
        """Return the end of it, about 20,000 bytes."""

    def close(self, *, announce: bool = False) -> None:
        """Close the file; `announce` logs where it is if anything was printed."""


class CellWork(Protocol):
    """Everything that a process needs to run cells of an experiment; can be pickled and sent to another process."""

    @property
    def results(self) -> Path:
        """The absolute path of the results folder."""

    @property
    def device(self) -> str:
        """The device that cells are trained on, as `cpu` or `cuda:0`."""

    def describe(self) -> dict[str, str]:
        """Return machine, versions and sources, as this process sees them. Starts CUDA if it is the device."""

    def open(self, stopping: Callable[[], str] | None = None) -> CellRunner:
        """Load plugins and open the images in this process, and return what runs cells here.

        Args:
            stopping: called between steps and batches; a text that it returns, such as "stopped by SIGTERM", ends the
                cell, which stays pending and goes on from there when it is run again.
        """

    @property
    def locking(self) -> bool:
        """Whether cells are held, so that several processes may take them from one results folder."""

    @property
    def threads(self) -> int | None:
        """How many threads train a cell; None for those of the host."""

    def on(self, device: str) -> Self:
        """Return the same work on another device, as `cuda:0`, of the machines that cells run on."""

    @property
    def memory(self) -> int:
        """An estimate of the memory that a process needs to train any of the cells, in bytes; rather too much."""

    def output_of(self, cell: Cell) -> CellOutput:
        """Return what keeps the output of a cell's process in `output.txt` of the cell."""

    def publish_failure(self, task: CellTask, status: Status, reason: str, details: str = "") -> CellOutcome:
        """Publish the record of a cell whose process has died or was ended, unless the cell has a record already.

        The outcome is `held` if another process has taken the cell over, or if what the dead one held is not free yet,
        as over a network; whoever holds the cell next then publishes the record.

        Args:
            task: its task.
            status: `crashed`, `timeout` or `oom`.
            reason: one sentence.
            details: a traceback or the last output, for `traceback.txt`.
        """


class Executor(ABC):
    """Runs cells in this process, in others, or on other machines. A context manager.

    A cell runs by `work.open().run(task, report)` in whatever process the work was sent to.
    """

    name: ClassVar[str]
    in_process: ClassVar[bool] = False
    """Whether cells run in the process of the run itself, and so may use objects that exist only there."""
    elsewhere: ClassVar[bool] = False
    """Whether cells run on other machines. Cores and memory of this one then do not limit how many run at a time:
    `jobs` is 1,024 unless the user gives a number, and the executor may lower it."""

    class Config(ComponentConfig):
        """No options."""

    def __init__(
        self,
        config: ComponentConfig,
        work: CellWork,
        report: Report,
        *,
        jobs: int = 1,
        cell_timeout: float | None = None,
        stopping: Callable[[], str] = str,
    ) -> None:
        """Start nothing yet.

        Args:
            config: options.
            work: what cells need.
            report: receives the events of cells; to be called in the thread that iterates over `submit`.
            jobs: how many cells may run at a time.
            cell_timeout: seconds after which a cell is ended with status `timeout`; None for no limit.
            stopping: returns why the run is to stop, as in "stopped by SIGTERM"; an empty string until then. An
                executor calls it about five times per second. Once it returns a text, no further task starts, and cells
                under way are asked to save their state and end.
        """
        self.config, self.work, self.report = config, work, report
        self.jobs, self.cell_timeout, self.stopping = jobs, cell_timeout, stopping

    @classmethod
    def warm_up(cls) -> None:
        """Begin what takes long and needs no work yet, such as importing PyTorch elsewhere; does not wait for it."""
        return

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def describe(self) -> dict[str, str]:
        """Return the conditions that cells run under: `work.describe()` of a process that runs them."""
        return self.work.describe()

    @abstractmethod
    def submit(self, tasks: Sequence[CellTask]) -> Iterator[CellOutcome]:
        """Run the tasks in order and yield the outcome of each as it ends; may be called again.

        A process that dies costs only its own cell, whose record `work.publish_failure` makes. A cell that was stopped
        has an outcome with `ended`; a task that never started has none.
        """

    def close(self) -> None:
        """End whatever is still running, at once, and free what the executor holds."""
        return
