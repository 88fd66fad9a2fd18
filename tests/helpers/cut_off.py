"""One cell of milliseconds, in which every piece of saved state matters, and runs of it that are cut off."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from decoderbench import ComponentConfig, Encoder, Experiment, FeatureMapSpec, ImageSpec, PendingCellsError
from decoderbench.config.cell import Cell
from decoderbench.data.resident_dataset import Batch, ResidentDataset
from decoderbench.deadline import Deadline
from decoderbench.model.module_state import state_of
from decoderbench.planning.prepare import prepare
from decoderbench.records.schema import RunRecord
from decoderbench.registry.registry import Registry
from decoderbench.training.local_context import LocalContext
from decoderbench.training.provenance import describe_environment
from decoderbench.training.random_states import read_random_states
from decoderbench.training.trainer import Trainer

STEPS = 24
DECODERS = {
    "loop": {"use": "lstm_cell", "hidden_dim": 8},
    "ctc": {"use": "lstm_ctc", "hidden_dim": 8},
    "attention": {"use": "attention_lstm", "hidden_dim": 8, "embed_dim": 4},
    "averaged": {"use": "ctc"},
}
"""Decoders of cells, by a name; the weights of `averaged` are averaged over steps."""


class ForgetfulCNN(Encoder):
    """A convolution whose training depends on all kinds of state: forget one, and the weights are others.

    BatchNorm, dropout, a buffer that is not persistent, one that its first pass creates, a number in the extra state,
    tied weights, weights that are not contiguous, and draws from Python and NumPy.
    """

    name = "forgetful_cnn"
    Config = ComponentConfig

    def __init__(self, config: ComponentConfig, image: ImageSpec) -> None:
        super().__init__(config, image)
        self.conv = nn.Conv2d(image.channels, 4, 4, 4)
        self.mix, self.mix_again = nn.Linear(4, 4), nn.Linear(4, 4)
        self.mix_again.weight = self.mix.weight
        self.transposed = nn.Parameter(torch.eye(4, 6).T)
        self.norm, self.dropout = nn.BatchNorm2d(4), nn.Dropout(0.2)
        self.register_buffer("drift", torch.zeros(4), persistent=False)
        self.register_buffer("first", None, persistent=False)
        self.passes = 0
        self.features = FeatureMapSpec(channels=4, height=image.height // 4, width=image.width // 4)

    def get_extra_state(self) -> Tensor:
        return torch.tensor(self.passes)

    def set_extra_state(self, state: Tensor) -> None:
        self.passes = int(state)

    def forward(self, images: Tensor) -> Tensor:
        features = self.conv(images).movedim(1, -1)
        features = (self.mix_again(self.mix(features)) @ self.transposed.T @ self.transposed).movedim(-1, 1)
        features = self.dropout(self.norm(features))
        if self.training:
            self.passes += 1
            with torch.no_grad():
                self.drift.mul_(0.9).add_(features.mean(dim=(0, 2, 3)))
                if self.first is None:
                    self.first = features.std().reshape(1)
            features = features * (1 + 0.01 * self.passes + 0.1 * random.random() + 0.1 * float(np.random.random()))
        features = features + self.drift[:, None, None]
        return features if self.first is None else features * self.first


class StopAt(Deadline):
    """Ends the run at its check with this number, from 0, as a signal would; None for never."""

    def __init__(self, number: int | None = None) -> None:
        super().__init__()
        self.__dict__ |= {"number": number, "places": []}

    def check(self, where: str) -> None:
        places: list[str] = self.__dict__["places"]
        places.append(where)
        if len(places) - 1 == self.__dict__["number"]:
            raise PendingCellsError(f"stopped by a test {where}")

    @property
    def places(self) -> list[str]:
        """Where the run was checked."""
        return list(self.__dict__["places"])


@dataclass
class Outcome:
    """What a run of a cell leaves, except times."""

    metrics: Mapping[str, Any] = field(default_factory=dict)
    kept_step: int | None = None
    files: dict[str, str] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    end_of_training: str = ""
    batches: list[tuple[int, str]] = field(default_factory=list)


class RecordingTrainer(Trainer):
    """The built-in trainer; notes the batch of each step and everything that is there after the last one."""

    def __init__(self, cell: Cell, context: LocalContext, outcome: Outcome) -> None:
        super().__init__(cell, context)
        self.outcome = outcome

    def take_step(self, batch: Batch) -> None:
        seen = [batch.images, batch.labels.ids, batch.labels.lengths]
        self.outcome.batches.append((self.step + 1, digest(seen)))
        super().take_step(batch)

    def train(self) -> Any:
        kept = super().train()
        state = {**self.state_dict(), "clock": None, "recognizer": state_of(self.recognizer)}
        if not self.outcome.end_of_training:  # one that was saved after it has loaded the weights to test
            self.outcome.end_of_training = digest([state, read_random_states(self.context.device)])
        return kept


class MicroCell:
    """A cell of 24 steps on images of 8 x 16 pixels, and its runs, each in a folder of its own."""

    def __init__(self, registry: Registry, decoder: str, folder: Path) -> None:
        if ForgetfulCNN.name not in registry["encoder"]:
            registry["encoder"].add(ForgetfulCNN, "test", "test")
        prepared = prepare(Experiment(**micro_experiment(decoder)), registry=registry)
        (self.cell,) = prepared.cells
        self.registry, self.folder = registry, folder
        self.dataset = ResidentDataset(prepared.inputs.images, prepared.inputs.audit, torch.device("cpu"))
        self.environment = describe_environment(torch.device("cpu"))

    def context(self, name: str, deadline: Deadline, **options: Any) -> LocalContext:
        """Return the context of a run of the cell in the folder `name`."""
        given = {"environment": self.environment, "directory": self.folder / name, "deadline": deadline} | options
        return LocalContext(cell=self.cell, registry=self.registry, dataset=self.dataset, **given)

    def attempt(self, name: str, deadline: Deadline, outcome: Outcome, seed: int, **options: Any) -> RunRecord:
        """Run the cell in the folder `name`, in a process with random states of its own, as it were."""
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed)
        return RecordingTrainer(self.cell, self.context(name, deadline, **options), outcome).run()

    def run(self, name: str, *stops: int, **options: Any) -> Outcome:
        """Run the cell to its end, with an interruption at each of these checks, after which it goes on elsewhere."""
        outcome, seed = Outcome(), 0
        for number in stops:
            seed += self.interrupt(name, number, outcome, seed, **options)
        return self.complete(name, outcome, seed, **options)

    def interrupt(self, name: str, number: int, outcome: Outcome, seed: int = 0, **options: Any) -> bool:
        """Run the cell up to this check, and return whether it was saved.

        Runs do not seed Python and NumPy, so an attempt after one that was not saved must have the same seed.
        """
        with pytest.raises(PendingCellsError) as caught:
            self.attempt(name, StopAt(number), outcome, seed, **options)
        assert caught.value.saved_step == (len(outcome.batches) or None)
        return caught.value.saved_step is not None

    def complete(self, name: str, outcome: Outcome, seed: int, **options: Any) -> Outcome:
        """Run the cell to its end, and return what it leaves, with what `outcome` holds of the attempts before."""
        record = self.attempt(name, StopAt(), outcome, seed, **options)
        directory = self.folder / name
        outcome.metrics, outcome.kept_step = record.metrics, record.kept_step
        for file in ("predictions.parquet", "val_predictions.parquet", "weights.safetensors"):
            outcome.files[file] = hashlib.sha256((directory / file).read_bytes()).hexdigest()
        rows = map(json.loads, (directory / "history.jsonl").read_text().splitlines())
        outcome.history = [{key: value for key, value in row.items() if key != "seconds"} for row in rows]
        return outcome

    def places(self) -> list[str]:
        """Return where a run is checked, from its first step to its last batch of test images."""
        deadline = StopAt()
        self.attempt("places", deadline, Outcome(), 0)
        return [place for place in deadline.places if "timing" not in place]


def micro_experiment(decoder: str) -> dict[str, Any]:
    """Return an experiment with one cell."""
    return {
        "name": "micro",
        "dataset": {
            "use": "synthetic_captcha", "charset": "01", "min_length": 1, "max_length": 2, "train": 32, "val": 12,
            "test": 12, "width": 80, "height": 40,
        },
        "image": {"height": 8, "width": 16},
        "augmentation": {"rotate": 5.0, "noise": 0.1},
        "training": {
            "steps": STEPS, "batch_size": 4, "validate_every": 8, "warmup_steps": 4, "precision": "float32",
            "learning_rate": 0.01, "ema_decay": 0.8 * (decoder == "averaged"),
        },
        "evaluation": {"batch_size": 6},
        "grid": {
            "seeds": [0],
            "encoder": {"forgetful": {"use": "forgetful_cnn"}},
            "bridge": {"columns": {"use": "mean_height"}},
            "decoder": {decoder: DECODERS[decoder]},
        },
    }  # fmt: skip


def digest(value: Any) -> str:
    """Return a digest of nested data and tensors, to the last bit."""
    hashed = hashlib.sha256()

    def add(part: Any) -> None:
        if isinstance(part, Tensor):
            part = part.detach().contiguous()
            hashed.update(f"{part.dtype} {tuple(part.shape)}".encode())
            hashed.update(part.reshape(-1).view(torch.uint8).numpy().tobytes())
        elif isinstance(part, Mapping):
            for key in sorted(part, key=str):
                hashed.update(f"{key}:".encode())
                add(part[key])
        elif isinstance(part, list | tuple):
            for item in part:
                add(item)
        else:
            hashed.update(f"{part!r};".encode())

    add(value)
    return hashed.hexdigest()
