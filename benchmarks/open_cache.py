"""Time and memory to open the cache of a folder of 100,000 images.

    python benchmarks/open_cache.py [--count 100000]

Write the PNG files to a temporary folder, build the cache, then open it in fresh processes.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from io import BytesIO
from pathlib import Path

from PIL import Image

from decoderbench.data.image_cache import open_store
from decoderbench.data.image_store import read_store
from decoderbench.options import ImageOptions
from decoderbench_plugins.datasets.folder import Folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--open", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.open:
        print(json.dumps(open_cached(arguments.open)))
        return
    with tempfile.TemporaryDirectory() as place:
        write_images(Path(place), arguments.count)
        dataset = dataset_in(Path(place))
        start = time.perf_counter()
        store = open_store(dataset, dataset.samples(), ImageOptions(), cache_dir=Path(place) / "cache")
        seconds = time.perf_counter() - start
        print(f"build: {seconds:.1f} s, {len(store) / seconds:,.0f} images/s; array {store.images.nbytes / 1e6:.0f} MB")
        for attempt in range(3):
            command = [sys.executable, __file__, "--open", place]
            figures = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
            print(f"open {attempt}: " + ", ".join(f"{name} {value:.2f}" for name, value in figures.items()))


def write_images(folder: Path, count: int) -> None:
    (folder / "images").mkdir()
    file = BytesIO()
    Image.linear_gradient("L").resize((100, 32)).save(file, "PNG")
    for index in range(count):
        (folder / "images" / f"{index:07}.png").write_bytes(file.getvalue())
    time.sleep(2.1)  # the contents of newer files are hashed, since their times are not reliable yet


def dataset_in(folder: Path) -> Folder:
    return Folder(Folder.Config(path="."), folder)


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
    read_store(directory)
    return {
        "samples() s": listed - start,
        "open_store s": opened - listed,
        "of CPU s": opened_cpu - listed_cpu,
        "read_store s": time.perf_counter() - again,
        "RSS growth MB": after - before,
    }


def resident_megabytes() -> float:
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1000


if __name__ == "__main__":
    main()
