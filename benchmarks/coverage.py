"""How often the intervals of tables cover the truth, and how often tables call a row worse that is not.

    python benchmarks/coverage.py [--grids 2000] [--out FILE.jsonl] [--table results/coverage.md] [--small]

Tables are simulated (`simulated_grids.py`), and everything is computed by `decoderbench.statistics`, as in a report.
A figure fails if coverage is below 93 %, or, with 5 seeds or more, a share of tables with a wrong claim above 6 %, by
more than two standard errors. Uses no GPU; `--device` is accepted for the sake of the other benchmarks.
"""

from __future__ import annotations

import argparse
import math
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import scipy
from figure_file import FigureWriter, parser
from scipy.special import stdtr, stdtrit
from simulated_grids import LOGITS, STEP, Grid, draw, expected_accuracy

from decoderbench.statistics import ALPHA, Estimate, all_pairs, contrast, holm, mark_bold, row
from decoderbench.statistics.crossed import Squares
from decoderbench.statistics.estimates import Shape

LEAST, MOST, MOST_WRONG = 0.93, 0.97, 0.06
SEEDS, IMAGES = (3, 5, 10), (200, 2000)
NUM_ROWS = 12
WRONG, NOT_BOLD = "an equal row is called worse", "a best row is not bold"


@dataclass
class Line:
    """One line of a table: a case, and shares of simulated tables."""

    section: str
    case: str
    seeds: int
    images: int
    shares: dict[str, list[float]] = field(default_factory=dict)

    def add(self, name: str, hit: float) -> None:
        """Count one simulated table, or the mean over its pairs."""
        self.shares.setdefault(name, []).append(float(hit))


def covers(estimate: Estimate, truth: float) -> bool:
    return bool(estimate.low <= truth <= estimate.high)


def naive_covers(means: np.ndarray, truth: float) -> bool:
    """Return whether the t interval over the means of seeds covers the truth, which most papers print."""
    half = stdtrit(len(means) - 1, 0.975) * means.std(ddof=1) / math.sqrt(len(means))
    return bool(abs(means.mean() - truth) <= half)


def count_intervals(line: Line, grid: Grid, rng: np.random.Generator) -> None:
    """Simulate two rows, and count whether the intervals of the first and of the difference cover the truth."""
    scores, _ = draw(grid, rng)
    truths = [grid.truth(0), grid.truth(1)]
    line.add("row", covers(row(scores, 0, proportion=not grid.characters), truths[0]))
    line.add("difference", covers(contrast(scores, [-1, 1]), truths[1] - truths[0]))
    means = scores.numerator.sum(2) / scores.denominator.sum(2)
    line.add("naive difference", naive_covers(means[1] - means[0], truths[1] - truths[0]))


def count_one_seed(line: Line, grid: Grid, rng: np.random.Generator) -> None:
    """Simulate one seed, whose intervals speak of the two trained models."""
    scores, constants = draw(grid, rng)
    truths = [expected_accuracy(float(constant)) for constant in constants.flat]
    line.add("row", covers(row(scores, 0, proportion=True), truths[0]))
    line.add("difference", covers(contrast(scores, [-1, 1]), truths[1] - truths[0]))


def p_alone(estimate: Estimate) -> float:
    """Return the p value of a difference from its own mean squares, as if there were no other rows."""
    own = estimate.components
    shape = Shape(own.num_seeds, own.num_units, np.array(own.fold_sizes, dtype=float), step=1.0)
    spread = shape.spread(Squares(*(np.array(square) for square in (own.seed, own.unit, own.residual))))
    return 2 * float(stdtr(spread.df, -abs(estimate.value) / np.sqrt(spread.variance))) if spread.variance else 1.0


def count_claims(line: Line, grid: Grid, rng: np.random.Generator) -> None:
    """Simulate a table, and count false and true claims over all pairs, and covered differences."""
    scores, _ = draw(grid, rng)
    pairs = all_pairs(scores)
    truths = [grid.truth(index) for index in range(len(grid.logits))]
    equal = [pair for pair in pairs if grid.logits[pair.a] == grid.logits[pair.b]]
    if equal:
        line.add(WRONG, any(pair.p_holm <= ALPHA for pair in equal))
        alone = holm([p_alone(pair.estimate) for pair in pairs])
        line.add(f"{WRONG}, each pair alone", any(alone[pairs.index(pair)] <= ALPHA for pair in equal))
    best = max(truths)
    bold = mark_bold(pairs, scores.present.any(axis=1), higher_is_better=True)
    line.add(NOT_BOLD, not bold[[truth == best for truth in truths]].all())
    covered = [covers(pair.estimate, truths[pair.a] - truths[pair.b]) for pair in pairs]
    line.add("difference", np.mean(covered).item())
    if unequal := [pair for pair in pairs if pair not in equal]:
        line.add("unequal pairs found", np.mean([pair.p_holm <= ALPHA for pair in unequal]).item())


@dataclass(frozen=True)
class Case:
    section: str
    name: str
    grid: Grid
    count: Callable[[Line, Grid, np.random.Generator], None]
    weight: float = 1.0


INTERVALS, VARIED, GROUPS, FOLDS = "Rows and differences", "Seeds that vary less or more", "Groups", "Folds"
CHARACTERS, ONE_SEED, TABLES = "Error rate of characters", "One seed: this trained model", "Tables of 12 rows"


def cases() -> Iterator[Case]:
    """Yield what is simulated."""

    def pair(logit: float) -> tuple[float, float]:
        return logit, logit + STEP

    for name, logit in LOGITS.items():
        for images in IMAGES:
            for seeds in SEEDS:
                yield Case(INTERVALS, name, Grid(pair(logit), seeds, images), count_intervals)
    for sd in (0.1, 0.8):
        for name in ("0.5", "0.94"):
            for images in IMAGES:
                for seeds in SEEDS:
                    grid = Grid(pair(LOGITS[name]), seeds, images, seed_sd=sd)
                    yield Case(VARIED, f"{name}, standard deviation {sd}", grid, count_intervals)
    for size, images in ((5, 200), (5, 2000), (40, 200), (40, 2000)):
        for seeds in SEEDS:
            grid = Grid(pair(LOGITS["0.81"]), seeds, images, group_size=size)
            yield Case(GROUPS, f"0.81, {images // size} groups of 1 to {2 * size}", grid, count_intervals)
    for seeds, folds, sizes in ((3, 5, None), (2, 5, None), (3, 10, None), (3, 5, (1.0, 1.0, 2.0, 2.0, 4.0))):
        for name in ("0.5", "0.94"):
            grid = Grid(pair(LOGITS[name]), seeds, 1000, folds=folds, sizes=sizes)
            kind = "folds of unequal sizes" if sizes else "folds"
            yield Case(FOLDS, f"{name}, {folds} {kind}", grid, count_intervals)
    for name in ("0.5", "0.94"):
        for images in IMAGES:
            for seeds in SEEDS:
                grid = Grid(pair(LOGITS[name]), seeds, images, characters=True)
                yield Case(CHARACTERS, f"{name} of the characters right", grid, count_intervals)
    for name in ("0.5", "0.94", "0.999"):
        for images in IMAGES:
            yield Case(ONE_SEED, name, Grid(pair(LOGITS[name]), 1, images), count_one_seed)
    yield from tables()


def tables() -> Iterator[Case]:
    """Yield tables of many rows: without differences, with one best row, and with levels."""
    middle = LOGITS["0.81"]
    wild = (0.2,) * 10 + (1.5,) * 2
    kinds = {
        "no row differs": Grid((middle,) * NUM_ROWS, 0, 0),
        "no row differs, seeds vary less (.1)": Grid((middle,) * NUM_ROWS, 0, 0, seed_sd=0.1),
        "no row differs, seeds vary more (.8)": Grid((middle,) * NUM_ROWS, 0, 0, seed_sd=0.8),
        "no row differs, seeds of two rows vary 7 times as much": Grid((0.0,) * NUM_ROWS, 0, 0, seed_sd=wild),
        "one row is best": Grid((middle,) * (NUM_ROWS - 1) + (middle + 1.0,), 0, 0),
        "four rows each at .5, .81 and .94": Grid((0.0,) * 4 + (middle,) * 4 + (LOGITS["0.94"],) * 4, 0, 0),
    }
    for name, like in kinds.items():
        for images in IMAGES:
            for seeds in SEEDS:
                grid = Grid(like.logits, seeds, images, seed_sd=like.seed_sd)
                yield Case(TABLES, name, grid, count_claims, weight=0.5)


def measure(case: Case, grids: int) -> Line:
    """Simulate a case, always with the same random numbers; large tables less often."""
    rng = np.random.default_rng([case.grid.seeds, case.grid.images, len(case.name), len(case.section)])
    line = Line(case.section, case.name, case.grid.seeds, case.grid.images)
    for _ in range(max(2, round(grids * case.weight * (1.0 if case.grid.images <= 200 else 0.5)))):
        case.count(line, case.grid, rng)
    return line


def is_wrong_claim(share: str) -> bool:
    return share in (WRONG, NOT_BOLD)


def verdict(share: str, hits: list[float], seeds: int) -> bool | None:
    """Return whether a share meets its rule within two standard errors; None if it has none."""
    mean, nominal = float(np.mean(hits)), MOST_WRONG if is_wrong_claim(share) else LEAST
    error = 2 * math.sqrt(nominal * (1 - nominal) / len(hits))
    if is_wrong_claim(share):
        return mean - error <= MOST_WRONG if seeds >= 5 else None
    return mean + error >= LEAST if share in ("row", "difference") else None


def in_table(share: str, hits: list[float]) -> str:
    mean = float(np.mean(hits))
    is_outside = mean > MOST_WRONG if is_wrong_claim(share) else not LEAST <= mean <= MOST
    return f"**{mean:.3f}**" if is_outside and share in MARKED else f"{mean:.3f}"


MARKED = ("row", "difference", WRONG, NOT_BOLD)


def commit_of_checkout() -> str:
    found = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return found.stdout.strip()


def markdown(lines: list[Line], command: str, commit: str, seconds: float) -> str:
    """Return all shares as tables, with their command, commit, machine and date."""
    parts = [
        "# Coverage of intervals, and wrong claims of tables",
        "Simulated tables whose truth is known: a logistic model with normal effects of seeds (standard deviation .4, "
        "half of the variance shared by all rows), images (2.5), rows on images (1) and chance (1). Shares of tables; "
        f"a nominal interval covers .950. **Bold**: coverage outside {LEAST:.2f} to {MOST:.2f}, or more than "
        f"{MOST_WRONG:.2f} of the tables with a wrong claim. *Naive* is the t interval over the means of seeds. "
        "Tables compare all pairs of rows, with p adjusted by Holm; *each pair alone* is without what the rows of a "
        "table say together of how seeds vary (`framework/decisions/0016-rows-of-a-table-share-how-seeds-vary.md`). "
        "The standard error of .95 among 600, 300 and 150 simulated tables is .009, .013 and .018.",
        f"`{command}` at {commit}, {platform.machine()}, {os.cpu_count()} cores, one thread, Python "
        f"{platform.python_version()}, numpy {np.__version__}, scipy {scipy.__version__}, "
        f"{time.strftime('%Y-%m-%d', time.gmtime())}, {seconds:.0f} s of the CPU.",
    ]
    for section in dict.fromkeys(line.section for line in lines):
        own = [line for line in lines if line.section == section]
        names = list(dict.fromkeys(name for line in own for name in line.shares))
        rows = [["case", "seeds", "images", *names, "simulated"], ["---"] * (len(names) + 4)]
        for line in own:
            shares = [in_table(name, line.shares[name]) if name in line.shares else "" for name in names]
            count = len(next(iter(line.shares.values())))
            rows.append([line.case, str(line.seeds), f"{line.images:,}", *shares, f"{count:,}"])
        parts += [f"## {section}", "\n".join(f"| {' | '.join(cells)} |" for cells in rows)]
    return "\n\n".join(parts) + "\n"


def main() -> None:
    arguments = _arguments()
    grids = 8 if arguments.small else arguments.grids
    figures = FigureWriter("coverage", arguments.out, platform.machine(), f"numpy {np.__version__}")
    lines, commit = [], commit_of_checkout() if arguments.table else ""
    for case in cases():
        line = measure(case, grids)
        lines.append(line)
        for share, hits in line.shares.items():
            name = f"{share}: {line.section}, {line.case}, {line.seeds} seeds, {line.images} images"
            ok = verdict(share, hits, line.seeds)
            figures.add(name, float(np.mean(hits)), "1", n=len(hits), spread=float(np.std(hits)), ok=ok)
    if arguments.table:
        command = " ".join(["python", "benchmarks/coverage.py", *sys.argv[1:]])
        arguments.table.write_text(markdown(lines, command, commit, time.process_time()), encoding="utf-8")


def _arguments() -> argparse.Namespace:
    found = parser(__doc__)
    found.add_argument("--grids", type=int, default=2000, help="simulated tables per case; large ones are fewer")
    found.add_argument("--table", type=Path, help="a Markdown file for all shares")
    return found.parse_args()


if __name__ == "__main__":
    main()
