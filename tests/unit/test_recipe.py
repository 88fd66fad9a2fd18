"""What `compare` chooses from what it sees of the data, and how it says so."""

import tomllib
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from decoderbench import Experiment, Registry
from decoderbench.config.overrides import parse_overrides
from decoderbench.options import AugmentationOptions, ImageOptions, TrainingOptions
from decoderbench.planning import recipe
from decoderbench.planning.compare_preset import fit_preset
from decoderbench.planning.recipe import KEEP_WIDTH, POOL_OF_LOOP, Sighting, choose_recipe, describe_recipe

CAPTCHAS = Sighting(749, 9, ((200, 50),) * 20, ("abcde",) * 20, 0.0)
SCATTERED = Sighting(
    7007,
    11,
    tuple((65 * n + wide, 80) for n in (4, 6, 8) for wide in (-60, 0, 90)),
    ("abcd",) * 3 + ("abcdef",) * 3 + ("abcdefgh",) * 3,
    1.0,
)
LINES = Sighting(
    525, 120, tuple((25 * n, 50) for n in (20, 30, 40, 50, 60)), tuple("x" * n for n in (40, 60, 80, 100, 113)), 0.0
)


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
    few, many = chosen(CAPTCHAS), chosen(replace(CAPTCHAS, num_train=20_000))
    for option in ("rotate", "shear", "scale", "translate", "contrast", "noise"):
        assert few[option] > many[option] > 0
    assert many["steps"] == 5000


@pytest.mark.parametrize(
    ("by_hand", "expected"),
    [
        ({"image": {"height": 64}}, {"width": 256, "keep_width": 8}),
        ({"image": {"width": 40}}, {"height": 48, "keep_width": 4}),
        ({"image": {"resize": "keep"}}, {"width": 240, "pool": "frames"}),
        ({"image": {"resize": "pad"}}, {"width": 240, "pool": "flatten"}),
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
    for line in (
        "[image] channels = 3: 100 % of images have colors",
        '[image] resize = "keep": images are 2.5 to 7.6 times as wide as high',
        "[augmentation] rotate = 3.0, shear = 0.1, scale = 0.1, translate = 0.06, contrast = 0.2, brightness = 0.1, "
        "noise = 0.04: 7,007 training images, at least 2,000, so changed a little",
        '[grid.decoder."LSTMCell loop"] pool = "frames": images have different widths, and a flattened memory has one',
        "[training] steps = 2000: 9 epochs of 7,007 training images",
    ):
        assert line in lines


@pytest.mark.parametrize(
    ("seen", "option", "value", "reason"),
    [
        (
            replace(CAPTCHAS, num_train=1),
            "steps",
            2000,
            "64,000 epochs of 1 training image, the fewest that are chosen",
        ),
        (
            replace(CAPTCHAS, num_train=10**7),
            "steps",
            6000,
            "less than an epoch of 10,000,000 training images, the most that are chosen; more may read more",
        ),
        (replace(CAPTCHAS, colored=0.046), "channels", 1, "4.6 % of images have colors, fewer than 5 %"),
        (replace(CAPTCHAS, sizes=((40, 200),) * 20), "width", 48, "as wide as high, the least that is chosen"),
        (replace(CAPTCHAS, sizes=((9000, 40),) * 20), "width", 2048, "the most that is chosen; the median"),
        (replace(CAPTCHAS, labels=("",) * 20), "keep_width", 8, "no label has a character"),
        (replace(CAPTCHAS, frames_needed=30), "keep_width", 4, "; the longest label needs 30 frames"),
        (
            replace(CAPTCHAS, sizes=((200, 44),) * 20),
            "height",
            40,
            "images are 44 pixels high (median); they get 7,273",
        ),
        (
            replace(CAPTCHAS, sizes=((600, 60),) * 20, labels=("x" * 10,) * 20),
            "height",
            40,
            "and would have 23,040 at 48, more than 16,000",
        ),
        (replace(CAPTCHAS, sizes=((320, 60),) * 20), "height", 40, "have 2,458 per character at 48, more than 2,400"),
    ],
)
def test_reason_names_what_decided(seen: Sighting, option: str, value: Any, reason: str) -> None:
    (found,) = (choice for choice in choose_recipe(seen, {}) if choice.option[-1] == option)
    assert found.value == value
    assert reason in found.reason


def test_one_image_unlike_the_rest_keeps_the_widths() -> None:
    outlier = replace(CAPTCHAS, sizes=((200, 50),) * 19 + ((1000, 50),))
    assert (chosen(outlier)["resize"], chosen(outlier)["width"]) == ("keep", 1200)


@pytest.mark.parametrize("replaced", ["ctc", {"use": "attention_lstm"}])
def test_component_that_is_replaced_has_no_line(replaced: Any) -> None:
    by_hand = {"grid": {"decoder": {"LSTMCell loop": replaced}, "encoder": {"ResNet-10-T, stage 3": replaced}}}
    assert not {"pool", "keep_width"} & chosen(CAPTCHAS, by_hand).keys()


def test_options_of_components_are_those_of_the_preset() -> None:
    preset = tomllib.loads(files(recipe.__package__).joinpath("compare.toml").read_text(encoding="utf-8"))
    for _, axis, label, _ in (KEEP_WIDTH, POOL_OF_LOOP):
        assert label in preset["grid"][axis]


@settings(deadline=None)
@given(
    seen=st.builds(
        lambda rows, num_train, colored: Sighting(
            num_train,
            max(length for *_, length in rows),
            tuple((width, height) for width, height, _ in rows),
            tuple("x" * length for *_, length in rows),
            colored,
        ),
        st.lists(st.tuples(st.integers(1, 20_000), st.integers(1, 20_000), st.integers(0, 200)), min_size=1),
        st.integers(0, 10_000_000),
        st.floats(0, 1),
    )
)
def test_recipe_of_any_data_has_valid_options_and_room_for_the_longest_label(seen: Sighting) -> None:
    tables: dict[str, dict[str, Any]] = {}
    for choice in choose_recipe(seen, {}):
        tables.setdefault(choice.option[0], {})[choice.option[-1]] = choice.value
    image = ImageOptions(**tables["image"])
    AugmentationOptions(**tables["augmentation"])
    TrainingOptions(**tables["training"])
    if image.resize == "stretch" and seen.frames_needed <= image.width // 2:
        assert seen.frames_needed <= image.width // tables["grid"]["keep_width"]


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
    assert "[image] channels = 3: 100 % of images have colors" in lines


def test_gray_images_in_color_files_are_gray(registry: Registry, tmp_path: Path) -> None:
    draw(tmp_path, color="#404448", sizes=[(120, 40)] * 30)
    assert Experiment(**fit_preset(tmp_path, registry)[0]).image.channels == 1


def test_settings_typed_by_hand_have_no_line(registry: Registry, tmp_path: Path) -> None:
    draw(tmp_path, color="black", sizes=[(120, 40)] * 30)
    typed = ["image.height=64", "training.steps=9", 'grid.decoder."LSTMCell loop".pool=mean']
    data, _, lines = fit_preset(tmp_path, registry, changes=parse_overrides(typed))
    assert data["image"]["width"] == 192
    assert not any(f" {option} = " in line for line in lines for option in ("height", "steps", "pool"))
    _, _, with_mistake = fit_preset(tmp_path, registry, changes=parse_overrides([*typed, "image.width=wide"]))
    assert with_mistake == lines  # the mistake is told later, and hides no setting beside it


@pytest.mark.parametrize(
    ("options", "number"),
    [({}, 35), ({"train_limit": 10}, 9), ({"folds": 5}, 35), ({"folds": 5, "train_limit": 10}, 9)],
)
def test_images_that_train_are_counted(
    registry: Registry, tmp_path: Path, options: dict[str, Any], number: int
) -> None:
    draw(tmp_path, color="black", sizes=[(120, 40)] * 50)
    _, _, lines = fit_preset(tmp_path, registry, changes={"dataset": {"fractions": [0.7, 0.1, 0.2], **options}})
    assert any(f" {number} training images, fewer than 2,000" in line for line in lines)


@pytest.mark.parametrize(
    ("color", "colored"),
    [((200, 0, 0, 255), True), ((0, 0, 0, 255), False), ((255, 0, 0, 0), False)],
    ids=["thin strokes", "black", "transparent"],
)
def test_colors_are_those_that_are_seen(
    registry: Registry, tmp_path: Path, color: tuple[int, ...], colored: bool
) -> None:
    for number in range(20):
        image = Image.new("RGBA", (1600, 50), (255, 255, 255, 255))
        drawing = ImageDraw.Draw(image)
        for x in range(20, 1580, 20):
            drawing.line((x, 5, x + 8, 45), fill=color, width=2)
        image.save(tmp_path / f"{number:02d}abc.png")
    assert (fit_preset(tmp_path, registry)[0]["image"]["channels"] == 3) == colored


def test_long_label_that_is_not_looked_at_fits_too(registry: Registry, tmp_path: Path) -> None:
    draw(tmp_path, color="black", sizes=[(100, 32)] * 30)
    image = tmp_path / "00abc.png"
    image.rename(tmp_path / "00abcdefghijklmnop.png")
    data = fit_preset(tmp_path, registry)[0]
    width, reduction = data["image"]["width"], data["grid"]["encoder"]["ResNet-10-T, stage 3"]["keep_width"]
    assert (width, reduction) == (96, 4)  # of 18 characters
