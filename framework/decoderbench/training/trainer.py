"""The default `run_cell`: train one recognizer for a number of steps, keep weights, test them, measure the cost."""

from __future__ import annotations

import copy
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import safetensors.torch
import torch
from torch import Tensor, nn

from decoderbench.config.cell import Cell, ResolvedComponent
from decoderbench.data.augmentation import Augmentation
from decoderbench.data.dataset import Split
from decoderbench.data.resident_dataset import Batches, to_float
from decoderbench.errors import DivergedError
from decoderbench.model.recognizer import Recognizer, weights_of
from decoderbench.options import TrainingOptions
from decoderbench.records import Cost, RunRecord, append_line
from decoderbench.registry.hookspecs import hookimpl
from decoderbench.registry.registry import Registry
from decoderbench.seeds import derive_seed
from decoderbench.training import timing
from decoderbench.training.devices import (
    autocast_dtype,
    device_name,
    peak_memory_mb,
    reset_peak_memory,
    synchronize,
)
from decoderbench.training.evaluation import Evaluation, evaluate

HEARTBEAT_SECONDS = 0.5
CHECK_EVERY = {"cpu": 1, "cuda": 50}  # steps between two looks at the device; a look is a wait on CUDA
THROUGHPUT_BATCHES = 8


@dataclass(frozen=True)
class CellContext:
    """What a cell is given to run with."""

    registry: Registry
    batches: Batches
    device: torch.device
    directory: Path
    """Where this cell may leave artifacts."""

    environment: dict[str, str]


@hookimpl(trylast=True)
def run_cell(cell: Cell, context: CellContext) -> RunRecord:
    """Train, test and measure a cell on the context's device."""
    return Trainer(cell, context).run()


def build_recognizer(cell: Cell, registry: Registry, device: torch.device) -> Recognizer:
    """Build a cell's recognizer, each part from a seed of its own.

    An encoder starts from the same weights whatever decoder follows it.
    """

    def part(kind: str, shelf: Any, component: ResolvedComponent, *specs: object) -> Any:
        registered = shelf[component.use]
        config = registered.config_class.model_validate(component.options)
        torch.manual_seed(derive_seed(cell.seed, kind, component.use, repr(sorted(component.options.items()))))
        return registered.component(config, *specs)

    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        rectifier = part("rectifier", registry.rectifiers, cell.rectifier, cell.image_spec())
        encoder = part("encoder", registry.encoders, cell.encoder, rectifier.image)
        bridge = part("bridge", registry.bridges, cell.bridge, encoder.features)
        decoder = part("decoder", registry.decoders, cell.decoder, bridge.memory, cell.labels.spec())
    dtype = autocast_dtype(device, cell.training.precision)
    return Recognizer(rectifier, encoder, bridge, decoder, dtype=dtype).to(device)


class Trainer:
    """One cell from its first step to its record."""

    def __init__(self, cell: Cell, context: CellContext) -> None:
        self.cell, self.context = cell, context
        self.options = cell.training
        self.recognizer = build_recognizer(cell, context.registry, context.device)
        self.optimizer = build_optimizer(self.recognizer, self.options)
        self.sampler = context.batches.sampler(self.options.batch_size, derive_seed(cell.seed, "data"))
        self.augmentation = Augmentation(cell.augmentation, cell.seed, context.device)
        self.metrics = [registered.component() for registered in context.registry.metrics.values()]
        self.notify = context.registry.plugins.notify

    def run(self) -> RunRecord:
        """Train, test, measure; return the record."""
        reset_peak_memory(self.context.device)
        kept_step, train_seconds, train_rate = self.train()
        test = self.evaluate("test")
        self.write(test)
        test_images = self.images_of_test()
        beam_size = self.cell.evaluation.beam_size
        measured = Cost(
            train_samples_per_sec=train_rate,
            infer_samples_per_sec=timing.measure_throughput(self.recognizer, test_images, beam_size=beam_size),
            latency_ms=timing.measure_latency_ms(
                self.recognizer, test_images[len(test_images) // 2][:1], beam_size=beam_size
            ),
            peak_memory_mb=peak_memory_mb(self.context.device),
            train_seconds=train_seconds,
        )
        return RunRecord(
            cell=self.cell,
            status="done",
            metrics=dict(test.scores),
            num_test=len(test.keys),
            kept_step=kept_step,
            cost=measured,
            device=device_name(self.context.device),
            environment=self.context.environment,
        )

    def train(self) -> tuple[int, float, float]:
        """Take all steps; return the step whose weights are kept, wall seconds, and images a second of training."""
        options, device = self.options, self.context.device
        torch.manual_seed(derive_seed(self.cell.seed, "training"))  # dropout and the like
        history = self.context.directory / "history.jsonl"
        history.unlink(missing_ok=True)  # of an attempt that was cut off
        validate_every = options.validate_every or max(1, options.steps // 10)
        best: tuple[tuple[float, float], int, dict[str, Tensor]] | None = None
        guard = FiniteGuard(device)
        start = last_heartbeat = time.perf_counter()
        paused = 0.0
        self.recognizer.train()
        for step in range(1, options.steps + 1):
            loss = self.step(step, guard)
            now = time.perf_counter()
            if now - last_heartbeat > HEARTBEAT_SECONDS:
                self.notify("cell_progressed", cell=self.cell, step=step, loss=float(loss))
                last_heartbeat = now
            if step % validate_every == 0 or step == options.steps:
                guard.look()
                synchronize(device)
                pause = time.perf_counter()
                scores = self.validate(step, float(loss), pause - start)
                append_line(history, scores)
                rank = (scores["val_exact_match"], -scores["val_nats_per_char"])
                if best is None or rank > best[0] or options.keep == "last":
                    best = rank, step, copy.deepcopy(self.recognizer.state_dict())
                self.recognizer.train()
                paused += time.perf_counter() - pause
        assert best is not None
        self.recognizer.load_state_dict(best[2])
        seconds = time.perf_counter() - start
        return best[1], seconds, options.steps * options.batch_size / (seconds - paused)

    def step(self, step: int, guard: FiniteGuard) -> Tensor:
        """Take one optimizer step; return the loss, nats per character of the batch, still on the device."""
        images, labels = self.context.batches.gather(self.sampler.batch(step - 1))
        nll = self.recognizer.nll(self.augmentation(images, step), labels)
        loss = nll.sum() / labels.lengths.sum().clamp(min=1)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self.recognizer.parameters(), self.options.clip_norm)
        guard.watch(step, loss.detach(), norm)
        set_learning_rate(self.optimizer, learning_rate(step, self.options))
        self.optimizer.step()
        return loss.detach()

    def validate(self, step: int, loss: float, seconds: float) -> dict[str, Any]:
        """Score the validation split; return a row of the history, whose rates are fractions of 1."""
        try:
            scores = self.evaluate("val").scores
        except DivergedError as error:
            raise DivergedError(f"{error}, at the validation of step {step}") from None
        row = {
            "step": step,
            "train_loss": loss,
            **{f"val_{name}": value for name, value in scores.items()},
            "learning_rate": learning_rate(step, self.options),
            "seconds": round(seconds, 3),
        }
        self.notify("cell_validated", cell=self.cell, step=step, scores=row)
        return row

    def evaluate(self, split: Split) -> Evaluation:
        """Transcribe and score a split."""
        batches = self.context.batches
        options, normalize = self.cell.evaluation, self.cell.labels.normalize
        return evaluate(self.recognizer, batches, batches.rows(split), options, self.metrics, normalize=normalize)

    def write(self, test: Evaluation) -> None:
        """Leave predictions and weights in the cell's directory."""
        directory = self.context.directory
        pd.DataFrame(test.columns()).to_parquet(directory / "predictions.parquet", index=False)
        safetensors.torch.save_file(weights_of(self.recognizer), directory / "weights.safetensors")

    def images_of_test(self) -> list[Tensor]:
        """Return a few batches of test images on the device, to time: from all over the widths, if they vary."""
        batches = self.context.batches
        all_batches = list(batches.in_order(batches.rows("test"), self.cell.evaluation.batch_size))
        chosen = np.linspace(0, len(all_batches) - 1, min(THROUGHPUT_BATCHES, len(all_batches))).round().astype(int)
        return [to_float(batches.gather(all_batches[index])[0]) for index in chosen]


class FiniteGuard:
    """Remembers, on the device, the first step whose loss or gradient was not finite; looks now and then."""

    def __init__(self, device: torch.device) -> None:
        self.interval = CHECK_EVERY.get(device.type, 1)
        self._first_bad = torch.zeros((), dtype=torch.int64, device=device)
        self._value = torch.zeros((), device=device)

    def watch(self, step: int, loss: Tensor, norm: Tensor) -> None:
        """Take note of a step."""
        value = loss + 0.0 * norm  # not finite if either is not
        newly_bad = ~torch.isfinite(value) & (self._first_bad == 0)
        self._value = torch.where(newly_bad, loss, self._value)
        self._first_bad = torch.where(newly_bad, step, self._first_bad)
        if step % self.interval == 0:
            self.look()

    def look(self) -> None:
        """Raise `DivergedError` if a step was bad. Waits for the device."""
        if bad := int(self._first_bad):
            value = float(self._value)
            what = f"loss is {value}" if not math.isfinite(value) else "the gradient is not finite"
            raise DivergedError(f"{what} at step {bad}; lower learning_rate or clip_norm, or set precision = 'float32'")


def build_optimizer(module: nn.Module, options: TrainingOptions) -> torch.optim.Optimizer:
    """Return AdamW; only weights of two or more dimensions decay, biases and norms do not."""
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": options.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=options.learning_rate, fused=True)


def learning_rate(step: int, options: TrainingOptions) -> float:
    """Return the learning rate of step `step`, counted from 1: a linear rise, then half a cosine to zero."""
    if step <= options.warmup_steps:
        return options.learning_rate * step / (options.warmup_steps + 1)
    done = (step - options.warmup_steps - 1) / max(1, options.steps - options.warmup_steps)
    return options.learning_rate * 0.5 * (1 + math.cos(math.pi * done))


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of every group."""
    for group in optimizer.param_groups:
        group["lr"] = rate
