"""Signs of wrong labels: each is noted, and labels of usual data sets are not."""

import hashlib
import random
from uuid import NAMESPACE_DNS, uuid5

import pytest

from decoderbench import Sample
from decoderbench.data.label_signs import doubtful_labels

WORDS = [
    "lorem", "ipsum", "dolor", "sit", "amet", "consectetur", "adipiscing", "elit", "sed", "do", "eiusmod", "tempor",
    "incididunt", "ut", "labore", "et",
]  # fmt: skip
HASHES = [hashlib.sha256(word.encode()).hexdigest() for word in WORDS]
DRAW = random.Random(0)
DIGITS = [f"{DRAW.randrange(10_000):04}" for _ in range(200)]


def samples_of(labels, keys="{row}.png", splits=("train",)):
    return [
        Sample(keys.format(row=row, label=label), label, splits[row % len(splits)]) for row, label in enumerate(labels)
    ]


def notes(labels, keys="{row}.png", splits=("train", "val", "test"), **options):
    return "\n".join(doubtful_labels(samples_of(labels, keys, splits), **options))


@pytest.mark.parametrize(
    ("labels", "keys", "expected"),
    [
        (["word"] * 40, "train/word_{row}.png", "all 40 labels are 'word'"),
        (["word"] * 30 + WORDS[:10], "{row}.png", "30 of 40 labels are 'word'"),
        ([str(i) for i in range(12)], "img{row}.png", "labels only count up"),
        ([f"{i:05}" for i in range(7, 19)], "x/{row}.jpg", "labels only count up in the order of the images"),
        ([f"img{i}" for i in range(12)], "{row}.png", "'img0', 'img1', 'img2' and so on"),
        ([str(i // 2 + 1) for i in range(12)], "{row}.png", ""),  # each number twice does not count up
        (WORDS, "{label}.png", "every label is its file's name, such as 'lorem' of 'lorem.png'"),
        ([f"{i:03}" for i in range(40)], "0_word_{row:03}.png", "every label is the number in its file's name"),
        ([f"{i}.png\tword" for i in range(9)], "{row}.png", "every label contains its file's name"),
        (["train/a.jpg", *WORDS], "{row}.png", "labels that look like file names: 1, such as 'train/a.jpg'"),
        (["b.JFIF", *WORDS], "{row}.png", "labels that look like file names: 1, such as 'b.JFIF'"),
        (HASHES, "{row}.png", "every label is a digest or an identifier"),
        ([str(uuid5(NAMESPACE_DNS, word)) for word in WORDS], "{row}.png", "every label is a digest or an identifier"),
        ([f'"{word}' for word in WORDS], "{row}.png", "every label begins with '\"'"),
        ([f"{word}," for word in WORDS], "{row}.png", "every label ends with ','"),
        ([*(f"{word}'" for word in WORDS), "x"], "{row}.png", 'nearly every label ends with "\'"'),
        ([f"{word};0.98" for word in WORDS], "{row}.png", "every label has a comma, semicolon, bar or tab"),
        ([f"{word}-{row}" for row, word in enumerate(WORDS)], "{row}.jpg", "every label ends with a blank, dot, hyph"),
        (
            [f"{word} ({row % 3})" for row, word in enumerate(WORDS)],
            "{row}.jpg",
            "every label ends with a blank, dot, hyph",
        ),
        ([f"{word}.{row}" for row, word in enumerate(WORDS)], "{row}.jpg", "every label ends with a blank, dot, hyph"),
        ([f"captcha{word}" for word in WORDS], "{row}.jpg", "every label begins with 'captcha'"),
        ([f"{word}tcha" for word in WORDS], "{row}.jpg", "every label ends with 'tcha'"),
        ([f"{1_600_000_000 + 131 * row}" for row in range(20)], "{row}.jpg", "every label begins with '160000'"),
        ([f"{word} 0.9{row}" for row, word in enumerate(WORDS)], "{row}.jpg", "number, as with a second column"),
        (["label", *WORDS], "{row}.png", "'0.png' with label 'label' looks like the header of a table"),
        ([*WORDS, "Text"], "filename", "'filename' with label 'Text' looks like the header of a table"),
        (["caf\ufffd", *WORDS], "{row}.png", "labels with U+FFFD, which replaces what could not be decoded: 1"),
        (["cafÃ©", *WORDS], "{row}.png", "another encoding: 1, such as 'cafÃ©', which may be 'café'"),
        (["â‚¬5", *WORDS], "{row}.png", "which may be '€5'"),
        (["AT&amp;T", *WORDS], "{row}.png", "labels that have a code of HTML: 1, such as 'AT&amp;T'"),
        (["caf\\u00e9", *WORDS], "{row}.png", "labels that have the code of a character: 1"),
        (["nan", *WORDS], "{row}.png", "missing or unreadable text: 1, such as 'nan'"),
        (["###", *WORDS], "{row}.png", "missing or unreadable text: 1, such as '###'"),
        (["3-Jan", *WORDS], "{row}.png", "labels that are dates as a spreadsheet writes them: 1, such as '3-Jan'"),
        (["1.2E+11", *WORDS], "{row}.png", "numbers as a spreadsheet writes them: 1"),
        ([f"{digits}.0" for digits in DIGITS], "{row}.png", "every label ends in .0"),
        ([str(int(digits)) for digits in DIGITS], "{row}.png", "shorter than 4 digits: a spreadsheet removes zeros"),
        (["train", "val", "test"] * 5, "{row}.png", "every label is the name of a split"),
    ],
)
def test_sign_of_wrong_labels_is_noted(labels, keys, expected):
    found = notes(labels, keys)
    assert expected in found
    assert expected or not found


@pytest.mark.parametrize(
    ("train", "test", "expected"),
    [
        (WORDS, DIGITS[:20], "labels of test are all of another form than those of train: '"),
        (DIGITS[:20], [digits * 2 for digits in DIGITS[:20]], "labels of test are all longer than those of train: '"),
        (DIGITS[:20], ["unknown"] * 20, "all 20 labels of test are 'unknown'"),
    ],
)
def test_split_whose_labels_are_unlike_those_of_train_is_noted(train, test, expected):
    samples = [*samples_of(train, splits=("train",)), *samples_of(test, "t{row}.png", splits=("test",))]
    assert expected in "\n".join(doubtful_labels(samples))


@pytest.mark.parametrize("folder", ["train", "val", "test"])
def test_labels_that_count_up_in_each_folder_are_noted(folder):
    labels = [str(row) for row in range(5)]
    samples = [sample for part in ("a", "b", folder) for sample in samples_of(labels, f"{part}/x{{row}}.png")]
    assert "labels only count up" in "\n".join(doubtful_labels(samples))


@pytest.mark.parametrize(
    ("labels", "keys", "options"),
    [
        (WORDS, "{row}.png", {}),
        (WORDS, "{label}.png", {"named_by_files": True}),
        (DIGITS, "{row}.png", {}),
        (DIGITS, "{label}.png", {"named_by_files": True}),
        (DIGITS, "{label}_{row}.png", {"named_by_files": True}),
        (DIGITS, "train/{row:06}", {}),
        ([f"${digits}" for digits in DIGITS], "{row}.png", {}),
        (["Ä", "é", "Œuvre", "naïve", "中文", "हिन्दी", "«oui»"], "{row}.png", {}),
        ([f"{WORDS[i]}, {WORDS[-i]} {WORDS[i - 3]}" if i % 3 else WORDS[i] for i in range(14)], "{row}.png", {}),
        (["a"], "{row}.png", {}),
        (["9" * 10_000, "8", "7" * 5000], "{row}.png", {}),
    ],
)
def test_usual_labels_are_not_noted(labels, keys, options):
    assert notes(labels, keys, **options) == ""
