"""Common properties of the encoders of Baek et al. 2019: declared shapes, other image widths, refusals."""

from typing import Any

import pytest
import torch
from helpers.support import REGISTRY

from decoderbench import Encoder, ImageSpec, InfeasibleError

# Columns beyond one per four pixels, numbers of channels that are refused, and the narrowest image.
EXTRA_COLUMN = {"crnn_vgg": -1, "grcnn": 1, "resnet_fan": 1}
CHANNELS_REFUSED = {"crnn_vgg": [4, 20], "grcnn": [4, 20], "resnet_fan": [8, 40]}
LEAST_WIDTH = {"crnn_vgg": 8, "grcnn": 4, "resnet_fan": 4}

pytestmark = pytest.mark.parametrize("name", list(EXTRA_COLUMN))


def build(name: str, channels: int = 1, height: int = 32, width: int = 100, output_channels: int = 32) -> Encoder:
    component: Any = REGISTRY["encoder"][name].component
    config = component.Config(output_channels=output_channels)
    encoder: Encoder = component(config, ImageSpec(channels=channels, height=height, width=width))
    return encoder


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("height", "width"), [(32, None), (32, 100), (40, 130), (64, 96)])
def test_declared_features_match_the_output(name: str, channels: int, height: int, width: int | None) -> None:
    width = width or LEAST_WIDTH[name]
    encoder = build(name, channels, height, width)
    declared = encoder.features
    features = encoder(torch.zeros(2, channels, height, width))
    assert features.shape == (2, declared.channels, declared.height, declared.width)


@pytest.mark.parametrize(("height", "width", "rows", "columns"), [(32, 100, 1, 25), (32, 128, 1, 32), (64, 99, 3, 24)])
def test_map_has_one_column_per_four_pixels(name: str, height: int, width: int, rows: int, columns: int) -> None:
    features = build(name, height=height, width=width).features
    assert (features.height, features.width) == (rows, columns + EXTRA_COLUMN[name])


def test_images_of_another_width_are_read(name: str) -> None:
    features = build(name).eval()(torch.zeros(2, 1, 32, 60))
    assert features.shape == (2, 32, 1, 15 + EXTRA_COLUMN[name])


@pytest.mark.parametrize(("short", "narrow"), [(1, 0), (0, 1)])
def test_too_small_images_are_refused(name: str, short: int, narrow: int) -> None:
    least = LEAST_WIDTH[name]
    given = f"{32 - short}x{least - narrow}"
    with pytest.raises(InfeasibleError, match=rf"{name} needs images of at least 32x{least} .*, given {given};"):
        build(name, height=32 - short, width=least - narrow)


def test_indivisible_output_channels_are_refused(name: str) -> None:
    for output_channels in CHANNELS_REFUSED[name]:
        with pytest.raises(ValueError, match="output_channels"):
            build(name, output_channels=output_channels)
