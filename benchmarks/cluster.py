"""What Ray costs per cell beyond the training, and whether the memory of a run grows with its cells.

    python benchmarks/cluster.py [--cells 200] [--out FILE.jsonl] [--small]

As many cells of one step as given, and a tenth of them, by the executors `inline` and `ray`, which starts Ray on this
machine with one slot. What a run and its report cost is in both, so it counts in no difference. Images are decoded
beforehand. No GPU is used.
"""

from __future__ import annotations

import os
import platform
import tempfile
import threading
from pathlib import Path

from figure_file import FigureWriter, installed_versions, parser
from jobs import ENCODER, SAMPLE_SECONDS, Bench, processes, proportional_megabytes

CELLS = f"{ENCODER} and CTC"
EXECUTORS = {"inline": ("--executor", "inline"), "ray": ("--executor", "ray", "--jobs", "1")}
LIMIT_MS = 100.0
LARGEST_GROWTH = 1.1


def measure(bench: Bench, executor: str, cells: int) -> tuple[float, float]:
    """Return the seconds of a run of so many cells of one step, and the largest memory of its process in MB."""
    known, peak, finished = set(processes()), [0.0], threading.Event()

    def watch() -> None:
        while not finished.wait(SAMPLE_SECONDS):
            runs = [one for one, parent in processes().items() if parent == os.getpid() and one not in known]
            peak[0] = max([peak[0], *map(proportional_megabytes, runs)])

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        seeds = ",".join(map(str, range(cells)))
        outcome = bench.run(*EXECUTORS[executor], seeds=seeds, steps=1, few=True, cells=CELLS)
    finally:
        finished.set()
        watcher.join()
    return outcome.seconds, peak[0]


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--cells", type=int, default=200)
    given = arguments.parse_args()
    many = 4 if given.small else given.cells
    few = max(1, many // 10)
    figures = FigureWriter("cluster", given.out, platform.processor() or platform.machine(), installed_versions())
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), small=given.small, steps=1)
        bench.run(seeds="0", steps=1, few=True, cells=CELLS)  # to decode the images
        per_cell, memory = {}, {}
        for executor in EXECUTORS:
            (short, small), (long, large) = (measure(bench, executor, cells) for cells in (few, many))
            per_cell[executor] = 1e3 * (long - short) / (many - few)
            memory[executor] = large / small if small else 1.0
            figures.add(f"cell of one step, {executor}", per_cell[executor], "ms", n=many - few)
    cost = per_cell["ray"] - per_cell["inline"]
    figures.add("ray against inline, per cell", cost, "ms", n=many, ok=None if given.small else cost < LIMIT_MS)
    growth = memory["ray"]
    figures.add(
        f"memory of the run, {many} cells relative to {few}, ray", growth, "1",
        ok=None if given.small else growth < max(LARGEST_GROWTH, LARGEST_GROWTH * memory["inline"]),
    )  # fmt: skip
    raise SystemExit(bool(figures.failed))


if __name__ == "__main__":
    main()
