"""How often intervals over folds cover the truth when models really are trained, on drawn images.

    python benchmarks/trained_folds.py [--sets 200] [--out FILE.jsonl] [--table results/trained_folds.md] [--small]

`coverage.py` simulates models of different folds as independent. Trained ones are not: they share training images, and
the models of one fold share all of theirs. Here, small networks learn to read one drawn digit: each of many sets of
images is divided into folds, and each fold is read by models that were trained on the others, two rows and a few seeds.
As images are drawn, there are fresh ones to measure the truth on: of models like these, trained on other sets, and of
models that were trained on this set. All models of a set are trained at once. Runs on a CPU; `--device` is ignored.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from coverage import commit_of_checkout, covers
from figure_file import FigureWriter, parser
from torch import Tensor

from decoderbench.statistics import Scores, contrast, row
from decoderbench_plugins.datasets.rendered_words import RenderedWords

IMAGES, FOLDS, SEEDS, MORE_SEEDS = 200, 5, 3, 8
"""Images of a set; folds; seeds that are scored; further seeds that measure the truth of a set."""
HIDDEN = (8, 32)
"""Hidden units of the networks of the two rows."""
STEPS, LEARNING_RATE = 150, 0.01
HEIGHT, WIDTH, CLASSES = 16, 12, 10


@dataclass(frozen=True)
class Drawn:
    """Drawn digits: pixels (N, H * W) and the digit of each (N,)."""

    pixels: Tensor
    digits: Tensor

    def __getitem__(self, rows: slice) -> Drawn:
        return Drawn(self.pixels[rows], self.digits[rows])


def draw(number: int) -> Drawn:
    """Draw that many images of one digit, rotated, noisy and of many typefaces."""
    config = RenderedWords.Config(
        charset="0123456789", min_length=1, max_length=1, train=number, val=1, test=1, rotation=10.0, noise=0.1
    )
    dataset = RenderedWords(config, Path())
    images = [dataset.load_image(index).resize((WIDTH, HEIGHT)) for index in range(number)]
    digits = [int(sample.label) for sample in dataset.samples()[:number]]
    pixels = torch.from_numpy(np.stack([np.asarray(image) for image in images])).flatten(1).float()
    return Drawn((pixels - pixels.mean(1, keepdim=True)) / (pixels.std(1, keepdim=True) + 1), torch.tensor(digits))


def train(images: Drawn, trained_on: Tensor, hidden: int, seed: int) -> list[Tensor]:
    """Train a network of one hidden layer per line of `trained_on` (M, n), all at once; return their weights."""
    generator = torch.Generator().manual_seed(seed)
    count, features = len(trained_on), images.pixels.shape[1]
    weights = [
        torch.randn(count, features, hidden, generator=generator) * features**-0.5,
        torch.zeros(count, 1, hidden),
        torch.randn(count, hidden, CLASSES, generator=generator) * hidden**-0.5,
        torch.zeros(count, 1, CLASSES),
    ]
    for tensor in weights:
        tensor.requires_grad_()
    optimizer = torch.optim.Adam(weights, lr=LEARNING_RATE)
    size = trained_on.shape[1]
    for _ in range(STEPS):
        # Each model has batches of its own, so seeds differ by them too.
        chosen = trained_on.gather(1, torch.randint(size, (count, size // 4), generator=generator))
        logits = read(weights, images.pixels[chosen])
        loss = F.cross_entropy(logits.flatten(0, 1), images.digits[chosen].flatten(), reduction="sum")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return [tensor.detach() for tensor in weights]


def read(weights: list[Tensor], pixels: Tensor) -> Tensor:
    """Return the logits (M, n, 10) of each model for its own images (M, n, H * W), or for all of (n, H * W)."""
    first, first_bias, second, second_bias = weights
    return torch.relu(pixels @ first + first_bias) @ second + second_bias


@dataclass(frozen=True)
class SetResult:
    """What was measured on one set.

    Attributes:
        right: whether each image was read by the models of its fold, (rows, seeds, N).
        folds: of each image, (N,).
        fresh: accuracy on fresh images, the mean over all models of each row that were trained on this set, (rows,).
        fresh_of_first: the same of the models of the first fold alone.
    """

    right: np.ndarray
    folds: np.ndarray
    fresh: np.ndarray
    fresh_of_first: np.ndarray


def measure_set(images: Drawn, fresh: Drawn, seed: int, more_seeds: int) -> SetResult:
    """Divide a set into folds, train, and score."""
    generator = torch.Generator().manual_seed(seed)
    folds = torch.randperm(IMAGES, generator=generator) % FOLDS
    trained_on = torch.stack([(folds != fold).nonzero()[:, 0] for fold in range(FOLDS)])
    right, accuracies, of_first = [], [], []
    for number, hidden in enumerate(HIDDEN):
        models = train(images, trained_on.repeat(SEEDS + more_seeds, 1), hidden, 1000 * seed + number)
        own = (read(models, images.pixels).argmax(2) == images.digits).view(-1, FOLDS, IMAGES)  # (seeds, folds, N)
        right.append(own[:SEEDS].gather(1, folds.expand(SEEDS, 1, -1))[:, 0])
        accuracy = (read(models, fresh.pixels).argmax(2) == fresh.digits).double().mean(1).view(-1, FOLDS)
        accuracies.append(accuracy.mean())
        of_first.append(accuracy[:, 0].mean())
    return SetResult(
        torch.stack(right).double().numpy(),
        folds.numpy(),
        torch.stack(accuracies).numpy(),
        torch.stack(of_first).numpy(),
    )


def shares_covered(results: list[SetResult]) -> dict[tuple[str, str], dict[str, list[float]]]:
    """Return by design and by what the truth is how many intervals cover it, and their mean width in points."""
    found: dict[tuple[str, str], dict[str, list[float]]] = {}
    everywhere = np.mean([result.fresh for result in results], axis=0)
    for result in results:
        in_first = result.folds == 0
        designs = {
            f"{FOLDS} folds": (Scores(result.right, np.ones(1), folds=result.folds), result.fresh),
            "one split": (Scores(result.right[:, :, in_first], np.ones(1)), result.fresh_of_first),
        }
        for design, (scores, of_set) in designs.items():
            estimates = [row(scores, index, proportion=True) for index in range(len(HIDDEN))]
            difference = contrast(scores, [-1, 1])
            for kind, truth in (("any training images", everywhere), ("these training images", of_set)):
                line = found.setdefault((design, kind), {})
                for estimate, value in zip(estimates, truth, strict=True):
                    line.setdefault("row", []).append(covers(estimate, value))
                    line.setdefault("width of a row", []).append(100 * (estimate.high - estimate.low))
                line.setdefault("difference", []).append(covers(difference, truth[1] - truth[0]))
                line.setdefault("width of a difference", []).append(100 * (difference.high - difference.low))
    return found


def markdown(
    found: Mapping[tuple[str, str], Mapping[str, list[float]]], truth: str, command: str, commit: str, seconds: float
) -> str:
    """Return the shares as a table, with their command, commit, machine and date."""
    names = list(next(iter(found.values())))
    head = ["design", "truth over", *names, "sets"]
    rows = [head, ["---"] * len(head)]
    for (design, kind), line in found.items():
        cells = [f"{np.mean(line[name]):.1f}" if "width" in name else f"{np.mean(line[name]):.3f}" for name in names]
        rows.append([design, kind, *cells, str(len(line["difference"]))])
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in rows)
    return "\n\n".join(
        (
            "# Coverage of intervals over folds, with trained models",
            f"Networks of {HIDDEN[0]} and {HIDDEN[1]} hidden units read one drawn digit ({truth}). Each set of "
            f"{IMAGES} images is divided into {FOLDS} folds, with {SEEDS} seeds; one split is the first of these folds "
            "alone. The truth is measured on fresh images: of models trained on all sets, and of models trained on the "
            "set at hand. Shares of intervals at 95 % that cover it; widths in points.",
            f"`{command}` at {commit}, {platform.machine()}, {os.cpu_count()} cores, torch "
            f"{torch.__version__}, {time.strftime('%Y-%m-%d', time.gmtime())}, {seconds:.0f} s of the CPU.",
            table + "\n",
        )
    )


def main() -> None:
    arguments = _arguments()
    sets, num_fresh, more = (3, 100, 1) if arguments.small else (arguments.sets, 4000, MORE_SEEDS)
    figures = FigureWriter("trained_folds", arguments.out, platform.machine(), f"torch {torch.__version__}")
    commit = commit_of_checkout() if arguments.table else ""  # before others may change it
    drawn = draw(sets * IMAGES + num_fresh)
    fresh = drawn[sets * IMAGES :]
    results = [
        measure_set(drawn[number * IMAGES : (number + 1) * IMAGES], fresh, number, more) for number in range(sets)
    ]
    found = shares_covered(results)
    for (design, kind), line in found.items():
        for name, values in line.items():
            unit = "points" if "width" in name else "1"
            figures.add(f"{name}: {design}, {kind}", float(np.mean(values)), unit, n=len(values))
    accuracies = np.mean([result.fresh for result in results], axis=0)
    truth = "accuracies " + " and ".join(f"{accuracy:.3f}" for accuracy in accuracies)
    if arguments.table:
        command = " ".join(["python", "benchmarks/trained_folds.py", *sys.argv[1:]])
        arguments.table.write_text(markdown(found, truth, command, commit, time.process_time()), encoding="utf-8")


def _arguments() -> argparse.Namespace:
    found = parser(__doc__)
    found.add_argument("--sets", type=int, default=200, help="sets of images")
    found.add_argument("--table", type=Path, help="a Markdown file for the shares")
    return found.parse_args()


if __name__ == "__main__":
    main()
