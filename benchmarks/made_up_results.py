"""A results folder of any size with made-up predictions, for measurements of reports: nothing is trained."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from decoderbench.config.cell import Cell, ResolvedComponent, ResolvedLabels
from decoderbench.files.storage import write_atomically
from decoderbench.metrics import Transcriptions, built_in_definitions, edit_distances, sources_of
from decoderbench.options import AugmentationOptions, EvaluationOptions, ImageOptions, TrainingOptions
from decoderbench.records.results_directory import ResultsDirectory
from decoderbench.records.schema import Cost, Plan, RunRecord, append_line

SIGNS = "abcdefghjkmnpqrstuvwxyz23456789"
STEPS = 2000
DECODERS = ("LSTM loop", "LSTM + CTC", "attention LSTM", "per position", "transformer")


def publish_made_up_results(
    path: Path,
    *,
    encoders: Sequence[str] = ("VGG", "ResNet", "EfficientNet", "GRCNN"),
    bridges: Sequence[str] = ("columns", "columns, BiLSTM"),
    decoders: Sequence[str] = DECODERS,
    seeds: int = 3,
    images: int = 2000,
) -> ResultsDirectory:
    """Write the plan and the cells of a full grid; the defaults make 40 rows and 120 cells.

    A text is read right by a logistic model with effects of component, seed, image and row x image.
    """
    random = np.random.default_rng(0)
    directory = ResultsDirectory(path)
    cells = [
        _cell(encoder, bridge, decoder, seed)
        for encoder, bridge, decoder, seed in product(encoders, bridges, decoders, range(seeds))
    ]
    directory.write_plan(
        Plan(
            experiment="made-up",
            command="decoderbench run made_up.toml",
            cells=tuple(cells),
            split_sizes={"train": 10_000, "val": images // 2, "test": images},
        )
    )
    splits = {
        "predictions.parquet": _Split("test", random, images),
        "val_predictions.parquet": _Split("val", random, images // 2),
    }
    abilities = {name: random.normal(0, 0.5) for name in (*encoders, *bridges, *decoders)}
    for variant in product(encoders, bridges, decoders):
        ability = 2.5 + sum(abilities[name] for name in variant)
        own = {name: split.difficulty + random.normal(size=split.size) for name, split in splits.items()}
        for cell in (cell for cell in cells if cell.variant[1:4] == variant):
            folder = directory.cell_directory(cell)
            folder.mkdir(parents=True)
            shift = random.normal(0, 0.4)
            for name, split in splits.items():
                frame = split.read(random, ability + shift - own[name])
                write_atomically(folder / name, frame.to_parquet(index=False))
                if name == "predictions.parquet":
                    record = _record(cell, frame, random)
                else:
                    _write_history(folder / "history.jsonl", frame, random)
            directory.publish(record)
    return directory


class _Split:
    def __init__(self, name: str, random: np.random.Generator, size: int) -> None:
        self.keys = [f"{name}/{number:06}" for number in range(size)]
        self.references = ["".join(random.choice(list(SIGNS), random.integers(3, 8))) for _ in range(size)]
        self.difficulty, self.size = random.normal(0, 2, size), size

    def read(self, random: np.random.Generator, logits: NDArray[np.float64]) -> pd.DataFrame:
        """Return predictions; a text that is misread has one or two changed, left out or added characters."""
        chances = 1 / (1 + np.exp(-logits))
        right = random.random(self.size) < chances
        hypotheses = [
            reference if hit else _misread(reference, random)
            for reference, hit in zip(self.references, right, strict=True)
        ]
        log_prob = np.where(right, np.log(chances), np.log1p(-chances * 0.999))
        return pd.DataFrame(
            {
                "sample": self.keys,
                "reference": self.references,
                "hypothesis": hypotheses,
                "log_prob": log_prob,
                "nll": -np.log(chances),
                "edit_distance": edit_distances(self.references, hypotheses),
                "text_log_prob": log_prob,
                "group": "",
                "ended": True,
            }
        )


def _misread(text: str, random: np.random.Generator) -> str:
    for _ in range(random.integers(1, 3)):
        place, sign = int(random.integers(len(text) or 1)), str(random.choice(list(SIGNS)))
        text = (
            text[:place] + sign + text[place + 1 :],
            text[:place] + text[place + 1 :],
            text[:place] + sign + text[place:],
        )[random.choice(3, p=(0.7, 0.2, 0.1))]
    return text


def _cell(encoder: str, bridge: str, decoder: str, seed: int) -> Cell:
    def component(label: str, use: str = "made_up") -> ResolvedComponent:
        options = {"label": label}
        return ResolvedComponent(label=label, use=use, options=options, decisive=options, source="0")

    return Cell(
        experiment="made-up",
        dataset="made_up",
        rectifier=component("none", "none"),
        encoder=component(encoder),
        bridge=component(bridge),
        decoder=component(decoder),
        seed=seed,
        image=ImageOptions(),
        labels=ResolvedLabels(charset=SIGNS, max_length=7, frames_needed=13),
        augmentation=AugmentationOptions(),
        training=TrainingOptions(steps=STEPS),
        evaluation=EvaluationOptions(),
        data_hash="0",
        frames=16,
        num_parameters=1_000_000 + 1000 * len(encoder + decoder),
        gmacs=0.01 * len(encoder),
    )


def _record(cell: Cell, frame: pd.DataFrame, random: np.random.Generator) -> RunRecord:
    texts = Transcriptions(frame["reference"].tolist(), frame["hypothesis"].tolist(), frame["nll"].tolist())
    definitions = built_in_definitions()
    return RunRecord(
        cell=cell,
        status="done",
        metrics={name: definition.score(texts) for name, definition in definitions.items()},
        metric_sources=sources_of(definitions.values()),
        num_test=len(frame),
        kept_step=STEPS,
        cost=Cost(latency_ms=1 + 3 * random.random(), train_samples_per_sec=1000.0, train_seconds=100.0),
        device="made up",
        environment={"date": "2026-01-01", "machine": "made up", "torch": "2.11"},
    )


def _write_history(path: Path, frame: pd.DataFrame, random: np.random.Generator) -> None:
    right = (frame["reference"] == frame["hypothesis"]).to_numpy()
    for step in range(STEPS // 10, STEPS + 1, STEPS // 10):
        kept = right & (random.random(len(right)) < (step / STEPS) ** 0.5)
        row = {
            "step": step,
            "train_nll": 10.0 / step,
            "val_exact_match": float(kept.mean()),
            "val_correct": base64.b64encode(np.packbits(kept).tobytes()).decode(),
        }
        append_line(path, row)
