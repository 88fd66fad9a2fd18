"""Images per second when 1, 2 and 4 processes train the same small cell on one device at the same time.

    python benchmarks/gpu_sharing.py [--device cuda] [--out FILE.jsonl] [--small]

The cell is quickstart's LSTM with CTC. All processes are started once. In each round the first N of them train a fixed
number of steps at the same time, and the others wait. A ratio above 1 means that one process leaves the device idle.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from queue import Empty
from typing import Any, NamedTuple

from figure_file import FigureWriter, installed_versions, parser

CELL = "LSTM + CTC"
WARM_UPS = 3
PATIENCE = 60.0  # seconds


class Task(NamedTuple):
    """What every process does: rounds of so many processes, with so many steps each."""

    device: str | None
    small: bool
    rounds: tuple[int, ...]
    steps: int


class Span(NamedTuple):
    """When a process began and ended its steps, as `time.monotonic()`, and how many images they had."""

    begin: float
    end: float
    images: int


def train(number: int, task: Task, together: Barrier, reports: Queue[str | Span]) -> None:
    """Report the name of the device; train in the rounds of more than `number` processes, and report each span."""
    # Imported here, because the process that starts this one needs no torch.
    from quickstart_cells import load_cells

    from decoderbench.training.devices import choose_device, device_name, start_device, synchronize, use_ieee_float32

    try:
        device = choose_device(task.device)
        start_device(device)
        use_ieee_float32()
        cells = load_cells(device, small=task.small)
        trainer = cells.trainer(cells.by_decoder[CELL])
        trainer.recognizer.train()
        batches = trainer.context.batches(WARM_UPS + len(task.rounds) * task.steps)

        def take(steps: int) -> None:
            for _ in range(steps):
                trainer.take_step(next(batches))
            synchronize(device)

        take(WARM_UPS)
        reports.put(device_name(device))
        for processes in task.rounds:
            together.wait(PATIENCE)
            if number < processes:
                begin = time.monotonic()
                take(task.steps)
                reports.put(Span(begin, time.monotonic(), task.steps * trainer.options.batch_size))
            together.wait(PATIENCE)
    except BaseException:
        together.abort()  # nobody need wait for this one
        raise


def collect(count: int, reports: Queue[Any], processes: Sequence[BaseProcess]) -> list[Any]:
    """Return the next `count` reports; raise RuntimeError if a process has failed meanwhile."""
    found: list[Any] = []
    while len(found) < count:
        try:
            found.append(reports.get(timeout=1))
        except Empty:
            if failed := [process.name for process in processes if process.exitcode]:
                raise RuntimeError(f"{', '.join(failed)} failed; see above") from None
    return found


def main() -> None:
    given = parser(__doc__).parse_args()
    rounds, steps = ((1, 2), 2) if given.small else ((1, 2, 4), 300)
    task = Task(given.device, given.small, rounds, steps)
    spawn = get_context("spawn")
    together, reports = spawn.Barrier(max(rounds)), spawn.Queue()
    processes = [
        spawn.Process(target=train, args=(number, task, together, reports), daemon=True)
        for number in range(max(rounds))
    ]
    for process in processes:
        process.start()
    device, *_ = collect(len(processes), reports, processes)
    figures = FigureWriter("sharing", given.out, device, installed_versions())
    alone = None
    for count in rounds:
        spans = collect(count, reports, processes)
        took = max(span.end for span in spans) - min(span.begin for span in spans)
        rate = sum(span.images for span in spans) / took
        alone = alone or rate
        figures.add(f"processes: {count}", rate, "images/s", n=count * steps)
        figures.add(f"processes: {count}, relative to 1", rate / alone, "1", n=count * steps)
    for process in processes:
        process.join(PATIENCE)
    finished = all(process.exitcode == 0 for process in processes)
    figures.add("all processes ended well", finished, ok=finished)
    raise SystemExit(bool(figures.failed))


if __name__ == "__main__":
    main()
