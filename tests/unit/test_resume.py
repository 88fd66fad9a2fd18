"""Resume: which results hold, what is said of those made under other conditions, and when they are replaced."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from helpers.recording import make_cell, make_record, publish
from helpers.training import observe, train

from decoderbench import hookimpl
from decoderbench.execution.resume import Repeat, Resume
from decoderbench.records.results_directory import ResultsDirectory
from decoderbench.records.schema import RunRecord
from decoderbench.registry.registry import Registry

NOW = {
    "machine": "AMD EPYC",
    "threads": "1",
    "cpu_capability": "AVX2",
    "torch": "2.11",
    "timm": "1.0.22",
    "python": "3.12",
    "commit": "abc",
    "sources": "new",
}
CELLS = [make_cell(decoder) for decoder in ("a", "b", "c")]


def resume(path: Path, environments: list[dict[str, str]], repeat: Repeat, **changes: Any) -> Resume:
    records = [
        make_record(cell, environment=environment, **changes)
        for cell, environment in zip(CELLS, environments, strict=False)
    ]
    return Resume(publish(path, CELLS, records), CELLS, NOW, repeat)


def titles(found: Resume) -> list[str]:
    return [cell.decoder.label for cell in found.pending]


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("machine", "Xeon", "device Xeon, now AMD EPYC"),
        ("threads", "2", "threads 2, now 1"),
        ("cpu_capability", "AVX512", "CPU capability AVX512, now AVX2"),
        ("torch", "2.10", "torch 2.10, now 2.11"),
        ("timm", "1.0.20", "timm 1.0.20, now 1.0.22"),
        ("sources", "old", "decoderbench sources old, now new"),
    ],
)
def test_result_of_other_conditions_is_kept_with_one_warning_and_retrained_on_request(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, value: str, words: str
) -> None:
    environments = [NOW | {name: value}, NOW]
    assert titles(resume(tmp_path / "kept", environments, Repeat())) == ["c"]
    assert caplog.messages == [
        f"1 result was made under other conditions: {words} (1 cell); --retrain-changed trains it again"
    ]
    assert caplog.records[0].levelno == logging.WARNING
    again = resume(tmp_path / "again", environments, Repeat(changed=True))
    assert titles(again) == ["a", "c"]
    assert again.directory.read(CELLS[0]) is not None, "deleted before the cell starts again"
    assert [record.cell.decoder.label for record in again.records()] == ["b"]


def test_warning_counts_the_cells_of_each_difference(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    old = NOW | {"torch": "2.10"}
    resume(tmp_path, [old | {"threads": "2"}, old, NOW | {"threads": "4"}], Repeat())
    assert caplog.messages == [
        "3 of 3 results were made under other conditions: threads 2, now 1 (1 cell); threads 4, now 1 (1 cell); torch "
        "2.10, now 2.11 (2 cells); --retrain-changed trains them again"
    ]


def test_python_commit_and_threads_in_an_old_name_of_the_machine_are_no_differences(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    same = NOW | {"python": "3.11", "commit": "other", "machine": "AMD EPYC, 1 threads"}
    assert titles(resume(tmp_path, [same] * 3, Repeat(changed=True))) == []
    assert caplog.messages == []


def test_conditions_that_an_old_record_does_not_state_are_noted_mildly(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    old = {name: value for name, value in NOW.items() if name not in ("sources", "cpu_capability")}
    with caplog.at_level(logging.INFO):
        assert titles(resume(tmp_path / "kept", [old, old, NOW], Repeat())) == []
    assert caplog.messages == [
        "2 results do not state their CPU capability, decoderbench sources, so these are not compared; "
        "--retrain-changed trains them again"
    ]
    assert caplog.records[0].levelno == logging.INFO
    assert titles(resume(tmp_path / "again", [old, old, NOW], Repeat(changed=True))) == ["a", "b"]


def test_condition_that_a_component_changes_in_every_run_is_no_difference(tmp_path: Path) -> None:
    changed = NOW | {"threads": "2", "given_threads": "1"}
    assert titles(resume(tmp_path, [NOW, changed, changed | {"given_threads": "4"}], Repeat(changed=True))) == ["c"]


def test_failed_cells_of_other_conditions_are_left_to_retry_failed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = [NOW | {"torch": "2.10"}] * 3
    assert titles(resume(tmp_path, other, Repeat(changed=True), status="failed", reason="x")) == []
    assert titles(resume(tmp_path, other, Repeat(failed=True), status="failed", reason="x")) == ["a", "b", "c"]
    assert caplog.messages == []


def test_result_that_another_process_has_made_meanwhile_holds(tmp_path: Path) -> None:
    found = resume(tmp_path, [NOW | {"torch": "2.10"}] * 3, Repeat(changed=True))
    assert not found.is_done(CELLS[0])
    found.directory.publish(make_record(CELLS[0], environment=NOW))
    assert found.is_done(CELLS[0])


def test_result_of_a_cell_that_was_trained_again_holds_whatever_it_states(tmp_path: Path) -> None:
    old = NOW | {"torch": "what a trainer of its own states"}
    found = resume(tmp_path, [old] * 3, Repeat(changed=True))
    found.directory.delete_result(CELLS[0])
    assert not found.is_done(CELLS[0])
    found.directory.publish(make_record(CELLS[0], environment=old))
    found.note_new_result(CELLS[0])
    assert found.is_done(CELLS[0])


def test_cell_that_is_no_longer_infeasible_runs(tmp_path: Path) -> None:
    then = [make_cell(infeasible="needs 9 frames, has 4"), make_cell("b", infeasible="needs 9 frames, has 4")]
    now = [make_cell(), then[1]]
    assert then[0].cell_id == now[0].cell_id
    directory = publish(
        tmp_path, then, [make_record(cell, status="infeasible", reason=cell.infeasible) for cell in then]
    )
    assert Resume(directory, now, NOW, Repeat()).pending == [now[0]]


def change(directory: Path, decoder: int, **environment: str) -> Path:
    """Change the environment of a record; return its file."""
    found = ResultsDirectory(directory)
    cell = found.read_plan().cells[decoder]
    record = found.read(cell)
    assert isinstance(record, RunRecord)
    found.publish(record.model_copy(update={"environment": record.environment | environment}))
    return found.cell_directory(cell) / "result.json"


def test_run_retrains_exactly_the_changed_cells_and_an_interruption_leaves_them_pending(
    tiny: dict[str, Any], tiny_registry: Registry, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = train(tiny, tiny_registry, tmp_path)
    loop, attention = change(tmp_path, 0, torch="1.0"), change(tmp_path, 2, torch="1.0")
    observer = observe(tiny_registry)
    train(tiny, tiny_registry, tmp_path)
    assert observer.started == []
    assert "2 of 3 results were made under other conditions: torch 1.0, now " in caplog.text

    class Interrupts:
        @hookimpl
        def cell_validated(self, step: int) -> None:
            raise KeyboardInterrupt

    tiny_registry.plugins.add(Interrupts(), "interrupts")
    with pytest.raises(KeyboardInterrupt):
        train(tiny, tiny_registry, tmp_path, retrain_changed=True)
    assert not loop.exists(), "a result beside artifacts of another training"
    assert json.loads(attention.read_text())["environment"]["torch"] == "1.0"
    tiny_registry.plugins.manager.unregister(name="interrupts")
    frame = train(tiny, tiny_registry, tmp_path, retrain_changed=True)
    assert observer.started == ["loop", "loop", "attention"]
    assert list(frame["exact_match"]) == list(first["exact_match"])
    caplog.clear()
    train(tiny, tiny_registry, tmp_path)
    assert "other conditions" not in caplog.text


def test_record_of_a_trainer_that_states_no_origin_gets_it(
    tiny: dict[str, Any], tiny_registry: Registry, tmp_path: Path
) -> None:
    class States:
        @hookimpl(wrapper=True)
        def run_cell(self, cell: Any, context: Any) -> Any:
            return (yield).model_copy(update={"environment": {"optimizer": "mine", "threads": "7"}, "device": ""})

    tiny_registry.plugins.add(States(), "states nothing")
    tiny["grid"]["decoder"] = {"ctc": tiny["grid"]["decoder"]["ctc"]}
    frame = train(tiny, tiny_registry, tmp_path)
    record = json.loads(next(tmp_path.glob("cells/*/result.json")).read_text())
    assert {"torch", "timm", "threads", "machine", "sources", "dataset_source", "optimizer"} <= set(
        record["environment"]
    )
    assert (record["environment"]["threads"], record["environment"]["given_threads"]) == ("7", "1")
    assert record["environment"]["wrappers"].startswith("states nothing ")
    assert record["device"] == record["environment"]["machine"] == frame.loc[0, "device"]


def test_retried_cell_that_another_process_is_trying_already_keeps_its_files(tmp_path: Path) -> None:
    failed = [make_record(cell, environment=NOW, status="failed", reason="x") for cell in CELLS]
    directory = publish(tmp_path, CELLS, failed)
    with ResultsDirectory(tmp_path).lease(CELLS[0]) as held:
        assert held
        found = Resume(directory, CELLS, NOW, Repeat(failed=True))
    assert (directory.cell_directory(CELLS[0]) / "result.json").exists()
    assert found.pending == CELLS[1:]
