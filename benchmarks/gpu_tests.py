"""The tests that need a GPU, with their counts as figures.

    python benchmarks/gpu_tests.py [--device cuda] [--out FILE.jsonl] [--junit FILE.xml]

With `--device cpu` they are only collected and skipped; else it is a failure if none runs. No torch in this process.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections import Counter
from pathlib import Path

from figure_file import FigureWriter, installed_versions, parser

ROOT = Path(__file__).parents[1]
SECONDS_TO_REPORT = 3.0


def files_with_gpu_tests() -> list[str]:
    """Return the files to collect; collecting all takes a quarter of a minute."""
    tests = sorted((ROOT / "tests").rglob("test_*.py"))
    return [str(file) for file in tests if "mark.cuda" in file.read_text(encoding="utf-8")]


def run_pytest(*arguments: str) -> int:
    """Run pytest in a process of its own and return its exit status. If interrupted, it still writes its report."""
    process = subprocess.Popen([sys.executable, "-m", "pytest", *arguments], cwd=ROOT)
    try:
        return process.wait()
    except KeyboardInterrupt:
        return process.wait(SECONDS_TO_REPORT)


def main() -> int:
    """Run the tests and return the exit status."""
    arguments = parser(__doc__)
    arguments.add_argument("--junit", type=Path, help="the report of pytest, as XML")
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        junit = given.junit or Path(temporary) / "junit.xml"
        status = run_pytest("-m", "cuda", "-W", "default", "-n", "0", f"--junitxml={junit}", *files_with_gpu_tests())
        cases = list(ElementTree.parse(junit).iter("testcase"))
    figures = FigureWriter("pytest", given.out, "", installed_versions())
    counts = Counter[str]()
    for case in cases:
        failed = case.find("failure") is not None or case.find("error") is not None
        outcome = "skipped" if case.find("skipped") is not None else "failed" if failed else "passed"
        counts[outcome] += 1
        if outcome != "skipped":
            figures.add(f"{case.get('classname', '').rpartition('.')[2]}: {case.get('name')}", outcome, ok=not failed)
    ran = counts["passed"] + counts["failed"]
    summary = f"{ran} run, {counts['skipped']} skipped, {counts['failed']} failed"
    figures.add("tests", summary, ok=status == 0 and (ran > 0 or given.device == "cpu"))
    return int(bool(figures.failed))


if __name__ == "__main__":
    sys.exit(main())
