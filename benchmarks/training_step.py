"""Overhead of the framework in a training step, relative to the same modules in a bare loop.

    python benchmarks/training_step.py [--steps 20] [--rounds 15] [--device cpu] [--out FILE.jsonl] [--small]

The bare loop slices resident float tensors and does only forward, loss, backward, clipping and optimizer step. Its loss
is PyTorch's own, on targets and lengths that are prepared before the loop. Rounds of both alternate, and the fastest
rounds are compared, because other processes on a machine can only add time. On CUDA it also counts the kernels of a
step, and tells the time that the host needs to launch them from the time that the device needs to run them.
Goals: the framework takes at most 3 % longer than the bare loop; gathering and augmenting a batch take at most 10 % of
a step.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from figures import Figures, parser, seconds, start
from quickstart_cells import load_cells
from torch import Tensor, nn
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from decoderbench import CTCDecoder, Labels
from decoderbench.options import AugmentationOptions
from decoderbench.training.devices import synchronize, use_ieee_float32
from decoderbench.training.trainer import Trainer

AUGMENTATION = {
    "rotate": 4.0, "shear": 0.15, "scale": 0.12, "translate": 0.08, "contrast": 0.3, "brightness": 0.1, "noise": 0.05,
}  # fmt: skip
PROFILED_STEPS = 10

BareLoss = Callable[[Tensor, slice], Tensor]


def bare_loss(trainer: Trainer, labels: Labels) -> BareLoss:
    """Return a function from the memory of some rows to their summed nll; all labels have the same length."""
    decoder = trainer.recognizer.decoder
    length, size = labels.longest, trainer.options.batch_size
    assert set(labels.host_lengths) == {length}
    if isinstance(decoder, CTCDecoder):
        classes, lengths = labels.ids + 1, (length,) * size

        def ctc(memory: Tensor, rows: slice) -> Tensor:
            log_probs = decoder(memory).log_softmax(dim=-1).transpose(0, 1)
            return F.ctc_loss(log_probs, classes[rows], (memory.shape[1],) * size, lengths, reduction="sum")

        return ctc
    tokens = F.pad(labels.ids, (1, 0), value=decoder.start)
    targets = F.pad(labels.ids, (0, 1), value=decoder.end)

    def teacher_forced(memory: Tensor, rows: slice) -> Tensor:
        logits = decoder.teacher_forced_logits(decoder.leaf_memory(memory), tokens[rows])
        return F.cross_entropy(logits.flatten(0, 1), targets[rows].flatten(), reduction="sum")

    return teacher_forced


def bare_loop(trainer: Trainer, pixels: Tensor, loss_of: BareLoss, length: int, steps: int) -> None:
    model, optimizer, size = trainer.recognizer, trainer.optimizer, trainer.options.batch_size
    for step in range(steps):
        first = step * size % (len(pixels) - size)
        rows = slice(first, first + size)
        loss = loss_of(model.memory(pixels[rows]).frames, rows) / (size * length)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), trainer.options.clip_norm)
        optimizer.step()


def framework_loop(trainer: Trainer, steps: int) -> None:
    trainer.step = 0
    for batch in trainer.context.batches(steps):
        trainer.take_step(batch)


def sampling_loop(trainer: Trainer, steps: int) -> None:
    for _ in trainer.context.batches(steps):
        pass


def measure(figures: Figures, name: str, trainer: Trainer, augmented: Trainer, steps: int, rounds: int) -> None:
    device, dataset = trainer.context.device, trainer.context.dataset
    pixels, labels, _ = dataset.gather(dataset.rows("train")).to_float()
    loss_of = bare_loss(trainer, labels)
    compare_losses(figures, name, trainer, pixels, labels, loss_of)
    loops = {
        "bare loop": partial(bare_loop, trainer, pixels, loss_of, labels.longest, steps),
        "framework": partial(framework_loop, trainer, steps),
        "gathering and augmenting": partial(sampling_loop, augmented, steps),
    }
    for loop in loops.values():
        loop()
    times = [[1e3 * seconds(device, loop) / steps for loop in loops.values()] for _ in range(rounds)]
    columns = list(zip(*times, strict=True))
    for what, column in zip(loops, columns, strict=True):
        figures.add(f"{name}: {what}", min(column), "ms/step", n=rounds, spread=(max(column) - min(column)) / 2)
    alone, full, sampled = map(min, columns)
    ratio = statistics.median(row[1] / row[0] for row in times)
    figures.add(f"{name}: framework / bare loop, fastest rounds", full / alone, "1", n=rounds)
    figures.add(f"{name}: framework / bare loop, median of rounds", ratio, "1", n=rounds)
    figures.add(f"{name}: gathering and augmenting / framework", sampled / full, "1", n=rounds)
    if device.type == "cuda":
        measure_launches(figures, name, trainer)


def compare_losses(
    figures: Figures, name: str, trainer: Trainer, pixels: Tensor, labels: Labels, loss_of: BareLoss
) -> None:
    """Both loops must compute the same loss, or they cannot be compared."""
    model, rows = trainer.recognizer.eval(), slice(0, trainer.options.batch_size)
    batch = Labels(labels.ids[rows], labels.lengths[rows], labels.host_lengths[rows])
    with torch.no_grad():
        memory = model.memory(pixels[rows]).frames
        bare, full = float(loss_of(memory, rows)), float(model.decoder.nll(memory, batch).sum())
    model.train()
    figures.add(f"{name}: difference of the losses", abs(bare / full - 1), "1", ok=abs(bare / full - 1) < 1e-5)


def measure_launches(figures: Figures, name: str, trainer: Trainer) -> None:
    """Kernels of a step, and the times of host and device; CUDA only."""
    device = trainer.context.device
    batches = list(trainer.context.batches(PROFILED_STEPS))
    host = []
    trainer.step = 0
    for batch in batches:
        synchronize(device)
        begin = time.perf_counter()
        trainer.take_step(batch)
        host.append(1e3 * (time.perf_counter() - begin))
    synchronize(device)
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA], acc_events=True) as found:
        for batch in batches:
            trainer.take_step(batch)
        synchronize(device)
    on_device = [
        event for event in found.key_averages() if event.device_type == DeviceType.CUDA and not event.is_user_annotation
    ]
    kernels = sum(event.count for event in on_device if not event.key.startswith(("Memcpy", "Memset")))
    busy = sum(event.self_device_time_total for event in on_device) / 1e3
    figures.add(f"{name}: kernels", kernels / PROFILED_STEPS, "kernels/step", n=PROFILED_STEPS)
    figures.add(f"{name}: host until all is launched", statistics.median(host), "ms/step", n=PROFILED_STEPS)
    figures.add(f"{name}: device at work", busy / PROFILED_STEPS, "ms/step", n=PROFILED_STEPS)


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--steps", type=int, help="steps of a round; default: 20, on CUDA 50")
    arguments.add_argument("--rounds", type=int, help="default: 15, on CUDA 8")
    given = arguments.parse_args()
    figures = start("step", given)
    use_ieee_float32()
    on_cuda = figures.device.type == "cuda"
    steps = given.steps or (1 if given.small else 50 if on_cuda else 20)
    rounds = given.rounds or (1 if given.small else 8 if on_cuda else 15)
    cells = load_cells(figures.device, small=given.small)
    for name, cell in cells.by_decoder.items():
        augmented = cell.model_copy(update={"augmentation": AugmentationOptions(**AUGMENTATION)})
        measure(figures, name, cells.trainer(cell), cells.trainer(augmented), steps, rounds)
    raise SystemExit(bool(figures.failed))


if __name__ == "__main__":
    main()
