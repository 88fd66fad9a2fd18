"""Reading the data of an experiment: what is refused before what, exceptions of datasets, and progress."""

from collections.abc import Callable
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from helpers.training import add_variant
from PIL import Image
from rich.console import Console

from decoderbench import DataError, Dataset, Experiment, Registry, Sample, hookimpl, prepare
from decoderbench.cli import progress
from decoderbench.config.grid import ComponentChoice
from decoderbench.deadline import Deadline
from decoderbench.errors import ConfigError, PendingCellsError
from decoderbench.planning.compare_preset import fit_preset
from decoderbench.planning.reading import reading
from decoderbench_plugins.datasets.synthetic_captcha import SyntheticCaptcha

Reader = Callable[..., Experiment]


@pytest.fixture
def experiment_on(tiny: dict[str, Any], tiny_registry: Registry) -> Reader:
    """Adds a dataset with other methods than those of `synthetic_captcha`, and returns an experiment on it."""

    def build(**methods: Any) -> Experiment:
        add_variant(tiny_registry, "dataset", SyntheticCaptcha, "odd", **methods)
        return Experiment(**tiny | {"dataset": tiny["dataset"] | {"use": "odd"}})

    return build


def fail(*unused: object) -> Any:
    raise AssertionError("called too early")


def with_label(label: str) -> Callable[[Any], list[Sample]]:
    return lambda self: [Sample("first", label, "train"), *self._samples]


def test_labels_are_refused_before_all_files_are_read(experiment_on: Reader, tiny_registry: Registry) -> None:
    experiment = experiment_on(samples=with_label("0" * 10_000), fingerprint=fail, stamp=lambda self: None)
    with pytest.raises(DataError, match=r"too_narrow: 'first' is at most image.width = 32 columns wide"):
        prepare(experiment, registry=tiny_registry)


def test_allowed_label_of_any_length_does_not_change_the_plan(
    experiment_on: Reader, tiny_registry: Registry, tmp_path: Path
) -> None:
    experiment = experiment_on(samples=with_label("0" * 10_000)).model_copy(update={"allow": ("too_narrow",)})
    prepared = prepare(experiment, registry=tiny_registry, cache_dir=tmp_path)
    assert {cell.labels.max_length for cell in prepared.cells} == {2}
    assert {cell.labels.frames_needed for cell in prepared.cells} == {3}


def test_images_are_audited_before_cells_are_planned_if_asked(
    experiment_on: Reader, tiny_registry: Registry, tmp_path: Path
) -> None:
    def load_image(self: Dataset, index: int) -> Image.Image:
        raise OSError("truncated")

    experiment = experiment_on(load_image=load_image)
    grid = experiment.grid.model_copy(update={"bridge": {"bad": ComponentChoice(use="refusing")}})
    experiment = experiment.model_copy(update={"grid": grid})
    from decoderbench_plugins.bridges.mean_height import MeanHeight

    def refuse(self: Any, *arguments: Any) -> None:
        raise ConfigError(["never works"])

    add_variant(tiny_registry, "bridge", MeanHeight, "refusing", __init__=refuse)
    with pytest.raises(DataError, match="100 of 100 images cannot be decoded"):
        prepare(experiment, registry=tiny_registry, cache_dir=tmp_path, audit_images=True)
    assert prepare(experiment, registry=tiny_registry, cache_dir=tmp_path).inputs.audit_so_far.problems == ()


@pytest.mark.parametrize(
    ("method", "raised"), [("samples", SystemExit(0)), ("notes", KeyError("x")), ("split_source", GeneratorExit())]
)
def test_exception_of_a_dataset_is_an_error_that_names_it(
    experiment_on: Reader, tiny_registry: Registry, method: str, raised: BaseException
) -> None:
    def broken(self: Dataset) -> Any:
        raise raised

    experiment = experiment_on(**{method: broken})
    with pytest.raises(DataError, match=f"dataset 'odd' cannot be read: {type(raised).__name__}"):
        prepare(experiment, registry=tiny_registry)


@pytest.mark.parametrize(
    ("methods", "expected"),
    [
        ({"samples": lambda self: [Sample("a", "0", "validation")]}, "split one of train, val, test"),
        ({"samples": lambda self: [("a", "0", "train")]}, "list Sample"),
        ({"label_source": lambda self: None}, "says None of its labels, splits or notes; return text"),
        ({"notes": lambda self: [3]}, "says 3 of its labels, splits or notes; return text"),
    ],
)
def test_what_a_dataset_returns_is_checked(
    experiment_on: Reader, tiny_registry: Registry, methods: dict[str, Any], expected: str
) -> None:
    with pytest.raises(DataError, match=expected):
        prepare(experiment_on(**methods), registry=tiny_registry)


class Recorder:
    """An observer that records what is read."""

    def __init__(self) -> None:
        self.read: list[tuple[int, int]] = []

    @hookimpl
    def data_read(self, done: int, total: int) -> None:
        self.read.append((done, total))


def reporting(self: Any) -> Any:
    self.report_progress(1, 7)
    return self._samples


def test_observers_are_told_of_reading_until_it_is_done(experiment_on: Reader, tiny_registry: Registry) -> None:
    recorder = Recorder()
    tiny_registry.plugins.add(recorder, "recorder")
    prepared = prepare(experiment_on(samples=reporting), registry=tiny_registry)
    assert recorder.read == [(1, 7), (7, 7)]
    prepared.inputs.dataset.report_progress(2, 7)  # as a worker may that loads images
    assert recorder.read == [(1, 7), (7, 7)]


def test_reading_ends_at_the_deadline(experiment_on: Reader, tiny_registry: Registry) -> None:
    late = Deadline(1.0, started=-1e9)
    with pytest.raises(PendingCellsError, match="stopped after 1 s with 1 of 7 items of the dataset read"):
        prepare(experiment_on(samples=reporting), registry=tiny_registry, deadline=late)


def test_compare_tells_observers_while_it_looks_at_images(registry: Registry, tmp_path: Path) -> None:
    for number in range(30):
        Image.effect_noise((64, 32), 50).save(tmp_path / f"{chr(97 + number % 26)}{number}.png")
    recorder = Recorder()
    registry.plugins.add(recorder, "recorder")
    try:
        fit_preset(tmp_path, registry)
    finally:
        registry.plugins.manager.unregister(recorder)
    assert recorder.read[0][1] == recorder.read[-1][0] == 24  # without the images to test on


@pytest.mark.parametrize("terminal", [False, True])
def test_reading_is_shown_once_it_takes_long(terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: clock.now))
    printed = StringIO()
    console = Console(file=printed, force_terminal=terminal, width=100)
    with progress.progress_for(console) as shown:
        for seconds, done in ((0.0, 10), (0.5, 20), (1.0, 30), (5.0, 40)):
            clock.now = 100.0 + seconds
            shown.data_read(done, 100_000)
            if terminal:
                shown._bars.refresh()  # else a thread does so, ten times per second
            assert ("reading" in printed.getvalue()) == (seconds >= 1)
    if not terminal:
        assert printed.getvalue() == "reading: 30 of 100,000\n"


def test_progress_of_a_dataset_is_told_at_most_ten_times_per_second(
    tiny_registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr("decoderbench.planning.reading.time", SimpleNamespace(monotonic=lambda: clock.now))
    recorder = Recorder()
    tiny_registry.plugins.add(recorder, "recorder")
    dataset = SyntheticCaptcha(SyntheticCaptcha.Config(), Path())
    with reading(dataset, tiny_registry.plugins):
        for done in range(1000):
            clock.now = done / 1000
            dataset.report_progress(done, 1000)
    assert len(recorder.read) == 11
    assert recorder.read[-1] == (1000, 1000)
