import hashlib
import json
import secrets
import tomllib
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

import pytest
from captcha.image import ImageCaptcha
from PIL import features
from pydantic import ValidationError

from decoderbench import DataError, PluginError
from decoderbench_plugins.datasets.synthetic_captcha import SyntheticCaptcha
from decoderbench_plugins.datasets.synthetic_captcha.seeded_captcha import TESTED_CAPTCHA


def captchas(**options):
    return SyntheticCaptcha(SyntheticCaptcha.Config(**{"train": 6, "val": 3, "test": 3, **options}), Path())


def pixels(dataset, index):
    dataset.samples()
    return dataset.load_image(index).tobytes()


def test_samples_follow_charset_lengths_and_counts():
    samples = captchas(charset="ab7", min_length=2, max_length=5, train=300).samples()
    assert [sum(s.split == split for s in samples) for split in ("train", "val", "test")] == [300, 3, 3]
    assert {len(s.label) for s in samples} == {2, 3, 4, 5}
    assert set("".join(s.label for s in samples)) == set("ab7")
    assert len({s.key for s in samples}) == len(samples)


def test_larger_dataset_contains_the_smaller_one():
    small, large = captchas(), captchas(train=20, val=9)
    assert large.samples()[:6] == small.samples()[:6]
    assert large.samples()[20:23] == small.samples()[6:9]
    assert pixels(large, 20) == pixels(small, 6)


def test_samples_differ_within_and_between_splits():
    dataset = captchas(charset="1", max_length=4)
    assert len({pixels(dataset, index) for index in range(12)}) == 12


def test_images_are_equal_in_any_order_and_thread():  # the conformance kit compares processes
    dataset = captchas()
    dataset.samples()
    backwards = [pixels(dataset, index) for index in reversed(range(12))][::-1]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda index: pixels(dataset, index), range(12))) == backwards


def test_captchas_of_other_code_stay_random():
    pixels(captchas(), 0)
    drawn = {ImageCaptcha().generate_image("12").tobytes() for _ in range(3)}
    assert len(drawn) == 3


def test_noise_false_draws_other_images_of_the_same_texts():
    dataset, plain = captchas(charset="1"), captchas(charset="1", noise=False)
    assert pixels(dataset, 0) != pixels(plain, 0)
    assert dataset.samples() == plain.samples()


@pytest.mark.parametrize("other", [{"seed": 1}, {"charset": "01234567"}, {"noise": False}, {"train": 7}])
def test_fingerprint_covers_every_option(other):
    assert captchas().fingerprint() == captchas().fingerprint()
    assert captchas().fingerprint() != captchas(**other).fingerprint()


OTHER = {
    "charset": "abcXYZ019",
    "min_length": 2,
    "max_length": 6,
    "width": 200,
    "height": 80,
    "noise": False,
    "seed": 3,
}


@pytest.mark.parametrize(("options", "digest"), [({}, "a24ee69e4e9ffb29"), (OTHER, "af4e1dbebc72a59d")])
def test_images_are_those_of_earlier_versions(options, digest):
    drawn_by = version("captcha"), version("pillow"), features.version("freetype2")
    if drawn_by != ("0.7.1", "13.0.0", "2.14.3"):
        pytest.skip(f"pixels depend on captcha, Pillow and FreeType, here {drawn_by}")
    dataset = captchas(**options)
    assert hashlib.sha256(b"".join(pixels(dataset, index) for index in (0, 5, 7, 11))).hexdigest()[:16] == digest


def test_fingerprint_of_the_defaults_is_that_of_earlier_versions():
    software = {"captcha": version("captcha"), "pillow": version("pillow"), "freetype": features.version("freetype2")}
    dataset = SyntheticCaptcha(SyntheticCaptcha.Config(), Path())
    assert dataset.fingerprint() == hashlib.shake_256(json.dumps([{}, software]).encode()).digest(32).hex()


def test_another_seed_draws_other_texts_and_images():
    assert captchas(seed=1).samples() != captchas().samples()
    assert pixels(captchas(seed=1), 0) != pixels(captchas(), 0)


@pytest.mark.parametrize(("character", "named"), [("中", "U+4E2D"), (" ", "U+0020"), ("\U0001f600", "U+1F600")])
def test_character_without_a_glyph_is_refused(character, named):
    with pytest.raises(DataError, match=rf"cannot draw .*{named.replace('+', '.')}"):
        captchas(charset=f"0{character}").samples()


def test_repeated_character_is_refused():
    with pytest.raises(ValidationError, match="charset has a character twice; list each once"):
        captchas(charset="00")


def test_min_length_above_max_length_is_refused():
    with pytest.raises(ValidationError, match="min_length 5 is larger than max_length 4"):
        captchas(min_length=5)


def test_captcha_that_ignores_the_seed_is_refused(monkeypatch):
    monkeypatch.setattr("captcha.image.random_color", lambda *_: tuple(secrets.token_bytes(3)))
    with pytest.raises(PluginError, match=r"cannot use captcha .*: two images with the same seed differ; install"):
        captchas().samples()


def test_captcha_without_the_needed_internals_is_refused(monkeypatch):
    monkeypatch.delattr(ImageCaptcha, "create_noise_curve")
    with pytest.raises(PluginError, match="it has no create_noise_curve; install 'captcha>="):
        captchas(noise=False).samples()


def test_tested_versions_are_the_declared_dependency():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    assert TESTED_CAPTCHA in project["project"]["dependencies"]
