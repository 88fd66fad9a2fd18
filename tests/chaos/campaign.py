"""The outcome of a fault campaign: what was killed, and what of the results was lost, trained again or different."""

import os
import platform
import subprocess
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from chaos.grid import Attempt

OUTPUT = "DECODERBENCH_RELIABILITY"
"""The environment variable that names the file which receives the outcome of campaigns, a table in Markdown."""

HEADER = (
    "campaign",
    "faults",
    "runs to compare",
    "identical",
    "finished cells trained again",
    "rows missing",
    "files left over",
    "remarks",
    "seconds",
    "date (UTC)",
    "commit",
    "machine",
)
TITLE = """# Fault campaigns

Each run of a small grid suffers the faults named, then the same command is given again. Its results are compared with
those of a run without faults: `cells.csv` without its cost columns, and the sha256 of every file, the dates and times
in `result.json`, `history.jsonl`, `plan.json` and the report left aside. Written by

    DECODERBENCH_RELIABILITY=results/reliability.md pytest -m chaos -n 0

which replaces the rows of the campaigns that it runs.
"""


@dataclass
class Campaign:
    """Counts over many attempts.

    Attributes:
        name: the campaign, as in the table.
        faults: how many kills, power failures or other faults.
        remark: a further number, for the table.
        failures: what went wrong, one line per attempt.
    """

    name: str
    faults: int = 0
    attempts: int = 0
    identical: int = 0
    trained_again: int = 0
    rows_missing: int = 0
    left_over: int = 0
    remark: str = ""
    failures: list[str] = field(default_factory=list)
    _start: float = field(default_factory=time.monotonic)

    def finish(self, attempt: Attempt, label: str, *options: str) -> None:
        """Run a grid to its end after its faults, and compare its results with those of the reference."""
        self.attempts += 1
        try:
            attempt.finish(*options)
        except (RuntimeError, TimeoutError) as error:
            self.failures.append(f"{label}: {error}")
            return
        self.compare(attempt, label)

    def compare(self, attempt: Attempt, label: str) -> None:
        """Compare finished results with those of the reference."""
        different, left_over, again = attempt.differences(), attempt.left_over(), attempt.trained_again()
        self.identical += not different
        self.left_over += len(left_over)
        self.trained_again += len(again)
        self.rows_missing += attempt.rows_missing()
        self.failures += [f"{label}: {problem}" for problem in (*different, *left_over, *again)]

    def conclude(self) -> None:
        """Write the row of the table if a file was named, and fail if a promise was broken."""
        print(self.summary())  # noqa: T201 - for pytest -s
        if file := os.environ.get(OUTPUT):
            write_row(Path(file), self.row())
        assert self.attempts
        assert not self.failures, "\n".join([self.summary(), *self.failures[:20]])

    def summary(self) -> str:
        """Return the counts as one line."""
        return ", ".join(f"{name} {value}" for name, value in zip(HEADER[:8], self.row()[:8], strict=True))

    def row(self) -> tuple[str, ...]:
        """Return the cells of the row of the table."""
        counts = self.faults, self.attempts, self.identical, self.trained_again, self.rows_missing, self.left_over
        commit = subprocess.run(
            ["git", "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, cwd=Path(__file__).parent
        ).stdout.strip()
        return (
            self.name,
            *map(str, counts),
            self.remark,
            f"{time.monotonic() - self._start:.0f}",
            datetime.now(UTC).isoformat(" ", "minutes")[:16],
            commit or "unknown",
            f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}, Python {platform.python_version()}",
        )


def write_row(file: Path, row: Iterable[str]) -> None:
    """Add a row to the table in a file, in place of an earlier one of the same campaign."""
    lines = file.read_text().splitlines() if file.exists() else []
    rows = {line.split(" | ")[0]: line for line in lines if line.startswith("| ")}
    new = f"| {' | '.join(row)} |"
    rows[new.split(" | ")[0]] = new
    head = [f"| {' | '.join(HEADER)} |", f"|{'---|' * len(HEADER)}"]
    body = sorted(line for line in rows.values() if line != head[0])
    file.write_text("\n".join([TITLE, *head, *body]) + "\n")
