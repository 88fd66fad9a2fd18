"""Overhead of the framework in a training step, relative to the same modules in a bare loop.

    python benchmarks/training_step.py [--steps 20] [--rounds 15] [--device cpu]

The bare loop slices a resident float tensor and does only forward, loss, backward, clipping and optimizer step.
Rounds of both alternate, and the fastest rounds are compared, because other processes on a machine can only add time.
Goals: the framework takes at most 3 % longer than the bare loop; gathering and augmenting a batch take at most 10 % of
a step.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from decoderbench.config.cell import Cell
from decoderbench.config.experiment import Experiment, load_experiment
from decoderbench.config.overrides import merge
from decoderbench.data.resident_dataset import ResidentDataset, to_float
from decoderbench.labels import Labels
from decoderbench.options import AugmentationOptions
from decoderbench.planning.prepare import prepare
from decoderbench.registry.plugin_manager import build_plugin_manager
from decoderbench.registry.registry import Registry
from decoderbench.training.devices import choose_device, device_name, synchronize
from decoderbench.training.local_context import LocalContext
from decoderbench.training.provenance import describe_environment
from decoderbench.training.trainer import Trainer

QUICKSTART = Path(__file__).parents[1] / "experiments" / "quickstart.toml"
AUGMENTATION = {
    "rotate": 4.0, "shear": 0.15, "scale": 0.12, "translate": 0.08, "contrast": 0.3, "brightness": 0.1, "noise": 0.05,
}  # fmt: skip


def bare_loop(trainer: Trainer, pixels: Tensor, labels: Labels, steps: int) -> None:
    model, optimizer, size = trainer.recognizer, trainer.optimizer, trainer.options.batch_size
    for step in range(steps):
        first = step * size % (len(pixels) - size)
        chosen = slice(first, first + size)
        batch = Labels(labels.ids[chosen], labels.lengths[chosen], labels.host_lengths[chosen])
        loss = model.nll(pixels[chosen], batch).sum() / (size * labels.longest)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), trainer.options.clip_norm)
        optimizer.step()


def framework_loop(trainer: Trainer, steps: int) -> None:
    for step, (images, labels) in enumerate(trainer.context.batches(steps), start=1):
        trainer.take_step(step, images, labels)


def sampling_loop(trainer: Trainer, steps: int) -> None:
    for _ in trainer.context.batches(steps):
        pass


def seconds(device: torch.device, run: Callable[..., None], *arguments: object) -> float:
    synchronize(device)
    start = time.perf_counter()
    run(*arguments)
    synchronize(device)
    return time.perf_counter() - start


def measure(trainer: Trainer, augmented: Trainer, steps: int, rounds: int) -> str:
    device = trainer.context.device
    dataset = trainer.context.dataset
    images, labels = dataset.gather(dataset.rows("train"))
    bare = (bare_loop, trainer, to_float(images), labels, steps)
    framework = (framework_loop, trainer, steps)
    sampling = (sampling_loop, augmented, steps)
    for warm_up in (bare, framework, sampling):
        seconds(device, *warm_up)
    times = [[seconds(device, *loop) / steps for loop in (bare, framework, sampling)] for _ in range(rounds)]
    alone, full, sampled = (min(column) for column in zip(*times, strict=True))
    ratio = statistics.median(row[1] / row[0] for row in times)
    return (
        f"{trainer.cell.decoder.label:15} fastest rounds: bare loop {1e3 * alone:.1f} ms per step, "
        f"framework {full / alone:.3f} of it, gathering and augmenting {sampled / full:.1%} of a step; "
        f"median ratio of the rounds {ratio:.3f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--device")
    arguments = parser.parse_args()

    device = choose_device(arguments.device)
    registry = Registry(build_plugin_manager())
    data = merge(load_experiment(QUICKSTART).as_given(), {"dataset": {"train": 2000, "val": 10, "test": 10}})
    experiment = Experiment(**data)
    prepared = prepare(experiment, registry=registry)
    dataset = ResidentDataset(prepared.inputs.images, prepared.inputs.audit, device)

    def trainer_of(cell: Cell) -> Trainer:
        return Trainer(cell, LocalContext(cell, registry, dataset, Path(), describe_environment(device)))

    print(f"{device_name(device)}, torch {torch.__version__}, batches of {experiment.training.batch_size}")
    for cell in prepared.cells:
        if not cell.infeasible:
            augmented = cell.model_copy(update={"augmentation": AugmentationOptions(**AUGMENTATION)})
            print(measure(trainer_of(cell), trainer_of(augmented), arguments.steps, arguments.rounds))


if __name__ == "__main__":
    main()
