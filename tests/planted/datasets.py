"""Datasets with one fault each, and the rule that catches it."""

import hashlib
import random
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from PIL import Image, ImageDraw

from decoderbench import ComponentConfig, Dataset, Sample
from planted import Fault

SPLITS = ("train", "val", "test")


class Digits(Dataset):
    """Thirty images of two digits, drawn on request."""

    name = "digits"

    class Config(ComponentConfig):
        count: int = 30
        """Number of images."""

    def samples(self) -> Sequence[Sample]:
        return [Sample(str(index), f"{index:02}", SPLITS[index % 3]) for index in range(self.config.count)]

    def load_image(self, index: int) -> Image.Image:
        image = Image.new("L", (32, 16), 255)
        ImageDraw.Draw(image).text((4, 2), f"{index:02}", fill=0)
        return image

    def fingerprint(self) -> str:
        return hashlib.sha256(f"digits {self.config.count}".encode()).hexdigest()


class NameWithSpaces(Digits):
    name = "the digits"


class WithoutDocstring(Digits):
    class Config(ComponentConfig):
        count: int = 30


class ReadsInConstructor(Digits):
    def __init__(self, config: ComponentConfig, base_dir: Path) -> None:
        super().__init__(config, base_dir)
        self.files = list(Path(__file__).parent.iterdir())


class Pairs(Digits):
    def samples(self) -> Sequence[Sample]:
        return [(sample.key, sample.label) for sample in super().samples()]  # type: ignore[misc]


class NumbersAsLabels(Digits):
    def samples(self) -> Sequence[Sample]:
        return [Sample(sample.key, int(sample.label), sample.split) for sample in super().samples()]  # type: ignore[arg-type]


class NumbersAsGroups(Digits):
    def samples(self) -> Sequence[Sample]:
        return [Sample(sample.key, sample.label, sample.split, 7) for sample in super().samples()]  # type: ignore[arg-type]


class OneKey(Digits):
    def samples(self) -> Sequence[Sample]:
        return [Sample("image", sample.label, sample.split) for sample in super().samples()]


class Validation(Digits):
    def samples(self) -> Sequence[Sample]:
        return [Sample(sample.key, sample.label, "validation") for sample in super().samples()]  # type: ignore[arg-type]


class Empty(Digits):
    def samples(self) -> Sequence[Sample]:
        return []


class NothingToTest(Digits):
    def samples(self) -> Sequence[Sample]:
        return [sample for sample in super().samples() if sample.split != "test"]


class Shuffled(Digits):
    def samples(self) -> Sequence[Sample]:
        samples = list(super().samples())
        random.SystemRandom().shuffle(samples)
        return samples


class StillOpen(Digits):
    """Returns an image that Pillow has opened but not read."""

    def load_image(self, index: int) -> Image.Image:
        import io

        buffer = io.BytesIO()
        super().load_image(index).save(buffer, "PNG")
        buffer.seek(0)
        return Image.open(buffer)


class NoPixels(Digits):
    def load_image(self, index: int) -> Image.Image:
        return Image.new("L", (0, 16))


class NotAnImage(Digits):
    def load_image(self, index: int) -> Image.Image:
        return super().load_image(index).tobytes()  # type: ignore[return-value]


class DrawsInOrder(Digits):
    """Uses one random generator for all images, so each depends on the order of loading."""

    generator: random.Random | None = None

    def load_image(self, index: int) -> Image.Image:
        self.generator = self.generator or random.Random(0)
        image = super().load_image(index)
        image.putpixel((0, 0), self.generator.randrange(256))
        return image


class SharesACanvas(Digits):
    """Draws on one canvas, which threads overwrite for each other."""

    canvas: Image.Image | None = None

    def load_image(self, index: int) -> Image.Image:
        self.canvas = super().load_image(index)
        time.sleep(0.001)
        return self.canvas.copy()


class FingerprintOfTheTime(Digits):
    def fingerprint(self) -> str:
        return hashlib.sha256(str(time.perf_counter()).encode()).hexdigest()


class FingerprintInWords(Digits):
    def fingerprint(self) -> str:
        return "version 2"


class NoteOfOneWord(Digits):
    def notes(self) -> Sequence[str]:
        return ["hm"]


class SeedsPython(Digits):
    def samples(self) -> Sequence[Sample]:
        random.seed(0)
        return super().samples()


class OrderOfASet(Digits):
    def samples(self) -> Sequence[Sample]:
        return sorted(super().samples(), key=lambda sample: hash(sample.key))


class SourceOfSeveralLines(Digits):
    """Says where its labels come from in two lines."""

    def label_source(self) -> str:
        return "labels.csv\nand labels.txt"


class SplitsOfNone(Digits):
    """Does not say how samples got their splits."""

    def split_source(self) -> str:
        return None  # type: ignore[return-value]


fault = partial(Fault, "dataset")
FAULTS = [
    fault(NameWithSpaces, "can_be_registered", "has the name 'the digits'; use a-z, 0-9"),
    fault(WithoutDocstring, "options_are_described", "option 'count' of dataset 'digits' without a docstring"),
    fault(
        ReadsInConstructor,
        "constructor_opens_no_files",
        r"got os.listdir of .*planted'; read in samples\(\) or load_image\(\)",
    ),
    fault(Empty, "samples_are_valid", "got no samples; raise DataError"),
    fault(Pairs, "samples_are_valid", r"got \('0', '00'\); return Sample\(key, label, split\)"),
    fault(NumbersAsLabels, "samples_are_valid", "label=0, .*key, label and group as str"),
    fault(NumbersAsGroups, "samples_are_valid", "group=7.*key, label and group as str"),
    fault(OneKey, "samples_are_valid", "got key 'image' 30 times; give every image a unique key"),
    fault(Validation, "samples_are_valid", "got split 'validation'; use one of train, val, test"),
    fault(NothingToTest, "every_split_has_samples", "got no samples for test; assign splits"),
    fault(Shuffled, "samples_are_repeatable", "got other samples, or another order; sort the contents of sets"),
    fault(StillOpen, "images_are_fully_decoded", "got an image whose file is still open"),
    fault(NoPixels, "images_are_fully_decoded", r"got an image of \(0, 16\)"),
    fault(NotAnImage, "images_are_fully_decoded", "got bytes; return a PIL.Image.Image"),
    fault(DrawsInOrder, "images_do_not_depend_on_order", "in another order; derive an image from its index only"),
    fault(SharesACanvas, "images_load_in_threads", "got other images from four threads"),
    fault(FingerprintOfTheTime, "fingerprint_is_stable_digest", "exclude times of reading"),
    fault(FingerprintInWords, "fingerprint_is_stable_digest", "got fingerprint 'version 2'; return hashlib"),
    fault(NoteOfOneWord, "notes_are_sentences", "got 'hm'; return sentences, or nothing"),
    fault(SourceOfSeveralLines, "sources_are_text", r"got label_source 'labels.csv.nand labels.txt'; return a line"),
    fault(SplitsOfNone, "sources_are_text", "got split_source None; return a line for people"),
    fault(SeedsPython, "global_state_is_unchanged", "a change of the random state of Python"),
    fault(OrderOfASet, "fresh_processes_agree", "two different results from one seed"),
]
HEALTHY = [Digits]
