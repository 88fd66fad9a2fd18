"""Full disks, quotas, read-only folders and failing devices: nothing is lost, no cell fails, the next run goes on."""

import errno
import hashlib
import json
import os
import re
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch
from helpers.commands import call, leave_out_figures
from helpers.disk import ADVISORY, Disk, mounted
from helpers.experiments import micro_experiment
from helpers.running import TINY_PLUGIN, to_toml
from helpers.training import add_variant, train

import decoderbench
from decoderbench import Experiment
from decoderbench.analysis.frame import load_results
from decoderbench.files.storage import StorageError
from decoderbench.planning.prepare import Prepared, prepare
from decoderbench.records.results_directory import ResultsDirectory
from decoderbench.records.schema import Cost
from decoderbench.registry.plugin_manager import build_plugin_manager
from decoderbench.registry.registry import Registry
from decoderbench.runs.runner import execute
from decoderbench_plugins.decoders.lstm_ctc import LSTMCTC

EXPERIMENT = micro_experiment(train=8, val=2, steps=2)
EXPERIMENT["grid"] |= {"seeds": [0, 1], "decoder": {"ctc": EXPERIMENT["grid"]["decoder"]["ctc"]}}
VARYING = {*Cost.model_fields, "measured", "jobs", "commit"}
"""Columns that differ between two runs of the same grid; the last one where somebody works in the checkout."""

ERRORS = [errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EFBIG]


class Micro:
    """A grid of two cells, prepared once; `run` executes it in a folder."""

    def __init__(self, reference: Path) -> None:
        registry = Registry(build_plugin_manager([str(TINY_PLUGIN)]))
        self.prepared: Prepared = prepare(Experiment(**EXPERIMENT), registry=registry, audit_images=True)
        disk = Disk(reference)
        with disk.watching():
            self.run(reference)
        self.operations = disk.operations
        self.results = contents(reference)

    def run(self, folder: Path) -> None:
        device = torch.device("cpu")
        execute(self.prepared, ResultsDirectory(folder), device, executor="inline", checkpoint_every=1e-6)

    def run_on(self, disk: Disk) -> None:
        """Run on a disk that fails, then again once it is in order, and compare with the reference."""
        folder = disk.root
        name = Path(self.operations[disk.fails_at - 1][1]).name
        if not disk.lasting and name in ADVISORY:  # tried again, or ignored: no result depends on it
            with disk.watching(), suppress(StorageError):
                self.run(folder)
            self.run(folder)
            assert contents(folder) == self.results
            return
        with disk.watching(), pytest.raises(StorageError) as raised:
            self.run(folder)
        assert raised.value.exit_code == 4
        assert str(folder) in str(raised.value)
        assert "bytes are free there" in str(raised.value)
        assert str(raised.value).endswith("; give the same command again to go on")
        directory = ResultsDirectory(folder)
        done = {}
        for cell in self.prepared.cells:
            record = directory.check(cell)
            assert record is None or record.status == "done", record.reason
            if record is not None:
                done[cell.cell_id] = (folder / "cells" / cell.cell_id / "result.json").read_bytes()
        self.run(folder)
        assert contents(folder) == self.results
        for cell_id, content in done.items():  # not trained again
            assert (folder / "cells" / cell_id / "result.json").read_bytes() == content
        assert not list(folder.rglob("*.tmp"))
        assert not list(folder.rglob("*.damaged*"))


def contents(folder: Path) -> dict[str, str]:
    """Return a digest of everything in a results folder that is the same in each run."""
    found = {}
    for path in sorted(folder.rglob("*")):
        content = path.read_bytes() if path.suffix in (".parquet", ".safetensors") else b""
        if path.suffix == ".jsonl":
            rows = [json.loads(line) for line in path.read_text().splitlines()]
            content = json.dumps([row | {"seconds": None} for row in rows]).encode()
        if content:
            found[path.relative_to(folder).as_posix()] = hashlib.sha256(content).hexdigest()
    table = load_results(folder).recorded
    constant = table.drop(columns=[name for name in table.columns if name in VARYING])
    return found | {"table": constant.to_csv(), "cells.csv": str((folder / "tables/cells.csv").exists())}


@pytest.fixture(scope="module")
def micro(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Micro]:
    with pytest.MonkeyPatch.context() as patch:
        leave_out_figures(patch)
        yield Micro(tmp_path_factory.mktemp("reference"))


def test_run_names_every_file_only_after_its_content_is_on_the_disk(micro: Micro) -> None:
    assert len([name for name, _ in micro.operations if name == "replace"]) > 10
    assert Disk(Path(), operations=micro.operations).unsafe() == []


@pytest.mark.parametrize("part", [0.3, 0.97])
def test_full_disk_leaves_cells_pending_and_the_next_run_equals_one_without_it(
    micro: Micro, part: float, tmp_path: Path
) -> None:
    micro.run_on(Disk(tmp_path, errno.ENOSPC, 1 + int(part * len(micro.operations))))


@pytest.mark.slow
@pytest.mark.parametrize("offset", range(3))
def test_every_twelfth_failing_operation_costs_nothing(micro: Micro, offset: int, tmp_path: Path) -> None:
    for number in range(1 + 4 * offset, len(micro.operations) + 1, 12):
        micro.run_on(Disk(tmp_path / str(number), ERRORS[number % 4], number, lasting=number % 3 > 0))


@pytest.mark.chaos
@pytest.mark.parametrize("lasting", [True, False])
@pytest.mark.parametrize("error", ERRORS, ids=errno.errorcode.get)
def test_every_failing_operation_costs_nothing(micro: Micro, error: int, lasting: bool, tmp_path: Path) -> None:
    for number in range(1, len(micro.operations) + 1):
        micro.run_on(Disk(tmp_path / str(number), error, number, lasting))


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("size", [4000])
def test_limit_on_the_size_of_files_leaves_cells_pending(micro: Micro, size: int, tmp_path: Path) -> None:
    with largest_file(size), pytest.raises(StorageError, match="file too large"):
        micro.run(tmp_path)
    assert not list(tmp_path.glob("cells/*/traceback.txt"))
    micro.run(tmp_path)
    assert contents(tmp_path) == micro.results


@pytest.mark.chaos
def test_every_limit_on_the_size_of_files_leaves_cells_pending(micro: Micro, tmp_path: Path) -> None:
    for size in range(0, 8000, 250):
        folder = tmp_path / str(size)
        with largest_file(size), suppress(StorageError):
            micro.run(folder)
        micro.run(folder)
        assert contents(folder) == micro.results


@pytest.mark.slow
def test_filesystems_of_every_size_leave_cells_pending(micro: Micro, tmp_path: Path) -> None:
    for size in range(4, 45, 8):
        with mounted(tmp_path, f"size={size}k"):
            with pytest.raises(StorageError, match=r"disk full, [\d,]+ bytes are free there; free some space"):
                micro.run(tmp_path / "results")
            subprocess.run(["mount", "-o", "remount,size=10m", tmp_path], check=True)
            micro.run(tmp_path / "results")
            assert contents(tmp_path / "results") == micro.results


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("size=10m,nr_inodes=12", r"disk full, [\d,]+ bytes are free there but no further file"),
        ("ro", r"cannot .* the filesystem is read-only, .* or give another folder"),
    ],
    ids=["without inodes", "read-only"],
)
def test_filesystem_that_takes_no_file_says_why(micro: Micro, tmp_path: Path, options: str, message: str) -> None:
    with mounted(tmp_path, options), pytest.raises(StorageError, match=message):
        micro.run(tmp_path / "results")


def test_full_disk_that_a_component_or_its_wrapper_meets_fails_no_cell(
    tiny: dict[str, Any], tiny_registry: Registry, tmp_path: Path
) -> None:
    full = [True]

    def nll(self: Any, memory: Any, labels: Any) -> Any:
        if full[0]:
            try:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/elsewhere/cache.bin")
            except OSError as error:
                raise ValueError("the cache of this component is broken") from error
        return LSTMCTC.nll(self, memory, labels)

    add_variant(tiny_registry, "decoder", LSTMCTC, "caching", nll=nll)
    tiny["training"]["steps"] = 1
    tiny["grid"]["decoder"] = {"caching": {"use": "caching", "hidden_dim": 4}}
    with pytest.raises(StorageError, match=r"caching / seed 0: cannot use /elsewhere/cache.bin: disk full"):
        train(tiny, tiny_registry, tmp_path, report=True)
    assert not list(tmp_path.glob("cells/*/result.json"))
    full[0] = False
    assert train(tiny, tiny_registry, tmp_path, report=True)["status"].tolist() == ["done"]


def test_report_on_a_full_disk_names_the_file_and_keeps_the_one_before(
    tiny: dict[str, Any], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    results, file = tmp_path / "results", tmp_path / "tiny.toml"
    tiny["training"]["steps"] = 1
    tiny["grid"]["decoder"] = {"ctc": tiny["grid"]["decoder"]["ctc"]}
    file.write_text(to_toml(tiny))
    assert call(capfd, "run", str(file), "-p", str(TINY_PLUGIN), "--results", str(results), "--device", "cpu")[0] == 0
    before = {path.name: path.read_bytes() for path in results.iterdir() if path.is_file()}
    with Disk(results, errno.ENOSPC, 1).watching():
        status, _, printed = call(capfd, "report", str(results))
    assert status == 4
    assert f"cannot write {results / 'tables/cells.csv'} (" in printed
    assert " bytes): disk full, " in printed
    assert {path.name: path.read_bytes() for path in results.iterdir() if path.is_file()} == before


def test_all_files_of_results_are_written_by_the_module_that_syncs_them(
    tiny: dict[str, Any], tiny_registry: Registry, tmp_path: Path
) -> None:
    class Fails(LSTMCTC):
        name = "fails"

        def nll(self, *unused: Any) -> Any:
            raise ValueError("mine")

    tiny_registry["decoder"].add(Fails, "test", "test")
    tiny["training"]["steps"] = 2
    tiny["grid"]["decoder"] = {"fails": {"use": "fails"}, "ctc": tiny["grid"]["decoder"]["ctc"]}
    with watching_writers(tmp_path) as writers:
        train(tiny, tiny_registry, tmp_path, report=True)
    assert {"plan.json", "result.json", "weights.safetensors", "traceback.txt", "report.md", "cells.csv"} <= {
        re.sub(r"\.(at-\w+\.)?\d+\.tmp$", "", name.strip(".")) for name, _ in writers
    }
    others = {(name, module) for name, module in writers if module not in ("storage.py", "locks.py")}
    assert {name for name, module in others if module != "cell_progress.py"} == set()


def test_write_by_another_module_is_noticed(tmp_path: Path) -> None:
    with watching_writers(tmp_path) as writers:
        (tmp_path / "a").write_text("here")
        (tmp_path / "a").read_text()
    assert writers == [("a", "test_full_disk.py")]


_watched: list[tuple[Path, list[tuple[str, str]]]] = []
_hooked = False


@contextmanager
def watching_writers(root: Path) -> Iterator[list[tuple[str, str]]]:
    """Collect the name of each file below a folder that is opened for writing, and the module that does so."""
    global _hooked
    if not _hooked:
        sys.addaudithook(_note_writer)  # cannot be removed, so it does nothing outside of these blocks
        _hooked = True
    writers: list[tuple[str, str]] = []
    _watched.append((root, writers))
    try:
        yield writers
    finally:
        _watched.pop()


def _note_writer(event: str, arguments: tuple[Any, ...]) -> None:
    if not _watched or event != "open" or not isinstance(arguments[0], str):
        return
    root, writers = _watched[-1]
    path, flags = Path(arguments[0]), arguments[2]
    if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) and path.is_relative_to(root):
        writers.append((path.name, _module_of(sys._getframe(1))))


def _module_of(frame: FrameType | None) -> str:
    """Return the file of the innermost frame of this project."""
    ours = (str(Path(decoderbench.__file__).parents[1]), str(Path(__file__).parents[1]))
    while frame is not None and not frame.f_code.co_filename.startswith(ours):
        frame = frame.f_back
    return Path(frame.f_code.co_filename).name if frame is not None else "unknown"
