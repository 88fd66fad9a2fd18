"""The rules of every module, whichever stage it is: weights, inputs, devices, and what it must leave alone."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from decoderbench.model.complexity import count_gmacs
from decoderbench.model.recognizer import weights_of
from decoderbench.registry.global_state import changed_switches, read_process_state
from decoderbench.testing import opened
from decoderbench.testing.checks import Rule, Subject
from decoderbench.testing.rules import (
    NotAskedError,
    require,
    require_close,
    require_same_bits,
    seeded,
)

TRAINING_STEPS = 3
# These may mix devices on CUDA too: a copy, and an index that lies on the host.
MAY_MIX_DEVICES = {"_to_copy", "copy_", "index", "index_put", "index_put_", "_index_put_impl_"}


@dataclass
class ModuleSubject(Subject):
    """A component that is a module, to be built for the first size that it accepts."""

    needs_input_gradient = False
    is_counted = False

    @abstractmethod
    def build(self) -> nn.Module:
        """Build it, in training mode."""

    @abstractmethod
    def draw(self, batch: int) -> Tensor:
        """Draw what it reads, (batch, ...)."""

    @abstractmethod
    def learn(self, module: Any, inputs: Tensor) -> None:
        """Take a forward and a backward pass, as a step of training does."""

    @abstractmethod
    def read(self, module: Any, inputs: Tensor) -> tuple[Tensor, ...]:
        """Return what it makes of the inputs, as evaluation does; each tensor has the batch first."""

    def read_in_every_way(self, module: Any, inputs: Tensor) -> tuple[Tensor, ...]:
        """Return what it makes of the inputs, in all ways that there are."""
        return self.read(module, inputs)

    def built(self, seed: int = 0) -> Any:
        """Build it from a seed, in eval mode."""
        return seeded(self.build, seed).eval()

    def outcome(self) -> Iterator[bytes]:
        module, inputs = seeded(self.build), self.draw(4)
        parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
        optimizer = torch.optim.SGD(parameters, lr=1e-3) if parameters else None
        for _ in range(TRAINING_STEPS):
            module.zero_grad()
            self.learn(module, inputs)
            if optimizer is not None:
                optimizer.step()
        yield from (f"{name} {value.tolist()}".encode() for name, value in weights_of(module).items())
        yield from (str(value.tolist()).encode() for value in self.read(module.eval(), inputs))


def trains_every_parameter(subject: ModuleSubject) -> None:
    """A gradient reaches every parameter and, behind an encoder, what comes in."""
    module, inputs = seeded(subject.build), subject.draw(6).requires_grad_(subject.needs_input_gradient)
    subject.learn(module, inputs)
    missing = [name for name, p in module.named_parameters() if p.requires_grad and p.grad is None]
    require(not missing, got=f"no gradient for {', '.join(missing)}", do="use these parameters or do not create them")
    strange = [name for name, p in module.named_parameters() if p.grad is not None and not p.grad.isfinite().all()]
    require(
        not strange, got=f"a gradient that is not finite for {', '.join(strange)}", do="stay away from 0/0 and log 0"
    )
    if subject.needs_input_gradient:
        reached = inputs.grad is not None and bool(inputs.grad.isfinite().all()) and bool(inputs.grad.any())
        require(reached, got="no finite gradient for what it reads", do="keep it in the graph: no detach, no no_grad")


def leaves_its_inputs_alone(subject: ModuleSubject) -> None:
    """Neither training nor reading changes what comes in, or the options."""
    inputs, options = subject.draw(6), subject.config.model_dump()
    before, module = inputs.clone(), seeded(subject.build)
    subject.learn(module, inputs)
    subject.read(module.eval(), inputs)
    do = "work on a copy, as others read it too: x = x + y for x += y, no inplace=True on an input"
    require(torch.equal(before, inputs), got="an input that was changed in place", do=do)
    require(subject.config.model_dump() == options, got="options that were changed", do="copy what you want to change")


def depends_on_its_own_image_alone(subject: ModuleSubject) -> None:
    """In eval mode what it makes of an image depends on no other: not in the batch, not before, not on chance."""
    module, inputs = subject.built(), subject.draw(6)
    first, again = subject.read(module, inputs), subject.read(module, inputs)
    require_same_bits("the second time", again, first, do="draw nothing in eval mode: heed self.training")
    read = subject.read_in_every_way(module, inputs)
    for row in (0, 3, 5):
        others = subject.draw(6)
        others[row] = inputs[row]
        beside = [value[row] for value in subject.read_in_every_way(module, others)]
        require_same_bits(
            "beside other images",
            beside,
            [value[row] for value in read],
            do="mix nothing across the batch in eval mode",
        )
    after = subject.read_in_every_way(module, inputs)
    require_same_bits("after other images", after, read, do="keep nothing from one call to the next")


def starts_from_the_seed(subject: ModuleSubject) -> None:
    """torch's seed decides all of its weights."""
    original, again = (seeded(subject.build).state_dict() for _ in range(2))
    for name, tensor in original.items():
        require(
            torch.equal(tensor, again[name]),
            got=f"another {name} when built again from the same seed",
            do="draw weights from torch's default generator only",
        )


def comes_back_from_a_file(subject: ModuleSubject) -> None:
    """A safetensors file of its weights brings back all of it."""
    original, inputs = subject.built(), subject.draw(6)
    written = safetensors.torch.save(weights_of(original))
    twin = subject.built(seed=1)
    twin.load_state_dict(safetensors.torch.load(written))
    for one, other in zip(subject.read(twin, inputs), subject.read(original, inputs), strict=True):
        require_close(
            "from a twin that loaded the file an output",
            one,
            other,
            do="register every tensor as a parameter, a buffer or a submodule",
        )


def changes_nothing_by_reading(subject: ModuleSubject) -> None:
    """Reading changes no weight and no statistic, and neither reading nor training switches train and eval mode."""
    for training in (True, False):
        module, inputs = seeded(subject.build).train(training), subject.draw(6)
        modes = {name: part.training for name, part in module.named_modules()}
        weights = weights_of(module)
        if training:
            subject.learn(module, inputs)
        else:
            subject.read(module, inputs)
            changed = [name for name, value in weights_of(module).items() if not torch.equal(value, weights[name])]
            require(not changed, got=f"another {', '.join(changed)} after reading", do="learn in training mode only")
        switched = [name or "itself" for name, part in module.named_modules() if part.training != modes[name]]
        require(
            not switched, got=f"another mode of {', '.join(switched)}", do="leave train() and eval() to the trainer"
        )


def leaves_the_process_alone(subject: ModuleSubject) -> None:
    """Building, training and reading leave every switch of the process as it was, random numbers included."""
    inputs = subject.draw(6)
    before = read_process_state()
    module = subject.build()
    _require_unswitched("building", before, draws=True)
    subject.learn(module, inputs)
    _require_unswitched("training", before, draws=True)
    module.eval()
    before = read_process_state()
    subject.read(module, inputs)
    _require_unswitched("reading", before, draws=False)


def _require_unswitched(doing: str, before: dict[str, Any], *, draws: bool) -> None:
    changed = changed_switches(before)
    if draws and "the seed of torch" not in changed:
        changed = [name for name in changed if name != "the random state of torch"]  # weights and dropout
    require(
        not changed,
        got=f"another state of {', '.join(changed)} after {doing}",
        do="draw from torch's default generator while building and training, from none while reading, seed none, "
        "and switch nothing of the process",
    )


def opens_nothing(subject: ModuleSubject) -> None:
    """Training and reading open no file and no connection: all that it knows comes in as tensors."""
    module, inputs = seeded(subject.build), subject.draw(6)
    with opened.watched() as events:
        subject.learn(module, inputs)
        subject.read(module.eval(), inputs)
    require(not events, got=f"{events[0] if events else ''}", do="read files while building, if at all, and no labels")


def builds_on_meta(subject: ModuleSubject) -> None:
    """It builds on the meta device, where the plan asks for shapes and cost."""
    with torch.device("meta"):
        module = subject.build()
    elsewhere = [name for name, tensor in module.state_dict().items() if not tensor.is_meta]
    require(
        not elsewhere,
        got=f"values in {', '.join(elsewhere)} although built on the meta device",
        do="create tensors on the default device and look at no values while building",
    )


def stays_on_its_device(subject: ModuleSubject) -> None:
    """Moved to another device it makes no tensor elsewhere; the meta device stands in for CUDA."""
    module, inputs = subject.built().to("meta"), subject.draw(2).to("meta")
    with _OneDevice():  # type: ignore[no-untyped-call]
        for call in (subject.learn, subject.read):
            try:
                call(module, inputs)
            except RuntimeError as error:
                # An operator may have no meta kernel, as CTC's loss has none; then reading is still asked.
                if not isinstance(error, NotImplementedError) and "meta" not in str(error):
                    raise
                if call is subject.read:
                    raise NotAskedError(f"it looks at values, which the meta device lacks: {error}") from None


def is_counted(subject: ModuleSubject) -> None:
    """Reading costs multiplications that the meta device can count."""
    with torch.device("meta"):
        module = subject.build().eval()
    counted = count_gmacs(partial(subject.read, module), subject.draw(1).to("meta"))
    if counted is None:
        raise NotAskedError(
            "it cannot be counted, as it looks at values, which the meta device lacks, or has a layer that torch's "
            "counter does not know; the report then shows no GMACs"
        )
    require(
        counted > 0,
        got="no operation that is counted",
        do="multiply matrices by torch's own functions, so that cost.count_gmacs sees them",
    )


def rules_of_exports(subject: ModuleSubject) -> list[Rule]:
    """Return the rule of exporting for a component that declares `exports = True`, none for others."""
    return [exports_as_it_declares] if getattr(subject.cls, "exports", False) else []


def exports_as_it_declares(subject: ModuleSubject) -> None:
    """`forward` goes through torch.export and gives the same, as `exports = True` declares."""
    module, inputs = subject.built(), subject.draw(2)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*_flat_weights")  # which every nn.LSTM has
        exported = torch.export.export(module, (inputs,)).module()
        require_close("exported, an output", exported(inputs), module(inputs), do="branch on shapes, not on values")


class _OneDevice(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Refuses an operation on tensors of two devices, as CUDA does; single numbers and host indices may mix."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor) and leaf.ndim > 0]
        name = func.overloadpacket.__name__
        require(
            len({tensor.device for tensor in tensors}) < 2 or name in MAY_MIX_DEVICES,
            got=f"{name} of tensors on {' and '.join(sorted({str(tensor.device) for tensor in tensors}))}",
            do="make tensors where the input is, x.new_zeros(...) or device=x.device, and register the others",
        )
        return func(*args, **(kwargs or {}))
