"""The rules of data sets."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from decoderbench.data.dataset import SPLITS, Dataset, Sample
from decoderbench.registry.global_state import changed_switches, read_process_state
from decoderbench.testing import opened
from decoderbench.testing.checks import Rule, Subject
from decoderbench.testing.processes import agrees_between_processes
from decoderbench.testing.rules import require

if TYPE_CHECKING:
    from PIL.Image import Image

MOST_IMAGES = 24  # of a data set are looked at, from all over it


@dataclass
class DatasetUnderCheck(Subject):
    """A data set class and its options."""

    def build(self) -> Dataset:
        """Build it anew."""
        dataset: Dataset = self.cls(self.config, self.base_dir)
        return dataset

    def outcome(self) -> Iterator[bytes]:
        dataset = self.build()
        samples = dataset.samples()
        yield repr(samples).encode()
        yield dataset.fingerprint().encode()
        for index in some_of(len(samples)):
            yield pixels(dataset.load_image(index))


def rules_of_datasets(subject: DatasetUnderCheck) -> list[Rule]:
    """Return the rules for a data set."""
    return [
        is_built_without_reading,
        lists_its_samples,
        has_every_split,
        lists_the_same_again,
        decodes_completely,
        loads_in_any_order,
        loads_in_threads,
        has_a_fingerprint,
        takes_notes_in_sentences,
        leaves_the_process_alone,
        agrees_between_processes,
    ]


def some_of(count: int) -> list[int]:
    """Return indices from all over a list of `count`."""
    return sorted({index * count // MOST_IMAGES for index in range(MOST_IMAGES)}) if count else []


def pixels(image: Image) -> bytes:
    """Return a digest of an image: mode, size and every pixel."""
    return hashlib.sha256(f"{image.mode} {image.size}".encode() + image.tobytes()).digest()


def is_built_without_reading(subject: DatasetUnderCheck) -> None:
    """Constructing one is cheap and opens nothing: the plan does it, and every worker."""
    with opened.watched() as events:
        subject.build()
    require(not events, got=f"{events[0] if events else ''}", do="read in samples() or load_image()")


def lists_its_samples(subject: DatasetUnderCheck) -> None:
    """`samples` gives Sample objects with keys and labels of text, one key once, at least one."""
    samples = subject.build().samples()
    require(
        len(samples) > 0, got="no samples", do="raise DataError where there are none, saying where they were sought"
    )
    for sample in samples:
        require(
            isinstance(sample, Sample) and isinstance(sample.key, str) and isinstance(sample.label, str),
            got=f"{sample!r:.200}",
            do="return Sample(key, label, split), key and label as str",
        )
        require(sample.split in SPLITS, got=f"split {sample.split!r}", do=f"use one of {', '.join(SPLITS)}")
    key, count = Counter(sample.key for sample in samples).most_common(1)[0]
    require(count == 1, got=f"key {key!r} {count} times", do="give every image a key of its own: messages name it")


def has_every_split(subject: DatasetUnderCheck) -> None:
    """There are images to train with, to select with and to test with."""
    missing = set(SPLITS) - {sample.split for sample in subject.build().samples()}
    require(not missing, got=f"none of {', '.join(sorted(missing))}", do="deal them out: Dataset.deal_splits")


def lists_the_same_again(subject: DatasetUnderCheck) -> None:
    """Two of the same options list the same samples in the same order."""
    first, second = subject.build(), subject.build()
    same = list(first.samples()) == list(second.samples()) == list(first.samples())
    require(
        same, got="other samples, or another order", do="sort what a set, a dict or a folder gives; seed what you draw"
    )


def decodes_completely(subject: DatasetUnderCheck) -> None:
    """`load_image` gives a Pillow image with its pixels read."""
    from PIL.Image import Image

    dataset = subject.build()
    for index in some_of(len(dataset.samples())):
        image = dataset.load_image(index)
        require(isinstance(image, Image), got=f"{type(image).__name__}", do="return a PIL.Image.Image")
        require(min(image.size) > 0, got=f"an image of {image.size}", do="raise DataError for an image without pixels")
        require(
            getattr(image, "fp", None) is None,
            got="an image whose file is still open",
            do="call image.load(), or open files with Dataset.decode",
        )


def loads_in_any_order(subject: DatasetUnderCheck) -> None:
    """An image is the same whichever were loaded before it, and by whichever copy."""
    forwards, backwards = subject.build(), subject.build()
    indices = some_of(len(forwards.samples()))
    expected = {index: pixels(forwards.load_image(index)) for index in indices}
    for index in reversed(indices):
        same = pixels(backwards.load_image(index)) == expected[index]
        require(same, got=f"another image {index} in another order", do="derive an image from its index alone")


def loads_in_threads(subject: DatasetUnderCheck) -> None:
    """Several threads may load images of one data set at once."""
    dataset = subject.build()
    indices = some_of(len(dataset.samples()))
    expected = [pixels(dataset.load_image(index)) for index in indices]
    with ThreadPoolExecutor(4) as pool:
        got = list(pool.map(lambda index: pixels(dataset.load_image(index)), indices * 4))
    require(
        got == expected * 4,
        got="other images from four threads",
        do="share no file position, no buffer and no random generator between calls of load_image",
    )


def has_a_fingerprint(subject: DatasetUnderCheck) -> None:
    """`fingerprint` and `stamp` are hex digests, the same for the same data; a stamp may be None."""
    first, second = subject.build(), subject.build()
    for name in ("fingerprint", "stamp"):
        one, other = getattr(first, name)(), getattr(second, name)()
        if name == "stamp" and one is None and other is None:
            continue
        require(
            isinstance(one, str) and re.fullmatch("[0-9a-f]{8,}", one) is not None,
            got=f"{name} {one!r}",
            do="return hashlib.sha256(...).hexdigest() of all that decides keys, labels, splits and pixels",
        )
        require(one == other, got=f"{name} {one}, then {other}", do="leave out times of reading, ids and hash()")


def takes_notes_in_sentences(subject: DatasetUnderCheck) -> None:
    """`notes` are sentences for a person."""
    dataset = subject.build()
    dataset.samples()
    for note in dataset.notes():
        require(isinstance(note, str) and " " in note, got=f"{note!r}", do="return sentences, or nothing")


def leaves_the_process_alone(subject: DatasetUnderCheck) -> None:
    """Listing and loading leave every switch of the process as it was, random numbers included."""
    before = read_process_state()
    dataset = subject.build()
    for index in some_of(len(dataset.samples())):
        dataset.load_image(index)
    dataset.fingerprint()
    changed = changed_switches(before)
    require(
        not changed,
        got=f"another state of {', '.join(changed)}",
        do="draw from a random.Random or numpy.random.default_rng of your own, seeded by the index",
    )
