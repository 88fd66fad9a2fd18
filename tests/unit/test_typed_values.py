"""What is typed with `--set` and `--add` arrives as it is: as text where text is wanted, else as the TOML value."""

from typing import Any, Literal

import pytest
from helpers.small_decoders import SmallCTC
from helpers.support import REGISTRY
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from decoderbench import ComponentConfig
from decoderbench.config.experiment import parse_experiment
from decoderbench.config.grid import ComponentChoice
from decoderbench.config.merging import merge
from decoderbench.config.overrides import add_variants, parse_overrides
from decoderbench.config.typed_values import decide, read_typed
from decoderbench.errors import ConfigError
from decoderbench.registry.registry import Components


class Options(ComponentConfig):
    text: str = ""
    maybe: str | None = None
    texts: tuple[str, ...] = ()
    table: dict[str, str] = Field(default={})
    count: int = 0
    rate: float = 0.0
    flag: bool = False
    version: Literal["1", "2"] = "1"
    size: Literal[1, 2] = 1
    either: int | str = ""
    counts: tuple[int, ...] = ()


class Decoder(SmallCTC):
    name = "typed"
    Config = Options


COMPONENTS: Components[Any] = Components("decoder")
COMPONENTS.add(Decoder, "test", "test")
TRICKY = [
    r"_(?P<label>\w+)", r"no\new", "123456789", "0123", "true", "2026-11-27", "1e5", "[a]", "[1]", "[1, 2]", "[]", "{}",
    "{a = 1}", "nan", "inf", "-0", "+5", "1_000", "0x1F", "a#b", "5 # five", "#", " padded ", " 7 ", "", " ", "a=b",
    "=", "a = 1", '"', "it's", '"open', '"a" # b', '"a", "b"', "\t", "\x1b[31m", "\u200c", "9" * 5000,
    "[" * 3000, "1\nother = 2", "1]\nother = [2", "12:30:00", "é",
]  # fmt: skip


def typed(option: str, text: str) -> Any:
    """Return the value of an option of the component after `--set decoder.OPTION=TEXT`."""
    return COMPONENTS.decide_options("typed", parse_overrides([f"{option}={text}"]))[option]


@pytest.mark.parametrize("option", ["text", "maybe"])
@pytest.mark.parametrize("text", TRICKY)
def test_text_option_is_what_was_typed(option: str, text: str) -> None:
    assert typed(option, text) == text
    assert Options(**COMPONENTS.decide_options("typed", parse_overrides([f"{option}={text}"])))


@given(st.text())
def test_any_text_arrives_unchanged_unless_it_is_a_string_in_quotes(text: str) -> None:
    quoted = text.strip()[:1] in ("'", '"') and text.strip()[-1:] in ("'", '"')
    assert quoted or typed("text", text) == text


@pytest.mark.parametrize("text", ['"123"', "'123'", ' "123" ', '"""123"""', r'"\u0031\u0032\u0033"'])
def test_string_in_quotes_is_the_string_of_toml(text: str) -> None:
    assert typed("text", text) == "123"


@pytest.mark.parametrize(
    ("option", "text", "value"),
    [
        ("count", "5", 5),
        ("count", " 5 ", 5),
        ("count", "1e5", 1e5),
        ("rate", "nan", "nan"),
        ("flag", "true", True),
        ("version", "2", "2"),
        ("size", "2", 2),
        ("either", "7", 7),
        ("either", "007", "007"),
        ("counts", "[1, 2]", [1, 2]),
        ("texts", "[1, 0.50, true, 'a,b', [c]]", "[1, 0.50, true, 'a,b', [c]]"),
        ("texts", "[1, 0.50, true, 'a,b', ]", ["1", "0.50", "true", "a,b"]),
        ("table", '{a = 1.50, "b=c" = 1e5, d = "x, y"}', {"a": "1.50", "b=c": "1e5", "d": "x, y"}),
    ],
)
def test_option_gets_text_only_where_it_wants_text(option: str, text: str, value: Any) -> None:
    given = typed(option, text)
    assert (str(given), str) == (value, str) if value == "nan" else (given, type(given)) == (value, type(value))


def test_mistake_shows_the_value_that_is_nearest_to_the_option() -> None:
    def mistake(option: str, typed_text: str) -> str:
        options = COMPONENTS.decide_options("typed", parse_overrides([f"{option}={typed_text}"]))
        ((_, text),) = COMPONENTS.mistakes(ComponentChoice.model_validate({"use": "typed", **options}))
        return text

    assert "input should be 1 or 2, given 3" in mistake("size", "3")
    assert "input should be a valid integer, given datetime.date(2026, 11, 27)" in mistake("count", "2026-11-27")


@pytest.mark.parametrize("charset", ["123456789", "0123", "1e5"])
def test_charset_may_look_like_a_number(tiny: dict[str, Any], charset: str) -> None:
    changed = parse_experiment(merge(tiny, parse_overrides([f"labels.charset={charset}"])), source="file.toml")
    assert changed.labels.charset == charset


def test_experiment_reports_what_is_wrong_with_a_text_that_looks_like_a_number(tiny: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="charset holds '1' more than once"):
        parse_experiment(merge(tiny, parse_overrides(["labels.charset=11"])), source="file.toml")


def test_component_may_have_digits_for_a_name(tiny: dict[str, Any]) -> None:
    changed = merge(tiny, parse_overrides(["grid.decoder.ctc=123", "dataset=456"]))
    assert parse_experiment(changed, source="file.toml").grid.decoder["ctc"].use == "123"
    found = [text for _, text in REGISTRY.mistakes(REGISTRY.decide_options(changed))]
    assert {"unknown dataset '456'", "unknown decoder '123'"} < {text.partition(";")[0] for text in found}


@pytest.mark.parametrize(
    "arguments",
    [
        {"overrides": ["dataset.use=folder", "dataset.path=007", r"dataset.filename_pattern=_(?P<label>\w+)"]},
        {"overrides": [r"""dataset={use = "folder", path = 7.00, filename_pattern = '_(?P<label>\w+)'}"""]},
    ],
)
def test_registry_decides_by_the_options_of_the_component(tiny: dict[str, Any], arguments: dict[str, Any]) -> None:
    data = REGISTRY.decide_options(merge(tiny, parse_overrides(arguments["overrides"])))
    assert data["dataset"] in (
        {"use": "folder", "path": path, "filename_pattern": r"_(?P<label>\w+)"} for path in ("007", "7.00")
    )


def test_added_variant_takes_numbers_in_its_table_as_text_where_text_is_wanted(tiny: dict[str, Any]) -> None:
    added = add_variants(tiny, ['encoder.other={use = "timm_cnn", model = 0.50, stage = 1}'])
    decided = REGISTRY.decide_options(added)
    assert decided["grid"]["encoder"]["other"] == {"use": "timm_cnn", "model": "0.50", "stage": 1}


def test_later_override_changes_a_table_that_was_typed(tiny: dict[str, Any]) -> None:
    changes = parse_overrides(["training={steps = 3, keep = 'last'}", "training.steps=4"])
    assert decide(changes, Options)["training"] == {"steps": 4, "keep": "last"}


def test_read_typed_keeps_strings_as_strings() -> None:
    assert read_typed("abc") == "abc"
    assert read_typed("'abc'") == "abc"
