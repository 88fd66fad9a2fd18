"""What `compare` chooses from what it sees of the data, and how it says so."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from decoderbench import Experiment, Registry
from decoderbench.config.overrides import parse_overrides
from decoderbench.planning.compare_preset import fit_preset
from decoderbench.planning.recipe import Sighting, choose_recipe, describe_recipe

CAPTCHAS = Sighting(749, ((200, 50),) * 20, (5,) * 20, 0.0)
SCATTERED = Sighting(
    7007, tuple((65 * n + wide, 80) for n in (4, 6, 8) for wide in (-60, 0, 90)), (4,) * 3 + (6,) * 3 + (8,) * 3, 1.0
)
LINES = Sighting(525, tuple((25 * n, 50) for n in (20, 30, 40, 50, 60)), (40, 60, 80, 100, 113), 0.0)


def chosen(seen: Sighting, by_hand: dict[str, dict[str, Any]] | None = None) -> dict[str, Any]:
    return {choice.option[-1]: choice.value for choice in choose_recipe(seen, by_hand or {})}


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        pytest.param(
            CAPTCHAS,
            {"height": 48, "channels": 1, "resize": "stretch", "width": 192, "keep_width": 8, "pool": "flatten"},
            id="captchas of one size",
        ),
        pytest.param(
            SCATTERED,
            {"height": 48, "channels": 3, "resize": "keep", "keep_width": 8, "pool": "frames", "steps": 2000},
            id="wide captchas in color",
        ),
        pytest.param(
            LINES,
            {"height": 32, "channels": 1, "resize": "keep", "width": 1200, "keep_width": 4, "steps": 2000},
            id="lines",
        ),
    ],
)
def test_recipe_follows_from_the_data(seen: Sighting, expected: dict[str, Any]) -> None:
    assert expected.items() <= chosen(seen).items()


def test_fewer_images_are_changed_more() -> None:
    few, many = chosen(CAPTCHAS), chosen(Sighting(20_000, CAPTCHAS.sizes, CAPTCHAS.lengths, 0.0))
    for option in ("rotate", "shear", "scale", "translate", "contrast", "noise"):
        assert few[option] > many[option] > 0
    assert many["steps"] == 5000


@pytest.mark.parametrize(
    ("by_hand", "expected"),
    [
        ({"image": {"height": 64}}, {"width": 256, "keep_width": 8}),
        ({"image": {"width": 40}}, {"height": 48, "keep_width": 4}),
        ({"image": {"resize": "keep"}}, {"width": 240, "pool": "frames"}),
        ({"training": {"batch_size": 749}}, {"steps": 2000}),
        ({"training": {"steps": 7}, "augmentation": {"noise": 0.0}}, {"rotate": 4.0}),
    ],
)
def test_settings_made_by_hand_are_kept_and_the_others_follow_them(
    by_hand: dict[str, dict[str, Any]], expected: dict[str, Any]
) -> None:
    found = chosen(CAPTCHAS, by_hand)
    assert not {option for table in by_hand.values() for option in table} & found.keys()
    assert expected.items() <= found.items()


def test_each_setting_has_a_line_with_its_reason() -> None:
    lines = describe_recipe(choose_recipe(SCATTERED, {}))
    assert "[image] channels = 3: 100% of images have colors" in lines
    assert (
        "[augmentation] rotate = 3.0, shear = 0.1, scale = 0.1, translate = 0.06, contrast = 0.2, brightness = 0.1, "
        "noise = 0.04: 7,007 training images are enough for less" in lines
    )
    assert (
        '[grid.decoder."LSTMCell loop"] pool = frames: images have different widths, and a flattened memory has one'
        in lines
    )
    assert "[training] steps = 2000: 9 epochs of 7,007 training images, the fewest steps" in lines


@settings(deadline=None)
@given(
    seen=st.builds(
        lambda rows, num_train, colored: Sighting(
            num_train, tuple((w, h) for w, h, _ in rows), tuple(n for *_, n in rows), colored
        ),
        st.lists(st.tuples(st.integers(1, 20_000), st.integers(1, 20_000), st.integers(0, 200)), min_size=1),
        st.integers(0, 10_000_000),
        st.floats(0, 1),
    )
)
def test_recipe_of_any_data_is_a_valid_experiment(seen: Sighting) -> None:
    found = chosen(seen)
    assert 32 <= found["height"] <= 48
    assert found["height"] <= found["width"] <= 2048
    assert 2000 <= found["steps"] <= 6000
    assert found["keep_width"] in (2, 4, 8)


def draw(folder: Path, *, color: str, sizes: list[tuple[int, int]]) -> None:
    for number, size in enumerate(sizes):
        image = Image.new("RGB", size, "white")
        ImageDraw.Draw(image).rectangle((4, 4, size[0] // 2, size[1] - 4), fill=color)
        image.save(folder / f"{number:02d}abc.png")


def test_compare_looks_at_the_images(registry: Registry, tmp_path: Path) -> None:
    draw(tmp_path, color="pink", sizes=[(100 + 10 * number, 60) for number in range(30)])
    data, _, lines = fit_preset(tmp_path, registry)
    experiment = Experiment(**data)
    assert (experiment.image.channels, experiment.image.resize, experiment.image.height) == (3, "keep", 48)
    assert "[image] channels = 3: 100% of images have colors" in lines


def test_gray_images_in_color_files_are_gray(registry: Registry, tmp_path: Path) -> None:
    draw(tmp_path, color="#404448", sizes=[(120, 40)] * 30)
    assert Experiment(**fit_preset(tmp_path, registry)[0]).image.channels == 1


def test_settings_typed_by_hand_have_no_line(registry: Registry, tmp_path: Path) -> None:
    draw(tmp_path, color="black", sizes=[(120, 40)] * 30)
    changes = parse_overrides(["image.height=64", "training.steps=9", "image.resize=nonsense"])
    _, _, lines = fit_preset(tmp_path, registry, changes=changes)
    assert not any("height =" in line for line in lines[:1])
    valid = parse_overrides(["image.height=64", "training.steps=9"])
    valid["grid"] = parse_overrides(['grid.decoder."LSTMCell loop".pool=mean'])["grid"]
    data, _, lines = fit_preset(tmp_path, registry, changes=valid)
    assert data["image"]["width"] == 192
    assert not any("pool" in line for line in lines)
    assert not any(" height = " in line or " steps = " in line for line in lines)


def test_training_images_of_folds_are_counted(registry: Registry, tmp_path: Path) -> None:
    draw(tmp_path, color="black", sizes=[(120, 40)] * 50)
    _, _, lines = fit_preset(tmp_path, registry, changes={"dataset": {"folds": 5, "fractions": [0.7, 0.1, 0.2]}})
    assert any("35 training images are few" in line for line in lines)
