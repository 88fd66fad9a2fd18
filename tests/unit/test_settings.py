"""`[grid.settings]`: any option of the other tables as an axis."""

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from helpers.recording import make_cell, make_record, publish
from helpers.running import to_toml

from decoderbench import Experiment, prepare
from decoderbench.analysis.frame import load_results, summarize
from decoderbench.cli.progress import short_names
from decoderbench.config.cell import shown_axes
from decoderbench.config.experiment import parse_experiment
from decoderbench.config.merging import merge
from decoderbench.config.overrides import add_variants, parse_overrides
from decoderbench.data.resident_dataset import ResidentDataset
from decoderbench.errors import ConfigError
from decoderbench.execution import resident_data
from decoderbench.execution.resident_data import DataSource, ResidentData
from decoderbench.options import ImageOptions
from decoderbench.planning.data_report import audit_experiment
from decoderbench.planning.grid import plan_table
from decoderbench.planning.selection import select_cells
from decoderbench.records.schema import Plan
from decoderbench.registry.registry import Registry
from decoderbench.report.footnotes import footnotes_of
from decoderbench.report.settings import notes_on_learning, settings_of
from decoderbench.runs import runner

AS_IS, SHORT = {"as is": {}}, {"short": {"training": {"steps": 3}}}


@pytest.fixture
def one(tiny: dict[str, Any]) -> dict[str, Any]:
    """The tiny experiment with one decoder."""
    tiny["grid"]["decoder"] = {"ctc": tiny["grid"]["decoder"]["ctc"]}
    return tiny


def with_settings(data: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    return merge(data, {"grid": {"settings": settings}})


def mistakes_of(data: dict[str, Any]) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse_experiment(data, source="x.toml")
    return caught.value.mistakes


# What settings say


def test_changes_are_merged_key_by_key_and_off_is_the_default(one: dict[str, Any]) -> None:
    one["augmentation"] = {"noise": 0.1, "rotate": 3}
    settings = {
        "as is": {},
        "less noise": {"augmentation": {"noise": 0.05}, "training": {"steps": 4}},
        "none": {"augmentation": "off"},
        "one letter": {"dataset": {"charset": "0"}},
        "other": {"dataset": {"use": "rendered_words", "train": 9}},
    }
    found = Experiment(**with_settings(one, settings)).settings()
    assert list(found) == list(settings)
    assert (found["less noise"].augmentation.noise, found["less noise"].augmentation.rotate) == (0.05, 3)
    assert (found["less noise"].training.steps, found["less noise"].training.batch_size) == (4, 8)
    assert (
        found["none"].augmentation.model_dump()
        == Experiment(**one).augmentation.model_copy(update={"noise": 0.0, "rotate": 0.0}).model_dump()
    )
    assert found["one letter"].dataset.options == {**Experiment(**one).dataset.options, "charset": "0"}
    assert found["other"].dataset.options == {"train": 9}  # another component loses the options of the old one
    assert found["as is"].tables() == Experiment(**one).tables()


def test_without_settings_there_is_one_with_an_empty_label(one: dict[str, Any]) -> None:
    experiment = Experiment(**one)
    assert experiment.settings() == {"": experiment}
    assert [variant["setting"] for variant in experiment.grid.variants()] == [""]


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ({"augmentatio": "off"}, "grid.settings.s.augmentatio: unknown key; did you mean 'augmentation'?"),
        ({"grid": {}}, "grid.settings.s.grid: unknown key"),
        ({"allow": []}, "grid.settings.s.allow: unknown key"),
        ({"augmentation": "of"}, 'grid.settings.s.augmentation: must be a table of changes, or "off"'),
        ({"training": {"stesp": 5}}, "grid.settings.s.training.stesp: unknown key; did you mean 'steps'?"),
        ({"training": {"steps": 0}}, "grid.settings.s.training.steps: input should be greater than or equal to 1"),
        ({"training": {"steps": "5"}}, "grid.settings.s.training.steps: must be a number, not text"),
        ({"dataset": "off"}, "grid.settings.s.dataset: a dataset cannot be switched off"),
        ({"dataset": 3}, "grid.settings.s.dataset: must be a table of changes, or the name of another dataset"),
        ({"dataset": {"train_limit": 1}}, "grid.settings.s.dataset.train_limit: must be 2 or more"),
        ({"labels": {"charset": "01", "extra_characters": "2"}}, "grid.settings.s.labels: extra_characters '2'"),
    ],
)
def test_mistake_in_a_setting_is_named(one: dict[str, Any], setting: dict[str, Any], expected: str) -> None:
    (mistake,) = mistakes_of(with_settings(one, AS_IS | {"s": setting}))
    assert mistake.startswith(f"x.toml: {expected}"), mistake


def test_notes_name_the_settings_that_they_are_about(
    one: dict[str, Any], tiny_registry: Registry, caplog: pytest.LogCaptureFixture
) -> None:
    settings = AS_IS | {"few": {"dataset": {"train_limit": 5}}}
    prepared = prepare(Experiment(**with_settings(one, settings)), registry=tiny_registry)
    plan = Plan(
        experiment="tiny",
        command="",
        cells=prepared.cells,
        sizes={key: inputs.label_audit.counts for key, inputs in prepared.data.items()},
    )
    notes = [record.getMessage().removeprefix("note     ") for record in caplog.records]
    assert notes == notes_on_learning(plan)
    assert [note.rpartition(" (")[2] for note in notes[1:]] == ["setting as is)", "setting few)", "setting few)"]
    assert notes[0].startswith("all 6 steps are in the warm-up")
    assert notes[0].endswith("lower")


def test_mistake_that_only_the_changed_table_has_is_named(one: dict[str, Any]) -> None:
    one["labels"] = {"charset": "01"}
    (mistake,) = mistakes_of(with_settings(one, {"s": {"labels": {"extra_characters": "2"}}}))
    assert mistake.startswith("x.toml: grid.settings.s.labels: extra_characters '2' are added")


def test_report_says_what_each_setting_changes(one: dict[str, Any]) -> None:
    settings = {
        "as is": {},
        "other": {"augmentation": "off", "dataset": {"train_limit": 9, "charset": "0\n1"}, "image": {"width": 48}},
        "words": {"dataset": "rendered_words", "labels": {"normalize": {"strip": True}}},
    }
    said = {label: str(setting) for label, setting in Experiment(**with_settings(one, settings)).grid.settings.items()}
    assert (said["as is"], said["words"]) == (
        "nothing changed", 'labels.normalize.strip = true, dataset = "rendered_words"',
    )  # fmt: skip
    assert set(said["other"].split(", ")) == {
        "image.width = 48", "augmentation off", "dataset.train_limit = 9", 'dataset.charset = "0\\n1"',
    }  # fmt: skip
    cells = make_cell(setting="as is"), make_cell(setting="other", image=ImageOptions(width=48))
    lines = settings_of(Plan(experiment="demo", command="", cells=cells, settings=said))
    assert f"setting other: {said['other']}" in lines
    (images,) = (line for line in lines if line.startswith("images: "))
    assert images.count("(setting as is)") == images.count("(setting other)") == 1


@pytest.mark.parametrize("label", ["", " a", "a\nb", "x" * 65])
def test_label_of_a_setting_is_one_line(one: dict[str, Any], label: str) -> None:
    (mistake,) = mistakes_of(with_settings(one, {label: {}}))
    assert "must be 1 to 64 printable characters" in mistake


def test_settings_that_say_the_same_are_refused(one: dict[str, Any], tiny_registry: Registry) -> None:
    (mistake,) = mistakes_of(with_settings(one, AS_IS | {"s": {"training": {"steps": 6}}}))
    assert mistake == "x.toml: grid.settings.s: says the same as the setting 'as is'; change or remove one of them"
    by_default = with_settings(one, AS_IS | {"s": {"dataset": {"noise": True}}})  # only the dataset knows its default
    with pytest.raises(
        ConfigError, match=r"grid\.settings\.s: says the same as the setting 'as is', as far as results"
    ):
        prepare(Experiment(**by_default), registry=tiny_registry)


def test_mistake_in_a_file_has_its_line_and_options_of_the_dataset_are_checked(
    one: dict[str, Any], tiny_registry: Registry
) -> None:
    text = to_toml(one) + '\n[grid.settings]\n"as is" = {}\nfew = { dataset = { train_limt = 5, charset = 3 } }\n'
    line = text[: text.index("few =")].count("\n") + 1
    experiment = parse_experiment(tomllib.loads(text), source="x.toml", text=text)
    with pytest.raises(ConfigError) as caught:
        prepare(experiment, registry=tiny_registry)
    assert {mistake.split(": ")[0] for mistake in caught.value.mistakes} == {f"x.toml:{line}"}
    unknown, charset = sorted(caught.value.mistakes, key=lambda mistake: "charset: dataset" in mistake)
    assert "grid.settings.few.dataset.train_limt: dataset 'synthetic_captcha': unknown key; did you mean" in unknown
    assert "train_limit" in unknown
    assert "grid.settings.few.dataset.charset" in charset


def test_cells_of_all_settings_count_for_the_limit(one: dict[str, Any]) -> None:
    one["grid"]["seeds"] = list(range(2001))
    many = {str(steps): {"training": {"steps": steps}} for steps in range(1, 6)}
    assert "10,005 cells" in mistakes_of(with_settings(one, many))[0]


def test_exclude_and_names_know_settings(tiny: dict[str, Any]) -> None:
    tiny["grid"] |= {
        "settings": AS_IS | SHORT,
        "exclude": [{"decoder": "ctc", "setting": "short"}],
        "names": [{"decoder": "loop", "name": "Loop"}, {"decoder": "attention", "setting": "short", "name": "Brief"}],
    }
    grid = Experiment(**tiny).grid
    rows = {(row["decoder"], row["setting"]): grid.name_of(row) for row in grid.variants()}
    assert rows == {
        ("loop", "as is"): "Loop", ("loop", "short"): "Loop", ("ctc", "as is"): "",
        ("attention", "as is"): "", ("attention", "short"): "Brief",
    }  # fmt: skip
    tiny["grid"]["exclude"] = [{"setting": "shot"}]
    assert "unknown setting 'shot'; did you mean 'short'?; known: as is, short" in mistakes_of(tiny)[0]
    del tiny["grid"]["settings"]
    assert "unknown setting 'shot'; known: none" in mistakes_of(tiny)[0]


def test_command_line_sets_and_adds_settings(one: dict[str, Any], tiny_registry: Registry) -> None:
    data = add_variants(one, ["settings.few labels={dataset={train_limit=10}}"])
    assert data["grid"]["settings"].keys() == {"as is", "few labels"}  # the rows that were there stay
    data = merge(
        data, parse_overrides(['grid.settings."few labels".training.steps=3', 'grid.settings.x={image="off"}'])
    )
    experiment = parse_experiment(tiny_registry.decide_options(data), source="x.toml")
    found = experiment.settings()
    assert found["few labels"].dataset.train_limit == 10
    assert found["few labels"].training.steps == 3
    assert found["x"].image.height == 32
    with pytest.raises(ConfigError, match="'few labels' already exists"):
        add_variants(data, ["settings.few labels={}"])


def test_typed_option_of_a_changed_dataset_is_text_where_the_dataset_wants_text(
    one: dict[str, Any], tiny_registry: Registry
) -> None:
    data = merge(one, parse_overrides(["grid.settings.a={}", "grid.settings.b.dataset.charset=01234"]))
    experiment = parse_experiment(tiny_registry.decide_options(data), source="x.toml")
    assert experiment.settings()["b"].dataset.options["charset"] == "01234"


# Cells


@pytest.fixture
def several(one: dict[str, Any]) -> Experiment:
    """Four settings, of which two share their data."""
    settings = {
        "as is": {},
        "short": {"training": {"steps": 3}},
        "no noise": {"dataset": {"noise": False}},
        "wide": {"image": {"width": 48}},
    }
    return Experiment(**with_settings(one, settings))


def test_setting_is_part_of_the_id_by_what_it_says_and_not_by_its_label(
    one: dict[str, Any], several: Experiment, tiny_registry: Registry
) -> None:
    cells = prepare(several, registry=tiny_registry).cells
    (plain,) = prepare(Experiment(**one), registry=tiny_registry).cells
    assert len({cell.cell_id for cell in cells}) == 4
    assert cells[0].cell_id == plain.cell_id  # grids without settings keep their ids
    (direct,) = prepare(Experiment(**merge(one, {"training": {"steps": 3}})), registry=tiny_registry).cells
    assert cells[1].cell_id == direct.cell_id
    renamed = cells[1].model_copy(update={"setting": "another label"})
    assert renamed.cell_id == cells[1].cell_id
    assert (cells[1].setting, cells[1].variant_title) == ("short", "tiny / columns / ctc / short")
    assert shown_axes([plain]) == ("encoder", "bridge", "decoder")
    assert shown_axes(cells) == ("encoder", "bridge", "decoder", "setting")


def test_each_data_is_read_once_and_cells_name_theirs(
    several: Experiment, tiny_registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = tiny_registry["dataset"]["synthetic_captcha"].component
    built: list[object] = []
    build = dataset.__init__
    monkeypatch.setattr(dataset, "__init__", lambda self, *given: (built.append(given), build(self, *given))[1])
    prepared = prepare(several, registry=tiny_registry)
    assert len(built) == 2  # with noise at two sizes, without
    keys = [cell.data_key for cell in prepared.cells]
    assert keys[0] == keys[1]
    assert len(set(keys)) == 3
    assert list(prepared.data) == list(dict.fromkeys(keys))
    assert [cell.frames for cell in prepared.cells] == [8, 8, 8, 12]
    assert [cell.dataset_hash == prepared.cells[0].dataset_hash for cell in prepared.cells] == [True, True, False, True]
    with pytest.raises(ValueError, match="too many values"):
        prepared.inputs  # noqa: B018 - there is no such thing as the data of this experiment


def test_plan_shows_settings_and_which_share_data(several: Experiment, tiny_registry: Registry) -> None:
    prepared = prepare(several, registry=tiny_registry)
    table = plan_table(prepared.cells)
    assert re.search(r"\| decoder +\| setting +\|", table)
    assert f"images and labels {prepared.cells[0].data_key}: settings as is, short" in table
    assert "settings no noise" in table
    summary = prepared.data_summary()
    assert [line for line in summary if line.startswith("settings ")] == [
        "settings as is, short", "settings no noise", "settings wide",
    ]  # fmt: skip
    selected = select_cells(prepared.cells, "no noise or short")
    assert [cell.setting for cell in selected] == ["short", "no noise"]
    assert list(short_names(prepared.cells, 60).values())[:2] == ["ctc / as is, seed 0", "ctc / short, seed 0"]


def test_audit_covers_the_data_of_all_settings(several: Experiment, tiny_registry: Registry, tmp_path: Path) -> None:
    limited = merge(several.as_given(), {"grid": {"settings": {"wide": {"dataset": {"train_limit": 99}}}}})
    found = audit_experiment(Experiment(**limited), tiny_registry, base_dir=tmp_path)
    assert {settings: report.accepted for settings, report in found.reports.items()} == {
        ("as is", "short"): True, ("no noise",): True, ("wide",): False,
    }  # fmt: skip
    assert not found.accepted
    assert "train_limit is 99, and the data have 80 images" in "\n".join(found.lines())
    assert [part["settings"] for part in found.as_json()["data"]] == [("as is", "short"), ("no noise",), ("wide",)]


def test_run_trains_each_cell_on_the_data_of_its_setting(
    one: dict[str, Any], tiny_registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "write_files", lambda *given, **named: None)  # takes longer than these cells
    opened: list[ResidentDataset] = []
    build = ResidentDataset.__init__
    monkeypatch.setattr(ResidentDataset, "__init__", lambda self, *given: (opened.append(self), build(self, *given))[1])
    settings = AS_IS | {"no noise": {"dataset": {"noise": False}}, "few": {"dataset": {"train_limit": 20}}}
    experiment = Experiment(**with_settings(merge(one, {"training": {"steps": 2}}), settings))
    frame = runner.run(experiment, registry=tiny_registry, results=tmp_path, device="cpu")
    assert frame["status"].tolist() == ["done"] * 3, frame["reason"].tolist()
    assert frame["setting"].tolist() == list(settings)
    plan = json.loads((tmp_path / "plan.json").read_text())
    data_hashes = [cell["data_hash"] for cell in plan["cells"]]
    assert [data.store.data_hash for data in opened] == data_hashes[:2]  # each once, though the first is used twice
    assert len(plan["sizes"]) == 2
    assert plan["data_summary"][0] == "settings as is, few"
    validated = [pd.read_parquet(path) for path in sorted(tmp_path.glob("cells/*/val_predictions.parquet"))]
    assert sorted(map(len, validated)) == [4, 16, 16]


def test_one_data_at_a_time_is_on_a_device_and_all_stay_mapped_on_the_cpu(
    several: Experiment, tiny_registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared = prepare(several, registry=tiny_registry, audit_images=True)
    sources = {
        key: DataSource(inputs.images.directory, inputs.audit, "synthetic_captcha", inputs.images)
        for key, inputs in prepared.data.items()
    }
    first, second, _ = sources
    on_cpu = ResidentData(sources, torch.device("cpu"))
    assert on_cpu.of(first) is on_cpu.of(first)
    kept = on_cpu.of(first)
    on_cpu.of(second)
    assert on_cpu.of(first) is kept
    released: list[torch.device] = []
    monkeypatch.setattr(resident_data, "release_memory", released.append)
    monkeypatch.setattr(resident_data, "ResidentDataset", lambda store, audit, device: object())
    on_device = ResidentData(sources, torch.device("meta"))
    one = on_device.of(first)
    assert on_device.of(first) is one
    on_device.of(second)
    assert len(on_device._opened) == 1
    assert len(released) == 1
    assert on_device.of(first) is not one


# Frames


def test_rows_of_settings_are_rows_of_the_table(tmp_path: Path) -> None:
    cells = [
        make_cell(setting=setting, train_limit=limit, seed=seed)
        for setting, limit in (("all", None), ("few", 10))
        for seed in (0, 1)
    ]
    publish(tmp_path, cells, [make_record(cell, 0.9 if cell.setting == "all" else 0.5) for cell in cells])
    results = load_results(tmp_path)
    assert results.cells["setting"].tolist() == ["all", "all", "few", "few"]
    assert results.cells["train_limit"].fillna(-1).tolist() == [-1, -1, 10, 10]
    summary = summarize(results.cells)
    assert summary["setting"].tolist() == ["all", "few"]
    assert summary["exact_match_mean"].tolist() == [0.9, 0.5]


def test_sources_of_different_datasets_are_no_other_conditions(tmp_path: Path) -> None:
    given = [("captcha", "s1"), ("captcha", "s1"), ("words", "s2"), ("words", "s2"), ("words", "s3")]
    cells = [make_cell(setting=dataset, dataset=dataset, seed=seed) for seed, (dataset, _) in enumerate(given)]
    records = [
        make_record(cell, environment={"dataset_source": source})
        for cell, (_, source) in zip(cells, given, strict=True)
    ]
    publish(tmp_path, cells, records)
    notes = footnotes_of(load_results(tmp_path).cells, ["decoder", "setting"]).notes
    (note,) = [note for note in notes if "dataset source" in note]
    assert "dataset source s3, not s2 (CTC / words, seed 4)" in note
