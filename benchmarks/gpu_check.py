"""Everything that needs a GPU in one call, within a budget of seconds: tests, comparisons with the CPU, speed, results.

    python benchmarks/gpu_check.py --out DIR [--budget 500] [--only smoke,step] [--device cpu]

Files in DIR: results.jsonl (all figures), table.txt, log.txt (the output of all parts), junit.xml, profile.txt,
env.json, quickstart.tar and four_stage.tar (records of finished cells). They are valid whenever the call is killed.
Another call with these files in DIR, on this machine or another, runs the parts that are not done.

Each part may use its share of the budget, and what the parts before it have left of theirs. On the CPU everything is
small, and each part has two minutes, whatever the budget, so that a busy machine fails no check.

Exit status: 0 all parts passed, 1 a part failed, 2 wrong arguments, 4 parts are left for another call, 130 interrupted.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from gpu_driver import RESULTS, Part, check

BENCHMARKS = Path(__file__).parent
CPU_SECONDS = 120.0  # limit of each part


def parts_of(folder: Path, device: str) -> list[Part]:
    """Return all parts in order, with shares of a budget of 500 s."""
    folder = folder.resolve()
    on_cpu = device == "cpu"

    def part(
        name: str, seconds: float, script: str, *arguments: str, background: bool = False, after: str = ""
    ) -> Part:
        fixed = [sys.executable, str(BENCHMARKS / script), *arguments]
        fixed += ["--device", device, "--out", str(folder / RESULTS), *(["--small"] if on_cpu else [])]
        return Part(name, lambda limit: fixed, CPU_SECONDS if on_cpu else seconds, background, after)

    def experiment(name: str, seconds: float, *arguments: str, background: bool = False) -> Part:
        fixed = part(name, seconds, "gpu_experiments.py", name, *arguments)
        return Part(
            name,
            lambda limit: [*fixed.command(limit), "--seconds", f"{limit:.0f}"],
            fixed.seconds,
            background,
            "" if background else "draw",
        )

    return [
        experiment("draw", 75, background=True),
        part("env", 20, "gpu_env.py", "--json", str(folder / "env.json")),
        part("pytest", 30, "gpu_tests.py", "--junit", str(folder / "junit.xml")),
        part("smoke", 110, "gpu_smoke.py"),
        part("failures", 65, "gpu_failures.py"),
        part("sync", 20, "gpu_sync.py"),
        experiment("quickstart", 45, "--tar", str(folder / "quickstart.tar")),
        part("step", 60, "training_step.py"),
        part("recognizers", 35, "recognizers.py", "--profile", str(folder / "profile.txt")),
        part("decoders", 45, "decoders.py", "--rounds", "3"),
        part("sharing", 30, "gpu_sharing.py"),
        experiment("four_stage", 40, "--tar", str(folder / "four_stage.tar")),
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the check and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="the folder for all files")
    parser.add_argument("--budget", type=float, default=500, help="seconds for this call (default: 500)")
    parser.add_argument("--only", default="", metavar="PART,...", help="run exactly these parts, also if they are done")
    parser.add_argument("--device", default="cuda", help="cuda, cuda:N, or cpu to try everything small (default: cuda)")
    given = parser.parse_args(arguments)
    parts = parts_of(given.out, given.device)
    only = [name for name in given.only.split(",") if name]
    names = [part.name for part in parts]
    if unknown := [name for name in only if name not in names]:
        parser.error(f"--only {given.only}: no part is called {', '.join(unknown)}; choose from {', '.join(names)}")
    if not given.budget > 0:
        parser.error(f"--budget {given.budget:g}: must be a positive number of seconds")
    try:
        given.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(f"--out {given.out}: cannot be a folder: {error.strerror}; give another")
    budget = max(given.budget, CPU_SECONDS * len(parts)) if given.device == "cpu" else given.budget
    return check(parts, given.out, budget=budget, only=only, device=given.device)


if __name__ == "__main__":
    sys.exit(main())
