"""The rules for the record that a plugin's `run_cell` returns."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from helpers.recording import make_cell

from decoderbench import hookimpl
from decoderbench.config.cell import Cell
from decoderbench.errors import PluginError
from decoderbench.exception_text import MAX_TEXT
from decoderbench.records.schema import Cost, RunRecord
from decoderbench.registry import record_rules
from decoderbench.registry.plugin_manager import Plugins, build_plugin_manager
from decoderbench.registry.record_rules import accept_record

METRICS = {"exact_match": 0.5, "cer": 0.25, "one_minus_ned": 0.75, "nats_per_char": 1.5}


@pytest.fixture
def cell() -> Cell:
    cell = make_cell()
    return cell.model_copy(update={"decoder": cell.decoder.model_copy(update={"options": {"hidden_dim": 8}})})


def record_of(cell: Cell, **changes: Any) -> RunRecord:
    done = RunRecord(cell=cell, status="done", metrics=METRICS, num_test=20, kept_step=3)
    return done.model_copy(update=changes)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"metrics": {"exact_match": 0.0}},
        {"metrics": METRICS | {"exact_match": 1, "cer": 7.5, "nats_per_char": None, "mine": -3.0}},
        {"metrics": METRICS | {"exact_match": np.float32(0.5)}},
        {"cost": Cost(latency_ms=0.0)},
        {"status": "failed", "reason": "no", "metrics": {}, "num_test": None, "kept_step": None},
    ],
)
def test_record_within_the_rules_is_taken_as_it_is(cell: Cell, changes: dict[str, Any]) -> None:
    record = record_of(cell, **changes)
    assert accept_record(record, cell, 20) == record


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        (
            {"metrics": METRICS | {"exact_match": 5.0}},
            "exact_match = 5.0, which is a fraction of 1 and must be in 0..1",
        ),
        ({"format": 9}, "format = 9, which must be 6"),
        ({"metrics": METRICS | {"exact_match": -0.1}}, "exact_match = -0.1, which is a fraction"),
        ({"metrics": METRICS | {"one_minus_ned": 1.5}}, "one_minus_ned = 1.5, which is a fraction"),
        (
            {"metrics": METRICS | {"exact_match": float("nan")}},
            "metrics.exact_match = nan: nan of type float is not a finite number",
        ),
        ({"metrics": METRICS | {"nats_per_char": float("inf")}}, "inf of type float is not a finite number"),
        ({"metrics": METRICS | {"mine": "high"}}, "metrics.mine = 'high': 'high' of type str is not a number"),
        ({"metrics": METRICS | {"exact_match": True}}, "True of type bool is not a number"),
        ({"metrics": METRICS | {"cer": -0.5}}, "cer = -0.5, which must be at least 0"),
        ({"metrics": {}}, "the status done and no exact_match"),
        ({"metrics": METRICS | {"exact_match": None}}, "the status done and no exact_match"),
        ({"num_test": 19}, "num_test = 19, which must be 20, the images of the test split"),
        ({"num_test": None}, "num_test = None, which must be 20"),
        ({"kept_step": -1}, "kept_step = -1, which must be at least 0"),
        ({"cost": Cost().model_copy(update={"latency_ms": -2.0})}, "latency_ms = -2.0, which must be at least 0"),
        ({"environment": {"gpu_hours": 0.5}}, "environment.gpu_hours = 0.5: Input should be a valid string"),
        ({"device": "x" * 5000}, "'device' of 5,000 characters, which must be text of at most 1000"),
        ({"device": "\udc80"}, "a record that cannot be written and read"),
        ({"status": "failed"}, "the status failed and no reason"),
        ({"status": "finished"}, "a record with status = 'finished': Input should be 'done'"),
        ({"cost": 5}, "a record that cannot be written and read"),
    ],
    ids=lambda value: "" if isinstance(value, dict) else value[:30],
)
def test_record_that_breaks_a_rule_is_refused_with_the_rule(cell: Cell, changes: dict[str, Any], rule: str) -> None:
    with pytest.raises(ValueError, match=r"^a record ") as caught:
        accept_record(record_of(cell, **changes), cell, 20)
    assert rule in str(caught.value)


def test_record_that_is_too_large_to_be_read_again_is_refused(cell: Cell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record_rules, "MAX_RECORD", 5000)
    accept_record(record_of(cell), cell, 20)
    with pytest.raises(ValueError, match=r"^a record of [\d,]+ characters, which must have at most 5,000$"):
        accept_record(record_of(cell, metrics=METRICS | {"x" * 5000: 0.5}), cell, 20)


def test_record_of_another_cell_is_refused(cell: Cell) -> None:
    with pytest.raises(ValueError, match=r"^the record of another cell"):
        accept_record(record_of(make_cell(seed=1)), cell, 20)


def test_reason_of_a_record_becomes_one_printable_line_of_bounded_length(cell: Cell) -> None:
    reason = "first\nsecond \x1b[31m \udc80" + "x" * 5_000_000
    accepted = accept_record(record_of(cell, status="failed", reason=reason), cell, 20)
    assert accepted.reason.startswith(r"first second \x1b[31m \udc80xxx")
    assert accepted.reason.endswith("... (5,000,020 characters)")
    assert len(accepted.reason) < MAX_TEXT + 50


def run_cell_with(plugin: object, cell: Cell) -> RunRecord:
    plugins: Plugins = build_plugin_manager(installed=False)
    plugins.add(plugin, "mine")
    context: Any = SimpleNamespace(dataset=SimpleNamespace(rows=lambda split: range(20)))
    return plugins.run_cell(cell, context)


@pytest.mark.parametrize("returned", [5, "done", None, {"exact_match": 1.0}])
def test_other_than_a_record_is_refused_and_the_plugin_named(cell: Cell, returned: object) -> None:
    class Trainer:
        @hookimpl
        def run_cell(self) -> object:
            return returned

    with pytest.raises(PluginError, match=r"^run_cell of plugin mine returned .* instead of this cell's record"):
        run_cell_with(Trainer(), cell)


def test_object_whose_repr_raises_is_refused(cell: Cell) -> None:
    class Odd:
        def __repr__(self) -> str:
            raise SystemExit

    class Trainer:
        @hookimpl
        def run_cell(self) -> object:
            return Odd()

    with pytest.raises(PluginError, match="returned an object of class Odd instead of this cell's record"):
        run_cell_with(Trainer(), cell)


def test_trainer_that_changes_the_options_of_its_cell_changes_its_own_copy(cell: Cell) -> None:
    class Trainer:
        @hookimpl
        def run_cell(self, cell: Any) -> object:
            cell.decoder.options.clear()
            return record_of(cell)

    before = cell.model_dump_json()
    with pytest.raises(PluginError, match="run_cell of plugin mine returned the record of another cell"):
        run_cell_with(Trainer(), cell)
    assert cell.model_dump_json() == before


def observe_with(change: Callable[[Any], object], hook: str, **arguments: Any) -> None:
    """Notify an observer that changes the last argument."""
    name = list(arguments)[-1]
    namespace: dict[str, Any] = {"hookimpl": hookimpl, "change": change}
    exec(f"class Observer:\n    @hookimpl\n    def {hook}(self, {name}): change({name})", namespace)
    plugins = build_plugin_manager(installed=False)
    plugins.add(namespace["Observer"](), "mine")
    plugins.notify(hook, **arguments)


def test_observers_change_copies_of_their_arguments(cell: Cell, tmp_path: Path) -> None:
    scores, record, cells = {"val_exact_match": 0.5}, record_of(cell), [cell]
    observe_with(lambda scores: scores.clear(), "cell_validated", cell=cell, step=1, scores=scores)
    observe_with(lambda record: record.metrics.clear(), "cell_finished", cell=cell, record=record)
    observe_with(lambda cells: cells.clear(), "run_started", directory=tmp_path, cells=cells)
    observe_with(lambda cell: cell.encoder.options.update(more=1), "cell_started", cell=cell)
    assert (scores, record, cells) == ({"val_exact_match": 0.5}, record_of(cell), [cell])
    assert "more" not in cell.encoder.options
