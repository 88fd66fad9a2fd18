"""`synthetic_captcha` with style = "scattered": sizes, colors, lines, and what is refused."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from decoderbench import DataError
from decoderbench_plugins.datasets.synthetic_captcha import SyntheticCaptcha
from decoderbench_plugins.datasets.synthetic_captcha import dataset as module

PLAIN = {"lines": (0, 0), "noise": False, "rotation": 0.0}


def scattered(**options):
    given = {"style": "scattered", "train": 20, "val": 3, "test": 3, **options}
    dataset = SyntheticCaptcha(SyntheticCaptcha.Config(**given), Path())
    dataset.samples()
    return dataset


def gray(dataset, index):
    return np.asarray(dataset.load_image(index).convert("L"), dtype=float)


def background(pixels):
    values, counts = np.unique(pixels, return_counts=True)
    return values[counts.argmax()]


def ink(pixels):
    """Where a pixel is nearer to the darkest one than to the background."""
    return pixels < (pixels.min() + background(pixels)) / 2


def lean(mask):
    """How far the middle of the upper half is to the right of that of the lower half, pixels."""
    rows, columns = np.nonzero(mask)
    upper = rows < rows.mean()
    return columns[upper].mean() - columns[~upper].mean()


def test_width_is_drawn_per_letter_and_height_is_that_of_the_option():
    dataset = scattered(min_length=4, max_length=8, height=80, width_per_letter=(35, 95))
    sizes = [(len(sample.label), *dataset.load_image(at).size) for at, sample in enumerate(dataset.samples())]
    assert {high for *_, high in sizes} == {80}
    per_letter = [wide / letters for letters, wide, _ in sizes]
    assert 34.8 < min(per_letter) < 50 < 80 < max(per_letter) < 95.2


def test_width_is_that_of_the_option_without_a_width_per_letter():
    assert scattered(width=200, height=70).load_image(0).size == (200, 70)


def test_letters_have_the_given_height_and_are_never_cut_off():
    heights = []
    for sizes in ((20, 20), (20, 30)):
        dataset = scattered(charset="H", min_length=1, max_length=1, height=32, width=40, letter_height=sizes, **PLAIN)
        heights.append([np.flatnonzero(ink(gray(dataset, at)).any(1)).size for at in range(20)])
    assert set(heights[0]) <= {19, 20, 21}
    assert 19 <= min(heights[1]) < 23 < 27 < max(heights[1]) <= 31


def test_shorter_characters_keep_their_proportion_to_the_middle_one():
    dataset = scattered(charset="HEx", min_length=1, max_length=1, letter_height=(30, 30), **PLAIN)
    heights = {s.label: np.flatnonzero(ink(gray(dataset, at)).any(1)).size for at, s in enumerate(dataset.samples())}
    assert heights["H"] == heights["E"] == pytest.approx(30, abs=1)
    assert heights["x"] == pytest.approx(23, abs=1.5)


def test_letters_are_rotated_in_both_directions_up_to_the_rotation():
    for rotation, least, most in ((0.0, 0, 1), (20.0, 4, 11)):
        options = {**PLAIN, "rotation": rotation, "width": 60}
        dataset = scattered(charset="I", min_length=1, max_length=1, letter_height=(30, 30), **options)
        leaning = [lean(ink(gray(dataset, at))) for at in range(20)]
        assert least <= max(leaning) <= most
        assert least <= -min(leaning) <= most


@pytest.mark.parametrize("contrast", [0.2, 0.9])
def test_letters_are_darker_than_the_background_by_the_contrast(contrast):
    dataset = scattered(charset="H", letter_height=(30, 30), contrast=(contrast, contrast), **PLAIN)
    for at in range(5):
        pixels = gray(dataset, at)
        assert pixels.min() == pytest.approx((1 - contrast) * background(pixels), abs=3)


def test_each_letter_has_a_color_of_its_own():
    dataset = scattered(charset="H", letter_height=(30, 30), contrast=(0.5, 0.5), **PLAIN)
    pixels = np.asarray(dataset.load_image(0), dtype=float)
    pieces = np.split(pixels, 4, axis=1)  # a letter stays in its part of the width
    colors = [piece[ink(piece.mean(2))].mean(0) for piece in pieces]
    distances = [abs(one - other).max() for at, one in enumerate(colors) for other in colors[:at]]
    assert min(distances) > 20


@pytest.mark.parametrize(("options", "thickness"), [({}, 1), ({"line_width": (5, 5)}, 5)])
def test_lines_cross_the_image_in_their_color_and_width(options, thickness):
    dataset = scattered(line_color="#ff0000", contrast=(0.05, 0.05), noise=False, **{"lines": (1, 1), **options})
    for at in range(5):
        red, green, _ = np.moveaxis(np.asarray(dataset.load_image(at), dtype=float), 2, 0)
        share = (red - green).clip(0) / 255  # of line in a pixel; letters are nearly as pale as the background
        columns = (share * (share > 0.1)).sum(0)[2:-2]
        assert columns.min() > 0.2  # at an edge of the image it may be cut off
        assert np.median(columns) == pytest.approx(thickness, rel=0.5)


def test_number_of_lines_is_in_the_range():
    blank = {"charset": "H", "contrast": (0.05, 0.05), "noise": False, "line_width": (1, 1), "height": 400}
    dark = {
        lines: [int((gray(scattered(lines=lines, **blank), at) < 200).sum(0).max()) for at in range(3)]
        for lines in ((0, 0), (1, 1), (6, 6))
    }
    assert dark[0, 0] == [0, 0, 0]
    assert max(dark[1, 1]) <= 4
    assert min(dark[6, 6]) > 4


def test_noise_draws_dots_and_a_curve_over_the_same_letters():
    noisy, clean = scattered(lines=(0, 0)), scattered(lines=(0, 0), noise=False)
    changed = abs(gray(noisy, 0) - gray(clean, 0)) > 0
    assert 0.01 < changed.mean() < 0.5


def test_images_are_equal_in_any_order_and_thread():
    dataset, again = scattered(), scattered(train=30)
    backwards = [dataset.load_image(at).tobytes() for at in reversed(range(20))][::-1]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda at: again.load_image(at).tobytes(), range(20))) == backwards
    assert len(set(backwards)) == 20
    assert scattered(seed=1).load_image(0).tobytes() != backwards[0]


@pytest.mark.parametrize(
    "other",
    [
        {"rotation": 5.0},
        {"contrast": (0.3, 0.9)},
        {"lines": (1, 1)},
        {"letter_height": (20, 21)},
        {"line_color": "red"},
    ],
)
def test_fingerprint_covers_the_options(other):
    assert scattered(**other).fingerprint() != scattered().fingerprint() == scattered().fingerprint()


def test_fingerprint_covers_the_code_that_scatters(monkeypatch):
    fingerprints = [scattered().fingerprint(), module.SyntheticCaptcha(module.CaptchaOptions(), Path()).fingerprint()]
    monkeypatch.setattr(module, "source_digest", lambda file: f"another {file.name}")
    changed = [scattered().fingerprint(), module.SyntheticCaptcha(module.CaptchaOptions(), Path()).fingerprint()]
    assert [before == after for before, after in zip(fingerprints, changed, strict=True)] == [False, True]


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        (
            {"letter_height": (30, 20)},
            r"letter_height must be two ascending numbers from 6 to 1000, given \[30.0, 20.0",
        ),
        ({"contrast": (0.0, 0.5)}, r"contrast must be two ascending numbers from 0.05 to 1, given \[0.0, 0.5\]"),
        ({"lines": (-1, 2)}, r"lines must be two ascending numbers from 0 to 100, given \[-1, 2\]"),
        ({"line_width": (0, 2)}, r"line_width must be two ascending numbers from 1 to 100, given \[0, 2\]"),
        ({"width_per_letter": (95, 35)}, "width_per_letter must be two ascending numbers from 4 to 500"),
        ({"width_per_letter": (35, 95), "width": 200}, "width has no effect beside width_per_letter; remove one"),
        (
            {"width_per_letter": (35, 500), "max_length": 32, "height": 400},
            "16000 x 400 pixels have more than 4,000,000;",
        ),
        ({"line_color": "blak"}, "line_color\n.*must be an opaque color such as black or #204060, given 'blak'"),
        ({"line_color": "#00000080"}, "must be an opaque color such as black or #204060, given '#00000080'"),
        ({"rotation": 46.0}, "less than or equal to 45"),
        ({"style": "warped", "lines": (1, 1)}, 'lines has no effect on warped letters; set style = "scattered" or'),
        ({"style": "warped", "rotation": 3.0}, "rotation has no effect on warped letters"),
    ],
)
def test_options_that_contradict_each_other_are_refused(options, rule):
    with pytest.raises(ValidationError, match=rule):
        scattered(**options)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (
            {"max_length": 8},
            "letters with a letter_height of 30 and a rotation of 20 degrees need .* pixels of width each, and "
            "some get 20; raise width or set width_per_letter, or lower letter_height or rotation",
        ),
        ({"width_per_letter": (15, 95)}, "pixels of width each, and some get 15; raise width_per_letter or lower"),
        ({"height": 30}, "pixels of height, and height is 30; raise it or lower letter_height or rotation"),
    ],
)
def test_letters_that_may_not_fit_are_refused_before_any_is_drawn(options, reason):
    with pytest.raises(DataError, match=reason):
        scattered(**options)
