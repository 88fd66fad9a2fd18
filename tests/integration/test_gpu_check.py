"""The GPU check on a CPU: parts that fail, hang or are interrupted, resume, and the experiments that it runs."""

import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gpu_check
import gpu_driver
import gpu_experiments
import pytest
from figure_file import FigureWriter, append_synced
from filelock import FileLock
from gpu_driver import Part, check
from helpers.experiments import PlanCells

from decoderbench.planning.selection import select_cells

BENCHMARKS = Path(gpu_check.__file__).parent
FILES = {
    "results.jsonl", "table.txt", "log.txt", "junit.xml", "profile.txt", "env.json", "quickstart.tar", "four_stage.tar",
}  # fmt: skip
APPEND = (
    "import sys; sys.path.append({benchmarks!r}); from figure_file import FigureWriter; from pathlib import Path\n"
    "FigureWriter({part!r}, Path({path!r}), 'test', '').add('runs', {value!r})\n"
)
IGNORES_SIGINT = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); time.sleep(600)"


@pytest.fixture(autouse=True)
def _short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_driver, "GRACE", 0.5)
    monkeypatch.setattr(gpu_driver, "RESERVE", 0.0)


def part(name: str, code: str, seconds: float = 1, **options: Any) -> Part:
    return Part(name, lambda limit: [sys.executable, "-c", code], seconds, **options)


def lines_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]


def ends_of(folder: Path) -> list[tuple[str, str]]:
    return [(line["part"], line["value"]) for line in lines_of(folder) if line["name"] == "part"]


def test_part_that_fails_is_one_line_and_the_others_run(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    figure = APPEND.format(benchmarks=str(BENCHMARKS), part="last", path=str(tmp_path / "results.jsonl"), value=1.5)
    parts = [
        part("crash", "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"),
        part("error", "raise ValueError('the reason')"),
        part("partial", "raise SystemExit(4)"),
        part("last", figure),
    ]
    assert check(parts, tmp_path, budget=240) == 1
    expected = [("crash", "signal 11"), ("error", "exit status 1"), ("partial", "unfinished"), ("last", "done")]
    assert ends_of(tmp_path) == expected
    verdicts = {line["part"]: line["ok"] for line in lines_of(tmp_path) if line["name"] == "part"}
    assert verdicts == {"crash": False, "error": False, "partial": None, "last": True}
    printed = capfd.readouterr().out
    assert "ValueError: the reason" in printed
    assert "1 parts done, 2 failed, 1 to be continued, 0 not started" in printed
    assert "ValueError: the reason" in (tmp_path / "log.txt").read_text()
    assert (tmp_path / "table.txt").read_text() in printed
    assert check(parts[2:], tmp_path, budget=240) == 4


def test_part_that_hangs_is_killed_with_all_its_processes(tmp_path: Path) -> None:
    child = f"from filelock import FileLock; FileLock({str(tmp_path / 'lock')!r}).acquire(); {IGNORES_SIGINT}"
    hangs = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {child!r}]); {IGNORES_SIGINT}"
    assert check([part("hangs", hangs), part("next", "")], tmp_path, budget=6) == 1
    assert ends_of(tmp_path) == [("hangs", "killed at its limit of 3 s"), ("next", "done")]
    FileLock(tmp_path / "lock").acquire(timeout=5)


def test_part_that_ends_leaves_no_process_behind(tmp_path: Path) -> None:
    child = f"from filelock import FileLock; FileLock({str(tmp_path / 'lock')!r}).acquire(); {IGNORES_SIGINT}"
    leaves = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {child!r}])"
    assert check([part("leaves", leaves)], tmp_path, budget=60) == 0
    FileLock(tmp_path / "lock").acquire(timeout=5)


def test_part_is_not_started_if_less_than_half_of_its_share_is_left(tmp_path: Path) -> None:
    parts = [part("slow", IGNORES_SIGINT), part("short", ""), part("last", "", 5)]
    assert check(parts, tmp_path, budget=3.5) == 1  # 0.5 s of 3.5 s a share; slow takes that and 0.5 s to be killed
    assert ends_of(tmp_path)[:2] == [("slow", "killed at its limit of 0 s"), ("short", "done")]
    (tmp_path / "results.jsonl").unlink()
    parts = [part("slow", IGNORES_SIGINT), part("last", "")]
    assert check(parts, tmp_path, budget=2) == 1
    assert ends_of(tmp_path) == [
        ("slow", "killed at its limit of 1 s"),
        ("last", "not started: 0 s left, its share is 1 s"),
    ]


@pytest.mark.slow
def test_part_may_use_what_those_before_it_have_left(tmp_path: Path) -> None:
    parts = [part("quick", ""), part("long", "import time; time.sleep(4.5)"), part("last", "", 2)]
    assert check(parts, tmp_path, budget=12) == 0  # 3 s a share
    assert ends_of(tmp_path) == [("quick", "done"), ("long", "done"), ("last", "done")]


def test_second_call_runs_what_is_not_done_and_what_that_needs(tmp_path: Path) -> None:
    broken, images = tmp_path / "broken", "import time; time.sleep(0.5)"
    broken.touch()
    parts = [
        part("images", images, background=True),
        part("quick", ""),
        part(
            "needs images",
            f"from pathlib import Path; raise SystemExit(Path({str(broken)!r}).exists())",
            after="images",
        ),
        part("other", ""),
    ]
    assert check(parts, tmp_path, budget=240) == 1
    assert [name for name, _ in ends_of(tmp_path)] == ["quick", "images", "needs images", "other"]
    broken.unlink()
    with (tmp_path / "results.jsonl").open("ab") as file:
        file.write(b'{"part": "other", "na')  # the call was killed while it wrote
    assert check(parts, tmp_path, budget=240) == 0
    assert ends_of(tmp_path)[4:] == [("images", "done"), ("needs images", "done")]
    assert check(parts, tmp_path, budget=240) == 0
    assert len(ends_of(tmp_path)) == 6
    assert check(parts, tmp_path, budget=240, device="cuda:1") == 0
    assert [name for name, _ in ends_of(tmp_path)[6:]] == ["quick", "images", "needs images", "other"]


def test_only_runs_exactly_the_named_parts_also_if_they_are_done(tmp_path: Path) -> None:
    parts = [part("a", ""), part("b", ""), part("c", "", after="a")]
    assert check(parts, tmp_path, budget=240, only=["c", "a"]) == 0
    assert check(parts, tmp_path, budget=240, only=["c"]) == 0
    assert ends_of(tmp_path) == [("a", "done"), ("c", "done"), ("c", "done")]


def test_table_shows_the_latest_line_of_each_figure(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    def figure(value: object) -> Part:
        path = str(tmp_path / "results.jsonl")
        return part("a", APPEND.format(benchmarks=str(BENCHMARKS), part="a", path=path, value=value))

    for value in (float(1111), float(2222)):
        assert check([figure(value)], tmp_path, budget=60, only=["a"]) == 0
    table = (tmp_path / "table.txt").read_text()
    assert ("2,222" in table, "1,111" in table, "measured on test" in table) == (True, False, True)
    assert len(lines_of(tmp_path)) == 4


def test_numbers_that_are_not_finite_are_written_as_text(tmp_path: Path) -> None:
    writer = FigureWriter("a", tmp_path / "results.jsonl", "test", "")
    writer.add("loss", float("nan"), spread=float("inf"), ok=False)
    assert [(line["value"], line["spread"]) for line in lines_of(tmp_path)] == [("nan", "inf")]
    assert writer.failed == ["loss"]
    with pytest.raises(ValueError, match="not JSON compliant"):
        append_synced(tmp_path / "results.jsonl", {"value": float("nan")})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "smoke,smok"], "no part is called smok; choose from draw, env, pytest, smoke, failures, sync"),
        (["--budget", "0"], "must be a positive number of seconds"),
        (["--budget", "long"], "invalid float value"),
    ],
)
def test_wrong_arguments_exit_with_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    with pytest.raises(SystemExit) as exit_:
        gpu_check.main(["--out", str(tmp_path / "out"), *arguments])
    assert exit_.value.code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_file_in_the_place_of_the_folder_exits_with_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "out").touch()
    with pytest.raises(SystemExit) as exit_:
        gpu_check.main(["--out", str(tmp_path / "out")])
    assert exit_.value.code == 2
    assert "out: cannot be a folder: File exists; give another" in capsys.readouterr().err


def test_parts_are_scripts_that_share_the_reference_budget(tmp_path: Path) -> None:
    parts = gpu_check.parts_of(tmp_path, "cuda")
    assert sum(part.seconds for part in parts if not part.background) == 500
    for one in parts:
        command = one.command(60.0)
        assert Path(command[1]).is_file()
        assert "--small" not in command
    assert all("--small" in one.command(60.0) for one in gpu_check.parts_of(tmp_path, "cpu"))


def test_driver_imports_no_torch() -> None:
    code = "import sys, gpu_check, gpu_experiments, gpu_tests; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=BENCHMARKS, check=False).returncode == 0


@pytest.fixture
def started(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A check of which the first part is running."""
    script = [sys.executable, "-u", str(BENCHMARKS / "gpu_check.py"), "--device", "cpu", "--only", "env,sync"]
    process = subprocess.Popen([*script, "--out", str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert "env: started" in process.stdout.readline()
    yield process
    process.kill()
    process.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_check_prints_the_table_and_exits_with_130(
    started: subprocess.Popen[str], tmp_path: Path, number: int
) -> None:
    started.send_signal(number)
    printed, _ = started.communicate(timeout=60)
    assert started.returncode == 130
    assert "env: interrupted" in printed
    assert "0 parts done, 0 failed, 1 to be continued, 0 not started" in printed
    assert ends_of(tmp_path) == [("env", "interrupted")]
    assert {path.name for path in tmp_path.iterdir()} <= FILES


def test_tar_file_holds_records_of_finished_cells_without_weights(tmp_path: Path) -> None:
    results, tar = tmp_path / "results", tmp_path / "results.tar"
    for cell, files in {"done": ("result.json", "weights.safetensors", "lock"), "half": ("history.jsonl",)}.items():
        (results / "cells" / cell).mkdir(parents=True)
        for file in files:
            (results / "cells" / cell / file).write_text(file)
    (results / "plan.json").write_text("not a plan")
    gpu_experiments.pack(results, tar)
    with tarfile.open(tar) as archive:
        assert set(archive.getnames()) == {"plan.json", "cells/done/result.json"}
    gpu_experiments.unpack(tar, tmp_path / "again")
    assert (tmp_path / "again" / "cells" / "done" / "result.json").read_text() == "result.json"
    assert {path.name for path in tmp_path.iterdir()} == {"results", "results.tar", "again"}


def test_four_stage_runs_the_named_combinations_first(plan_cells: PlanCells) -> None:
    named, everything = gpu_experiments.selections("four_stage")
    cells = [cell for cell in plan_cells("four_stage") if cell.seed == 0]
    assert {cell.name for cell in select_cells(cells, named)} == {
        "CRNN", "RARE", "R2AM", "STAR-Net", "GRCNN", "Rosetta", "TRBA"
    }  # fmt: skip
    assert (len(select_cells(cells, named)), len(select_cells(cells, everything))) == (7, 24)
    assert gpu_experiments.selections("quickstart") == [""]


@pytest.mark.slow
def test_quickstart_killed_half_way_goes_on_from_its_tar_file(tmp_path: Path) -> None:
    tar, out = tmp_path / "quickstart.tar", tmp_path / "results.jsonl"
    script = [sys.executable, str(BENCHMARKS / "gpu_experiments.py"), "quickstart", "--small", "--device", "cpu"]
    command = [*script, "--tar", str(tar), "--out", str(out)]

    def finished() -> int:
        if not tar.exists():
            return 0
        with tarfile.open(tar) as archive:
            return sum(name.endswith("result.json") for name in archive.getnames())

    killed = subprocess.Popen(command, process_group=0, env=os.environ | {"TMPDIR": str(tmp_path)})
    deadline = time.monotonic() + 120
    while not finished():
        assert killed.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    kept = finished()
    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    assert f"{kept} of 2 cells have results already" in again.stderr
    assert finished() == 2
    values = {line["name"]: line["value"] for line in lines_of(tmp_path)}
    assert values["cells"] == "2 done"
    assert values["least exact match"] == "not applied to a small run"


@pytest.mark.slow
def test_check_runs_parts_small_on_the_cpu(tmp_path: Path) -> None:
    script = [sys.executable, str(BENCHMARKS / "gpu_check.py"), "--device", "cpu", "--budget", "60"]
    command = [*script, "--only", "env,pytest", "--out", str(tmp_path)]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stdout
    assert {path.name for path in tmp_path.iterdir()} == {
        "results.jsonl",
        "table.txt",
        "log.txt",
        "env.json",
        "junit.xml",
    }
    assert ends_of(tmp_path) == [("env", "done"), ("pytest", "done")]
    tests = next(line for line in lines_of(tmp_path) if line["name"] == "tests")
    assert tests["value"].startswith("0 run, ")
    assert json.loads((tmp_path / "env.json").read_text())["environment"]["torch"]
