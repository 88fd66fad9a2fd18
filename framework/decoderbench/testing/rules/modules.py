"""The rules for all torch modules, whatever their stage: weights, inputs and side effects."""

from __future__ import annotations

import warnings
from functools import partial
from typing import Any

import safetensors.torch
import torch

from decoderbench.model.complexity import count_gmacs
from decoderbench.model.module_state import difference, load_state, state_of
from decoderbench.model.recognizer import weights_of
from decoderbench.registry.global_state import changed_state, read_global_state
from decoderbench.testing.assertions import RuleSkipped, expect, expect_close, expect_identical
from decoderbench.testing.checks import Rule
from decoderbench.testing.file_access import watching_file_access
from decoderbench.testing.subjects.base import ModuleSubject, build_seeded


def every_parameter_gets_gradient(subject: ModuleSubject) -> None:
    """Training gives every parameter a finite gradient, and also the input if an earlier stage learns through it."""
    module, inputs = build_seeded(subject.build), subject.draw_inputs(6).requires_grad_(subject.needs_input_gradient)
    subject.train_step(module, inputs)
    missing = [name for name, p in module.named_parameters() if p.requires_grad and p.grad is None]
    expect(not missing, got=f"no gradient for {', '.join(missing)}", do="use these parameters or do not create them")
    infinite = [name for name, p in module.named_parameters() if p.grad is not None and not p.grad.isfinite().all()]
    expect(not infinite, got=f"a gradient that is not finite for {', '.join(infinite)}", do="avoid 0/0 and log 0")
    if subject.needs_input_gradient:
        reached = inputs.grad is not None and bool(inputs.grad.isfinite().all()) and bool(inputs.grad.any())
        expect(reached, got="no finite gradient for the input", do="keep it in the graph: no detach, no no_grad")


def inputs_are_unchanged(subject: ModuleSubject) -> None:
    """Training and inference change neither the inputs nor the options."""
    inputs, options = subject.draw_inputs(6), subject.config.model_dump()
    before, module = inputs.clone(), build_seeded(subject.build)
    subject.train_step(module, inputs)
    subject.infer(module.eval(), inputs)
    do = "work on a copy, because others read the input too: x = x + y for x += y, no inplace=True on an input"
    expect(torch.equal(before, inputs), got="an input changed in place", do=do)
    expect(subject.config.model_dump() == options, got="changed options", do="change a copy")


def images_do_not_affect_each_other(subject: ModuleSubject) -> None:
    """In eval mode the output for an image depends on this image only: not on the batch, earlier calls or chance."""
    module, inputs = subject.build_for_eval(), subject.draw_inputs(6)
    first, again = subject.infer(module, inputs), subject.infer(module, inputs)
    expect_identical("the second time", again, first, do="draw no random numbers in eval mode: check self.training")
    outputs = subject.infer_all_ways(module, inputs)
    for row in (0, 3, 5):
        others = subject.draw_inputs(6)
        others[row] = inputs[row]
        expect_identical(
            "next to other images",
            [value[row] for value in subject.infer_all_ways(module, others)],
            [value[row] for value in outputs],
            do="mix nothing across the batch in eval mode",
        )
    after = subject.infer_all_ways(module, inputs)
    expect_identical("after other images", after, outputs, do="keep nothing from one call to the next")


def initial_weights_depend_on_seed_only(subject: ModuleSubject) -> None:
    """All initial weights are determined by the seed of torch."""
    original, again = (build_seeded(subject.build).state_dict() for _ in range(2))
    for name, tensor in original.items():
        expect(
            torch.equal(tensor, again[name]),
            got=f"another {name} when built again from the same seed",
            do="draw weights from torch's default generator only",
        )


def state_dict_round_trips(subject: ModuleSubject) -> None:
    """A module that loads the weights from a safetensors file computes the same as the module that saved them."""
    original, inputs = subject.build_for_eval(), subject.draw_inputs(6)
    saved = safetensors.torch.save(weights_of(original))
    copy = subject.build_for_eval(seed=1)
    copy.load_state_dict(safetensors.torch.load(saved))
    for one, other in zip(subject.infer(copy, inputs), subject.infer(original, inputs), strict=True):
        expect_close(
            "after loading the weights an output",
            one,
            other,
            do="register every tensor as a parameter, a buffer or a submodule",
        )


def training_goes_on_from_saved_state(subject: ModuleSubject) -> None:
    """A module that loads the state of another one, which has been trained for some steps, goes on like that one."""
    original, inputs = build_seeded(subject.build), subject.draw_inputs(2)
    for _ in range(2):
        subject.loss(original, inputs)
    continued = build_seeded(subject.build, seed=1)
    state = state_of(original)
    do = (
        "keep what training changes in buffers, persistent or not, or in get_extra_state; checkpoints hold nothing else"
    )
    unlike = difference(continued, state)
    expect(not unlike, got=f"a state that a module built anew cannot load: {unlike}", do=do)
    load_state(continued, state)
    losses = []
    for module in (original, continued):
        torch.manual_seed(2)  # the random state is part of a checkpoint
        losses.append(subject.loss(module, inputs))
    expect_identical("the loss of the next step", losses[1:], losses[:1], do=do)


def inference_changes_nothing(subject: ModuleSubject) -> None:
    """Inference changes no weights or buffers; neither inference nor training switches between train and eval mode."""
    for training in (True, False):
        module, inputs = build_seeded(subject.build).train(training), subject.draw_inputs(6)
        modes = {name: part.training for name, part in module.named_modules()}
        weights = weights_of(module)
        if training:
            subject.train_step(module, inputs)
        else:
            subject.infer(module, inputs)
            changed = [name for name, value in weights_of(module).items() if not torch.equal(value, weights[name])]
            expect(not changed, got=f"a change of {', '.join(changed)} by inference", do="learn in training mode only")
        switched = [name or "the module" for name, part in module.named_modules() if part.training != modes[name]]
        expect(not switched, got=f"another mode of {', '.join(switched)}", do="leave train() and eval() to the trainer")


def global_state_is_unchanged(subject: ModuleSubject) -> None:
    """Construction, training and inference leave the global state of the process unchanged, including random states."""
    inputs = subject.draw_inputs(6)
    before = read_global_state()
    module = subject.build()
    _expect_unchanged_state("construction", before, may_draw=True)
    subject.train_step(module, inputs)
    _expect_unchanged_state("training", before, may_draw=True)
    module.eval()
    before = read_global_state()
    subject.infer(module, inputs)
    _expect_unchanged_state("inference", before, may_draw=False)


def _expect_unchanged_state(after: str, before: dict[str, Any], *, may_draw: bool) -> None:
    changed = changed_state(before)
    if may_draw and "the seed of torch" not in changed:
        changed = [name for name in changed if name != "the random state of torch"]  # initial weights and dropout
    expect(
        not changed,
        got=f"a change of {', '.join(changed)} after {after}",
        do="draw from torch's default generator in construction and training, from none in inference; set no seed "
        "and no other global state",
    )


def opens_no_files(subject: ModuleSubject) -> None:
    """Training and inference open no files or connections: tensors are the only input."""
    module, inputs = build_seeded(subject.build), subject.draw_inputs(6)
    with watching_file_access() as events:
        subject.train_step(module, inputs)
        subject.infer(module.eval(), inputs)
    expect(
        not events,
        got=f"{events[0] if events else ''}",
        do="read files in the constructor, if at all, and never labels",
    )


def builds_on_meta_device(subject: ModuleSubject) -> None:
    """The constructor works on the meta device, which the plan uses to find shapes and costs."""
    with torch.device("meta"):
        module = subject.build()
    elsewhere = [name for name, tensor in module.state_dict().items() if not tensor.is_meta]
    expect(
        not elsewhere,
        got=f"values in {', '.join(elsewhere)} although built on the meta device",
        do="create tensors on the default device, and read no values in the constructor",
    )


def macs_can_be_counted(subject: ModuleSubject) -> None:
    """The multiply-accumulates (MACs) of inference can be counted on the meta device, and are not zero."""
    with torch.device("meta"):
        module = subject.build().eval()
    counted = count_gmacs(partial(subject.infer, module), subject.draw_inputs(1).to("meta"))
    if counted is None:
        raise RuleSkipped(
            "MACs cannot be counted, because it reads values, which the meta device does not have, or uses a layer "
            "that torch's counter does not know; reports show no GMACs"
        )
    expect(
        counted > 0,
        got="no operation that is counted",
        do="multiply matrices with functions of torch, which its FLOP counter knows",
    )


def rules_of_exports(subject: ModuleSubject) -> list[Rule]:
    """Return the rule for `torch.export` if the component declares `exports = True`, else none."""
    return [exported_program_matches] if getattr(subject.cls, "exports", False) else []


def exported_program_matches(subject: ModuleSubject) -> None:
    """`torch.export` works for `forward`, and the exported program returns the same, as `exports = True` promises."""
    module, inputs = subject.build_for_eval(), subject.draw_inputs(2)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*_flat_weights")  # raised for every nn.LSTM
        exported = torch.export.export(module, (inputs,)).module()
        expect_close("exported, an output", exported(inputs), module(inputs), do="branch on shapes, not on values")
