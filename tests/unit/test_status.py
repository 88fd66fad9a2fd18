"""status: the state of every cell as seen from another terminal or machine, without a change in the folder."""

import json
import os
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from helpers.commands import call
from helpers.recording import make_cell, make_record, publish

from decoderbench.command_line import with_results
from decoderbench.config.cell import Cell
from decoderbench.files.locks import is_held
from decoderbench.housekeeping import status
from decoderbench.housekeeping.status import CellState, StatusReader
from decoderbench.options import TrainingOptions
from decoderbench.records import cell_progress
from decoderbench.records.cell_progress import FILE, ProgressFile
from decoderbench.records.results_directory import ResultsDirectory
from decoderbench.records.schema import Cost
from decoderbench.training.checkpoint import Checkpoints

DAY = 86_400
STEPS = TrainingOptions(steps=100)


def cells(number: int) -> list[Cell]:
    return [make_cell("CTC", seed, training=STEPS) for seed in range(number)]


def content(folder: Path) -> dict[str, bytes | None]:
    return {str(path): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def states(reader: StatusReader) -> list[str]:
    return [cell.state for cell in reader.read().cells]


def write_progress(directory: ResultsDirectory, cell: Cell, age: float = 0.0, **changes: Any) -> Path:
    """Write the progress of another machine, `age` seconds old by the clock of this one."""
    fields = {"host": "elsewhere", "pid": 7, "started": "", "updated": "", "steps": 100, "step": 10}
    file = directory.cell_directory(cell) / FILE
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(fields | changes))
    os.utime(file, (time.time() - age, time.time() - age))
    return file


def every_state(folder: Path) -> tuple[ResultsDirectory, list[Cell]]:
    """Make a folder with a cell of each state but running, in the order of their states, and a last, waiting one."""
    grid = [*cells(7), make_cell("CTC", 7, infeasible="needs 9 frames, has 4", training=STEPS)]
    records = [
        make_record(grid[0], cost=Cost(train_seconds=50.0)),
        make_record(grid[1], status="oom", reason="out of\nmemory \x1b[31m"),
        make_record(grid[2], status="infeasible", reason="needs 9 frames, has 4"),
    ]
    directory = publish(folder, grid, records)
    Checkpoints(directory.cell_directory(grid[3]) / "checkpoint", grid[3], {}, 1.0).save({"step": 40})
    (damaged := directory.cell_directory(grid[4])).mkdir(parents=True)
    (damaged / "result.json").write_text("{")
    return directory, grid


def test_every_cell_has_its_state_and_nothing_changes(tmp_path: Path) -> None:
    directory, grid = every_state(tmp_path)
    with directory.lease(grid[5]), ProgressFile(directory.cell_directory(grid[5]), 100) as progress:
        progress.progressed(20, 1.5)
        before = content(tmp_path)
        found = StatusReader(tmp_path).read()
        assert content(tmp_path) == before
    expected = ["done", "failed", "infeasible", "saved", "unreadable", "running", "waiting", "infeasible"]
    assert [cell.state for cell in found.cells] == expected
    assert found.counts() == {
        "done": 1, "running": 1, "saved": 1, "waiting": 1, "failed": 1, "unreadable": 1, "infeasible": 2
    }  # fmt: skip
    assert found.cells[3].saved_step == 40
    assert "result.json: damaged" in found.cells[4].reason
    assert found.cells[5].progress is not None
    assert found.cells[5].progress.pid == os.getpid()
    assert not found.is_complete


def test_cell_whose_process_was_killed_is_not_running(tmp_path: Path) -> None:
    (cell,) = grid = cells(1)
    directory = publish(tmp_path, grid, [])
    program = (
        "import os, sys, pathlib\n"
        "from decoderbench.files.locks import holding\n"
        "from decoderbench.records.cell_progress import ProgressFile\n"
        "folder = pathlib.Path(sys.argv[1])\n"
        "with holding(folder / 'lock'), ProgressFile(folder, 100):\n"
        "    print('running', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(directory.cell_directory(cell))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "running\n"
    reader = StatusReader(tmp_path)
    assert states(reader) == ["running"]
    process.kill()
    process.communicate()
    assert (directory.cell_directory(cell) / FILE).exists()
    assert states(reader) == ["waiting"]


def test_test_of_a_lock_creates_no_file_and_keeps_nobody_from_the_lock(tmp_path: Path) -> None:
    (cell,) = grid = cells(1)
    directory = publish(tmp_path, grid, [])
    assert not directory.is_leased(cell)
    assert not directory.cell_directory(cell).exists()
    with directory.lease(cell) as leased:
        assert leased
        assert directory.is_leased(cell)
    assert not directory.is_leased(cell)
    with directory.lease(cell) as leased:
        assert leased
    assert not is_held(directory.cell_directory(cell))


def test_cell_of_another_machine_is_running_while_its_file_is_fresh(tmp_path: Path) -> None:
    (cell,) = grid = cells(1)
    directory = publish(tmp_path, grid, [])
    write_progress(directory, cell, age=30)
    assert states(StatusReader(tmp_path)) == ["running"]


@pytest.mark.parametrize("age", [DAY, -DAY, 100])
def test_clock_of_another_machine_does_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, age: float) -> None:
    now = [0.0]
    monkeypatch.setattr(status.time, "monotonic", lambda: now[0])
    (cell,) = grid = cells(1)
    directory = publish(tmp_path, grid, [])
    write_progress(directory, cell, age)
    reader = StatusReader(tmp_path)
    first = reader.read()
    assert first.unsure
    assert first.cells[0].state == "waiting"
    now[0] = 3.0
    second = reader.read()
    assert not second.unsure, "a file that does not change is a leftover"
    assert second.cells[0].state == "waiting"
    write_progress(directory, cell, age, step=11)
    assert states(reader) == ["running"]
    now[0] = 62.0
    assert states(reader) == ["running"]
    now[0] = 64.0
    assert states(reader) == ["waiting"]


@pytest.mark.parametrize(
    ("pid", "state"),
    [(os.getpid(), "running"), (2**22 + 1, "waiting"), (2**70, "waiting")],
    ids=["own", "none", "impossible"],
)
def test_process_of_this_machine_without_locks_counts_while_it_lives(tmp_path: Path, pid: int, state: str) -> None:
    (cell,) = grid = cells(1)
    directory = publish(tmp_path, grid, [])
    write_progress(directory, cell, host=cell_progress.socket.gethostname(), pid=pid)
    assert states(StatusReader(tmp_path)) == [state]


def test_process_that_was_killed_is_not_running_though_its_parent_has_not_noticed(tmp_path: Path) -> None:
    (cell,) = grid = cells(1)
    directory = publish(tmp_path, grid, [])
    with subprocess.Popen(["sleep", "600"]) as process:
        write_progress(directory, cell, host=cell_progress.socket.gethostname(), pid=process.pid)
        assert states(StatusReader(tmp_path)) == ["running"]
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and stays a zombie
        assert states(StatusReader(tmp_path)) == ["waiting"]


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("decoderbench run x.toml", "decoderbench run x.toml --results moved/here"),
        (
            "decoderbench run x.toml --results moved/here --jobs 2",
            "decoderbench run x.toml --results moved/here --jobs 2",
        ),
        ("decoderbench run x.toml --results gone --jobs 2", "decoderbench run x.toml --jobs 2 --results moved/here"),
        (
            "decoderbench run --results='a b' x.toml -k 'a or b'",
            "decoderbench run x.toml -k 'a or b' --results moved/here",
        ),
        ("decoderbench.run(...)", "decoderbench.run(...)"),
        (r"decoderbench run $'\xff.toml'", r"decoderbench run $'\xff.toml'"),
    ],
)
def test_command_to_continue_names_the_folder_where_the_results_are(command: str, expected: str) -> None:
    assert with_results(command, Path("moved/here"), Path("results/x")) == expected
    assert with_results("decoderbench run x.toml", Path("results/x"), Path("results/x")) == "decoderbench run x.toml"


def test_result_that_appears_is_seen_and_a_deleted_one_is_gone(tmp_path: Path) -> None:
    one, other = grid = cells(2)
    directory = publish(tmp_path, grid, [make_record(one)])
    reader = StatusReader(tmp_path)
    assert states(reader) == ["done", "waiting"]
    directory.publish(make_record(other, status="failed", reason="x"))
    directory.delete_result(one)
    assert states(reader) == ["waiting", "failed"]


def test_damaged_checkpoint_is_no_saved_step(tmp_path: Path) -> None:
    for name, written in {"current": b"\x00" * 100, "previous": b"{}\n{}\n"}.items():
        (tmp_path / "checkpoint").mkdir(exist_ok=True)
        (tmp_path / "checkpoint" / f"{name}.checkpoint").write_bytes(written)
    assert status.saved_step(tmp_path) is None
    folder = tmp_path / "checkpoint"
    Checkpoints(folder, make_cell(), {}, 1.0).save({"step": 5})
    assert status.saved_step(tmp_path) == 5


def test_pipes_in_place_of_files_block_nothing(tmp_path: Path) -> None:
    (cell,) = grid = cells(1)
    folder = publish(tmp_path, grid, []).cell_directory(cell)
    (folder / "checkpoint").mkdir(parents=True)
    for name in (FILE, "lock", "checkpoint/current.checkpoint"):
        os.mkfifo(folder / name)
    assert states(StatusReader(tmp_path)) == ["waiting"]


def test_time_left_is_that_of_finished_cells_of_the_row(tmp_path: Path) -> None:
    def state(decoder: str, name: Any, **fields: Any) -> CellState:
        return CellState(make_cell(decoder, training=STEPS), name, **fields)

    def progress(**fields: Any) -> cell_progress.CellProgress:
        return cell_progress.CellProgress(host="a", pid=1, started="", updated="", steps=100, **fields)

    plan = publish(tmp_path, cells(1), []).read_plan()

    def left(*found: CellState) -> float | None:
        return status.GridState(plan, found).seconds_left()

    done = state("CTC", "done", seconds=40.0), state("LSTM", "done", seconds=80.0)
    assert left(*done) == 0
    assert left(state("CTC", "waiting")) is None
    assert left(*done, state("CTC", "waiting"), state("other", "waiting")) == 40 + 60
    assert left(*done, state("LSTM", "saved", saved_step=75)) == 20
    running = state("CTC", "running", progress=progress(step=50, seconds_per_step=0.5))
    assert left(running) == 25
    assert left(running, running, state("CTC", "waiting")) == (25 + 25 + 50) / 2
    assert left(running, running, running, state("CTC", "waiting")) == 50, "no cell is divided"
    assert left(*done, state("LSTM", "running", progress=progress())) == 80


def test_command_prints_counts_and_reasons_and_ends_with_0(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    every_state(tmp_path)
    code, printed, errors = call(capfd, "status", str(tmp_path))
    assert (code, errors) == (0, "")
    head, *lines = printed.splitlines()
    assert head == (
        f"{tmp_path}: 1 of 8 cells done, 1 saved, 2 waiting, 1 failed, 1 unreadable, 2 infeasible; no cell is running, "
        f"continue with: decoderbench run demo.toml --results {tmp_path}"
    )
    assert lines[:2] == [
        "  saved       ResNet / columns / CTC / seed 3: at step 40 of 100",
        r"  failed      ResNet / columns / CTC / seed 1: oom: out of memory \x1b[31m",
    ]
    assert len(lines) == 5


def test_command_shows_where_a_cell_is_running(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    directory, grid = every_state(tmp_path)
    written = {"step": 50, "seconds_per_step": 2.0, "loss": 0.5, "score": 0.25, "first_step": 40, "host": "a\x1b[2J"}
    write_progress(directory, grid[6], **written)
    _, printed, _ = call(capfd, "status", str(tmp_path))
    assert "; about 7 min of training left, 1 at a time\n" in printed
    line = r"seed 6: step 50 of 100, loss 0.500, val 25.0%, 2 min left, on a\x1b[2J, process 7"
    assert f"  running     ResNet / columns / CTC / {line}" in printed.splitlines()


def test_command_prints_json(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    directory, grid = every_state(tmp_path)
    write_progress(directory, grid[6], step=50, seconds_per_step=1.0)
    code, printed, _ = call(capfd, "status", str(tmp_path), "--json")
    found = json.loads(printed)
    assert code == 0
    assert found["counts"]["infeasible"] == 2
    assert found["cells"][6]["state"] == "running"
    assert found["cells"][6]["progress"]["seconds_left"] == 50
    assert found["cells"][1]["reason"].startswith("oom: ")


@pytest.mark.parametrize(("make", "code"), [(lambda path: None, 3), (Path.touch, 3), (Path.mkdir, 3)])
def test_command_refuses_what_is_no_results_folder(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, make: Any, code: int
) -> None:
    make(tmp_path / "x")
    for option in ("--json", "--watch"):
        assert call(capfd, "status", str(tmp_path / "x"), option)[0] == code
    assert call(capfd, "status", str(tmp_path), "--json", "--watch")[0] == 2


def test_watch_ends_when_all_cells_are_done(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = cells(2)
    directory = publish(tmp_path, grid, [])
    waiting = list(grid)
    monkeypatch.setattr("decoderbench.cli.status.time.sleep", lambda _: directory.publish(make_record(waiting.pop(0))))
    code, printed, _ = call(capfd, "status", str(tmp_path), "--watch")
    assert code == 0
    assert [line.split(": ")[1].split(";")[0] for line in printed.splitlines()] == [
        "0 of 2 cells done, 2 waiting",
        "1 of 2 cells done, 1 waiting",
        "2 of 2 cells done",
    ]


def test_watch_ends_with_0_when_it_is_interrupted(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    publish(tmp_path, cells(2), [])
    monkeypatch.setattr("decoderbench.cli.status.time.sleep", interrupt)
    assert call(capfd, "status", str(tmp_path), "--watch")[0] == 0


@pytest.mark.parametrize("jump", [-DAY, DAY])
def test_changed_system_clock_shows_no_negative_time(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jump: float
) -> None:
    directory, grid = every_state(tmp_path)
    real = time.time
    with ExitStack() as stack:
        stack.enter_context(directory.lease(grid[5]))
        progress = stack.enter_context(ProgressFile(directory.cell_directory(grid[5]), 100))
        monkeypatch.setattr(cell_progress, "WRITE_SECONDS", 0.0)
        progress.progressed(10, 1.0)
        monkeypatch.setattr(time, "time", lambda: real() + jump)
        progress.progressed(20, 1.0)
        code, printed, _ = call(capfd, "status", str(tmp_path), "--json")
        found = json.loads(printed)
    assert code == 0
    assert found["cells"][5]["state"] == "running"
    assert found["cells"][5]["progress"]["seconds_left"] >= 0
    assert found["seconds_left"] >= 0


def test_trials_of_tuning_are_counted_apart_and_named_and_their_steps_are_their_own(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    short = TrainingOptions(steps=10)
    trials = [
        make_cell("CTC", 1000 + number, training=short, purpose="tuning", tuned={"training.learning_rate": 0.5})
        for number in range(3)
    ]
    undecided = [make_cell("CTC", seed, training=STEPS, purpose="undecided") for seed in range(2)]
    records = [
        make_record(trials[0], cost=Cost(train_seconds=5.0)),
        make_record(trials[1], status="diverged", reason="loss was nan"),
    ]
    publish(tmp_path, undecided, records, tuning=tuple(trials))
    grid = StatusReader(tmp_path).read()
    assert [cell.state for cell in grid.trials] == ["done", "failed", "waiting"]
    assert [cell.state for cell in grid.tested] == ["waiting", "waiting"]
    assert grid.seconds_left() == pytest.approx(0.5 * (10 + 2 * 100))
    text = " ".join(call(capfd, "status", str(tmp_path))[1].split())
    assert "1 of 3 trials of tuning done, 0 of 2 cells done, 3 waiting, 1 failed" in text
    assert "seed 1001 / tuning: learning_rate 0.5: diverged: loss was nan" in text
    found = json.loads(call(capfd, "status", str(tmp_path), "--json")[1])
    assert [cell["purpose"] for cell in found["cells"]] == ["tuning"] * 3 + ["undecided"] * 2
