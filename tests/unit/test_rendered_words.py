from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from fontTools.ttLib import TTCollection, TTFont
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from decoderbench import DataError
from decoderbench.options import ImageOptions
from decoderbench_plugins.datasets.rendered_words import RenderedWords, dataset
from decoderbench_plugins.datasets.rendered_words.drawing import TextStyle, draw_text
from decoderbench_plugins.datasets.rendered_words.typefaces import select_typefaces

CLEAN = {
    "rotation": 0, "perspective": 0, "curvature": 0, "blur": 0, "noise": 0, "offset": 0, "light_on_dark": 0,
    "background": "plain", "contrast": (1, 1), "spacing": (0, 0), "size": (0.6, 0.6), "margin": (0.2, 0.2),
}  # fmt: skip


def faces():
    """Return the fonts of the package, which are read once for all tests."""
    return dataset.select_typefaces("0123456789abcdefghijklmnopqrstuvwxyz", None)[0]


def words(base_dir=Path(), **options):
    small = {"train": 24, "val": 4, "test": 4}
    return RenderedWords(RenderedWords.Config(**small | options), base_dir)


def labels(dataset, split=None):
    return [sample.label for sample in dataset.samples() if split in (None, sample.split)]


def pixels(dataset, rows=range(24)):
    return [np.asarray(dataset.load_image(row)) for row in rows]


def ink(image):
    """Return the positions of the ink of a dark text, y and x, (2, N), and its mass, (N)."""
    mass = 255.0 - image
    return np.stack(np.nonzero(mass > 64)), mass[mass > 64]


def slant(image):
    """Return the angle of the longer axis of the ink, degrees, counterclockwise."""
    places, mass = ink(image)
    (yy, yx), (_, xx) = np.cov(places, aweights=mass)
    return -np.degrees(np.arctan2(2 * yx, xx - yy) / 2)


def font_file(path, characters, *, blank="", names=None):
    """Write a font in which every glyph is a box, except the `blank` ones; `names` are the names of glyphs."""
    glyphs = {character: (names or {}).get(character, f"uni{ord(character):04X}") for character in characters}
    pen = TTGlyphPen(None)
    for x, y in ((100, 0), (100, 700), (500, 700), (500, 0)):
        (pen.lineTo if pen.points else pen.moveTo)((x, y))
    pen.closePath()
    box, empty = pen.glyph(), TTGlyphPen(None).glyph()
    builder = FontBuilder(1000)
    order = [".notdef", *dict.fromkeys(glyphs.values())]
    builder.setupGlyphOrder(order)
    builder.setupCharacterMap({ord(character): name for character, name in glyphs.items()})
    builder.setupGlyf({name: empty if name in [glyphs[c] for c in blank] else box for name in order})
    builder.setupHorizontalMetrics(dict.fromkeys(order, (600, 100)))
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupOS2()
    builder.setupPost()
    builder.font["head"].created = builder.font["head"].modified = 0  # equal fonts are equal files at any time
    builder.font.recalcTimestamp = False
    builder.save(path)


# Texts


def test_texts_follow_charset_lengths_and_counts():
    dataset = words(charset="abc", min_length=2, max_length=4, train=300)
    assert Counter(sample.split for sample in dataset.samples()) == {"train": 300, "val": 4, "test": 4}
    assert set("".join(labels(dataset))) == set("abc")
    assert set(map(len, labels(dataset))) == {2, 3, 4}
    assert len({sample.key for sample in dataset.samples()}) == 308
    assert dataset.notes() == []


@settings(deadline=None, max_examples=5)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 3))
def test_larger_dataset_contains_the_smaller_one(few, more, seed):
    small, large = (words(train=count, seed=seed) for count in sorted((few, more)))
    assert set(small.samples()) <= set(large.samples())
    row = len(labels(small, "train")) - 1
    assert np.array_equal(*(np.asarray(dataset.load_image(row)) for dataset in (small, large)))


def test_test_lengths_change_the_texts_of_the_test_split_alone():
    same = {"charset": "abc", "min_length": 2, "max_length": 4, "test": 200}
    usual, longer = words(**same), words(**same, test_lengths=(11, 13))
    assert {len(text) for text in labels(longer, "test")} == {11, 12, 13}
    for split in ("train", "val"):
        assert labels(longer, split) == labels(usual, split)


@pytest.mark.parametrize("repeat", [0, 0.5, 1])
def test_repeat_is_the_share_of_characters_equal_to_the_previous_one(repeat):
    texts = labels(words(charset="abcd", repeat=repeat, min_length=8, max_length=8, train=500))
    same = np.mean([first == second for text in texts for first, second in pairwise(text)])
    assert same == pytest.approx(repeat, abs=0.03)
    if repeat == 0:
        assert same == 0


def test_repeated_characters_are_as_frequent_as_by_chance_without_repeat():
    texts = labels(words(charset="abcd", min_length=8, max_length=8, train=500))
    same = np.mean([first == second for text in texts for first, second in pairwise(text)])
    assert same == pytest.approx(0.25, abs=0.03)


# Word lists


@pytest.fixture
def listed(tmp_path):
    def write(text, **options):
        (tmp_path / "words.txt").write_text(text, encoding="utf-8")
        return words(tmp_path, words="words.txt", **options)

    return write


def test_word_belongs_to_one_split(listed):
    given = [f"word{number}" for number in range(200)]
    dataset = listed("\n".join(given), train=2000, val=300, test=300)
    drawn = [set(labels(dataset, split)) for split in ("train", "val", "test")]
    assert set.union(*drawn) == set(given)
    assert sum(map(len, drawn)) == 200
    assert dataset.notes() == ["words per split: train 160, val 20, test 20"]
    assert labels(dataset, "test")[:100] == labels(listed("\n".join(reversed(given)), test=100), "test")


def test_shared_words_are_in_all_splits(listed):
    dataset = listed("one\ntwo\n", shared_words=True, train=50, val=50, test=50)
    assert all(set(labels(dataset, split)) == {"one", "two"} for split in ("train", "val", "test"))
    assert dataset.notes() == ["all splits share all words: train 2, val 2, test 2"]


def test_unusable_words_are_excluded_and_counted(listed):
    dataset = listed("one\nzwölf\nof\nquintessentially\n\none\r\ntwo", shared_words=True)
    assert set(labels(dataset)) == {"one", "two"}
    assert list(dataset.notes()[:3]) == [
        "words with characters outside charset are excluded: 1 ('zwölf')",
        "words not of 3 to 10 characters are excluded: 2 ('of', 'quintessentially')",
        "words listed several times count once: 1 ('one')",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "words.txt is empty; write one word per line"),
        ("\n\n", "words.txt is empty"),
        ("ÄÖÜ", "has no word of 3 to 10 characters in charset '0123"),
        ("one", "received none of the 1 usable words"),
        (
            "one\nab",
            "received none of the 1 usable words .*; words not of 3 to 10 characters are excluded: 1 \\('ab'\\)",
        ),
    ],
)
def test_word_list_without_usable_words_is_refused(listed, text, message):
    with pytest.raises(DataError, match=message) as caught:
        listed(text).samples()
    assert caught.value.exit_code == 3


def test_unreadable_word_list_is_refused_by_name(tmp_path):
    (tmp_path / "latin.txt").write_bytes("zwölf".encode("latin-1"))
    for file, message in (("latin.txt", "latin.txt is not UTF-8"), ("absent.txt", "absent.txt cannot be read")):
        with pytest.raises(DataError, match=message):
            words(tmp_path, words=file).samples()


# Fonts


def test_font_of_folder_that_lacks_a_character_is_refused_by_name(tmp_path):
    font_file(tmp_path / "whole.ttf", "abc")
    font_file(tmp_path / "partial.ttf", "ab")
    assert labels(words(tmp_path, fonts=".", charset="ab"))
    with pytest.raises(DataError, match=r"(?s)1 of 2 fonts.*partial\.ttf lacks 'c' \(U\+0063\)$") as caught:
        words(tmp_path, fonts=".", charset="abc").samples()
    assert caught.value.exit_code == 3


def test_blank_glyph_and_glyph_of_another_character_count_as_missing(tmp_path):
    font_file(tmp_path / "odd.ttf", "abx", blank="b", names={"a": "A", "x": "x.alt"})
    with pytest.raises(DataError, match=r"lacks 'a' \(U\+0061\), 'b' \(U\+0062\)$"):
        words(tmp_path, fonts=".", charset="xab").samples()


def test_every_face_of_a_collection_is_used(tmp_path):
    collection = TTCollection()
    for name in ("one", "two"):
        font_file(tmp_path / name, "ab")
        collection.fonts.append(TTFont(tmp_path / name))
    collection.save(tmp_path / "both.ttc")
    able, unable = select_typefaces("ab", tmp_path)
    assert [face.name for face in able] == ["both.ttc face 0", "both.ttc face 1"]
    assert not unable


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: None, "has no .ttf, .otf or .ttc file"),
        (lambda folder: folder.rmdir(), "is not a folder; check the option fonts"),
        (lambda folder: (folder / "bad.ttf").write_bytes(b"not a font"), "bad.ttf cannot be read"),
    ],
)
def test_folder_without_usable_fonts_is_refused(tmp_path, make, message):
    folder = tmp_path / "fonts"
    folder.mkdir()
    make(folder)
    with pytest.raises(DataError, match=message):
        words(tmp_path, fonts="fonts").samples()


def test_package_fonts_that_lack_a_character_are_excluded_and_named():
    (note,) = words(charset="ab_<").notes()
    assert note.startswith("fonts that lack a character of charset are excluded: 4 (cmb10.ttf lacks '_' (U+005F), '<'")
    with pytest.raises(DataError, match=r"of 22 fonts cannot draw.*remove the characters"):
        words(charset="a漢").samples()
    with pytest.raises(DataError, match=r"lacks ' ' \(U\+0020\)"):
        words(charset="a ").samples()


def test_characters_of_a_package_font_all_look_different():
    style = TextStyle(size=0.7)
    for face in faces():
        drawn = {draw_text(c, face, style, height=48, seed=0).tobytes() for c in face.characters}
        assert len(drawn) == len(face.characters), face.name


# Determinism


def test_images_are_equal_in_threads():  # the conformance kit compares processes
    with ThreadPoolExecutor(4) as pool:
        drawn = list(pool.map(words().load_image, [*range(24)] * 2))
    assert all(map(np.array_equal, map(np.asarray, drawn), pixels(words()) * 2))


def test_fingerprint_covers_options_and_contents_of_fonts_and_words_but_no_paths(tmp_path):
    assert words().fingerprint() == words().fingerprint() != words(rotation=6).fingerprint()
    prints = []
    for name, listed in (("a", "one\ntwo"), ("b", "one\ntwo"), ("c", "one\nten"), ("d", "one\ntwo")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "words.txt").write_text(listed)
        font_file(tmp_path / name / "font.ttf", "entow" if name != "d" else "entowx")
        dataset = words(tmp_path / name, words="words.txt", fonts=".", charset="entow", shared_words=True)
        prints.append(dataset.fingerprint())
    assert prints[0] == prints[1]
    assert len(set(prints)) == 3


@pytest.mark.parametrize("module", ["dataset", "drawing", "texts", "typefaces"])
def test_fingerprint_covers_the_code_that_draws_but_not_its_comments(tmp_path, monkeypatch, module):
    before = words().fingerprint()
    (file,) = (file for file in dataset.SOURCES if file.stem == module)
    edited = tmp_path / file.name
    monkeypatch.setattr(dataset, "SOURCES", [edited if source == file else source for source in dataset.SOURCES])
    edited.write_text(file.read_text() + "# a comment\n")
    assert words().fingerprint() == before
    edited.write_text(file.read_text() + "another = True\n")
    assert words().fingerprint() != before


# Factors


def test_changing_a_factor_keeps_texts_and_all_other_factors():
    before, after = words(), words(light_on_dark=0.9, background="plain", blur=0, noise=0)
    assert labels(before) == labels(after)
    assert [image.shape for image in pixels(before)] == [image.shape for image in pixels(after)]


@pytest.mark.parametrize("largest", [0, 20])
def test_rotation_rotates_the_text_within_its_bounds(largest):
    images = pixels(words(**CLEAN | {"rotation": largest, "min_length": 8}))
    angles = [slant(image) for image in images]
    if largest == 0:
        assert max(map(abs, angles)) < 4
    else:
        assert max(angles) > 10
        assert min(angles) < -10
        assert max(map(abs, angles)) < largest + 4


def test_rotation_is_counterclockwise():
    for degrees in (-30, 0, 30):
        image = draw_text("nnnnnnnn", faces()[0], TextStyle(size=0.5, rotation=degrees), height=96, seed=0)
        assert slant(image) == pytest.approx(degrees, abs=2)


@pytest.mark.parametrize(("curvature", "middle_is_higher"), [(60, True), (-60, False)])
def test_curvature_bends_the_text_along_an_arc(curvature, middle_is_higher):
    (y, x), _ = ink(draw_text("nnnnnnnnn", faces()[0], TextStyle(size=0.3, curvature=curvature), height=96, seed=0))
    thirds = np.quantile(x, [1 / 3, 2 / 3])
    middle, ends = y[(x > thirds[0]) & (x < thirds[1])].mean(), y[(x < thirds[0]) | (x > thirds[1])].mean()
    assert abs(middle - ends) > 4
    assert (middle < ends) == middle_is_higher


def test_perspective_enlarges_the_nearer_end():
    def heights(across):
        style = TextStyle(size=0.6, perspective=(across, 0))
        (y, x), _ = ink(draw_text("llllllll", faces()[0], style, height=96, seed=0))
        return [np.ptp(y[side]) for side in (x < np.quantile(x, 0.2), x > np.quantile(x, 0.8))]

    left, right = heights(0.3)
    assert left > 1.3 * right
    assert heights(-0.3) == pytest.approx([right, left], abs=2)
    assert heights(0)[0] == heights(0)[1]


def test_size_is_the_height_of_the_line():
    for size in (0.3, 0.5, 0.9):
        for face in faces():
            (y, _), _ = ink(draw_text(face.characters, face, TextStyle(size=size), height=100, seed=0))
            assert np.ptp(y) + 1 == pytest.approx(100 * size, abs=3)


@pytest.mark.parametrize("kind", ["plain", "gradient", "texture"])
def test_contrast_is_the_difference_between_text_and_background(kind):
    options = {"contrast": (0.4, 0.4), "background": kind, "variation": 0.5, "light_on_dark": 0.5}
    images = pixels(words(**CLEAN | options))
    assert {round(float(np.ptp(image)) / 255, 1) for image in images} == {0.4}
    assert {bool(image[0, 0] > image.mean()) for image in pixels(words(**CLEAN | options | {"variation": 0}))} == {
        True,
        False,
    }
    corners = [abs(float(image[0, 0]) - float(image[0, -1])) for image in images]
    assert (max(corners) == 0) == (kind == "plain")
    # Half of the contrast remains: only blurred edges are between the levels of background and text.
    backgrounds = [np.median(image) for image in pixels(words(**CLEAN | options | {"light_on_dark": 0}))]
    darkest = [image.min() for image in pixels(words(**CLEAN | options | {"light_on_dark": 0}))]
    assert all(0.19 * 255 < level - text < 0.41 * 255 for level, text in zip(backgrounds, darkest, strict=True))


def test_blur_softens_edges_and_noise_has_the_given_deviation():
    sharp, soft = (draw_text("hill", faces()[0], TextStyle(size=0.6, blur=blur), height=64, seed=0) for blur in (0, 2))
    steepest = [np.abs(np.diff(image.astype(float), axis=1)).max() for image in (sharp, soft)]
    assert steepest[1] < 0.6 * steepest[0]
    gray = TextStyle(size=0.1, text=0.5, background=0.5, noise=0.1)
    noisy = draw_text("hill", faces()[0], gray, height=200, seed=0) / 255
    assert noisy.std() == pytest.approx(0.1, rel=0.03)
    assert not np.array_equal(noisy, draw_text("hill", faces()[0], gray, height=200, seed=1) / 255)


def test_spacing_and_margin_widen_the_image():
    def width(**factors):
        return draw_text("hill", faces()[0], TextStyle(size=0.5, **factors), height=100, seed=0).shape[1]

    assert width(margin=0.3) - width(margin=0.1) == pytest.approx(40, abs=1)
    assert width(spacing=0.4) - width(spacing=0.1) == pytest.approx(3 * 0.3 * 50, abs=2)


def test_offset_moves_the_text_up_and_down():
    tops = [
        ink(draw_text("hill", faces()[0], TextStyle(size=0.5, offset=offset), height=100, seed=0))[0][0].min()
        for offset in (-1, 0, 1)
    ]
    assert np.diff(tops) == pytest.approx([24, 24], abs=1)


@settings(deadline=None, max_examples=60)
@given(
    st.text("0123456789abcdefghijklmnopqrstuvwxyz", min_size=1, max_size=24),
    st.deferred(lambda: st.sampled_from(faces())),
    st.floats(0.05, 1),
    st.floats(-45, 45),
    st.tuples(st.floats(-0.3, 0.3), st.floats(-0.3, 0.3)),
    st.floats(-120, 120),
    st.floats(-1, 1),
)
def test_no_ink_is_cut_off(text, face, size, rotation, perspective, curvature, offset):
    style = TextStyle(size, 0.0, 0.1, offset, rotation, perspective, curvature)
    image = draw_text(text, face, style, height=64, seed=0)
    border = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
    assert image.shape[0] == 64
    assert border.min() > 200
    assert image.min() < 255


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_length": 5, "max_length": 3}, "min_length 5 is larger than max_length 3"),
        ({"test_lengths": (5, 3)}, r"test_lengths must be two ascending numbers, given \[5, 3\]"),
        ({"test_lengths": (1, 3), "words": "words.txt"}, "test_lengths applies to random strings only"),
        ({"size": (0.8, 0.2)}, "size must be two ascending numbers from 0.05 to 1"),
        ({"contrast": (0, 1)}, "contrast must be two ascending numbers"),
        ({"word_shares": (0.5, 0.1, 0.1)}, "word_shares must sum to 1"),
        ({"repeat": 0.5, "words": "words.txt"}, "repeat applies to random strings only"),
        ({"repeat": 0.5, "charset": "a"}, "needs a charset of at least two characters"),
    ],
)
def test_contradicting_options_are_refused(options, message):
    with pytest.raises(ValidationError, match=message):
        words(**options)


def test_images_can_be_cached_in_gray_and_in_color(tmp_path):
    from decoderbench.data.image_cache import open_store

    dataset = words(train=60)
    for options in (ImageOptions(), ImageOptions(channels=3, resize="pad")):
        store = open_store(dataset, dataset.samples(), options, cache_dir=tmp_path, workers=1)
        assert store.images.shape == (68, options.channels, 32, 128)
        assert not store.unreadable
        assert len(set(store.pixel_hashes)) == 68
