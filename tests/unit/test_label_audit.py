"""The audit of labels: where they come from, their characters, blanks and lengths."""

from pathlib import Path

import pytest
from PIL import Image

from decoderbench import Charset, DataError, Dataset, Sample
from decoderbench.config.labels import LabelOptions
from decoderbench.data.audit import audit
from decoderbench.data.image_cache import open_store
from decoderbench.data.label_normalizer import LabelNormalizer
from decoderbench.options import ImageOptions

GOOD = [Sample("1", "ab", "train"), Sample("2", "aab", "train"), Sample("3", "ba", "val"), Sample("4", "b", "test")]
STRIP = LabelNormalizer(strip=True)


def with_train(*labels):
    return GOOD + [Sample(f"bad{i}", label, "train") for i, label in enumerate(labels)]


def test_first_lines_say_where_labels_splits_and_counts_come_from():
    samples = [Sample(f"train/{i}.png", f"w{'abcdefghi'[i]}", "train") for i in range(9)] + GOOD
    found = audit(samples, label_source="labels.csv, columns image and text", split_source="dealt, seed 0")
    assert found.lines()[:4] == [
        "labels   from labels.csv, columns image and text: 'train/0.png' is 'wa', 'train/6.png' is 'wg', '4' is 'b'",
        "splits   dealt, seed 0",
        "samples  11 train, 1 val, 1 test",
        "lengths  1 of 1, 11 of 2, 1 of 3 characters; max_length 3; CTC needs 4 frames",
    ]
    assert found.summary() == found.lines()[:5]  # so that they are in the report too
    assert found.examples[1] == ("train/6.png", "wg")


def test_text_of_a_dataset_is_shown_in_one_line_without_control_characters():
    samples = [Sample("\x1b[31m.png", "b" * 200, "train"), *GOOD]
    found = audit(samples, label_source="a\x1b[2J\n.csv", split_source="column \u202e")
    labels, splits = found.lines()[:2]
    assert labels.startswith(rf"labels   from a\x1b[2J .csv: '\x1b[31m.png' is '{'b' * 60}'... (200 characters), '2'")
    assert splits == r"splits   column \u202e"
    assert all(line.isprintable() for line in found.lines())


def test_extra_characters_are_added_to_those_in_the_data():
    plain = audit(with_train("a\u200cb"), extra_characters="\u200cÉz")
    assert (plain.problems, plain.characters) == ((), "abz\xc9\u200c")
    assert "characters of the charset that are in no label: 'z', 'É'" in "\n".join(plain.notes)
    lower = audit(GOOD, extra_characters="É-", normalize=LabelNormalizer(case="lower"))
    assert lower.characters == "-abé"
    with pytest.raises(DataError, match=r"U\+200C .*; to accept them, add them to labels.extra_characters, or"):
        audit(with_train("a\u200cb"))


def test_extra_characters_beside_a_charset_are_refused():
    with pytest.raises(ValueError, match="add them to charset, and remove extra_characters"):
        LabelOptions(charset="ab", extra_characters="c")


def test_label_longer_than_images_are_wide_is_refused_and_does_not_set_max_length():
    long = "x1" * 5000
    samples = [*with_train(long), Sample("5", "ab" * 3, "test"), Sample("6", long, "test")]
    with pytest.raises(DataError) as caught:
        audit(samples, width=128)
    assert "too_narrow: 'bad0' is at most image.width = 128 columns wide" in str(caught.value)
    assert "fewer than the 10,000 characters of its label 'x1x1" in str(caught.value)
    assert len(str(caught.value)) < 1000
    found = audit(samples, width=128, allow=["too_narrow"])
    assert (found.max_length, found.frames_needed, found.characters) == (6, 6, "ab")
    assert (found.excluded, found.unspellable) == ((4,), (4, 6))
    assert found.counts == {"train": 2, "val": 1, "test": 3}  # the reference that is too long counts as an error
    assert found.footnotes() == ["too_narrow: allowed, in 2 of 7 samples"]
    assert "lengths  1 of 1, 2 of 2, 1 of 3, 1 of 6 characters and 2 of more; max_length 6" in "\n".join(
        found.summary()
    )


def test_rejected_labels_set_neither_max_length_nor_charset():
    assert audit(with_train("é" * 9), charset=Charset("ab"), allow=["outside_charset"]).max_length == 3
    assert audit(with_train("z" * 9), max_length=3, allow=["too_long"]).characters == "ab"


class Striped(Dataset):
    """Images of the given widths."""

    name = "striped"

    def samples(self):
        return [sample for sample, _ in self.config]

    def load_image(self, index):
        image = Image.new("L", (self.config[index][1], 4), 200 - index)
        image.putpixel((0, 0), 0)
        return image

    def fingerprint(self):
        return "striped"


def test_labels_too_long_for_all_images_and_for_their_own_are_one_problem(tmp_path):
    rows = [*((sample, 8) for sample in GOOD), (Sample("a", "a" * 9, "train"), 8), (Sample("b", "b" * 5, "train"), 4)]
    options = ImageOptions(width=8, height=4, resize="keep", buckets=1)
    dataset, samples = Striped(rows, Path()), [sample for sample, _ in rows]
    store = open_store(dataset, samples, options, cache_dir=tmp_path, workers=1)
    found = audit(samples, width=8, allow=["too_narrow"]).with_images(store)
    assert found.footnotes() == ["too_narrow: allowed, in 2 of 6 samples"]
    assert [problem.keys for problem in found.problems] == [("a", "b")]
    assert found.unspellable == (4, 5)


@pytest.mark.parametrize("blank", [" ", "\u00a0", "\u3000"])
def test_blanks_around_labels_are_kept_with_a_note_or_stripped(blank):
    samples = [*with_train(f"{blank}a b", f"ab{blank}{blank}"), Sample("t", f"{blank}ba", "test")]
    kept = audit(samples)
    note = next(note for note in kept.notes if "blanks around them" in note)
    assert "(labels.normalize.strip = true removes them): 3, such as" in note
    assert f"U+{ord(blank):04X}" in note or blank == " "
    assert kept.labels[4] == f"{blank}a b"
    stripped = audit(samples, normalize=STRIP)
    assert stripped.labels[4:] == ("a b", "ab", "ba")  # in val and test as well
    assert (stripped.characters, stripped.max_length) == (" ab", 3)
    assert not any("blanks around" in note for note in stripped.notes)
    assert "normalize  strip: 3 of 7 labels changed" in stripped.summary()


def test_unusual_blanks_within_labels_are_noted():
    assert "other blanks than the space, which are kept: 1 ('\\u2009' (U+2009 THIN SPACE))" in "\n".join(
        audit(with_train("a\u2009b", "a b")).notes
    )


@pytest.mark.parametrize(
    ("label", "note"),
    [
        ("\uff41b", "labels with characters that differ from others by their width only: 1 ('\uff41'"),
        ("a\u0441", "labels that mix Latin with Cyrillic or Greek letters in one word: 1, such as 'a\u0441'"),
        ("a \u0441\u044a", None),
        ("\uff43", None),  # c, which is in no other label
    ],
)
def test_letters_that_look_like_others_are_noted(label, note):
    notes = [one for one in audit(with_train(label)).notes if "characters of" not in one]
    assert [one.startswith(note) for one in notes] == [True] if note else notes == []


def test_stripping_comes_before_the_charset_is_checked_and_keeps_a_blank_of_the_charset():
    found = audit(with_train("\ufeffab\r\n", "b\u200b"), charset=Charset("a b"), normalize=STRIP)
    assert (found.labels[4:], found.characters, found.problems) == (("ab", "b"), "a b", ())
    with pytest.raises(DataError, match=r"U\+FEFF .*labels.normalize.strip removes those around labels"):
        audit(with_train("\ufeffab"))
    with pytest.raises(DataError, match="normalizing removes every character of ' '"):
        audit(with_train(" "), normalize=STRIP)
