"""What the framework adds to a training step: against the same modules in a bare loop, and by its parts.

    python benchmarks/training_step.py [--steps 40] [--rounds 7] [--device cpu]

The bare loop holds a resident float tensor and does forward, loss, backward, clipping and optimiser step, nothing else.
Rounds of both alternate and the medians of each round's ratio are printed, since machines are shared and noisy. Aims: the
framework at most 3 % over the bare loop; gathering and augmenting a batch at most 10 % of a step.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from decoderbench.audit import audit
from decoderbench.batches import Batches, to_float
from decoderbench.devices import choose_device, device_name, synchronize
from decoderbench.experiment import AugmentationOptions, Experiment, load_experiment, merge
from decoderbench.images import open_store
from decoderbench.plan import plan_cells, read_data
from decoderbench.plugin_manager import build_plugin_manager
from decoderbench.registry import Registry
from decoderbench.runner import describe_environment
from decoderbench.training import CellContext, FiniteGuard, Trainer

QUICKSTART = Path(__file__).parents[1] / "experiments" / "quickstart.toml"
AUGMENTATION = {
    "rotate": 4.0, "shear": 0.15, "scale": 0.12, "translate": 0.08, "contrast": 0.3, "brightness": 0.1, "noise": 0.05,
}  # fmt: skip


def seconds(run: Callable[[], object], device: torch.device) -> float:
    synchronize(device)
    start = time.perf_counter()
    run()
    synchronize(device)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--device")
    arguments = parser.parse_args()

    device = choose_device(arguments.device)
    registry = Registry(build_plugin_manager())
    data = merge(load_experiment(QUICKSTART).as_given(), {"dataset": {"train": 2000, "val": 10, "test": 10}})
    experiment = Experiment(**data)
    found = read_data(experiment, registry, base_dir=Path(), cache_dir=None)
    store = open_store(found.dataset, found.samples, experiment.image)
    batches = Batches(store, audit(found.samples), device)
    print(f"{device_name(device)}, torch {torch.__version__}, batch of {experiment.training.batch_size}")

    for cell in plan_cells(experiment, registry, found):
        if cell.infeasible:
            continue
        context = CellContext(registry, batches, device, Path(), describe_environment(device))
        trainer = Trainer(cell, context)
        augmented = Trainer(cell.model_copy(update={"augmentation": AugmentationOptions(**AUGMENTATION)}), context)
        guard = FiniteGuard(device)
        rows = batches.rows("train")
        pixels = to_float(batches.gather(rows)[0])
        all_labels = batches.gather(rows)[1]
        size = experiment.training.batch_size

        def bare(trainer: Trainer = trainer, pixels: torch.Tensor = pixels) -> None:
            model, optimizer = trainer.recognizer, trainer.optimizer
            for step in range(arguments.steps):
                first = step * size % (len(pixels) - size)
                chosen = slice(first, first + size)
                labels = type(all_labels)(all_labels.ids[chosen], all_labels.lengths[chosen], all_labels.longest)
                loss = model.nll(pixels[chosen], labels).sum() / (size * all_labels.longest)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                nn.utils.clip_grad_norm_(model.parameters(), 5.0)
                optimizer.step()

        def framework(trainer: Trainer = trainer, guard: FiniteGuard = guard) -> None:
            for step in range(1, arguments.steps + 1):
                trainer.step(step, guard)

        def sampling(trainer: Trainer = augmented) -> None:
            for step in range(1, arguments.steps + 1):
                images, _ = batches.gather(trainer.sampler.batch(step))
                trainer.augmentation(images, step)

        bare()
        framework()
        sampling()
        ratios, shares = [], []
        for _ in range(arguments.rounds):
            alone = seconds(bare, device)
            full = seconds(framework, device)
            ratios.append(full / alone)
            shares.append(seconds(sampling, device) / full)
        print(
            f"{cell.decoder.label:15} framework / bare loop {statistics.median(ratios):.3f} "
            f"({min(ratios):.3f} to {max(ratios):.3f}), gathering and augmenting {statistics.median(shares):.1%} of a step "
            f"({1e3 * full / arguments.steps:.1f} ms)"
        )


if __name__ == "__main__":
    main()
