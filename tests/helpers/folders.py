"""Folders of images for tests: made, labeled by a table, and opened as the dataset `folder`."""

import csv
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from decoderbench import Sample
from decoderbench_plugins.datasets.folder import Folder

REAL = Path(__file__).parents[2] / "../shared/data"


def make(folder: Path, names: Iterable[str], sub: str = "images") -> Path:
    """Write small images, each of another gray, and return the folder."""
    (folder / sub).mkdir(exist_ok=True, parents=True)
    for index, name in enumerate(names):
        (folder / sub / name).parent.mkdir(exist_ok=True, parents=True)
        Image.new("L", (4, 4), index % 256).save(folder / sub / name, "PNG")
    return folder


def table(
    folder: Path, rows: Iterable[Iterable[str]], header: Sequence[str] = ("filename", "label"), name: str = "labels.csv"
) -> Path:
    """Write a table of labels, and return the folder."""
    with (folder / name).open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return folder


def opened(folder: Path, **options: Any) -> Folder:
    """Return the dataset in a folder."""
    return Folder(Folder.Config(path=folder.name, **options), folder.parent)


def split_sizes(samples: Iterable[Sample]) -> list[int]:
    """Return the numbers of samples in train, val and test."""
    counts = Counter(sample.split for sample in samples)
    return [counts["train"], counts["val"], counts["test"]]


def real(name: str, **options: Any) -> Folder:
    """Return a dataset beside the project, or skip the test if there is none."""
    if not (REAL / name).is_dir():
        pytest.skip(f"the dataset {name} is not beside the project, in ../shared/data")
    return Folder(Folder.Config(path=str(REAL / name), **options), Path())
