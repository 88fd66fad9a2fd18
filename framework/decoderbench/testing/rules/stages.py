"""The rules for the stages before the decoder: rectifiers, encoders and bridges."""

import torch
from torch import nn

from decoderbench.model.stages import Encoder
from decoderbench.testing.assertions import expect, expect_close
from decoderbench.testing.checks import Rule
from decoderbench.testing.fresh_processes import fresh_processes_agree
from decoderbench.testing.rules import devices, modules
from decoderbench.testing.subjects.stage import StageSubject, declared_shape, draw_inputs_for


def rules_of_stages(subject: StageSubject) -> list[Rule]:
    """Return the rules for a rectifier, an encoder or a bridge."""
    rules_of_encoders: list[Rule] = [modules.macs_can_be_counted] if issubclass(subject.cls, Encoder) else []
    return [
        batch_norm_starts_fresh,
        output_matches_declaration,
        output_matches_single_images,
        modules.images_do_not_affect_each_other,
        modules.inputs_are_unchanged,
        modules.opens_no_files,
        modules.every_parameter_gets_gradient,
        modules.initial_weights_depend_on_seed_only,
        modules.state_dict_round_trips,
        modules.training_goes_on_from_saved_state,
        modules.inference_changes_nothing,
        modules.global_state_is_unchanged,
        modules.builds_on_meta_device,
        declaration_is_the_same_on_meta,
        devices.stays_on_one_device,
        devices.does_not_wait_for_device,
        *rules_of_encoders,
        *modules.rules_of_exports(subject),
        fresh_processes_agree,
    ]


def batch_norm_starts_fresh(subject: StageSubject) -> None:
    """After construction BatchNorm has its initial statistics: mean 0, variance 1, no batch counted."""
    for name, norm in subject.build().named_modules():
        if isinstance(norm, nn.modules.batchnorm._BatchNorm) and norm.running_mean is not None:
            buffers = dict(norm.named_buffers())
            fresh = buffers["running_mean"].eq(0).all() and buffers["running_var"].eq(1).all()
            expect(
                bool(fresh) and buffers["num_batches_tracked"].item() == 0,
                got=f"changed statistics in {name}",
                do="find shapes with probe_features, which has no side effects; load no trained weights in a check",
            )


def output_matches_declaration(subject: StageSubject) -> None:
    """`forward` returns finite float32 values of the shape that `image`, `features` or `memory` declares."""
    for spec in subject.accepted:
        built = subject.build_for(spec).eval()
        (output,) = subject.infer(built, draw_inputs_for(spec, 2))
        declared = ", ".join(map(str, declared_shape(built)))
        expect(
            output.shape == (2, *declared_shape(built)),
            got=f"{tuple(output.shape)}, declared is (2, {declared}), for {spec}",
            do="declare the actual shape; an encoder can use probe_features",
        )
        expect(output.dtype == torch.float32, got=f"{output.dtype}", do="leave the dtype to the recognizer")
        expect(
            bool(output.isfinite().all()),
            got=f"values that are not finite, for {spec}",
            do="avoid 0/0, log 0 and uninitialized tensors",
        )


def output_matches_single_images(subject: StageSubject) -> None:
    """In eval mode the output for a batch equals the outputs for its images one by one."""
    for spec in subject.accepted:
        built, inputs = subject.build_for(spec).eval(), draw_inputs_for(spec, 3)
        (together,) = subject.infer(built, inputs)
        alone = torch.cat([subject.infer(built, image[None])[0] for image in inputs])
        expect_close("in a batch a value of", together, alone, do="mix nothing across the batch in eval mode")


def declaration_is_the_same_on_meta(subject: StageSubject) -> None:
    """The declared shape is the same on the meta device, which the plan uses, and on the CPU."""
    for spec in subject.accepted:
        on_cpu = declared_shape(subject.build_for(spec))
        with torch.device("meta"):
            on_meta = declared_shape(subject.build_for(spec))
        expect(
            on_meta == on_cpu,
            got=f"{on_meta} on the meta device and {on_cpu} on the CPU, for {spec}",
            do="derive the declaration from shapes, not from values",
        )
