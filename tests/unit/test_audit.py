import json
from dataclasses import asdict
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from decoderbench import Charset, ConfigError, DataError, Dataset, Sample
from decoderbench.data.audit import audit
from decoderbench.data.image_cache import open_store
from decoderbench.data.label_normalizer import LabelNormalizer
from decoderbench.data.problems import CODES
from decoderbench.options import ImageOptions
from decoderbench.specs import ctc_frames_needed

GOOD = [Sample("1", "ab", "train"), Sample("2", "aab", "train"), Sample("3", "ba", "val"), Sample("4", "b", "test")]


def with_train(*labels):
    return GOOD + [Sample(f"bad{i}", label, "train") for i, label in enumerate(labels)]


class Gray(Dataset):
    """An image of the given brightness with a spot for each sample; None cannot be decoded."""

    name = "gray"

    def samples(self):
        return [sample for sample, _ in self.config]

    def load_image(self, index):
        brightness = self.config[index][1]
        if brightness is None:
            raise OSError("truncated")
        image = Image.new("L", (4, 4), brightness)
        image.putpixel((0, 0), 255)
        return image

    def fingerprint(self):
        return "gray"


def store_of(tmp_path, *rows):
    dataset = Gray(rows, Path())
    return open_store(dataset, dataset.samples(), ImageOptions(), cache_dir=tmp_path, allow_unreadable=True, workers=1)


def test_audit_of_valid_labels_gives_counts_and_label_spec():
    found = audit(GOOD)
    assert found.counts == {"train": 2, "val": 1, "test": 1}
    assert found.lengths == {1: 1, 2: 2, 3: 1}
    assert (found.problems, found.excluded, found.unspellable) == ((), (), ())
    assert found.label_spec.charset == Charset("ab")
    assert (found.label_spec.max_length, found.label_spec.frames_needed) == (3, 4)
    assert found.footnotes() == []
    assert "samples  2 train, 1 val, 1 test" in found.lines()


@given(st.lists(st.text("abc", min_size=1), min_size=3))
def test_frames_needed_and_max_length_are_those_of_the_labels(labels):
    splits = ["train", "val", "test"] + ["train"] * len(labels)
    found = audit([Sample(str(i), t, s) for i, (t, s) in enumerate(zip(labels, splits, strict=False))])
    assert found.frames_needed == max(map(ctc_frames_needed, labels))
    assert found.max_length == max(map(len, labels))


@pytest.mark.parametrize(
    ("code", "label", "expected"),
    [
        ("outside_charset", "aé", "'é' (U+00E9 LATIN SMALL LETTER E WITH ACUTE)"),
        ("too_long", "aaaa", "'aaaa' has 4 characters, max_length is 3"),
        ("empty_label", "", "at least one character"),
    ],
)
def test_audit_refuses_problem_unless_its_code_is_allowed(code, label, expected):
    samples, options = with_train(label), {"charset": Charset("ab"), "max_length": 3}
    with pytest.raises(DataError) as caught:
        audit(samples, **options)
    message = str(caught.value)
    assert f"{code}: " in message
    assert expected in message
    assert "'bad0'" in message
    assert f'allow = ["{code}"]' in message
    assert f"--allow {code}" in message
    assert caught.value.exit_code == 3
    found = audit(samples, allow=[code], **options)
    assert found.excluded == (4,)
    assert found.counts["train"] == 2
    assert found.unspellable == (() if code == "empty_label" else (4,))
    assert found.footnotes() == [f"{code}: allowed, in 1 of 5 samples"]
    assert code in "\n".join(found.lines())


@pytest.mark.parametrize(
    "character",
    ["\0", "\n", "\r", "\t", "\x1b", "\x85", "\u200b", "\u202e", "\u2066", "\u2028", "\ufeff", "\ud800"],
)
def test_audit_refuses_invisible_character_with_its_code_point(character):
    with pytest.raises(DataError, match=rf"control_character: .*U\+{ord(character):04X}"):
        audit(with_train(f"a{character}b"))
    audit(with_train(f"a{character}b"), allow=["control_character"])


def test_audit_accepts_invisible_character_in_the_charset():
    assert audit(with_train("a\u200db"), charset=Charset("ab\u200d")).problems == ()


def test_audit_accepts_unusual_but_valid_labels():
    labels = ["NA", "007", "=1+1", " a ", '"', ",", "e\u0301", "\ue5dc", "ſ", "<b>", "中"]
    assert audit(with_train(*labels)).problems == ()


def test_error_lists_all_problems_with_ten_keys_each():
    with pytest.raises(DataError) as caught:
        audit(with_train(*[""] * 12, "aaaaa"), max_length=4)
    message = str(caught.value)
    assert "2 kinds of problems" in message
    assert "12 in all: 'bad0', 'bad1'" in message
    assert "and 2 more" in message


def test_allowed_problem_in_test_split_stays_in_the_denominator():
    found = audit([*GOOD, Sample("5", "aaaa", "test")], max_length=3, allow={"too_long"})
    assert found.counts["test"] == 2
    assert (found.excluded, found.unspellable) == ((), (4,))


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_audit_refuses_empty_split(split):
    with pytest.raises(DataError, match=f"split '{split}' has no samples"):
        audit([sample for sample in GOOD if sample.split != split])


def test_audit_refuses_split_without_remaining_samples():
    with pytest.raises(DataError, match="split 'train' has no samples left"):
        audit([Sample("1", "", "train"), *GOOD[2:]], allow={"empty_label"})


def test_audit_refuses_unknown_code():
    with pytest.raises(ConfigError, match="unknown code 'to_long'; did you mean 'too_long'"):
        audit(GOOD, allow={"to_long"})


def test_notes_report_unseen_unused_and_decomposed_characters():
    samples = [*GOOD, Sample("5", "e\u0301", "test")]
    notes = "\n".join(audit(samples, charset=Charset("abe\u0301z"), notes=["from the dataset"]).notes)
    assert "from the dataset" in notes
    assert "that are not in train: 1 ('e', '\u0301' (U+0301 COMBINING ACUTE ACCENT))" in notes
    assert "that are in no label: 'z'" in notes
    assert "not in Unicode normal form C, and are kept so: 1" in notes


LOWER = LabelNormalizer(case="lower")
UPPER_CASE = [Sample("1", "AB", "train"), Sample("2", "BA", "val"), Sample("3", "B", "test")]


def test_normalizing_keeps_every_upper_case_label():
    unchanged = audit(UPPER_CASE, charset=Charset("BA"))
    assert (unchanged.labels, unchanged.characters) == (("AB", "BA", "B"), "BA")
    lower = audit(UPPER_CASE, charset=Charset("BA"), normalize=LOWER)
    assert (lower.labels, lower.characters) == (("ab", "ba", "b"), "ba")
    assert unchanged.counts == lower.counts == {"train": 1, "val": 1, "test": 1}
    assert (unchanged.excluded, lower.excluded) == ((), ())


def test_charset_is_checked_before_normalizing():
    samples = [*UPPER_CASE, Sample("4", "aé", "train"), Sample("5", "aC", "test")]
    options = {"charset": Charset("0abc"), "normalize": LOWER}
    with pytest.raises(DataError) as caught:
        audit(samples, **options)
    message = str(caught.value)
    assert "outside_charset: the charset lacks 'A', 'B' of label 'AB'" in message
    assert "labels.charset is checked before labels are normalized: add 'ABC' to it too; 5 in all" in message
    with pytest.raises(DataError) as caught:
        audit(samples, charset=Charset("abcABC"), normalize=LOWER)
    assert "is checked before" not in str(caught.value)
    found = audit([*samples, Sample("6", "a", "train")], allow=["outside_charset"], **options)
    assert found.footnotes() == ["outside_charset: allowed, in 5 of 6 samples"]
    assert found.counts == {"train": 1, "val": 1, "test": 2}
    assert found.unspellable == (0, 1, 2, 3, 4)
    assert found.labels == ("AB", "BA", "B", "aé", "aC", "a")  # rejected labels are not normalized


def test_label_spec_describes_normalized_labels():
    samples = [*GOOD, Sample("5", "A-a, B!", "train")]
    normalize = LabelNormalizer(case="upper", alphanumeric_only=True)
    found = audit(samples, charset=Charset("-b!a, BAé"), normalize=normalize)
    assert found.characters == "BAÉ"
    assert found.labels == ("AB", "AAB", "BA", "B", "AAB")
    assert (found.max_length, found.frames_needed, found.lengths) == (3, 4, {1: 1, 2: 2, 3: 2})
    assert audit(samples, normalize=normalize).characters == "AB"
    assert audit(samples, normalize=normalize, max_length=9).max_length == 9
    assert "normalize  case upper, alphanumeric only: 5 of 5 labels changed" in found.summary()
    assert "characters of the charset that are in no label: 'É'" in "\n".join(found.notes)
    assert not any("normalize" in line for line in audit(samples).lines())


def test_max_length_is_checked_before_and_after_normalizing():
    with pytest.raises(DataError, match="'a--b' has 4 characters, max_length is 3"):
        audit(with_train("a--b"), max_length=3, normalize=LabelNormalizer(alphanumeric_only=True))
    with pytest.raises(DataError, match="'İİ' has 4 characters once normalized, max_length is 3"):
        audit(with_train("İİ"), max_length=3, normalize=LOWER)
    assert audit(with_train("İİ"), normalize=LOWER).max_length == 4


def test_label_that_normalizing_empties_is_a_separate_problem():
    samples = [*with_train("-!", ""), Sample("t", "-", "test"), Sample("x", "?", "test")]
    options = {"charset": Charset("ab-!"), "normalize": LabelNormalizer(alphanumeric_only=True)}
    with pytest.raises(DataError, match=r"empty_after_normalizing: normalizing removes .* of '-!'; 2 in all"):
        audit(samples, **options)
    found = audit(samples, allow=CODES, **options)
    counted = {problem.code: problem.count for problem in found.problems}
    assert counted == {"empty_after_normalizing": 2, "empty_label": 1, "outside_charset": 1}
    assert found.excluded == (4, 5)
    assert found.unspellable == (7,)
    assert found.counts == {"train": 2, "val": 1, "test": 3}
    with pytest.raises(DataError, match="split 'train' has no samples left"):
        audit([Sample("1", "-", "train"), *GOOD[2:]], allow=CODES, normalize=options["normalize"])


def test_unicode_form_is_applied_before_the_charset_is_checked():
    samples = with_train("e\u0301")
    with pytest.raises(DataError, match="outside_charset"):
        audit(samples, charset=Charset("abé"))
    composed = audit(samples, charset=Charset("abé"), normalize=LabelNormalizer(unicode_form="NFC"))
    assert (composed.labels[4], composed.characters) == ("é", "abé")
    decomposed = audit(with_train("é"), charset=Charset("abé"), normalize=LabelNormalizer(unicode_form="NFD"))
    assert (decomposed.labels[4], decomposed.characters) == ("e\u0301", "abe\u0301")
    assert composed.notes == decomposed.notes == ()


def test_charset_includes_characters_composed_by_lower_casing():
    normalize = LabelNormalizer(case="lower", unicode_form="NFC")
    found = audit(with_train("J\u030c"), charset=Charset("abJ\u030c"), normalize=normalize)
    assert (found.labels[4], found.characters) == ("ǰ", "abj\u030cǰ")


def test_conflicting_labels_are_compared_after_normalizing(tmp_path):
    rows = [*((sample, 10 * row) for row, sample in enumerate(GOOD)), (Sample("twin", "AB", "train"), 0)]
    store = store_of(tmp_path, *rows)
    samples = [sample for sample, _ in rows]
    with pytest.raises(DataError, match=r"conflicting_labels: '1' and 'twin' are .*, labeled 'ab' and 'AB'"):
        audit(samples).with_images(store)
    found = audit(samples, normalize=LOWER).with_images(store)
    assert (found.problems, found.excluded) == ((), ())
    assert store.labels[4] == "AB"


def test_with_images_adds_unreadable_and_identical_images(tmp_path):
    rows = [
        (GOOD[0], 10),
        (GOOD[1], 20),
        (GOOD[2], 30),
        (GOOD[3], 40),
        (Sample("twin", "a", "train"), 40),
        (Sample("broken", "a", "test"), None),
        (Sample("spare", "a", "train"), 50),
    ]
    store = store_of(tmp_path, *rows)
    samples = [sample for sample, _ in rows]
    with pytest.raises(DataError) as caught:
        audit(samples).with_images(store)
    message = str(caught.value)
    assert "unreadable_image: image 'broken' cannot be decoded: OSError: truncated" in message
    assert "duplicate_across_splits: '4' and 'twin' are identical images, in 'test' and 'train'" in message
    assert "conflicting_labels: '4' and 'twin' are identical images, labeled 'b' and 'a'" in message

    found = audit(samples, allow=CODES).with_images(store)
    assert [(problem.code, problem.count) for problem in found.problems] == [
        ("unreadable_image", 1),
        ("duplicate_across_splits", 2),
        ("conflicting_labels", 2),
    ]
    assert found.excluded == (4, 5)
    assert found.counts == {"train": 3, "val": 1, "test": 1}
    assert [list(found.rows(store, split)) for split in ("train", "val", "test")] == [[0, 1, 6], [2], [3]]


def test_audit_can_be_written_as_json():
    found = audit(with_train("a\ud800"), allow=CODES)
    assert json.loads(json.dumps(asdict(found)))["characters"] == "ab\ud800"
