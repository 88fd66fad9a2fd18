"""The built-in trainer: the last `run_cell` to be called. It uses the public surface of `CellContext` only."""

from __future__ import annotations

import copy
import time
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from decoderbench.config.cell import Cell
from decoderbench.data.resident_dataset import Batch
from decoderbench.errors import DivergedError, PluginError
from decoderbench.records.schema import Cost, RunRecord
from decoderbench.registry.context import CellContext
from decoderbench.registry.hookspecs import hookimpl
from decoderbench.seeds import derive_seed
from decoderbench.training.finite_guard import FiniteGuard
from decoderbench.training.optimizer import build_optimizer, freeze, learning_rate, set_learning_rate
from decoderbench.training.timing import TrainingClock
from decoderbench.training.weight_average import WeightAverage

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


class Kept(NamedTuple):
    """The weights that are tested.

    Attributes:
        rank: exact match and minus nats per character on the validation split; the larger, the better.
        step: the step after which they were validated.
        weights: a copy of the recognizer's `state_dict`.
    """

    rank: tuple[float, float]
    step: int
    weights: dict[str, Any]


class Trainer:
    """One cell from its first step to its record.

    Attributes:
        step: the optimizer steps taken.
        validated: the step of the last validation.
        loss: of the last step, in nats per character.
        kept: the weights to test, once there was a validation.
    """

    def __init__(self, cell: Cell, context: CellContext) -> None:
        self.cell, self.context = cell, context
        self.options = cell.training
        self.validate_every = self.options.validate_every or max(1, self.options.steps // 10)
        self.recognizer = context.recognizer()
        freeze(self.recognizer, self.options)
        self.optimizer = build_optimizer(self.recognizer, self.options)
        decay = self.options.ema_decay
        self.average = WeightAverage(self.recognizer, decay) if decay else None
        self.guard = FiniteGuard(context.device)
        self.clock = TrainingClock(context.device, lambda: context.idle_seconds)
        self.step = self.validated = 0
        self.loss = torch.zeros((), device=context.device)
        self.kept: Kept | None = None

    def state_dict(self) -> dict[str, Any]:
        """Return the state after the last step; raise `DivergedError` if it is not finite, so it is never saved."""
        self.guard.check()
        return {
            "step": self.step,
            "validated": self.validated,
            "loss": float(self.loss),
            "kept": None if self.kept is None else tuple(self.kept),
            "optimizer": self.optimizer.state_dict(),
            "average": None if self.average is None else dict(self.average.values),
            "clock": self.clock.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load a state that another process has saved."""
        self.step, self.validated = state["step"], state["validated"]
        self.loss.fill_(state["loss"])
        if state["kept"] is not None:
            self.kept = Kept(*state["kept"])
            for name, value in self.kept.weights.items():
                self.kept.weights[name] = value.to(self.context.device) if isinstance(value, Tensor) else value
        self.optimizer.load_state_dict(state["optimizer"])
        if self.average is not None:
            self.average.load(state["average"])
        self.clock.load_state_dict(state["clock"])

    def run(self) -> RunRecord:
        """Train, test, measure; return the record. Whatever an earlier attempt has saved is not done again."""
        torch.manual_seed(derive_seed(self.cell.training_seed, "training"))  # for dropout and the like
        with self.context.resuming(self):
            kept = self.train()
            self.recognizer.load_state_dict(kept.weights)
            cost = Cost(train_samples_per_sec=self.clock.images_per_second(), train_seconds=self.clock.seconds())
            return self.context.finish(self.recognizer, kept_step=kept.step, cost=cost)

    def train(self) -> Kept:
        """Take all steps that are left, and return the weights to test."""
        last_report = time.perf_counter()
        self._set_to_train()
        self.validate_if_due()  # the end of the run may have cut this off
        for batch in self.context.batches(self.options.steps, start=self.step + 1):
            self.take_step(batch)
            self.clock.step_taken(len(batch.images))
            now = time.perf_counter()
            if now - last_report > PROGRESS_SECONDS:
                self.context.progressed(self.step, float(self.loss))
                last_report = now
            self.validate_if_due()
        self.clock.stop()
        assert self.kept is not None
        return self.kept

    def take_step(self, batch: Batch) -> None:
        """Take one optimizer step."""
        step = self.step + 1
        total = self.recognizer.loss(batch.images, batch.labels, batch.columns).sum()
        loss = total / batch.labels.lengths.sum().clamp(min=1)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self.recognizer.parameters(), self.options.clip_norm)
        self.guard.record(step, loss.detach(), norm)
        set_learning_rate(self.optimizer, learning_rate(step, self.options))
        self.optimizer.step()
        if self.average is not None:
            self.average.update(step)
        self.step, self.loss = step, loss.detach()

    def validate_if_due(self) -> None:
        """Validate every `validate_every` steps, after nine tenths of all and at the end, and keep the best weights."""
        always = (self.options.nine_tenths, self.options.steps)
        if self.step == self.validated or (self.step % self.validate_every and self.step not in always):
            return
        averaged = nullcontext() if self.average is None else self.average.in_place_of_weights()
        with self.clock.paused(), averaged:
            self.guard.check()
            scores = self.validate()
            rank = (scores["val_exact_match"], -scores["val_nats_per_char"])
            if self.kept is None or rank > self.kept.rank or self.options.keep == "last":
                self.kept = Kept(rank, self.step, copy.deepcopy(self.recognizer.state_dict()))
        self._set_to_train()
        self.validated = self.step

    def _set_to_train(self) -> None:
        self.recognizer.train()
        freeze(self.recognizer, self.options)

    def validate(self) -> dict[str, Any]:
        """Score the validation split and report it; return the row of the history, whose rates are fractions of 1."""
        try:
            evaluation = self.context.evaluate(self.recognizer)
        except DivergedError as error:
            raise DivergedError(f"{error}, at the validation of step {self.step}") from None
        row = {
            "step": self.step,
            "train_loss": float(self.loss),
            **{f"val_{name}": value for name, value in evaluation.scores.items()},
            "learning_rate": learning_rate(self.step, self.options),
            "seconds": round(self.clock.seconds(), 3),
        }
        self.context.validated(self.step, row, evaluation)
        return row
