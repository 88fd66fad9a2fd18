"""Time and memory of a report over 120 cells of 2,000 test images each, with made-up predictions.

    python benchmarks/report.py [--seeds 3] [--images 2000] [--out FILE.jsonl] [--small]

The folder is temporary. Each part runs in a fresh process, three times; the least time counts. "CPU" is the time of all
threads of the process, which other work on the machine changes little. No device is used.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from figure_file import FigureWriter, installed_versions, parser
from made_up_results import publish_made_up_results

TOTALS = ("table", "files")


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--seeds", type=int, default=3)
    arguments.add_argument("--images", type=int, default=2000)
    arguments.add_argument("--part", nargs=2, help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.part:
        print(json.dumps(measure(given.part[0], Path(given.part[1]))))
        return
    images = 50 if given.small else given.images
    figures = FigureWriter("report", given.out, platform.processor() or platform.machine(), installed_versions())
    with tempfile.TemporaryDirectory() as place:
        directory = publish_made_up_results(Path(place) / "results", seeds=given.seeds, images=images)
        number = len(directory.read_plan().cells)
        for part in TOTALS:
            command = [sys.executable, __file__, "--part", part, str(directory.path)]
            runs = [
                json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
                for _ in range(1 if given.small else 3)
            ]
            for name in runs[0]:
                values = [run[name] for run in runs]
                unit = "MB" if name == "peak memory" else "s"
                spread = (max(values) - min(values)) / 2
                figures.add(f"{part}: {name}", min(values), unit, n=number, spread=spread)


def measure(part: str, path: Path) -> dict[str, float]:
    """Return the seconds of each step towards the table alone or towards all files, and the peak memory in MB."""
    seconds: dict[str, float] = {}

    def timed(name: str, step: Callable[[], Any]) -> Any:
        start, cpu = time.perf_counter(), time.process_time()
        result = step()
        seconds[name] = time.perf_counter() - start
        seconds[f"{name}, CPU"] = time.process_time() - cpu
        return result

    def import_report() -> None:
        import decoderbench.report  # noqa: F401

    begin = time.perf_counter()
    timed("import", import_report)
    from decoderbench.analysis import load_report
    from decoderbench.report import markdown_table, write_files

    report = timed("records", lambda: load_report(path))
    timed("predictions", lambda: report.samples.image_sets)
    timed("rows", lambda: report.rows)
    timed("table", lambda: markdown_table(report))
    if part == "files":
        timed("contrasts", lambda: report.contrasts)
        timed("effects and interactions", lambda: (report.effects, report.interactions))
        timed("files", lambda: write_files(report, command="decoderbench report"))
    seconds["all"] = time.perf_counter() - begin
    seconds["all, CPU"] = time.process_time()
    return seconds | {"peak memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000}


if __name__ == "__main__":
    main()
