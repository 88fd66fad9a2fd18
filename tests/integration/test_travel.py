"""`Node`: another machine runs cells of a run with none of its files, or says in one line why it cannot."""

from __future__ import annotations

import hashlib
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers import other_machine
from helpers.other_machine import Answer, Question
from helpers.running import TINY_PLUGIN
from helpers.training import train

from decoderbench import (
    CellEvent,
    CellOutcome,
    CellTask,
    Experiment,
    Node,
    PendingCellsError,
    Reserved,
    TravelingWork,
    build_plugin_manager,
    prepare,
)
from decoderbench.execution.resident_data import DataSource
from decoderbench.execution.work import CellWork
from decoderbench.records.cell_progress import read_progress
from decoderbench.records.schema import same_result
from decoderbench.registry.registry import Registry

Ask = Callable[..., Answer]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """The folder of all files of a run: a plugin with a module beside it, the image cache, the results."""
    plugins = tmp_path / "home" / "plugins"
    plugins.mkdir(parents=True)
    text = TINY_PLUGIN.read_text(encoding="utf-8").replace(".relu()", ".relu() * words_of_travel.ONE")
    (plugins / "mine.py").write_text(f"import words_of_travel\n{text}", encoding="utf-8")
    (plugins / "words_of_travel.py").write_text("ONE = 1\n", encoding="utf-8")
    return tmp_path / "home"


@pytest.fixture
def plugin(home: Path) -> str:
    """What the user has named."""
    return str(home / "plugins" / "mine.py")


@pytest.fixture
def work(tiny: dict[str, Any], home: Path, plugin: str, monkeypatch: pytest.MonkeyPatch) -> CellWork:
    """The work of a grid of one cell."""
    monkeypatch.syspath_prepend(str(home / "plugins"))
    for module in ("words_of_travel", "mine"):
        monkeypatch.delitem(sys.modules, module, raising=False)  # that of the test before
    monkeypatch.setenv("DECODERBENCH_CACHE", str(home / "cache"))
    tiny["training"]["steps"] = 2
    tiny["grid"]["decoder"] = {"ctc": tiny["grid"]["decoder"]["ctc"]}
    registry = Registry(build_plugin_manager([plugin]))
    prepared = prepare(Experiment(**tiny), registry=registry)
    data = {
        key: DataSource(one.images.directory.resolve(), one.audit, one.dataset.name, one.images)
        for key, one in prepared.data.items()
    }
    sources = registry.plugins.sources
    return CellWork(home / "results", sources, data, "cpu", 1, checkpoint_every=60.0, registry=registry)


@pytest.fixture
def task(tiny: dict[str, Any], work: CellWork) -> CellTask:
    """The task of its cell."""
    (cell,) = prepare(Experiment(**tiny), registry=work.loaded()).cells
    return CellTask(cell, {"jobs": "7", "machine": "that of the run"})


@pytest.fixture
def traveling(work: CellWork) -> Iterator[TravelingWork]:
    """The work as another machine gets it."""
    with closing(TravelingWork.of(work)) as traveling:
        yield traveling


@pytest.fixture
def ask(home: Path, tmp_path: Path) -> Ask:
    """Return what another machine answers, on which nothing of `home` exists."""

    def ask(
        traveling: TravelingWork, task: CellTask, files: dict[str, bytes] | None = None, *, stop: bool = False
    ) -> Answer:
        given, answered, away = tmp_path / "given", tmp_path / "answered", tmp_path / "away"
        given.write_bytes(pickle.dumps(Question(traveling, task, home, files or {}, stop)))
        home.rename(away)
        places = [str(Path(other_machine.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
        environment = os.environ | {
            "DECODERBENCH_CACHE": str(tmp_path / "cache there"),
            "PYTHONPATH": os.pathsep.join(filter(None, places)),
        }
        try:
            command = [sys.executable, other_machine.__file__, str(given), str(away), str(answered)]
            subprocess.run(command, check=True, env=environment, timeout=120)
        finally:
            away.rename(home)
        answer: Answer = pickle.loads(answered.read_bytes())
        return answer

    return ask


def digests(folder: Path) -> dict[str, str]:
    names = ("weights.safetensors", "predictions.parquet", "val_predictions.parquet")
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}


@pytest.mark.slow
def test_machine_without_any_file_gets_all_and_its_result_comes_back(
    tiny: dict[str, Any], work: CellWork, task: CellTask, traveling: TravelingWork, ask: Ask, tmp_path: Path
) -> None:
    reserved = Reserved.take(work, task)
    assert isinstance(reserved, Reserved)
    assert Reserved.take(work, task) == CellOutcome(task.cell, held=True)
    answer = ask(traveling, task)
    assert answer.error == ""
    assert not answer.sees_results
    assert {file.parent for file in answer.missing} == {source.images for source in work.data.values()}
    assert answer.events[0].hook == "cell_started"
    assert answer.files is not None
    outcome = reserved.publish(answer.files)
    directory = work.directory()
    assert outcome.new
    assert outcome.record == directory.check(task.cell)
    assert outcome.record.status == "done"
    stated = outcome.record.environment
    assert (stated["jobs"], stated["threads"]) == ("7", "1")
    assert stated["machine"] != "that of the run"
    assert Reserved.take(work, task) == CellOutcome(task.cell, outcome.record)
    train(tiny, work.loaded(), tmp_path / "expected", executor="inline")
    (expected,) = (tmp_path / "expected" / "cells").iterdir()
    assert digests(directory.cell_directory(task.cell)) == digests(expected)
    again = ask(traveling, task)
    assert again.missing == (), "images were sent twice to a machine"


@pytest.mark.slow
def test_cell_that_is_stopped_there_goes_on_from_what_came_back(
    tiny: dict[str, Any], home: Path, work: CellWork, traveling: TravelingWork, ask: Ask, tmp_path: Path
) -> None:
    tiny["training"] |= {"steps": 3000, "validate_every": 100}
    (cell,) = prepare(Experiment(**tiny), registry=work.loaded()).cells
    task = CellTask(cell, {"jobs": "1"})
    reserved = Reserved.take(work, task)
    assert isinstance(reserved, Reserved)
    assert reserved.files == {}
    stopped = ask(traveling, task, stop=True)
    assert stopped.outcome is not None
    assert stopped.outcome.ended is not None
    assert stopped.outcome.ended.saved_step is not None
    assert stopped.files is not None
    reserved.keep(stopped.files)
    reserved.release()
    assert work.directory().read(cell) is None
    again = Reserved.take(work, task)
    assert isinstance(again, Reserved)
    finished = ask(traveling, task, again.files)
    assert finished.files is not None
    assert again.publish(finished.files).record is not None
    steps = [event.arguments["step"] for event in finished.events if event.hook == "cell_validated"]
    assert steps[0] > stopped.outcome.ended.saved_step - 100
    assert steps[0] > 100
    folder = work.directory().cell_directory(cell)
    assert not list(folder.glob("checkpoint/*"))
    train(tiny, work.loaded(), tmp_path / "expected", executor="inline")
    assert digests(folder) == digests(tmp_path / "expected" / "cells" / cell.cell_id)


@pytest.mark.slow
@pytest.mark.parametrize("plugin", ["mine"])
def test_plugin_that_is_a_module_travels_too(plugin: str, task: CellTask, traveling: TravelingWork, ask: Ask) -> None:
    answer = ask(traveling, task)
    assert answer.error == ""
    assert answer.outcome is not None
    assert answer.outcome.record is not None
    assert answer.outcome.record.status == "done"


def test_status_shows_the_machine_that_trains_a_cell_of_the_run(work: CellWork, task: CellTask) -> None:
    reserved, told = Reserved.take(work, task), list[CellEvent]()
    assert isinstance(reserved, Reserved)
    report = reserved.noting("there", told.append)
    event = CellEvent("cell_progressed", {"cell": task.cell, "step": 2, "loss": 0.5})
    report(event)
    assert told == [event]
    folder = work.directory().cell_directory(task.cell)
    progress = read_progress(folder)
    assert progress is not None
    assert progress.host == "there"
    assert reserved.files == {}
    reserved.release()
    assert read_progress(folder) is None


def test_machine_that_sees_the_files_needs_none_and_publishes_the_result(
    work: CellWork, task: CellTask, traveling: TravelingWork
) -> None:
    with closing(Node(traveling)) as node:
        assert node.sees_results
        assert node.missing == ()
        node.open(lambda event: None)
        outcome = node.run(task)
    assert outcome.record is not None
    assert same_result(outcome.record, work.directory().check(task.cell))
    traveling.close()
    assert [path.name for path in work.results.iterdir()] == ["cells"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["decoderbench", "the source of encoder 'tiny_cnn'", "the source of decoder 'new'"])
def test_other_version_there_is_named_and_nothing_is_run(
    name: str, task: CellTask, traveling: TravelingWork, ask: Ask
) -> None:
    sources = {**traveling.sources, name: "another"}
    here = traveling.sources.get(name, "missing")
    answer = ask(replace(traveling, sources=sources), task)
    assert answer.error.startswith(f"{name} is {here} on this machine, but another where the run started; install")
    assert answer.outcome is None


def test_file_that_changes_while_it_is_sent_is_refused(
    traveling: TravelingWork, task: CellTask, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(home / "cache", tmp_path / "away")
    monkeypatch.setenv("DECODERBENCH_CACHE", str(tmp_path / "cache there"))
    shutil.rmtree(home / "cache")
    with closing(Node(traveling)) as node:
        file = next(file for file in node.missing if file.name == "meta.json")
        with pytest.raises(PendingCellsError, match=r"meta\.json has changed while it was sent"):
            node.put(file, b"shorter", last=True)


def test_pieces_of_a_file_are_its_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("decoderbench.execution.travel.CHUNK_BYTES", 4)
    file = tmp_path / "file"
    for content in (b"", b"123", b"1234", b"123456789"):
        file.write_bytes(content)
        assert b"".join(TravelingWork.read(file)) == content
