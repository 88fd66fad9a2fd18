"""Progress on a terminal and in a log: one bar or heartbeat per running cell, also with many cells at a time."""

import io
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from helpers.recording import make_cell, make_record

from decoderbench.cli import progress
from decoderbench.cli.progress import BarProgress, PlainProgress, describe_duration, short_names
from decoderbench.cli.terminal import SafeConsole, SafeFormatter
from decoderbench.config.cell import Cell
from decoderbench.options import TrainingOptions


def cells(number: int) -> list[Cell]:
    return [make_cell("CTC", seed, training=TrainingOptions(steps=1000)) for seed in range(number)]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    return now


def plain() -> tuple[PlainProgress, io.StringIO]:
    file = io.StringIO()
    return PlainProgress(SafeConsole(file=file, width=200)), file


def bars(height: int = 24, width: int = 100) -> tuple[BarProgress, SafeConsole]:
    """Return bars that are drawn on request only, for a terminal of this size."""
    console = SafeConsole(file=io.StringIO(), force_terminal=True, color_system=None, width=width, height=height)
    shown = BarProgress(console)
    shown._bars.live.auto_refresh = False
    return shown, console


def drawn(shown: BarProgress, console: SafeConsole) -> list[str]:
    with console.capture() as capture:
        console.print(shown._bars.get_renderable())
    return [line.rstrip() for line in capture.get().splitlines() if line.strip()]


def test_every_running_cell_has_a_heartbeat_of_its_own(clock: list[float]) -> None:
    shown, file = plain()
    one, other = grid = cells(2)
    shown.run_started(grid)
    shown.cell_started(one)
    shown.cell_progressed(one, 100, 2.0)
    clock[0] = 20.0
    shown.cell_started(other)
    shown.cell_progressed(other, 10, 3.0)
    clock[0] = 40.0
    shown.cell_validated(one, 450, {"val_exact_match": 0.5})
    shown.cell_progressed(one, 500, 1.0)
    shown.cell_progressed(other, 20, 2.5)
    clock[0] = 60.0
    shown.cell_progressed(other, 30, 2.25)
    shown.cell_finished(other, make_record(other))
    shown.cell_finished(one, make_record(one, status="crashed", reason="killed by SIGKILL"))
    assert file.getvalue().splitlines() == [
        "... ResNet / columns / CTC / seed 0: step 500 of 1000, loss 1.000, val 50.0%, 50 s left",
        "... ResNet / columns / CTC / seed 1: step 30 of 1000, loss 2.250, 32 min left",
        "[1/2] ResNet / columns / CTC / seed 1: exact match 50.0%, CER 50.00%",
        "[2/2] ResNet / columns / CTC / seed 0: crashed: killed by SIGKILL",
    ]


def test_cell_that_goes_on_shows_its_step_and_the_time_of_this_attempt(clock: list[float]) -> None:
    shown, file = plain()
    (cell,) = grid = cells(1)
    shown.run_started(grid)
    shown.cell_started(cell)
    shown.cell_progressed(cell, 900, 1.0)
    clock[0] = 40.0
    shown.cell_progressed(cell, 910, 1.0)
    assert file.getvalue() == "... ResNet / columns / CTC / seed 0: step 910 of 1000, loss 1.000, 6 min left\n"


def test_every_running_cell_has_a_bar_of_its_own() -> None:
    shown, console = bars()
    one, other, third = grid = cells(3)
    shown.run_started(grid)
    for cell, step in ((one, 900), (other, 100)):
        shown.cell_started(cell)
        shown.cell_progressed(cell, step, 1.5)
    shown.cell_validated(other, 200, {"val_exact_match": 0.25, "val_cer": 0.5})
    head, *lines = drawn(shown, console)
    assert "0/3" in head
    assert [line.split() for line in (lines[0].replace("━", "").replace("╸", "").replace("╺", ""),)] == [
        ["CTC,", "seed", "0", "900/1000", "loss", "1.500", "-:--:--"]
    ]
    assert "200/1000 loss 1.500 val 25.0%" in lines[1]
    shown.cell_finished(one, make_record(one))
    shown.cell_started(third)
    head, *lines = drawn(shown, console)
    assert "1/3" in head
    assert [line[:11] for line in lines] == ["CTC, seed 1", "CTC, seed 2"]
    shown.cell_validated(third, 10, {})  # a trainer of its own, without that metric
    assert console.file.getvalue().endswith("[1/3] ResNet / columns / CTC / seed 0: exact match 50.0%, CER 50.00%\n")


def test_bars_of_many_cells_fit_on_the_terminal() -> None:
    shown, console = bars(height=12)
    grid = cells(32)
    shown.run_started(grid)
    for cell in grid[:20]:
        shown.cell_started(cell)
    head, *lines = drawn(shown, console)
    assert "14 more running" in head
    assert len(lines) == 6
    for cell in grid[:18]:
        shown.cell_finished(cell, make_record(cell))
    head, *lines = drawn(shown, console)
    assert "more running" not in head
    assert [line[:12].strip(" ,") for line in lines] == ["CTC, seed 18", "CTC, seed 19"]


def test_bars_of_long_names_keep_to_one_line() -> None:
    shown, console = bars(width=80)
    long = "a label of many characters, [bold]more than fit"
    grid = [make_cell(long, seed, encoder=name) for seed in (0, 100) for name in ("ResNet", long)]
    shown.run_started(grid)
    for cell in grid:
        shown.cell_started(cell)
        shown.cell_progressed(cell, 1234, 1.5)
        shown.cell_validated(cell, 1234, {"val_exact_match": 1.0})
    lines = drawn(shown, console)
    assert len(lines) == 5
    assert all(len(line) <= 80 and line.endswith("1234/2000 loss 1.500 val 100.0% -:--:--") for line in lines[1:])
    assert [f"seed {cell.seed}" in line for cell, line in zip(grid, lines[1:], strict=True)] == [True] * 4


def test_cell_that_starts_again_has_one_bar() -> None:
    shown, console = bars()
    (cell,) = grid = cells(1)
    shown.run_started(grid)
    shown.cell_started(cell)
    shown.cell_progressed(cell, 500, 1.0)
    shown.cell_started(cell)
    assert len(drawn(shown, console)) == 2
    assert "0/1000" in drawn(shown, console)[1]


@pytest.fixture
def handler() -> Iterator[logging.StreamHandler[Any]]:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    added = logging.StreamHandler(Terminal())
    added.setFormatter(SafeFormatter())
    logging.getLogger().addHandler(added)
    yield added
    logging.getLogger().removeHandler(added)


def test_log_lines_go_above_the_bars_and_not_between_them(handler: logging.StreamHandler[Any]) -> None:
    terminal = handler.stream
    shown, console = bars()
    with shown:
        logging.getLogger("decoderbench").warning("waiting for [bold]a\x1b[2J")
        assert "waiting for [bold]a\\x1b[2J" in console.file.getvalue()
    logging.getLogger("decoderbench").warning("after")
    assert terminal.getvalue() == "after\n"


def test_log_lines_go_to_the_file_that_standard_error_is(handler: logging.StreamHandler[Any]) -> None:
    handler.setStream(file := io.StringIO())
    shown, console = bars()
    with shown:
        logging.getLogger("decoderbench").warning("a line")
    assert file.getvalue() == "a line\n"
    assert "a line" not in console.file.getvalue()


def test_short_names_tell_the_cells_apart() -> None:
    grid = [make_cell(decoder, encoder=encoder) for encoder in ("a", "b") for decoder in ("CTC", "LSTM")]
    assert list(short_names(grid, 30).values()) == [
        "a / CTC, seed 0",
        "a / LSTM, seed 0",
        "b / CTC, seed 0",
        "b / LSTM, seed 0",
    ]
    assert list(short_names(grid[:1], 30).values()) == ["CTC, seed 0"]
    assert short_names([], 30) == {}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (89, "89 s"), (90, "2 min"), (1800, "30 min"), (5400, "1.5 h")],
)
def test_durations_have_one_unit(seconds: float, text: str) -> None:
    assert describe_duration(seconds) == text


def test_plain_lines_are_used_where_there_is_no_terminal() -> None:
    assert isinstance(progress.progress_for(SafeConsole(file=io.StringIO())), PlainProgress)
