"""Recognizers with first weights that read files, so that no test has to train one."""

from __future__ import annotations

from typing import Any

import torch

from decoderbench.config.cell import ResolvedComponent
from decoderbench.inference.confidence import Confidence
from decoderbench.inference.trained import TrainedRecognizer
from decoderbench.options import ImageOptions
from decoderbench.training.building import build_recognizer
from helpers.recording import make_cell
from helpers.support import REGISTRY


def untrained(decoder: str, options: dict[str, Any], *, resize: str = "keep") -> TrainedRecognizer:
    """Return a recognizer with first weights."""
    torch.manual_seed(0)
    bridge = "feature_map" if REGISTRY["decoder"][decoder].component.needs_map else "mean_height"
    parts = {"rectifier": ("none", {}), "bridge": (bridge, {}), "decoder": (decoder, options)}
    parts["encoder"] = "timm_cnn", {"model": "test_resnet", "stage": 2, "keep_width": 4}
    cell = make_cell()
    image = ImageOptions.model_validate({"height": 32, "width": 96, "resize": resize})
    changes: dict[str, Any] = {
        kind: ResolvedComponent(label=use, use=use, options=own, decisive=own, source="s")
        for kind, (use, own) in parts.items()
    }
    changes |= {"image": image, "bucket_widths": (48, 64, 96) if resize == "keep" else ()}
    changes["labels"] = cell.labels.model_copy(update={"charset": "abcdef", "max_length": 5, "frames_needed": 5})
    cell = cell.model_copy(update=changes)
    recognizer = build_recognizer(cell, REGISTRY, torch.device("cpu"), precision="float32")
    return TrainedRecognizer(cell, recognizer, Confidence.of([], []))
