"""A11: a file of finished results is damaged, and the same command is given again, by the real command line.

`tests/unit/test_damage.py` damages 1,000 files of results that were published without training.
"""

import itertools
import logging
import random
import shutil

import pytest
from helpers.damage import DAMAGES, damage_file

from chaos.campaign import Campaign
from chaos.grid import Attempt, Grid
from decoderbench.housekeeping.verification import verify
from decoderbench.records.results_directory import ResultsDirectory

CHECKED_BY_RUNS = ("result.json", "predictions.parquet", "val_predictions.parquet", "history.jsonl")
FILES = (*CHECKED_BY_RUNS, "weights.safetensors", "cell.json", "plan.json")
COUNTS = [
    pytest.param(15, id="sample", marks=pytest.mark.slow),
    pytest.param(100, id="longer", marks=pytest.mark.chaos),
]


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Grid:
    return Grid(tmp_path_factory.mktemp("grid"))


@pytest.mark.parametrize("count", COUNTS)
def test_damaged_file_is_named_renamed_and_made_again(grid: Grid, count: int) -> None:
    campaign = Campaign("A11 damaged files")
    kinds = list(itertools.product(DAMAGES, FILES))
    random.Random(0).shuffle(kinds)
    for number, (damage, name) in zip(range(count), itertools.cycle(kinds), strict=False):
        problems = damage_and_run(grid, campaign, name, damage, seed=number)
        label = f"damage {number}, {damage.__name__} of {name}"
        campaign.failures += [f"{label}: {problem}" for problem in problems]
    campaign.remark = f"{campaign.faults - len({line.split(':')[0] for line in campaign.failures})} named and renamed"
    campaign.conclude()


def damage_and_run(grid: Grid, campaign: Campaign, name: str, damage: object, *, seed: int) -> list[str]:
    """Damage a file of finished results, run the grid again, and return what went wrong."""
    attempt = Attempt(grid, grid.folder / "damaged")
    shutil.rmtree(attempt.results, ignore_errors=True)
    shutil.copytree(grid.folder / "reference", attempt.results)
    for file in (attempt.log, attempt.output):
        file.unlink(missing_ok=True)
    generator = random.Random(seed)
    one, other = generator.sample(sorted(attempt.results.glob("cells/*")), 2)
    folder, source = (attempt.results, other / "cell.json") if name == "plan.json" else (one, other / name)
    assert callable(damage)
    damage_file(folder / name, source, damage, generator)
    content = (folder / name).read_bytes()
    again = set() if name == "plan.json" else {one.name}
    attempt.finished = {one.name, other.name} - again
    lines: list[str] = []
    if name not in (*CHECKED_BY_RUNS, "plan.json"):
        verify(ResultsDirectory(attempt.results), fix=True, report=lines.append)
    campaign.faults += 1
    campaign.attempts += 1
    child = attempt.start(logging.getLogger().handlers.clear)  # those of pytest, which print elsewhere
    if status := child.wait():
        return [f"exit status {status}: {child.printed()}"]
    different, trained_again = attempt.differences(), attempt.trained_again()
    campaign.identical += not different
    campaign.trained_again += len(trained_again)
    campaign.rows_missing += attempt.rows_missing()
    problems = [*different, *trained_again]
    if f"{folder / name}: damaged: " not in "\n".join([*lines, attempt.output.read_text()]):
        problems.append("not named")
    renamed = folder / f"{name}.damaged"
    if not renamed.is_file() or renamed.read_bytes() != content:
        problems.append("not renamed")
    if set(attempt.starts()) != again:
        problems.append(f"started {sorted(attempt.starts())}, not {sorted(again)}")
    return problems
