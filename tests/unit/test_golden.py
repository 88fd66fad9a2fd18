"""Parameter counts and numbers of frames equal the published ones exactly.

Baek et al. 2019, "What Is Wrong With Scene Text Recognition Model Comparisons?", and the networks published with it:
gray images of 32 x 100, 36 characters, texts of up to 25 characters.
"""

from dataclasses import replace
from typing import Any

import pytest
import torch
from helpers.support import REGISTRY, Options
from torch import nn

from decoderbench import Charset, ImageSpec, LabelSpec
from decoderbench.model.recognizer import Recognizer

IMAGE = ImageSpec(channels=1, height=32, width=100)
LABELS = LabelSpec(charset=Charset("0123456789abcdefghijklmnopqrstuvwxyz"), max_length=25, frames_needed=24)
ATTENTION = ("attention_lstm", {"wiring": "baek2019"})


def build_stage(components: Any, chosen: str | tuple[str, Options], *specs: object) -> Any:
    name, options = (chosen, {}) if isinstance(chosen, str) else chosen
    component = components[name].component
    return component(component.Config.model_validate(options), *specs)


def recognizer(rectifier: Any, encoder: Any, bridge: Any, decoder: Any, image: ImageSpec = IMAGE) -> Recognizer:
    """Build a recognizer on the meta device; each stage is given by its name, or its name and options."""
    with torch.device("meta"):
        rectify = build_stage(REGISTRY["rectifier"], rectifier, image)
        encode = build_stage(REGISTRY["encoder"], encoder, rectify.image)
        bridging = build_stage(REGISTRY["bridge"], bridge, encode.features)
        return Recognizer(rectify, encode, bridging, build_stage(REGISTRY["decoder"], decoder, bridging.memory, LABELS))


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)


@pytest.mark.parametrize(("rectifier", "published"), [("none", 0), ("tps", 1_692_392)])
def test_parameters_of_rectifiers_are_published(rectifier: str, published: int) -> None:
    assert parameters(recognizer(rectifier, "crnn_vgg", "mean_height", "ctc").rectifier) == published


@pytest.mark.parametrize(
    ("encoder", "published"), [("crnn_vgg", 5_549_824), ("grcnn", 1_859_968), ("resnet_fan", 44_263_904)]
)
def test_parameters_of_encoders_are_published(encoder: str, published: int) -> None:
    assert parameters(recognizer("none", encoder, "mean_height", "ctc").encoder) == published


@pytest.mark.parametrize(("bridge", "published"), [("mean_height", 0), ("bilstm", 2_892_288)])
def test_parameters_of_bridges_are_published(bridge: str, published: int) -> None:
    assert parameters(recognizer("none", "crnn_vgg", bridge, "ctc").bridge) == published


@pytest.mark.parametrize(
    ("bridge", "decoder", "published"),
    [
        ("bilstm", "ctc", 9_509),
        ("mean_height", "ctc", 18_981),
        ("bilstm", ATTENTION, 706_598),
        ("mean_height", ATTENTION, 1_034_278),
    ],
    ids=str,
)
def test_parameters_of_decoders_are_published(bridge: str, decoder: Any, published: int) -> None:
    assert parameters(recognizer("none", "crnn_vgg", bridge, decoder).decoder) == published


@pytest.mark.parametrize(
    ("stages", "published"),
    [
        pytest.param(("none", "crnn_vgg", "bilstm", "ctc"), 8_451_621, id="CRNN"),
        pytest.param(
            ("none", "crnn_vgg", ("bilstm", {"last_projection": False}), "ctc"), 8_329_765, id="CRNN of Shi et al."
        ),
        pytest.param(("tps", "resnet_fan", "bilstm", ATTENTION), 49_555_182, id="TRBA"),
        pytest.param(("none", "resnet_fan", "mean_height", "ctc"), 44_282_885, id="Rosetta"),
    ],
)
def test_parameters_of_complete_recognizers_are_published(stages: tuple[Any, Any, Any, Any], published: int) -> None:
    assert parameters(recognizer(*stages)) == published


@pytest.mark.parametrize("bridge", ["mean_height", "bilstm"])
@pytest.mark.parametrize(("encoder", "frames"), [("crnn_vgg", (24, 31)), ("grcnn", (26, 33)), ("resnet_fan", (26, 33))])
def test_frames_of_encoders_are_published(encoder: str, bridge: str, frames: tuple[int, int]) -> None:
    for width, expected in zip((100, 128), frames, strict=True):
        image = replace(IMAGE, width=width)
        built = recognizer("tps", encoder, bridge, "ctc", image)
        assert built.encoder.features.height == 1
        assert built.bridge.memory.length == expected
        assert built.memory(torch.zeros(2, 1, 32, width, device="meta")).length == expected
