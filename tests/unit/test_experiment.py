"""Experiment: round trips, overrides, and messages for mistakes."""

import string
import tomllib
from typing import Any

import pytest
from helpers.running import to_toml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from decoderbench.cli.common import merge_overrides
from decoderbench.config.experiment import Experiment, parse_experiment
from decoderbench.config.merging import merge
from decoderbench.config.overrides import add_variants, parse_overrides
from decoderbench.config.toml_lines import line_of
from decoderbench.config.typed_values import decide
from decoderbench.errors import ConfigError

KEYS = st.text(string.ascii_letters + "äß .\"'#=[]", min_size=1, max_size=8)


def mistakes(data: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_experiment(data, source="file.toml")
    return str(caught.value)


def test_experiment_round_trips_through_toml(tiny: dict[str, Any]) -> None:
    experiment = Experiment(**tiny)
    assert Experiment(**experiment.as_given()) == experiment
    assert Experiment(**tomllib.loads(to_toml(tiny))) == experiment


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"training": {"learing_rate": 1e-3}}, "training.learing_rate: unknown key; did you mean 'learning_rate'?"),
        ({"trainign": {}}, "trainign: unknown key; did you mean 'training'?"),
        ({"training": {"steps": 0}}, "training.steps: input should be greater than or equal to 1, given 0"),
        ({"training": {"steps": 2.5}}, "training.steps: input should be a valid integer"),
        ({"training": {"learning_rate": float("nan")}}, "training.learning_rate: input should be a finite number"),
        ({"training": {"steps": True}}, "training.steps: must be a number, not true or false, given True"),
        ({"grid": {"seeds": [0, True]}}, "grid.seeds: must be a number, not true or false"),
        ({"training": {"keep": "first"}}, "training.keep: input should be 'best' or 'last', given 'first'"),
        ({"training": 5}, "training: input should be a table, as in { key = value }, given 5"),
        ({"grid": {"settings": ["a"]}}, "grid.settings: input should be a table, as in { key = value }"),
        ({"image": {"channels": 2}}, "image.channels: input should be 1 or 3, given 2"),
        ({"training": {"learning_rate": 0}}, "training.learning_rate: input should be greater than 0, given 0"),
        ({"name": "../up"}, "name: string should match pattern"),
        ({"name": "_x"}, "name: string should match pattern"),
        ({"grid": {"seeds": []}}, "grid.seeds: tuple should have at least 1 item"),
        ({"grid": {"seeds": [1, 1]}}, "grid.seeds: a seed is listed twice"),
        ({"grid": {"seeds": [2**70]}}, "grid.seeds: seeds must be between 0 and 2**63 - 1"),
        ({"grid": {"seeds": [-1]}}, "grid.seeds: seeds must be between 0 and 2**63 - 1, given -1"),
        ({"grid": {"decoder": {"x\ny": "lstm_ctc"}}}, "grid.decoder: label 'x\\ny' must be 1 to 64 printable"),
        ({"grid": {"decoder": {"x": {"hidden_dim": 3}}}}, "grid.decoder.x.use: is missing"),
        (
            {"grid": {"exclude": [{"decoder": "cct"}]}},
            "exclude refers to the unknown decoder 'cct'; did you mean 'ctc'",
        ),
        ({"grid": {"exclude": [{}]}}, "an empty exclusion excludes everything"),
        ({"grid": {"exclude": [{"bridge": "columns"}]}}, "exclude leaves no combination"),
        ({"labels": {"charset": "aab"}}, "labels.charset: charset holds 'a' more than once"),
        ({"labels": {"charset": ""}}, "labels.charset: charset is empty"),
        ({"augmentation": {"scale": 1.0}}, "augmentation.scale: input should be less than 1, given 1.0"),
    ],
)
def test_mistake_is_reported_with_its_key(tiny: dict[str, Any], change: dict[str, Any], expected: str) -> None:
    assert expected in mistakes(merge(tiny, change))


def test_experiment_may_have_capital_letters_in_its_name(tiny: dict[str, Any]) -> None:
    assert Experiment(**tiny | {"name": "Quick_A"}).name == "Quick_A"


def test_question_is_one_line_of_bounded_length(tiny: dict[str, Any]) -> None:
    assert Experiment(**tiny).question == ""
    assert Experiment(**tiny | {"question": "\nWhich of\r\n  them\treads?\n"}).question == "Which of them reads?"
    assert Experiment(**tiny | {"question": "x" * 1000}).question == "x" * 1000
    found = mistakes(tiny | {"question": "x" * 1001})
    assert "question: has 1,001 characters, and there may be 1,000; shorten it, given 'xxx" in found
    assert len(found) < 400
    assert "question: input should be a valid string, given 5" in mistakes(tiny | {"question": 5})


def test_all_mistakes_are_reported_at_once(tiny: dict[str, Any]) -> None:
    tiny["training"] |= {"stepz": 1, "batch_size": 0}
    tiny["imagge"] = {}
    del tiny["name"]
    assert len(mistakes(tiny).splitlines()) == 4


def test_variants_omit_excluded_combinations(tiny: dict[str, Any]) -> None:
    tiny["grid"]["encoder"]["coarse"] = "tiny_cnn"
    tiny["grid"]["exclude"] = [{"encoder": "coarse", "decoder": "ctc"}]
    variants = Experiment(**tiny).grid.variants()
    assert len(variants) == 5
    assert {"rectifier": "none", "encoder": "coarse", "bridge": "columns", "decoder": "ctc"} not in variants


def test_name_of_returns_name_of_the_matching_combination(tiny: dict[str, Any]) -> None:
    tiny["grid"]["encoder"]["coarse"] = "tiny_cnn"
    names = '[[grid.names]]\nname = "CRNN"\nencoder = "coarse"\ndecoder = "ctc"\n'
    grid = Experiment(**tomllib.loads(f"{to_toml(tiny)}\n{names}")).grid
    named = {tuple(variant.values()): name for variant in grid.variants() if (name := grid.name_of(variant))}
    assert named == {("none", "coarse", "columns", "ctc", ""): "CRNN"}


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ([{"name": "a", "decoder": "cct"}], "name 'a' refers to the unknown decoder 'cct'; did you mean 'ctc'?"),
        ([{"name": "a", "encoder": "tiny"}], "name 'a' must match exactly one combination, matches 3; set more of"),
        ([{"name": "a"}], "name 'a' must match exactly one combination, matches 5"),
        (
            [{"name": "a", "encoder": "coarse", "decoder": "ctc"}],
            "name 'a' must match exactly one combination, matches none (after `exclude`); change its labels",
        ),
        (
            [{"name": name, "encoder": "tiny", "decoder": "ctc"} for name in "ab"],
            "none / tiny / columns / ctc is named 'a' and 'b'; remove one name",
        ),
        (
            [{"name": "a", "encoder": "tiny", "decoder": decoder} for decoder in ("ctc", "loop")],
            "name 'a' is used twice",
        ),
        ([{"name": " "}], "name ' ' must be 1 to 64 printable characters"),
        ([{"name": "a\nb"}], "name 'a\\nb' must be 1 to 64 printable characters"),
        ([{"name": "a" * 65}], "must be 1 to 64 printable characters"),
        ([{"decoder": "ctc"}], "grid.names.0.name: is missing"),
        ([{"nam": "a"}], "grid.names.0.nam: unknown key; did you mean 'name'?; known: bridge, decoder, encoder, name"),
    ],
)
def test_mistake_in_names_is_reported(tiny: dict[str, Any], names: list[dict[str, str]], expected: str) -> None:
    tiny["grid"]["encoder"]["coarse"] = "tiny_cnn"
    tiny["grid"] |= {"exclude": [{"encoder": "coarse", "decoder": "ctc"}], "names": names}
    assert expected in mistakes(tiny)


@pytest.mark.parametrize(
    ("override", "data"),
    [
        ("training.steps=500", {"training": {"steps": 500}}),
        ('grid.decoder."LSTM + CTC".hidden_dim = 64', {"grid": {"decoder": {"LSTM + CTC": {"hidden_dim": 64}}}}),
        ("training.keep=last", {"training": {"keep": "last"}}),
        ("grid.seeds=[0, 1]", {"grid": {"seeds": [0, 1]}}),
    ],
)
def test_parse_overrides_returns_nested_data(override: str, data: dict[str, Any]) -> None:
    assert decide(parse_overrides([override]), BaseModel) == data


@pytest.mark.parametrize("override", ["", "steps", "=3", "a b=3"])
def test_parse_overrides_refuses_other_forms(override: str) -> None:
    with pytest.raises(ConfigError, match="must be key=value"):
        parse_overrides([override])


def test_text_that_is_not_utf8_is_refused_where_it_would_be_recorded() -> None:
    assert parse_overrides(["dataset.path=caf\udce9"]) == {"dataset": {"path": "caf\udce9"}}
    with pytest.raises(ConfigError, match="is not valid UTF-8"):
        parse_overrides(["labels.charset=\udce9"])
    with pytest.raises(ConfigError, match="is not valid UTF-8"):
        add_variants({}, ["decoder.\udce9=x"])


@given(st.dictionaries(KEYS, st.dictionaries(KEYS, st.integers(), max_size=3), max_size=4))
def test_line_of_finds_every_key(data: dict[str, dict[str, int]]) -> None:
    text = to_toml(data)
    lines = text.splitlines()
    assert tomllib.loads(text) == data
    for table, inner in data.items():
        for key in inner:
            number = line_of(text, (table, key))
            assert number is not None
            ((name, value),) = tomllib.loads(lines[number - 1]).items()
            assert (name, value) == (key, inner[key])


def test_line_of_finds_a_key_with_dots_that_is_written_as_nested_keys() -> None:
    option = "tuning", "over", "training.steps"
    assert line_of("[tuning]\nseeds = [1]\n[tuning.over]\ntraining.steps = [1]\n", option) == 4
    assert line_of("[tuning.over.training]\nsteps = [1]\n", option) == 2
    assert line_of('[tuning.over]\ntraining.steps = [1]\n"training.steps" = [2]\n', option) == 3
    assert line_of("[tuning]\nover.training.batch_size = [1]\n", option) == 1


@given(st.text(max_size=200))
def test_line_of_accepts_any_text(text: str) -> None:
    assert line_of(text, ("no such key in here",)) is None


def test_add_variants_keeps_existing_variants() -> None:
    data = {"grid": {"encoder": {"small": "x"}}}
    additions = ["rectifier.mine=y", 'encoder.my own={use="z", width=3}', 'decoder."last one" = "w"']
    added = decide(add_variants(data, additions), BaseModel)
    assert added["grid"] == {
        "rectifier": {"none": {"use": "none"}, "mine": "y"},
        "encoder": {"small": "x", "my own": {"use": "z", "width": 3}},
        "decoder": {"last one": "w"},
    }
    assert data == {"grid": {"encoder": {"small": "x"}}}


@pytest.mark.parametrize(
    ("addition", "expected"),
    [
        ("decoder", "--add decoder: must be axis.label=component, as in decoder.mine=my_decoder"),
        ("decoder.mine", "--add decoder.mine: must be"),
        ("decoder.=x", "--add decoder.=x: must be"),
        ("decoder.mine=", "--add decoder.mine=: must be"),
        ("decodr.mine=x", "--add decodr.mine=x: unknown axis 'decodr'; did you mean 'decoder'?; known: rectifier, enc"),
        ("encoder.small=x", "--add encoder.small=x: encoder 'small' already exists; choose another label"),
        ('encoder.mine={use="x", charset=012}', '--add encoder.mine={use="x", charset=012}: is not a TOML table; put'),
    ],
)
def test_add_variants_reports_every_invalid_addition(addition: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        add_variants({"grid": {"encoder": {"small": "x"}}}, [addition, "bad"])
    first, second = caught.value.mistakes
    assert first.startswith(expected)
    assert second.startswith("--add bad: must be")


def test_key_is_not_given_by_its_own_option_and_by_set() -> None:
    with pytest.raises(ConfigError, match=r"--seeds and --set grid\.seeds say the same thing; give one of them"):
        merge_overrides(["grid.seeds=[5]"], "0", None)
    assert merge_overrides(["grid.encoder=x"], "0,1", None)["grid"]["seeds"] == [0, 1]


def test_merge_drops_options_of_a_replaced_component() -> None:
    base = {"dataset": {"use": "drawn", "charset": "01"}, "grid": {"decoder": {"a": {"use": "x", "width": 3}}}}
    assert merge(base, {"dataset": {"use": "mine", "root": "/x"}})["dataset"] == {"use": "mine", "root": "/x"}
    assert merge(base, {"dataset": {"charset": "ab"}})["dataset"] == {"use": "drawn", "charset": "ab"}
    changes = parse_overrides(["dataset=mine", "dataset.root=/x"])
    assert merge(base, changes)["dataset"] == {"use": "mine", "root": "/x"}
    assert merge(base, {"grid": {"decoder": {"a": {"use": "x", "depth": 2}}}})["grid"]["decoder"]["a"] == {
        "use": "x", "width": 3, "depth": 2,
    }  # fmt: skip
