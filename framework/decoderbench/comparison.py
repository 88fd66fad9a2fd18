"""What `decoderbench compare FOLDER` runs: an experiment made up from the images themselves."""

from __future__ import annotations

import re
import statistics
from itertools import islice
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

from decoderbench.errors import DataError

HEIGHT = 32
IMAGE_SUFFIXES = {".bmp", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
SAMPLED = 200  # images whose shape decides on the width


def comparison(folder: Path, *, steps: int) -> dict[str, Any]:
    """Return an experiment, as plain data, that compares three decoders on the images of a folder.

    Images are brought to a height of 32 and to the width that keeps the median shape, in steps of 8.

    Raises:
        DataError: if the folder is missing or holds no image.
    """
    return {
        "name": re.sub(r"[^a-z0-9_.-]+", "-", folder.resolve().name.lower()).strip("-._")[:64] or "comparison",
        "dataset": {"use": "folder", "path": str(folder)},
        "image": {"height": HEIGHT, "width": _fitting_width(folder)},
        "augmentation": {
            "rotate": 3.0,
            "shear": 0.1,
            "scale": 0.1,
            "translate": 0.06,
            "contrast": 0.2,
            "brightness": 0.1,
            "noise": 0.04,
        },
        "training": {"steps": steps},
        "grid": {
            "encoder": {"ResNet-10-T": {"use": "timm_cnn", "model": "resnet10t", "stage": 2, "keep_width": 4}},
            # Attention by content alone finds its place badly; a BiLSTM tells each frame what is around it.
            "bridge": {"mean height, BiLSTM": {"use": "mean_height", "lstm_layers": 1, "lstm_dim": 128}},
            "decoder": {
                "LSTMCell loop": {"use": "lstm_cell", "pool": "flatten"},
                "LSTM + CTC": {"use": "lstm_ctc"},
                "attention LSTM": {"use": "attention_lstm", "hidden_dim": 128, "embed_dim": 16},
            },
        },
    }


def _fitting_width(folder: Path) -> int:
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; give a folder of labelled images")
    shapes = []
    files = (file for file in sorted(folder.rglob("*")) if file.suffix.lower() in IMAGE_SUFFIXES and file.is_file())
    for file in islice(files, SAMPLED):
        try:
            with Image.open(file) as image:
                shapes.append(image.width / image.height)
        except (OSError, UnidentifiedImageError, ZeroDivisionError):
            continue  # the data audit names it
    if not shapes:
        raise DataError(f"{folder}: holds no image; known are {', '.join(sorted(IMAGE_SUFFIXES))}")
    return min(max(8 * round(HEIGHT * statistics.median(shapes) / 8), HEIGHT), 1024)
