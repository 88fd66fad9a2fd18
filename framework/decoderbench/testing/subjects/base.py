"""The common part of all subjects, and of all subjects that are torch modules."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import safetensors.torch
import torch
from torch import Tensor, nn

from decoderbench.errors import InfeasibleError
from decoderbench.model.recognizer import weights_of
from decoderbench.options import ComponentConfig
from decoderbench.testing.fake_cuda import Wait, fake_cuda

TRAINING_STEPS = 3
LEARNING_RATE = 1e-3

Module = TypeVar("Module", bound=nn.Module)


@dataclass
class Subject(ABC):
    """A component class, and the options to check it with."""

    kind: str
    cls: Any
    options: Mapping[str, object] = field(default_factory=dict)
    base_dir: Path = Path()
    """Where relative paths in the options of a dataset start."""

    @property
    def name(self) -> str:
        """The name of the component; of a class without one, the name of the class."""
        return str(getattr(self.cls, "name", self.cls.__name__))

    @property
    def title(self) -> str:
        """The component in messages, such as `decoder 'ctc'`."""
        return f"{self.kind} {self.name!r}"

    @cached_property
    def config(self) -> ComponentConfig:
        """The options, including all defaults."""
        config_class: type[ComponentConfig] = self.cls.Config
        return config_class.model_validate(self.options)

    @cached_property
    def advice(self) -> str | None:
        """What to do about an exception, if it comes from the sizes that the kit offers; else None."""
        return None

    @abstractmethod
    def outcomes(self) -> Iterator[bytes]:
        """Use the component as a run does, from seed 0, and yield all its results as bytes."""


@dataclass
class UseOnCuda:
    """What a module did on fake CUDA tensors."""

    waits_in_training: list[Wait] = field(default_factory=list)
    waits_in_inference: list[Wait] = field(default_factory=list)
    errors: list[Exception] = field(default_factory=list)


@dataclass
class ModuleSubject(Subject):
    """A component that is a torch module; it is built for the first size that it accepts."""

    needs_input_gradient = False
    may_wait_in_inference = False

    @abstractmethod
    def build(self) -> nn.Module:
        """Build the module, in training mode."""

    @abstractmethod
    def draw_inputs(self, batch: int) -> Tensor:
        """Draw random inputs (batch, ...)."""

    @abstractmethod
    def loss(self, module: Any, inputs: Tensor) -> Tensor:
        """Run a forward pass, as a training step does, and return a number to differentiate."""

    def train_step(self, module: Any, inputs: Tensor) -> None:
        """Run a forward and a backward pass, as a training step does."""
        loss = self.loss(module, inputs)
        if loss.requires_grad:  # a stage may have no weights
            torch.autograd.backward(loss)

    @abstractmethod
    def infer(self, module: Any, inputs: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs for the inputs, as evaluation computes them; the batch is the first dimension of each."""

    def infer_all_ways(self, module: Any, inputs: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs of all ways of inference."""
        return self.infer(module, inputs)

    def build_for_eval(self, seed: int = 0) -> Any:
        """Build the module from a seed, in eval mode."""
        return build_seeded(self.build, seed).eval()

    @cached_property
    def on_cuda(self) -> UseOnCuda:
        """A forward pass of training, then inference in all ways, on fake CUDA tensors."""
        module, inputs, use = build_seeded(self.build), self.draw_inputs(6), UseOnCuda()
        with fake_cuda() as seen:
            module, inputs = seen.move(module), seen.move(inputs)
            for run, waits in ((self.loss, use.waits_in_training), (self.infer_all_ways, use.waits_in_inference)):
                try:
                    run(module, inputs)
                except Exception as error:  # noqa: BLE001 - components raise anything
                    use.errors.append(error)
                waits += seen.waits
                seen.waits.clear()
                module.eval()
        return use

    def outcomes(self) -> Iterator[bytes]:
        module, inputs = build_seeded(self.build), self.draw_inputs(4)
        for _ in range(TRAINING_STEPS):
            module.zero_grad()
            self.train_step(module, inputs)
            with torch.no_grad():  # with its first optimizer, torch would import its compiler, in each fresh process
                for parameter in module.parameters():
                    if parameter.grad is not None:
                        parameter.sub_(parameter.grad, alpha=LEARNING_RATE)
        yield safetensors.torch.save(weights_of(module))
        outputs = enumerate(self.infer(module.eval(), inputs))
        yield safetensors.torch.save({str(number): value.detach().clone().contiguous() for number, value in outputs})


def works(use: Callable[[], object]) -> bool:
    """Return whether a component can be used in some way, or says that it cannot by `InfeasibleError`."""
    try:
        use()
    except InfeasibleError:
        return True
    except Exception:  # noqa: BLE001 - components raise anything
        return False
    return True


def build_seeded(build: Callable[[], Module], seed: int = 0) -> Module:
    """Seed torch and build a module, as training does."""
    torch.manual_seed(seed)
    return build()
