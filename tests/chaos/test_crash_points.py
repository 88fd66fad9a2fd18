"""A1 and A2: a grid is killed at each of its file operations, or the disk loses power there, and it is run again."""

import random
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from chaos import mutants
from chaos.campaign import Campaign
from chaos.file_operations import FileOperations, When, entries, lose_power
from chaos.grid import Attempt, Grid, nothing

SHARES = [
    pytest.param(2, id="sample", marks=pytest.mark.slow),
    pytest.param(12, id="longer", marks=pytest.mark.slow),
    pytest.param(None, id="all", marks=pytest.mark.chaos),
]
Operations = list[tuple[int, str, str]]
Point = tuple[int | tuple[str, str], When]


def crash(grid: Grid, point: Point, *, power: str = "", mutate: Callable[[], None] = nothing) -> Attempt:
    """Run a grid that is killed at an operation; with `power`, the disk loses contents, or contents and names."""
    attempt, (number, when) = Attempt.fresh(grid), point
    operations = FileOperations(attempt.results, number, when, journal=attempt.journal if power else None)
    status = attempt.start(partial(install, mutate, operations)).wait()
    assert status in (0, 1, -9), attempt.output.read_text()  # 1: a worker was killed, and the run noticed
    attempt.note_fault(reported_only=bool(power))
    if power:
        lose_power(attempt.journal, random.Random(f"{number} {when}"), names=power == "names")
    return attempt


def install(mutate: Callable[[], None], operations: FileOperations) -> None:
    operations.install()
    mutate()  # afterwards: what a mutant leaves out is not counted


def operations_of(grid: Grid) -> Operations:
    """Return number, name and path of each file operation of a run; checkpoints are timed, so runs differ a little."""
    attempt = Attempt.fresh(grid, "counted")
    assert attempt.start(FileOperations(attempt.results, journal=attempt.journal).install).wait() == 0
    return [(number, name, path) for number, name, path in entries(attempt.journal, "operations")]


@pytest.fixture(scope="module")
def operations(small: Grid) -> Operations:
    return operations_of(small)


def points_of(operations: Operations, share: int | None, seed: int) -> list[Point]:
    """Return crash points: before and after each operation and within each write, or a sample of these."""
    whens: dict[str, tuple[When, ...]] = {"write": ("before", "within", "after")}
    found: list[Point] = [
        (number, when) for number, name, _ in operations for when in whens.get(name, ("before", "after"))
    ]
    return found if share is None else random.Random(seed).sample(found, share)


@pytest.mark.parametrize("share", SHARES)
def test_grid_killed_at_a_file_operation_ends_with_identical_results(
    small: Grid, operations: Operations, share: int | None
) -> None:
    campaign = Campaign("A1 SIGKILL before, within and after each file operation")
    for point in points_of(operations, share, seed=1):
        campaign.faults += 1
        campaign.finish(crash(small, point), f"killed at {point}")
    campaign.conclude()


@pytest.mark.parametrize(
    "share",
    [pytest.param(3, id="sample", marks=pytest.mark.slow), pytest.param(None, id="all", marks=pytest.mark.chaos)],
)
def test_run_or_worker_killed_at_a_file_operation_ends_with_identical_results(
    small_local: Grid, share: int | None
) -> None:
    campaign = Campaign("A1 SIGKILL of run or worker at each file operation, local, 2 jobs")
    for point in points_of(operations_of(small_local), share, seed=1):
        campaign.faults += 1
        campaign.finish(crash(small_local, point), f"killed at {point}", "--retry-failed")
    campaign.conclude()


@pytest.mark.parametrize("power", ["contents", "names"])
@pytest.mark.parametrize("share", SHARES)
def test_power_failure_at_a_file_operation_loses_no_reported_cell(
    small: Grid, operations: Operations, share: int | None, power: str
) -> None:
    lost = {"contents": "unsynced contents", "names": "unsynced contents and names"}[power]
    campaign = Campaign(f"A2 power failure at each file operation: {lost} are lost")
    for point in points_of(operations, share and share // 2, seed=2):
        campaign.faults += 1
        campaign.finish(crash(small, point, power=power), f"power failed at {point}")
    campaign.conclude()


def test_checkpoints_of_a_cell_that_was_killed_after_its_result_are_deleted(small: Grid) -> None:
    attempt = crash(small, (("unlink", "current.checkpoint"), "before"))
    assert attempt.finished
    attempt.finish()
    assert not [*attempt.differences(), *attempt.left_over(), *attempt.trained_again()]


def test_injector_sees_every_file_of_the_results(small: Grid, operations: Operations) -> None:
    seen = {Path(path).name for _, name, path in operations if name in ("open", "replace")}
    assert {Path(name).name for name in small.reference} <= seen


@pytest.mark.parametrize(
    ("mutate", "point", "power"),
    [
        pytest.param(mutants.never_sync, (("none", ""), "after"), "names", id="never syncs"),
        *(
            pytest.param(mutate, point, "", id=name, marks=pytest.mark.slow)
            for mutate, point, name in [
                (mutants.write_in_place, (("write", "result.json"), "within"), "writes in place"),
                (mutants.write_result_first, (("replace", "result.json"), "after"), "writes result first"),
            ]
        ),
    ],
)
def test_broken_store_is_noticed(small: Grid, mutate: Callable[[], None], point: Point, power: str) -> None:
    attempt = crash(small, point, power=power, mutate=mutate)
    attempt.finish()
    assert [*attempt.differences(), *attempt.left_over(), *attempt.trained_again()]
