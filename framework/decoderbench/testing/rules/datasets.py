"""The rules for datasets."""

import re
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from decoderbench.data.dataset import SPLITS, Sample
from decoderbench.registry.global_state import changed_state, read_global_state
from decoderbench.testing.assertions import expect
from decoderbench.testing.checks import Rule
from decoderbench.testing.file_access import watching_file_access
from decoderbench.testing.fresh_processes import fresh_processes_agree
from decoderbench.testing.subjects.dataset import DatasetSubject, image_digest, select_indices


def rules_of_datasets(subject: DatasetSubject) -> list[Rule]:
    """Return the rules for a dataset."""
    return [
        constructor_opens_no_files,
        samples_are_valid,
        every_split_has_samples,
        samples_are_repeatable,
        images_are_fully_decoded,
        images_do_not_depend_on_order,
        images_load_in_threads,
        fingerprint_is_stable_digest,
        notes_are_sentences,
        sources_are_text,
        global_state_is_unchanged,
        fresh_processes_agree,
    ]


def constructor_opens_no_files(subject: DatasetSubject) -> None:
    """The constructor is cheap and opens no files: the plan calls it, and every worker."""
    with watching_file_access() as events:
        subject.build()
    expect(not events, got=f"{events[0] if events else ''}", do="read in samples() or load_image()")


def samples_are_valid(subject: DatasetSubject) -> None:
    """`samples` returns at least one Sample; keys, labels and groups are str, and keys are unique."""
    samples = subject.build().samples()
    expect(len(samples) > 0, got="no samples", do="raise DataError if there are none, naming the place searched")
    for sample in samples:
        expect(
            isinstance(sample, Sample)
            and all(isinstance(text, str) for text in (sample.key, sample.label, sample.group)),
            got=f"{sample!r:.200}",
            do="return Sample(key, label, split), key, label and group as str",
        )
        expect(sample.split in SPLITS, got=f"split {sample.split!r}", do=f"use one of {', '.join(SPLITS)}")
    key, count = Counter(sample.key for sample in samples).most_common(1)[0]
    expect(count == 1, got=f"key {key!r} {count} times", do="give every image a unique key: messages use it")


def every_split_has_samples(subject: DatasetSubject) -> None:
    """There are samples for training, validation and test."""
    missing = set(SPLITS) - {sample.split for sample in subject.build().samples()}
    expect(not missing, got=f"no samples for {', '.join(sorted(missing))}", do="assign splits with Dataset.deal_splits")


def samples_are_repeatable(subject: DatasetSubject) -> None:
    """Two datasets with the same options return the same samples in the same order."""
    first, second = subject.build(), subject.build()
    same = list(first.samples()) == list(second.samples()) == list(first.samples())
    expect(
        same,
        got="other samples, or another order",
        do="sort the contents of sets, dicts and folders; seed random numbers",
    )


def images_are_fully_decoded(subject: DatasetSubject) -> None:
    """`load_image` returns a Pillow image whose pixels have been read."""
    from PIL.Image import Image

    dataset = subject.build()
    for index in select_indices(len(dataset.samples())):
        image = dataset.load_image(index)
        expect(isinstance(image, Image), got=f"{type(image).__name__}", do="return a PIL.Image.Image")
        expect(min(image.size) > 0, got=f"an image of {image.size}", do="raise DataError for an image without pixels")
        expect(
            getattr(image, "fp", None) is None,
            got="an image whose file is still open",
            do="call image.load(), or open files with Dataset.decode",
        )


def images_do_not_depend_on_order(subject: DatasetSubject) -> None:
    """An image does not depend on the images that were loaded before it."""
    forwards, backwards = subject.build(), subject.build()
    indices = select_indices(len(forwards.samples()))
    expected = {index: image_digest(forwards.load_image(index)) for index in indices}
    for index in reversed(indices):
        same = image_digest(backwards.load_image(index)) == expected[index]
        expect(same, got=f"another image {index} in another order", do="derive an image from its index only")


def images_load_in_threads(subject: DatasetSubject) -> None:
    """Several threads may load images of one dataset at the same time."""
    dataset = subject.build()
    indices = select_indices(len(dataset.samples()))
    expected = [image_digest(dataset.load_image(index)) for index in indices]
    with ThreadPoolExecutor(4) as pool:
        got = list(pool.map(lambda index: image_digest(dataset.load_image(index)), indices * 4))
    expect(
        got == expected * 4,
        got="other images from four threads",
        do="share no file position, buffer or random generator between calls of load_image",
    )


def fingerprint_is_stable_digest(subject: DatasetSubject) -> None:
    """`fingerprint` and `stamp` are hex digests, equal for equal data; a stamp may be None."""
    first, second = subject.build(), subject.build()
    for name in ("fingerprint", "stamp"):
        one, other = getattr(first, name)(), getattr(second, name)()
        if name == "stamp" and one is None and other is None:
            continue
        expect(
            isinstance(one, str) and re.fullmatch("[0-9a-f]{8,}", one) is not None,
            got=f"{name} {one!r}",
            do="return hashlib.sha256(...).hexdigest() of everything that determines keys, labels, splits and pixels",
        )
        expect(one == other, got=f"{name} {one}, then {other}", do="exclude times of reading, ids and hash()")


def notes_are_sentences(subject: DatasetSubject) -> None:
    """`notes` are sentences for a person to read."""
    dataset = subject.build()
    dataset.samples()
    for note in dataset.notes():
        expect(isinstance(note, str) and " " in note, got=f"{note!r}", do="return sentences, or nothing")


def sources_are_text(subject: DatasetSubject) -> None:
    """`label_source` and `split_source` are text for a person to read: printable, in one line."""
    dataset = subject.build()
    dataset.samples()
    for name in ("label_source", "split_source"):
        text = getattr(dataset, name)()
        expect(
            isinstance(text, str) and text.strip() == text != "" and text.isprintable(),
            got=f"{name} {text!r}",
            do="return a line for people, such as 'labels.csv, columns filename and label'",
        )


def global_state_is_unchanged(subject: DatasetSubject) -> None:
    """Listing and loading leave the global state of the process unchanged, including random states."""
    before = read_global_state()
    dataset = subject.build()
    for index in select_indices(len(dataset.samples())):
        dataset.load_image(index)
    dataset.fingerprint()
    changed = changed_state(before)
    expect(
        not changed,
        got=f"a change of {', '.join(changed)}",
        do="draw from a random.Random or numpy.random.default_rng of your own, seeded by the index",
    )
