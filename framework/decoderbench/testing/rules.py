"""What the checks share: how a rule is asked, how a breach is told, and what every component must obey.

A rule is a function whose docstring states it; that docstring opens the message of a breach.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from decoderbench.errors import PluginError
from decoderbench.options import ComponentConfig
from decoderbench.registry import Shelf

TOLERANCE = 1e-4  # float32 summed in another order: absolute below 1, relative above

Subject = TypeVar("Subject")
Module = TypeVar("Module", bound=nn.Module)


class ConformanceError(AssertionError):
    """A component breaks a rule; the message says which, what came instead and what to do."""


def require(holds: bool, *, got: str, do: str) -> None:
    """Raise a breach unless `holds`."""
    if not holds:
        raise ConformanceError(f"got {got}; {do}")


def ask(who: str, subject: Subject, rules: Iterable[Callable[[Subject], None]]) -> None:
    """Ask one rule after the other, each from the same random state; whatever a component raises is a breach."""
    for rule in rules:
        sentence = (rule.__doc__ or rule.__name__).partition("\n")[0].rstrip(".")
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            torch.manual_seed(0)
            try:
                rule(subject)
            except ConformanceError as breach:
                raise ConformanceError(f"{who} breaks the rule: {sentence}; {breach}") from None
            except Exception as error:
                raise ConformanceError(
                    f"{who} breaks the rule: {sentence}; got {type(error).__name__}: {error}; "
                    f"the traceback above shows where"
                ) from error


def configure(kind: str, base: type[Any], component: type[Any], options: Mapping[str, object]) -> ComponentConfig:
    """Return the options of a component that the registry would take."""
    try:
        Shelf(kind, base).add(component, component.__module__, "under check")
    except PluginError as error:
        raise ConformanceError(str(error)) from None
    for name, option in component.Config.model_fields.items():
        who = f"option {name!r} of {kind} {component.name!r}"
        require(not option.is_required(), got=f"{who} without a default", do="give it one, so that a name is enough")
        require(option.description is not None, got=f"{who} without a docstring", do="say below it what it does")
    config: ComponentConfig = component.Config.model_validate(options)
    return config


def seeded(build: Callable[[], Module], seed: int = 0) -> Module:
    """Build from a seed, as training does."""
    torch.manual_seed(seed)
    return build()


def require_close(what: str, actual: Tensor, expected: Tensor, *, do: str) -> None:
    """Require equal values, but for rounding."""
    require(
        actual.shape == expected.shape,
        got=f"{what} of shape {tuple(actual.shape)}, not {tuple(expected.shape)}",
        do=do,
    )
    difference = (actual - expected).abs().nan_to_num(nan=float("inf"))
    worst = difference.argmax()
    require(
        difference.max().item() <= TOLERANCE * max(1.0, expected.abs().max().item()),
        got=f"{what} {actual.flatten()[worst].item():.6g}, not {expected.flatten()[worst].item():.6g}",
        do=do,
    )


def require_gradients(module: nn.Module) -> None:
    """Require that the last backward pass reached every parameter that is to be trained."""
    missing = [name for name, p in module.named_parameters() if p.requires_grad and p.grad is None]
    require(not missing, got=f"no gradient for {', '.join(missing)}", do="use these parameters or do not create them")


def require_input_gradient(what: str, tensor: Tensor) -> None:
    """Require that the last backward pass reached an input, so that what comes before can learn."""
    reached = tensor.grad is not None and bool(tensor.grad.isfinite().all()) and bool(tensor.grad.any())
    require(reached, got=f"no finite gradient for the {what}", do="keep it in the graph: no detach, no no_grad")


def require_unchanged(what: str, before: Tensor, after: Tensor) -> None:
    """Require that an input is as it was."""
    require(
        torch.equal(before, after),
        got=f"a {what} that was changed in place",
        do="work on a copy, as others read it too: x = x + y for x += y, no inplace=True on an input",
    )


def require_reproducible(build: Callable[[], Module], output: Callable[[Module], Tensor]) -> None:
    """Require that the seed decides all weights and that a state_dict holds all of them."""
    original, again = seeded(build).eval(), seeded(build).eval()
    for name, tensor in original.state_dict().items():
        require(
            torch.equal(tensor, again.state_dict()[name]),
            got=f"another {name} when built again from the same seed",
            do="draw weights from torch's default generator only",
        )
    twin = seeded(build, seed=1).eval()
    twin.load_state_dict(original.state_dict())
    with torch.no_grad():
        require_close(
            "from a twin that loaded the state_dict an output",
            output(twin),
            output(original),
            do="register every tensor as a parameter, a buffer or a submodule",
        )


def build_on_meta(build: Callable[[], Module]) -> Module:
    """Build on the meta device and require that nothing lies elsewhere."""
    with torch.device("meta"):
        module = build()
    elsewhere = [name for name, tensor in module.state_dict().items() if not tensor.is_meta]
    require(
        not elsewhere,
        got=f"values in {', '.join(elsewhere)} although built on the meta device",
        do="create tensors on the default device and look at no values while building",
    )
    return module
