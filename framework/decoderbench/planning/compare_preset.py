"""What `decoderbench compare FOLDER` runs: an experiment made up from the images themselves."""

from __future__ import annotations

import re
import statistics
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from decoderbench.config.experiment import ComponentChoice
from decoderbench.errors import ConfigError, DataError

if TYPE_CHECKING:
    from decoderbench.data.dataset import Dataset
    from decoderbench.registry.registry import Registry

HEIGHT = 32
SAMPLED = 200  # images whose shape decides on the width


def comparison(
    folder: Path, registry: Registry, *, steps: int, options: Mapping[str, Any] = MappingProxyType({})
) -> dict[str, Any]:
    """Return an experiment, as plain data, that compares three decoders on the images of a folder.

    Images are brought to a height of 32 and to the width that keeps the median shape, in steps of 8. `options` are
    further options of the data set `folder`.

    Raises:
        ConfigError: if the data set does not know an option.
        DataError: if the folder is missing or holds no labeled image.
    """
    if not isinstance(options, Mapping) or options.keys() & {"use", "path"}:
        raise ConfigError(["--set dataset: options of the data set are set one by one; path is the folder given"])
    choice = ComponentChoice.model_validate({**options, "use": "folder", "path": str(folder)})
    if problems := registry.datasets.problems(choice):
        raise ConfigError([f"{'.'.join(map(str, ('dataset', *place)))}: {text}" for place, text in problems])
    registered, config = registry.datasets.configure(choice)
    width = _fitting_width(registered.component(config, Path()))
    return {
        "name": re.sub(r"[^a-z0-9_.-]+", "-", folder.resolve().name.lower()).strip("-._")[:64] or "comparison",
        "dataset": {"use": choice.use, **choice.options},
        "image": {"height": HEIGHT, "width": width},
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
            # Without a BiLSTM, attention did not learn on a small encoder: results/LOG.md.
            "bridge": {"mean height, BiLSTM": {"use": "mean_height", "lstm_layers": 1, "lstm_dim": 128}},
            "decoder": {
                "LSTMCell loop": {"use": "lstm_cell", "pool": "flatten"},
                "LSTM + CTC": {"use": "lstm_ctc"},
                "attention LSTM": {"use": "attention_lstm", "hidden_dim": 128, "embed_dim": 16},
            },
        },
    }


def _fitting_width(dataset: Dataset) -> int:
    count = len(dataset.samples())
    shapes = []
    for index in range(0, count, max(1, count // SAMPLED)):
        try:
            image = dataset.load_image(index)
        except (DataError, OSError):
            continue  # the data audit names it
        shapes.append(image.width / image.height)
    width = 8 * round(HEIGHT * statistics.median(shapes or [1.0]) / 8)
    return min(max(width, HEIGHT), 1024)
