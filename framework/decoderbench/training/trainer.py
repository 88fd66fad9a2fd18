"""The built-in trainer: the last `run_cell` to be called. It uses the public surface of `CellContext` only."""

from __future__ import annotations

import copy
import time
from typing import Any

import torch
from torch import Tensor, nn

from decoderbench.config.cell import Cell
from decoderbench.errors import DivergedError, PluginError
from decoderbench.labels import Labels
from decoderbench.records import Cost, RunRecord
from decoderbench.registry.context import CellContext
from decoderbench.registry.hookspecs import hookimpl
from decoderbench.seeds import derive_seed
from decoderbench.training.finite_guard import FiniteGuard
from decoderbench.training.optimizer import build_optimizer, learning_rate, set_learning_rate
from decoderbench.training.timing import TrainingClock

PROGRESS_SECONDS = 0.5
"""Seconds between two reports of progress; each report synchronizes CUDA."""


@hookimpl(trylast=True)
def run_cell(cell: Cell, context: CellContext) -> RunRecord:
    """Train a cell with AdamW for a number of steps, test the best weights, and measure its cost."""
    if context.started:
        raise PluginError(
            "a plugin's run_cell built the recognizer and then returned None, which leaves the cell to others; return "
            "context.finish(...), or None before building anything"
        )
    return Trainer(cell, context).run()


class Trainer:
    """One cell from its first step to its record."""

    def __init__(self, cell: Cell, context: CellContext) -> None:
        self.cell, self.context = cell, context
        self.options = cell.training
        self.recognizer = context.recognizer()
        self.optimizer = build_optimizer(self.recognizer, self.options)
        self.guard = FiniteGuard(context.device)

    def run(self) -> RunRecord:
        """Train, test, measure; return the record."""
        kept_step, cost = self.train()
        return self.context.finish(self.recognizer, kept_step=kept_step, cost=cost)

    def train(self) -> tuple[int, Cost]:
        """Take all steps and load the weights to test; return their step and the cost of training."""
        options, device = self.options, self.context.device
        torch.manual_seed(derive_seed(self.cell.seed, "training"))  # for dropout and the like
        validate_every = options.validate_every or max(1, options.steps // 10)
        best: tuple[tuple[float, float], int, dict[str, Tensor]] | None = None
        clock = TrainingClock(device)
        start = last_report = time.perf_counter()
        self.recognizer.train()
        for step, (images, labels) in enumerate(self.context.batches(options.steps), start=1):
            loss = self.take_step(step, images, labels)
            clock.step_taken(step, len(images))
            now = time.perf_counter()
            if now - last_report > PROGRESS_SECONDS:
                self.context.progressed(step, float(loss))
                last_report = now
            if step % validate_every == 0 or step == options.steps:
                with clock.paused():
                    self.guard.check()
                    scores = self.validate(step, float(loss), time.perf_counter() - start)
                    rank = (scores["val_exact_match"], -scores["val_nats_per_char"])
                    if best is None or rank > best[0] or options.keep == "last":
                        best = rank, step, copy.deepcopy(self.recognizer.state_dict())
                    self.recognizer.train()
        assert best is not None
        _, kept_step, weights = best
        rate = clock.images_per_second()
        self.recognizer.load_state_dict(weights)
        return kept_step, Cost(train_samples_per_sec=rate, train_seconds=time.perf_counter() - start)

    def take_step(self, step: int, images: Tensor, labels: Labels) -> Tensor:
        """Take one optimizer step; return the loss, nats per character of the batch, still on the device."""
        nll = self.recognizer.nll(images, labels)
        loss = nll.sum() / labels.lengths.sum().clamp(min=1)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self.recognizer.parameters(), self.options.clip_norm)
        self.guard.record(step, loss.detach(), norm)
        set_learning_rate(self.optimizer, learning_rate(step, self.options))
        self.optimizer.step()
        return loss.detach()

    def validate(self, step: int, loss: float, seconds: float) -> dict[str, Any]:
        """Score the validation split and report it; return the row of the history, whose rates are fractions of 1."""
        try:
            scores = self.context.evaluate(self.recognizer).scores
        except DivergedError as error:
            raise DivergedError(f"{error}, at the validation of step {step}") from None
        row = {
            "step": step,
            "train_loss": loss,
            **{f"val_{name}": value for name, value in scores.items()},
            "learning_rate": learning_rate(step, self.options),
            "seconds": round(seconds, 3),
        }
        self.context.validated(step, row)
        return row
