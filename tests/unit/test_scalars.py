"""Numbers of every class: in scores, records, histories and columns of plugins."""

from decimal import Decimal
from enum import Enum
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from helpers.recording import make_cell, make_record, publish
from pydantic import ValidationError

from decoderbench import CellEvent
from decoderbench.metrics import Definition, Transcriptions
from decoderbench.records.results_directory import ResultsDirectory
from decoderbench.records.schema import Cost, RunRecord, read_lines
from decoderbench.registry.record_rules import accept_record
from decoderbench.registry.registry import Registry
from decoderbench.report import load_frame, load_results
from decoderbench.report.tables import to_csv
from decoderbench.scalars import to_number, to_plain
from decoderbench.training.local_context import LocalContext

TEXTS = Transcriptions(["a"], ["a"], [1.0])

NUMBERS = [
    1.5,
    np.float16(1.5),
    np.float32(1.5),
    np.float64(1.5),
    np.longdouble(1.5),
    np.array(1.5),
    torch.tensor(1.5),
    torch.tensor(1.5, dtype=torch.bfloat16, requires_grad=True),
    Fraction(3, 2),
    Decimal("1.5"),
    np.array(Fraction(3, 2)),
]
WHOLE_NUMBERS = [2, np.int64(2), np.uint8(2), np.array(2), torch.tensor(2), torch.tensor(2, dtype=torch.uint8)]
TRUTH_VALUES = [True, np.True_, np.array(True), torch.tensor(True)]
NO_NUMBERS = [
    1j,
    np.complex64(1),
    torch.tensor(1j),
    [1.0],
    np.array([1.0]),
    torch.tensor([1.0]),
    torch.tensor(1.0, device="meta"),
    np.datetime64("2026-11-27", "ns"),
    np.timedelta64(1, "s"),
    np.ma.masked,
    Decimal("sNaN"),
    Fraction(10**400),
    float,
]
NOT_FINITE = [float("nan"), np.float32("inf"), torch.tensor(float("-inf")), Decimal("NaN"), 10**400, Decimal("1e400")]


class Word(Enum):
    NO_NUMBER = 1


def kind_of(value: object) -> str:
    return f"{type(value).__module__}.{type(value).__name__}"


@pytest.mark.parametrize("value", NUMBERS, ids=kind_of)
def test_real_number_of_any_class_is_a_score(value: Any) -> None:
    score = Definition("x", "", lambda texts: value).score(TEXTS)
    assert (score, type(score)) == (1.5, float)


@pytest.mark.parametrize("value", WHOLE_NUMBERS, ids=kind_of)
def test_whole_number_of_any_class_is_a_score_and_stays_whole_in_a_column(value: Any) -> None:
    score = Definition("x", "", lambda texts: value).score(TEXTS)
    assert (score, type(score)) == (2.0, float)
    assert (to_plain(value), type(to_plain(value))) == (2, int)


@pytest.mark.parametrize(
    "value", [*TRUTH_VALUES, *NO_NUMBERS, *NOT_FINITE, "1", np.str_("1"), Word.NO_NUMBER], ids=kind_of
)
def test_other_value_is_no_score_and_is_reported(value: Any, caplog: pytest.LogCaptureFixture) -> None:
    assert Definition("word_accuracy", "", lambda texts: value).score(TEXTS) is None
    assert "metric word_accuracy failed and has no score: ValueError: " in caplog.text
    assert "number" in caplog.text


@pytest.mark.parametrize("error", [SystemExit(3), GeneratorExit(), RuntimeError("x")], ids=kind_of)
def test_metric_that_raises_anything_has_no_score(error: BaseException, caplog: pytest.LogCaptureFixture) -> None:
    def compute(texts: Transcriptions) -> float:
        raise error

    assert Definition("exits", "", compute).score(TEXTS) is None
    assert f"metric exits failed and has no score: {type(error).__name__}" in caplog.text


@pytest.mark.parametrize("value", [*NUMBERS, *WHOLE_NUMBERS], ids=kind_of)
def test_record_holds_numbers_of_any_class_as_floats(value: Any, tmp_path: Path) -> None:
    record = make_record(make_cell(), metrics={"x": value}, cost=Cost(latency_ms=value))
    directory = publish(tmp_path, [record.cell], [record])
    read = ResultsDirectory(tmp_path).read(record.cell)
    assert read is not None
    assert read.model_copy(update={"artifacts": {}}) == record
    for one in (record, read):
        assert (one.metrics["x"], type(one.metrics["x"])) == (to_number(value), float)
        assert (one.cost.latency_ms, type(one.cost.latency_ms)) == (to_number(value), float)
    assert directory.path == tmp_path


@pytest.mark.parametrize("value", [np.float32(0.5), torch.tensor(0.5), Fraction(1, 2)], ids=kind_of)
def test_record_that_a_trainer_changed_holds_plain_numbers(value: Any) -> None:
    record = make_record(make_cell(), num_test=20)
    changes = {"metrics": record.metrics | {"x": value}, "cost": record.cost.model_copy(update={"latency_ms": value})}
    accepted = accept_record(record.model_copy(update=changes | {"kept_step": np.int64(3)}), record.cell, 20)
    assert [(number, type(number)) for number in (accepted.metrics["x"], accepted.cost.latency_ms)] == [
        (0.5, float)
    ] * 2
    assert (accepted.kept_step, type(accepted.kept_step)) == (3, int)


@pytest.mark.parametrize("value", [*TRUTH_VALUES, torch.tensor([0.5]), "0.5", float("nan")], ids=kind_of)
def test_record_that_a_trainer_changed_to_hold_no_number_is_refused(value: Any) -> None:
    record = make_record(make_cell(), num_test=20)
    changed = record.model_copy(update={"metrics": record.metrics | {"x": value}})
    with pytest.raises(ValueError, match=r"a record with metrics.x = .* is not a( finite)? number"):
        accept_record(changed, record.cell, 20)


@pytest.mark.parametrize("value", WHOLE_NUMBERS, ids=kind_of)
def test_record_holds_counts_of_any_class_as_integers(value: Any) -> None:
    record = make_record(make_cell(), num_test=value, kept_step=value)
    assert [(count, type(count)) for count in (record.num_test, record.kept_step)] == [(2, int)] * 2


@pytest.mark.parametrize("value", [*TRUTH_VALUES, *NO_NUMBERS, *NOT_FINITE, "1"], ids=kind_of)
def test_record_refuses_what_is_no_number(value: Any) -> None:
    for change in ({"metrics": {"x": value}}, {"num_test": value}, {"cost": {"latency_ms": value}}):
        with pytest.raises(ValidationError, match="number"):
            RunRecord(**{"cell": make_cell(), "status": "done"} | change)
    with pytest.raises(ValidationError, match="integer"):
        make_record(make_cell(), kept_step=2.5)


def test_history_and_observers_get_plain_numbers(registry: Registry, tmp_path: Path) -> None:
    dataset: Any = SimpleNamespace(device=torch.device("cpu"), of_fold=lambda number: dataset)
    events: list[CellEvent] = []
    context = LocalContext(make_cell(), registry, dataset, tmp_path, {}, report=events.append)
    step: Any = np.int64(3)
    loss: Any = torch.tensor(0.25)
    scores: Any = {"val_exact_match": torch.tensor(0.5), "epoch": np.int64(2), "val_cer": None}
    context.progressed(step, loss)
    context.validated(step, scores)
    seen = [(event.arguments["step"], event.arguments.get("loss", event.arguments.get("scores"))) for event in events]
    row = {"val_exact_match": 0.5, "epoch": 2, "val_cer": None}
    assert seen == [(3, 0.25), (3, row)]
    assert [type(one) for one in (*seen[0], *seen[1][1].values())] == [int, float, float, int, type(None)]
    assert read_lines(tmp_path / "history.jsonl") == [{"step": 3, **row}]


@pytest.mark.parametrize(
    ("values", "written"),
    [
        ([torch.tensor(1.0), np.float32(0.5)], ["1.0", "0.5"]),
        ([torch.tensor(7), None], ["7", ""]),
        ([np.True_, torch.tensor(False)], ["True", "False"]),
        ([True, None], ["True", ""]),
        ([Fraction(1, 4), Decimal("0.5")], ["0.25", "0.5"]),
        ([np.str_("a"), "b"], ["a", "b"]),
        ([2**70, 1], [str(2**70), "1"]),
    ],
)
def test_plugin_column_holds_plain_values(values: list[Any], written: list[str], tmp_path: Path) -> None:
    cells = [make_cell(seed=0), make_cell(seed=1)]
    publish(tmp_path, cells, [make_record(cell) for cell in cells])
    frame = load_frame(tmp_path, extra_columns=lambda record: {"mine": values[record.cell.seed]})
    assert [line.rpartition(",")[2] for line in to_csv(frame).splitlines()] == ["mine", *written]


@pytest.mark.parametrize("value", [torch.tensor([1.0, 2.0]), [1], 1j, object()], ids=kind_of)
def test_plugin_column_leaves_other_values_out_with_a_warning(
    value: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cells = [make_cell(seed=seed) for seed in range(3)]
    publish(tmp_path, cells, [make_record(cell) for cell in cells])
    results = load_results(tmp_path, extra_columns=lambda record: {"mine": value if record.cell.seed else 1.5})
    assert results.cells["mine"].isna().tolist() == [False, True, True]
    (message,) = caplog.messages
    assert message.startswith("report column 'mine': ")
    assert f"of type {type(value).__name__} is not a number; left out in 2 of 3 rows; return text" in message
