"""Hooks during a run: observers, plugins that train cells, metrics and report columns."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from helpers.running import TINY_PLUGIN
from helpers.training import RecordingObserver, observe, train

from decoderbench import Experiment, build_plugin_manager, hookimpl, prepare
from decoderbench.errors import PluginError
from decoderbench.metrics import Metric
from decoderbench.records.results_directory import ResultsDirectory
from decoderbench.records.schema import Plan
from decoderbench.registry.registry import Registry


def test_infeasible_cell_is_started_before_it_is_finished(
    tiny: dict[str, Any], tiny_registry: Registry, tmp_path: Path
) -> None:
    tiny["grid"]["encoder"]["coarse"] = {"use": "tiny_cnn", "stride": 16}
    observer = observe(tiny_registry)
    train(tiny, tiny_registry, tmp_path, select="coarse")
    assert observer.finished["ctc"] == "infeasible"
    assert observer.started == list(observer.finished) == ["loop", "ctc", "attention"]


def test_register_observers_is_called_once_per_run(
    tiny: dict[str, Any], tiny_registry: Registry, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    created: list[RecordingObserver] = []

    class Plugin:
        @hookimpl
        def register_observers(self) -> list[object]:
            created.append(RecordingObserver())
            return [created[-1]]

    class Broken:
        @hookimpl
        def register_observers(self) -> list[object]:
            raise OSError("no connection")

    tiny_registry.plugins.add(Plugin(), "tracker")
    tiny_registry.plugins.add(Broken(), "broken")
    train(tiny, tiny_registry, tmp_path / "one", select="ctc")
    train(tiny, tiny_registry, tmp_path / "two", select="loop")
    assert [observer.started for observer in created] == [["ctc"], ["loop"]]
    assert "plugin broken raised in register_observers: OSError: no connection" in caplog.text


def test_run_finished_is_the_last_call_of_an_interrupted_run_too(
    tiny: dict[str, Any], tiny_registry: Registry, tmp_path: Path
) -> None:
    calls: list[str] = []

    class Observer:
        @hookimpl
        def cell_started(self, cell: Any) -> None:
            calls.append(f"started {cell.decoder.label}")

        @hookimpl
        def cell_validated(self) -> None:
            raise KeyboardInterrupt

        @hookimpl
        def run_finished(self) -> None:
            calls.append("finished")

    class Plugin:
        @hookimpl
        def register_observers(self) -> list[object]:
            return [Observer()]

    tiny_registry.plugins.add(Plugin(), "tracker")
    with pytest.raises(KeyboardInterrupt):
        train(tiny, tiny_registry, tmp_path)
    assert calls == ["started loop", "finished"]
    assert not list(tmp_path.glob("cells/*/result.json"))


class Silent:
    """An object without hooks."""


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (
            lambda: [RecordingObserver],
            "it returned the class RecordingObserver; return objects",
        ),
        (
            lambda: [Silent()],
            "it returned a Silent that observes nothing; mark methods",
        ),
        (lambda: [ALWAYS_THE_SAME, ALWAYS_THE_SAME], "it returned a RecordingObserver that is registered already"),
        (lambda: 3, "TypeError: 'int' object is not iterable"),
    ],
)
def test_invalid_observers_are_reported_and_harm_nothing(
    tiny: dict[str, Any],
    tiny_registry: Registry,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    returned: Callable[[], Any],
    message: str,
) -> None:
    class Plugin:
        @hookimpl
        def register_observers(self) -> Any:
            return returned()

    tiny_registry.plugins.add(Plugin(), "tracker")
    for results in ("one", "two"):
        frame = train(tiny, tiny_registry, tmp_path / results, select="ctc")
        assert list(frame["status"]) == ["done"]
    assert caplog.text.count(f"plugin tracker raised in register_observers: {message}") == 2


ALWAYS_THE_SAME = RecordingObserver()


def test_trainer_without_a_source_file_is_refused(
    tiny: dict[str, Any], tiny_registry: Registry, tmp_path: Path
) -> None:
    namespace: dict[str, Any] = {"hookimpl": hookimpl}
    exec("class Trainer:\n    @hookimpl\n    def run_cell(self, cell):\n        return None", namespace)
    tiny_registry.plugins.add(namespace["Trainer"](), "notebook")
    with pytest.raises(PluginError, match="plugin notebook: its run_cell has no source file"):
        train(tiny, tiny_registry, tmp_path)


def test_observer_that_raises_fails_no_cell(
    tiny: dict[str, Any], tiny_registry: Registry, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken:
        @hookimpl
        def cell_started(self) -> None:
            raise RuntimeError("no connection")

    tiny_registry.plugins.add(Broken(), "broken")
    observer = observe(tiny_registry)
    frame = train(tiny, tiny_registry, tmp_path)
    assert set(frame["status"]) == {"done"}
    assert len(observer.started) == 3
    assert "plugin broken raised in cell_started: RuntimeError: no connection" in caplog.text


def test_invalid_hook_results_fail_at_most_their_own_cell(
    tiny: dict[str, Any], tiny_registry: Registry, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Invalid:
        @hookimpl
        def run_cell(self, cell: Any) -> Any:
            return "done" if cell.decoder.label == "loop" else None

        @hookimpl
        def report_columns(self) -> Any:
            raise KeyError("column")

        @hookimpl
        def cell_finished(self) -> None:
            raise SystemExit(9)

    tiny_registry.plugins.add(Invalid(), "invalid")
    frame = train(tiny, tiny_registry, tmp_path).set_index("decoder")
    assert list(frame["status"]) == ["failed", "done", "done"]
    assert "run_cell of plugin invalid returned 'done' instead of this cell's record" in frame.loc["loop", "reason"]
    assert "plugin invalid raised in report_columns" in caplog.text
    assert "plugin invalid raised in cell_finished: SystemExit: 9" in caplog.text


def test_plugins_add_metrics_and_report_columns(tiny: dict[str, Any], tiny_registry: Registry, tmp_path: Path) -> None:
    class ExtraCharacters(Metric):
        """The number of characters in all hypotheses minus that in all references."""

        name = "extra_characters"

        def score(self, references: Any, hypotheses: Any) -> float:
            return len("".join(hypotheses)) - len("".join(references))

    class Columns:
        @hookimpl
        def report_columns(self, record: Any) -> dict[str, object]:
            return {"hidden": record.cell.decoder.options["hidden_dim"]}

    tiny_registry["metric"].add(ExtraCharacters, "test", "test")
    tiny_registry.plugins.add(Columns(), "columns")
    frame = train(tiny, tiny_registry, tmp_path)
    for cell_id, extra in zip(frame["cell_id"], frame["extra_characters"], strict=True):
        predictions = pd.read_parquet(tmp_path / "cells" / cell_id / "predictions.parquet")
        assert extra == predictions["hypothesis"].str.len().sum() - predictions["reference"].str.len().sum() != 0
    assert list(frame["hidden"]) == [8] * 3


class ObservingTrainer:
    """An observer that would train cells."""

    @hookimpl
    def run_cell(self, cell: Any) -> None:
        return None


def test_observer_that_trains_cells_is_refused(
    tiny: dict[str, Any], tiny_registry: Registry, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Plugin:
        @hookimpl
        def register_observers(self) -> list[object]:
            return [ObservingTrainer()]

    tiny_registry.plugins.add(Plugin(), "tracker")
    train(tiny, tiny_registry, tmp_path, select="ctc")
    assert "it returned a ObservingTrainer that implements run_cell" in caplog.text


def test_plugin_named_trainer_trains_cells_of_its_own(tiny: dict[str, Any], tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "trainer.py").write_text(
        "from decoderbench import hookimpl\n@hookimpl\ndef run_cell(cell):\n    raise ValueError('mine')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    registry = Registry(build_plugin_manager([str(TINY_PLUGIN), "trainer"]))
    frame = train(tiny, registry, tmp_path / "results", select="ctc")
    assert "ValueError: mine" in frame.loc[0, "reason"]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"num_test": None}, "num_test = None, which must be 20"),
    ],
)
def test_invalid_record_fails_its_cell(
    tiny: dict[str, Any], tiny_registry: Registry, tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    class Wrapper:
        @hookimpl(wrapper=True)
        def run_cell(self) -> Any:
            record = yield
            return record.model_copy(update=changes)

    tiny_registry.plugins.add(Wrapper(), "wrapper")
    frame = train(tiny, tiny_registry, tmp_path, select="ctc")
    assert frame.loc[0, "status"] == "failed"
    assert reason in frame.loc[0, "reason"]


def test_run_reports_its_own_plan_whatever_another_run_writes(
    tiny: dict[str, Any], tiny_registry: Registry, tmp_path: Path
) -> None:
    class OtherRun:
        @hookimpl
        def cell_started(self) -> None:
            other = prepare(Experiment(**tiny | {"training": tiny["training"] | {"steps": 5}}), registry=tiny_registry)
            ResultsDirectory(tmp_path).write_plan(Plan(experiment="tiny", command="other", cells=other.cells))

    tiny_registry.plugins.add(OtherRun(), "other run")
    frame = train(tiny, tiny_registry, tmp_path)
    assert list(frame["status"]) == ["done"] * 3


def test_trainer_that_forgets_to_return_its_record_fails_the_cell(
    tiny: dict[str, Any], tiny_registry: Registry, tmp_path: Path
) -> None:
    class Forgetful:
        @hookimpl
        def run_cell(self, cell: Any, context: Any) -> None:
            if cell.decoder.label == "ctc":
                context.finish(context.recognizer(), kept_step=0)

    tiny_registry.plugins.add(Forgetful(), "forgetful")
    frame = train(tiny, tiny_registry, tmp_path).set_index("decoder")
    assert frame["status"].to_dict() == {"loop": "done", "ctc": "failed", "attention": "done"}
    assert "run_cell built the recognizer and then returned None" in frame.loc["ctc", "reason"]
