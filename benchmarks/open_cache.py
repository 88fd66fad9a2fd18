"""Time and memory to open the cache of a folder of 100,000 images, and to check its pixels when they are first used.

    python benchmarks/open_cache.py [--count 100000] [--out FILE.jsonl] [--small]

Write the PNG files to a temporary folder, build the cache, then open it in fresh processes. No device is used.
"""

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from io import BytesIO
from pathlib import Path

import numpy as np
from figure_file import FigureWriter, installed_versions, parser
from numpy.typing import NDArray
from PIL import Image

from decoderbench.data.image_cache import open_store
from decoderbench.data.image_store import ImageStore, read_store
from decoderbench.options import ImageOptions
from decoderbench_plugins.datasets.folder import Folder


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--count", type=int, default=100_000)
    arguments.add_argument("--open", type=Path, help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.open:
        print(json.dumps(open_cached(given.open)))
        return
    count = 1000 if given.small else given.count
    figures = FigureWriter("open_cache", given.out, platform.processor() or platform.machine(), installed_versions())
    with tempfile.TemporaryDirectory() as place:
        write_images(Path(place), count)
        dataset = dataset_in(Path(place))
        start = time.perf_counter()
        store = open_store(dataset, dataset.samples(), ImageOptions(), cache_dir=Path(place) / "cache")
        figures.add("build", len(store) / (time.perf_counter() - start), "images/s", n=count)
        figures.add("array", store.images.nbytes / 1e6, "MB", n=count)
        command = [sys.executable, __file__, "--open", place]
        opened = [json.loads(subprocess.run(command, check=True, capture_output=True).stdout) for _ in range(3)]
        for name in opened[0]:
            *what, unit = name.split()
            values = [each[name] for each in opened]
            spread = (max(values) - min(values)) / 2
            figures.add(f"open: {' '.join(what)}", min(values), unit, n=len(values), spread=spread)


def write_images(folder: Path, count: int) -> None:
    (folder / "data").mkdir()
    file = BytesIO()
    Image.linear_gradient("L").resize((100, 32)).save(file, "PNG")
    for index in range(count):
        (folder / "data" / f"{index:07}.png").write_bytes(file.getvalue())
    time.sleep(2.1)  # the contents of newer files are hashed, since their times are not reliable yet


def dataset_in(folder: Path) -> Folder:
    return Folder(Folder.Config(path="data", labels="filename"), folder)


def open_cached(folder: Path) -> dict[str, float]:
    before = resident_megabytes()
    dataset = dataset_in(folder)
    start = time.perf_counter()
    samples = dataset.samples()
    listed, listed_cpu = time.perf_counter(), time.process_time()
    store = open_store(dataset, samples, ImageOptions(), cache_dir=folder / "cache")
    opened, opened_cpu = time.perf_counter(), time.process_time()
    after = resident_megabytes()
    directory = store.directory
    del store, samples, dataset
    again = time.perf_counter()
    store = read_store(directory)
    read = time.perf_counter()
    batches = np.array_split(np.random.default_rng(0).permutation(len(store)), max(1, len(store) // 64))
    seconds = [verify(store, batches) for _ in range(2)]
    return {
        "samples() s": listed - start,
        "open_store s": opened - listed,
        "open_store, time of the CPU s": opened_cpu - listed_cpu,
        "read_store s": read - again,
        "hashes of all images at their first use s": seconds[0],
        "check of a batch of 64 afterwards us": 1e6 * seconds[1] / len(batches),
        "RSS growth MB": after - before,
    }


def verify(store: ImageStore, batches: list[NDArray[np.int64]]) -> float:
    """Return the time of the CPU that it takes to check the images of all batches, in seconds."""
    start = time.process_time()
    for rows in batches:
        store.verify(rows)
    return time.process_time() - start


def resident_megabytes() -> float:
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1000


if __name__ == "__main__":
    main()
