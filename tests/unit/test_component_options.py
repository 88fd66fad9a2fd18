"""Options that are components: checked by the registry, documented, and part of what a cell is."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
from helpers.support import REGISTRY
from pydantic import Field, ValidationError
from torch import Tensor

from decoderbench import (
    AutoregressiveDecoder,
    BridgeOption,
    Charset,
    ComponentConfig,
    CTCDecoder,
    DecoderOption,
    EncoderOption,
    LabelSpec,
    SequenceSpec,
    identity_of,
)
from decoderbench.component_options import ComponentOption, without_first_weights
from decoderbench.config.grid import ComponentChoice
from decoderbench.config.mistakes import explain_mistakes
from decoderbench.config.typed_values import read_typed
from decoderbench.options import refuse
from decoderbench.registry.listing import describe_components
from decoderbench.registry.registry import Components

ATTENTION = {"use": "attention_lstm", "hidden_dim": 32}


class Options(ComponentConfig):
    guide: DecoderOption = Field(default=ATTENTION)
    """A decoder."""

    bridge: BridgeOption | None = None
    """A bridge."""


def options(**given: Any) -> Options:
    return Options.model_validate(given, context=REGISTRY.resolve)


def mistakes_in(**given: Any) -> list[tuple[tuple[str | int, ...], str]]:
    with pytest.raises(ValidationError) as caught:
        options(**given)
    return explain_mistakes(caught.value, Options)


def test_component_is_given_by_name_or_with_its_options() -> None:
    assert options(guide="ctc").guide.as_data() == {
        "use": "ctc",
        **REGISTRY["decoder"]["ctc"].config_class().model_dump(),
    }
    guide = options(guide={"use": "attention_lstm", "embed_dim": 8}).guide
    assert guide.as_data()["embed_dim"] == 8
    assert guide.as_data()["hidden_dim"] == 256  # its default
    assert options().guide.as_data()["hidden_dim"] == 32
    assert options().bridge is None


def test_component_is_built_from_the_specs() -> None:
    memory, labels = SequenceSpec(length=8, dim=5, left_to_right=True), LabelSpec(charset=Charset("ab"), max_length=3)
    built = options().guide.build(memory, labels)
    assert isinstance(built, AutoregressiveDecoder)
    assert built.vocabulary_size == 3


def test_options_survive_the_way_through_a_plan() -> None:
    given = options(guide={"use": "lstm_cell", "hidden_dim": 16}, bridge="mean_height")
    assert Options.model_validate(given.model_dump(mode="json"), context=REGISTRY.resolve) == given


@pytest.mark.parametrize(
    ("guide", "place", "message"),
    [
        ("attention", ("guide", "use"), "unknown decoder 'attention'; did you mean 'attention_lstm'?"),
        ({**ATTENTION, "hiden_dim": 3}, ("guide", "hiden_dim"), "decoder 'attention_lstm': unknown key; did you mean"),
        ({**ATTENTION, "embed_dim": "x"}, ("guide", "embed_dim"), "decoder 'attention_lstm': .*integer.*, given 'x'"),
        ({**ATTENTION, "embed_dim": 0}, ("guide", "embed_dim"), "greater than or equal to 1, given 0$"),
        ({**ATTENTION, "frames_per_step": 0}, ("guide", "frames_per_step"), "greater than 0, given 0$"),
        (3, ("guide",), "must name a decoder, as in { use = ... } with its options, given 3"),
        ({"hidden_dim": 3}, ("guide",), "must name a decoder, .*, given a table with no use; its keys: hidden_dim"),
        ({}, ("guide",), "given a table with no use; its keys: none"),
        ({"use": 3}, ("guide",), "given a table with use = 3, which is no text"),
        (["nrtr"], ("guide",), "given a list; use one name or one table"),
        ("{use=nrtr, dim=8}", ("guide", "use"), "unknown decoder .*; a table needs use and has texts in quotes"),
        ("mean_height", ("guide", "use"), "unknown decoder 'mean_height'"),
    ],
)
def test_mistakes_have_their_place(guide: object, place: tuple[str, ...], message: str) -> None:
    ((found, text),) = mistakes_in(guide=guide)
    assert found == place
    assert text == text.strip()
    assert re.search(message, text), text


def test_experiment_names_the_place_of_a_mistake_within_a_component() -> None:
    variant = {"use": "hybrid", "guide": {"use": "attention_lstm", "hidden_dims": 3}}
    grid = {"encoder": {}, "bridge": {}, "decoder": {"both": variant}}
    ((place, text),) = REGISTRY.mistakes({"dataset": {"use": "synthetic_captcha"}, "grid": grid})
    assert place == ("grid", "decoder", "both", "guide", "hidden_dims")
    assert "did you mean 'hidden_dim'?" in text


def test_options_and_source_of_the_inner_component_are_part_of_the_identity() -> None:
    identities = [identity_of(options(guide=guide))["guide"] for guide in (ATTENTION, "attention_lstm", "nrtr")]
    assert identities[0]["options"] == {"hidden_dim": 32}
    assert identities[1]["options"] == {}
    assert len({str(one) for one in identities}) == 3
    edited = replace(options().guide, source="edited")
    assert edited.identity() != options().guide.identity()


def test_typed_options_of_the_inner_component_are_decided_by_its_types() -> None:
    typed = {"guide": read_typed('{use="attention_lstm", hidden_dim=16}')}
    decided = REGISTRY["decoder"].decide_options("hybrid", typed)
    assert decided == {"guide": {"use": "attention_lstm", "hidden_dim": 16}}


def test_documentation_says_that_an_option_is_a_decoder() -> None:
    text = "\n".join(describe_components(REGISTRY, "decoder/hybrid"))
    assert "decoder: its name, or a table with use and its options" in text


class Several(ComponentConfig):
    readers: tuple[DecoderOption, ...] = Field(default=("ctc",))
    """Decoders."""

    by_name: dict[str, DecoderOption] = Field(default={})
    """Decoders by name."""


def several(**given: Any) -> dict[str, Any]:
    return identity_of(Several.model_validate(given, context=REGISTRY.resolve))


def test_components_in_lists_and_tables_are_part_of_the_identity() -> None:
    assert [one["use"] for one in several()["readers"]] == ["ctc"]
    assert several(readers=["ctc"]) == several(readers=[{"use": "ctc"}]) == several()
    assert several(readers=["ctc", ATTENTION])["readers"][1]["options"] == {"hidden_dim": 32}
    of_table = several(by_name={"inner": ATTENTION})["by_name"]["inner"]
    assert of_table == options().guide.identity()
    assert "by_name" not in several()


def test_default_that_is_within_itself_is_a_mistake() -> None:
    class Endless(CTCDecoder):
        name = "endless"

        class Config(ComponentConfig):
            inner: DecoderOption = Field(default="endless")
            """Itself."""

        def forward(self, memory: Tensor) -> Tensor:
            return memory

    components = Components[Any]("decoder", resolve=lambda option, given: resolve(option, given))
    components.add(Endless, "plugin", "plugin")

    def resolve(option: type[ComponentOption], given: Any) -> ComponentOption:
        config, mistakes = components.try_to_configure(ComponentChoice.model_validate(given))
        refuse(dict(mistakes), {}, option.__name__)
        raise AssertionError(config)

    ((place, text),) = components.mistakes(ComponentChoice(use="endless"))
    assert place == ("inner", "inner")
    assert "its default is a decoder 'endless' within itself, without end" in text


def test_each_component_of_a_deep_nest_is_configured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    configured = list[str]()
    configure = Components.configure

    def counted(components: Components[Any], choice: ComponentChoice) -> Any:
        configured.append(choice.use)
        return configure(components, choice)

    monkeypatch.setattr(Components, "configure", counted)
    nest: dict[str, Any] = {"use": "hybrid", "main": "ctc", "guide": "nrtr"}
    for _ in range(5):
        nest = {"use": "hybrid", "main": "ctc", "guide": nest}
    options(guide=nest)
    assert configured.count("hybrid") == 6
    configured.clear()
    mistakes_in(guide={"use": "hybrid", "guide": {"use": "hybrid", "guide": {"use": "hybrid", "guid": 3}}})
    assert configured.count("hybrid") == 3


def test_missing_option_is_needed_by_the_component() -> None:
    class Needs(ComponentConfig):
        guide: DecoderOption
        """A decoder."""

    with pytest.raises(ValidationError) as caught:
        Needs.model_validate({})
    assert explain_mistakes(caught.value, Needs) == [(("guide",), "is missing; every such table needs it")]


class Stems(ComponentConfig):
    stem: EncoderOption
    """An encoder."""

    stems: list[EncoderOption]
    """Encoders."""

    by_name: dict[str, EncoderOption]
    """Encoders by name."""


def test_options_of_first_weights_are_off_at_any_depth_and_all_others_stay() -> None:
    trained = {"use": "timm_cnn", "model": "resnet10t", "pretrained": True, "stage": 1}
    given = Stems.model_validate(
        {"stem": trained, "stems": [trained, {"use": "crnn_vgg"}], "by_name": {"a": trained}}, context=REGISTRY.resolve
    )
    built = without_first_weights(given)
    found = [built.stem, built.stems[0], built.by_name["a"]]
    assert [option.as_data()["pretrained"] for option in found] == [False] * 3
    assert [option.as_data()["stage"] for option in found] == [1] * 3
    assert built.stems[1] == given.stems[1]
    assert given.stem.as_data()["pretrained"] is True
    assert without_first_weights(built) == built
