"""LabelNormalizer: its order and its properties, and that labels are checked before they are normalized."""

import unicodedata
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decoderbench import Charset, ConfigError, Sample
from decoderbench.config.experiment import parse_experiment
from decoderbench.data.audit import audit
from decoderbench.data.label_normalizer import LabelNormalizer, convert_each
from decoderbench.specs import ctc_frames_needed

# Characters that fold, compose, decompose, combine or drop in unusual ways.
AWKWARD = "\u00a0\u00b4\ufeff\u200baAjJ\u030c\u0301\u0308\u0345İıßŉΐΣσς ﬁ½①ⅳᾼ中ｗｗ가가\u212a\u212bसि-_'=\u0338"
TEXTS = st.text(st.sampled_from(AWKWARD) | st.characters())
NORMALIZERS = st.builds(
    LabelNormalizer,
    strip=st.booleans(),
    case=st.sampled_from(["keep", "lower", "upper"]),
    alphanumeric_only=st.booleans(),
    unicode_form=st.sampled_from(["none", "NFC", "NFD", "NFKC", "NFKD"]),
)


@given(TEXTS)
def test_default_normalizer_changes_nothing(text: str) -> None:
    assert LabelNormalizer()(text) == text
    assert LabelNormalizer().steps() == []


@given(NORMALIZERS, TEXTS)
def test_normalizer_is_idempotent(normalize: LabelNormalizer, text: str) -> None:
    once = normalize(text)
    assert normalize(once) == once
    assert normalize.form(once) == normalize.read(once) == once


@given(NORMALIZERS, TEXTS)
def test_label_as_checked_and_label_as_given_normalize_alike(normalize: LabelNormalizer, text: str) -> None:
    assert normalize(normalize.read(text)) == normalize(text)


@given(NORMALIZERS, TEXTS)
def test_normalized_text_has_the_requested_case_and_categories(normalize: LabelNormalizer, text: str) -> None:
    normalized = normalize(text)
    if normalize.case == "lower":
        assert "".join(map(str.lower, normalized)) == normalized
    if normalize.case == "upper":
        assert "".join(map(str.upper, normalized)) == normalized
    if normalize.alphanumeric_only:
        assert {unicodedata.category(character)[0] for character in normalized} <= set("LMN")


@given(NORMALIZERS, TEXTS)
def test_normalized_charset_covers_normalized_text(normalize: LabelNormalizer, text: str) -> None:
    normalized = normalize(text)
    charset = convert_each(normalize.form(text), normalize.convert)
    if normalize.unicode_form not in ("NFC", "NFKC"):
        assert set(normalized) <= set(charset)
    assert set(unicodedata.normalize("NFD", normalized)) <= set(unicodedata.normalize("NFD", charset))


@given(NORMALIZERS, st.lists(TEXTS, min_size=3), st.booleans())
def test_label_spec_covers_every_accepted_label(normalize: LabelNormalizer, labels: list[str], in_data: bool) -> None:
    labels = ["a", *labels]  # so that one sample remains in train
    splits = ["train", "val", "test", *["train"] * len(labels)]
    samples = [Sample(str(i), label, split) for i, (label, split) in enumerate(zip(labels, splits, strict=False))]  # type: ignore[arg-type]
    named = None if in_data else Charset("".join(dict.fromkeys(f"zyxa{normalize.form(''.join(labels))}")))
    allow = ["empty_label", "empty_after_normalizing", "control_character", "outside_charset"]
    found = audit(samples, charset=named, normalize=normalize, allow=allow)
    spec = found.label_spec
    for row, label in enumerate(labels):
        if row not in found.unspellable:
            assert found.labels[row] == normalize(label)
            assert spec.charset.decode(spec.charset.encode(found.labels[row])) == normalize(label)
            assert len(normalize(label)) <= spec.max_length
            assert ctc_frames_needed(normalize(label)) <= spec.frames_needed


@pytest.mark.parametrize(
    ("options", "text", "expected"),
    [
        ({"strip": True}, " \u00a0a b\u200b\r\n\ufeff ", "a b"),
        ({"strip": True, "unicode_form": "NFKC"}, "\u00b4a", "\u0301a"),  # the form of U+00B4 begins with a space
        ({"strip": True, "unicode_form": "NFKC", "alphanumeric_only": True}, "\u00b8", "\u0327"),
        ({"strip": True, "alphanumeric_only": True}, " - a ", "a"),
        ({"case": "lower"}, "AbC É", "abc é"),
        ({"case": "upper"}, "AbC é", "ABC É"),
        ({"case": "lower"}, "ΟΔΟΣ", "οδοσ"),  # str.lower of the whole text would end in ς
        ({"case": "lower"}, "İ", "i\u0307"),
        ({"case": "upper"}, "straße", "STRASSE"),
        ({"alphanumeric_only": True}, "it's 3-½, _no_!", "its3½no"),
        ({"alphanumeric_only": True}, "e\u0301-\u0301\u20ac\u0308o", "e\u0301o"),
        ({"alphanumeric_only": True}, "\u0301a", "\u0301a"),
        ({"alphanumeric_only": True}, "हिन्दी।", "हिन्दी"),
        ({"unicode_form": "NFC"}, "e\u0301", "é"),
        ({"unicode_form": "NFD"}, "é", "e\u0301"),
        ({"unicode_form": "NFKC"}, "Ａ1ﬁ", "A1fi"),
        ({"unicode_form": "NFC", "case": "lower"}, "J\u030c", "ǰ"),
        ({"unicode_form": "NFKC", "case": "lower", "alphanumeric_only": True}, "(Ａ)", "a"),
        ({"unicode_form": "NFKC", "alphanumeric_only": True}, "½", "12"),
    ],
)
def test_normalizer_matches_examples(options: dict[str, Any], text: str, expected: str) -> None:
    assert LabelNormalizer(**options)(text) == expected


@given(st.text("aeoü\u0301\u0308-! 1"))
def test_alphanumeric_only_is_independent_of_composition(text: str) -> None:
    composed = LabelNormalizer(unicode_form="NFC", alphanumeric_only=True)(text)
    decomposed = LabelNormalizer(unicode_form="NFD", alphanumeric_only=True)(text)
    assert unicodedata.normalize("NFC", decomposed) == composed


def test_steps_are_listed_in_order() -> None:
    everything = LabelNormalizer(strip=True, case="upper", alphanumeric_only=True, unicode_form="NFKD")
    assert everything.steps() == ["Unicode form NFKD", "strip", "case upper", "alphanumeric only"]


@pytest.mark.parametrize(
    ("options", "expected_message"),
    [
        ({"alphanumeric": True}, "labels.normalize.alphanumeric: unknown key; did you mean 'alphanumeric_only'?"),
        ({"case": "title"}, "labels.normalize.case: input should be 'keep', 'lower' or 'upper', given 'title'"),
        ({"unicode_form": "nfc"}, "labels.normalize.unicode_form: input should be 'none', 'NFC', 'NFD', 'NFKC' or"),
    ],
)
def test_mistake_in_normalize_is_reported(tiny: dict[str, Any], options: dict[str, Any], expected_message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_experiment(tiny | {"labels": {"normalize": options}}, source="file.toml")
    assert expected_message in str(caught.value)


def test_mistake_in_normalize_is_reported_with_its_line() -> None:
    text = '[labels]\ncharset = "ab"\n[labels.normalize]\ncase = "lower"\nunicode = "NFC"\n'
    with pytest.raises(ConfigError, match=r"file\.toml:5: labels\.normalize\.unicode: unknown key; did you mean"):
        parse_experiment(
            {"labels": {"charset": "ab", "normalize": {"case": "lower", "unicode": "NFC"}}},
            source="file.toml",
            text=text,
        )
