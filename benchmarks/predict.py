"""How fast a trained recognizer reads files, beside how fast it reads images that are decoded already.

    python benchmarks/predict.py [--count 10000] [--out FILE.jsonl] [--small]

The recognizers are those of `quickstart.toml` with first weights, the files are drawn captchas. The rate of files
has decoding, padding and the confidence in it; that of batches is the throughput that a run measures. Both are taken by
turns, with one thread, so their ratio says what `predict` loses. As there, half as many processes as cores decode; a
second rate is that with threads in their place. Memory is that of the process, at its largest.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from concurrent.futures import Executor
from itertools import cycle, islice
from pathlib import Path

import torch
from figure_file import FigureWriter, installed_versions, parser
from quickstart_cells import load_cells

from decoderbench.data.worker_processes import decoding_processes, usable_cores
from decoderbench.inference.confidence import Confidence
from decoderbench.inference.image_batches import DecodedImage, batches_by_width, decode_images
from decoderbench.inference.trained import TrainedRecognizer
from decoderbench.training.building import build_recognizer
from decoderbench.training.cores import leaving_cores
from decoderbench.training.devices import choose_device, device_name, start_device, synchronize
from decoderbench.training.transcription import read_batch
from decoderbench_plugins.datasets.synthetic_captcha import SyntheticCaptcha

DRAWN, BATCHES, ROUNDS = 256, 8, 3


def main() -> None:
    given = parse_arguments()
    device = choose_device(given.device)
    start_device(device)
    figures = FigureWriter("predict", given.out, device_name(device), installed_versions())
    count, rounds = (64, 1) if given.small else (given.count, ROUNDS)
    cells = load_cells(device, small=True)
    workers = max(1, usable_cores() // 2)
    with tempfile.TemporaryDirectory() as place, decoding_processes(workers) as executor, leaving_cores(workers):
        paths = list(islice(cycle(draw_files(Path(place), min(DRAWN, count))), count))
        for label, cell in cells.by_decoder.items():
            recognizer = build_recognizer(cell, cells.registry, device)
            measure(figures, label, TrainedRecognizer(cell, recognizer, Confidence.of([], [])), paths, rounds, executor)


def parse_arguments() -> argparse.Namespace:
    arguments = parser(__doc__)
    arguments.add_argument("--count", type=int, default=10_000, help="files that are read")
    return arguments.parse_args()


def draw_files(folder: Path, count: int) -> list[Path]:
    dataset = SyntheticCaptcha(SyntheticCaptcha.Config(train=count, val=1, test=1), folder)
    for index in range(count):
        dataset.load_image(index).save(folder / f"{index:05}.png")
    return sorted(folder.glob("*.png"))


def measure(
    figures: FigureWriter,
    label: str,
    reader: TrainedRecognizer,
    paths: list[Path],
    rounds: int,
    executor: Executor | None,
) -> None:
    """Record the rates of one recognizer, by turns, and how its memory grows from the first round to the last."""
    start = time.perf_counter()
    reader.transcribe(paths[:1])
    figures.add(f"{label}: first answer", time.perf_counter() - start, "s")
    batches = decoded_batches(reader, paths)
    of_files, with_threads, of_batches, memory = [], [], [], []
    for _ in range(rounds):
        for rates, decoding in ((of_files, executor), (with_threads, None)):
            start = time.perf_counter()
            for _ in reader.transcribe_each(paths, executor=decoding):
                pass
            rates.append(len(paths) / (time.perf_counter() - start))
        memory.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3)
        start = time.perf_counter()
        with torch.inference_mode():
            for images in batches:
                read_batch(reader.recognizer, images, None, beam_size=1)
        synchronize(reader.device)
        of_batches.append(sum(map(len, batches)) / (time.perf_counter() - start))
    for name, rates in (("files", of_files), ("files, threads", with_threads), ("decoded batches", of_batches)):
        spread = (max(rates) - min(rates)) / 2
        figures.add(f"{label}: {name}", max(rates), "images/s", n=rounds, spread=spread)
    figures.add(f"{label}: files per decoded batches", max(of_files) / max(of_batches), "1", n=rounds)
    figures.add(f"{label}: memory, last per first round", memory[-1] / memory[0], "1", n=rounds)


def decoded_batches(reader: TrainedRecognizer, paths: list[Path]) -> list[torch.Tensor]:
    image, size = reader.cell.image, reader.cell.evaluation.batch_size
    decoded = decode_images(paths[: BATCHES * size], image, ahead=size)
    found = batches_by_width(decoded, lambda columns: image.width, size)
    return [torch.from_numpy(batch.pixels).to(reader.device) for batch in found if not isinstance(batch, DecodedImage)]


if __name__ == "__main__":
    main()
