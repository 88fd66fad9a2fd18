"""Data sets that are broken in one place, and the rule that each breaks."""

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
    """Thirty images of two digits, drawn when they are asked for."""

    name = "digits"

    class Config(ComponentConfig):
        count: int = 30
        """Images in all."""

    def samples(self) -> Sequence[Sample]:
        return [Sample(str(index), f"{index:02}", SPLITS[index % 3]) for index in range(self.config.count)]

    def load_image(self, index: int) -> Image.Image:
        image = Image.new("L", (32, 16), 255)
        ImageDraw.Draw(image).text((4, 2), f"{index:02}", fill=0)
        return image

    def fingerprint(self) -> str:
        return hashlib.sha256(f"digits {self.config.count}".encode()).hexdigest()


class WithoutDocstring(Digits):
    class Config(ComponentConfig):
        count: int = 30


class ReadsAtOnce(Digits):
    def __init__(self, config: ComponentConfig, base_dir: Path) -> None:
        super().__init__(config, base_dir)
        self.files = list(Path(__file__).parent.iterdir())


class Pairs(Digits):
    def samples(self) -> Sequence[Sample]:
        return [(sample.key, sample.label) for sample in super().samples()]  # type: ignore[misc]


class NumbersAsLabels(Digits):
    def samples(self) -> Sequence[Sample]:
        return [Sample(sample.key, int(sample.label), sample.split) for sample in super().samples()]  # type: ignore[arg-type]


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
    """Returns what Image.open returns, whose pixels are still in the file."""

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
    """One random generator for all images, so that each depends on those before it."""

    generator: random.Random | None = None

    def load_image(self, index: int) -> Image.Image:
        self.generator = self.generator or random.Random(0)
        image = super().load_image(index)
        image.putpixel((0, 0), self.generator.randrange(256))
        return image


class SharesACanvas(Digits):
    """Draws on one canvas, which threads take from each other."""

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


class Mumbles(Digits):
    def notes(self) -> Sequence[str]:
        return ["hm"]


class SeedsPython(Digits):
    def samples(self) -> Sequence[Sample]:
        random.seed(0)
        return super().samples()


class OrderOfASet(Digits):
    def samples(self) -> Sequence[Sample]:
        return sorted(super().samples(), key=lambda sample: hash(sample.key))


fault = partial(Fault, "dataset")
FAULTS = [
    fault(WithoutDocstring, "can_be_registered", "option 'count' of dataset 'digits' without a docstring"),
    fault(
        ReadsAtOnce, "is_built_without_reading", r"got os.listdir of .*planted'; read in samples\(\) or load_image\(\)"
    ),
    fault(Empty, "lists_its_samples", "got no samples; raise DataError"),
    fault(Pairs, "lists_its_samples", r"got \('0', '00'\); return Sample\(key, label, split\)"),
    fault(NumbersAsLabels, "lists_its_samples", "label=0, .*key and label as str"),
    fault(OneKey, "lists_its_samples", "got key 'image' 30 times; give every image a key of its own"),
    fault(Validation, "lists_its_samples", "got split 'validation'; use one of train, val, test"),
    fault(NothingToTest, "has_every_split", "got none of test; deal them out"),
    fault(Shuffled, "lists_the_same_again", "got other samples, or another order; sort what a set"),
    fault(StillOpen, "decodes_completely", "got an image whose file is still open"),
    fault(NoPixels, "decodes_completely", r"got an image of \(0, 16\)"),
    fault(NotAnImage, "decodes_completely", "got bytes; return a PIL.Image.Image"),
    fault(DrawsInOrder, "loads_in_any_order", "in another order; derive an image from its index alone"),
    fault(SharesACanvas, "loads_in_threads", "got other images from four threads"),
    fault(FingerprintOfTheTime, "has_a_fingerprint", "leave out times of reading"),
    fault(FingerprintInWords, "has_a_fingerprint", "got fingerprint 'version 2'; return hashlib"),
    fault(Mumbles, "takes_notes_in_sentences", "got 'hm'; return sentences, or nothing"),
    fault(SeedsPython, "leaves_the_process_alone", "another state of the random state of Python"),
    fault(OrderOfASet, "agrees_between_processes", "two different outcomes of one seed"),
]
HEALTHY = [Digits]
